#!/bin/busybox sh
# The first process of the virtual machine: runs the test program that its arguments name, and says whether it passed.
export PATH=/bin:/sbin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mkdir /sbin
ln -s /bin/modprobe /sbin/modprobe
echo "Linux $(uname -r)"
"$@" --test-threads 1
poweroff -f
