# Makes a root file system of Debian packages: $1 is its place, $2 the directory of the packages. Runs as root in a mount namespace of its
# own, where mounts end with it.
set -e
root=$1.new
packages=$2
rm -rf "$root" "$1"
mkdir -p "$root"
# Unpacked first, so that the scripts of packages find the tools that they call.
for package in "$packages"/*.deb; do
    dpkg-deb --extract "$package" "$root"
done
mkdir -p "$root/var/lib/dpkg/info" "$root/var/lib/dpkg/updates" "$root/packages"
: > "$root/var/lib/dpkg/status"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/dev"
for device in null zero full random urandom; do
    : > "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mount --bind "$packages" "$root/packages"
install_packages() {
    env -i DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C \
        chroot "$root" sh -c 'dpkg --force-depends --force-unsafe-io --force-confnew --install "$@"' sh "$@"
}
# Names are relative to the new root, which becomes the working directory.
cd "$root"
install_packages packages/base-passwd_*.deb packages/base-files_*.deb
install_packages packages/*.deb
cd /
umount "$root/packages" "$root/proc"
umount --recursive "$root/dev"
rmdir "$root/packages"
mv "$root" "$1"
