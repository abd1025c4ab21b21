ip link add br0 type bridge mcast_snooping 0
echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
for card in tap0 tap1; do
    ip tuntap add "$card" mode tap multi_queue
    ip link set "$card" master br0 up
done
ip link set br0 up
exec "$@"
