//! Configurations of peers.

use std::net::SocketAddr;

/// Processors that a proxy uses.
pub(crate) const CPUS: usize = 2;
/// Connections that a proxy takes; it has two descriptors for each.
pub(crate) const PROXY_CONNECTIONS: usize = 9_900;

/// Rules that spread connections by a hash of client and port, or in turn.
pub(crate) fn nft_rules(is_by_hash: bool, vip: SocketAddr, backends: &[SocketAddr]) -> String {
    let spread = if is_by_hash {
        "jhash ip saddr . tcp sport"
    } else {
        "numgen inc"
    };
    let places = (0..).zip(backends);
    let places: Vec<String> = places
        .map(|(place, backend)| format!("{place} : {}", backend.ip()))
        .collect();
    format!(
        "table ip nat {{
           chain prerouting {{
             type nat hook prerouting priority dstnat
             ip daddr {} tcp dport {} dnat to {spread} mod {} map {{ {} }}
           }}
         }}",
        vip.ip(),
        vip.port(),
        backends.len(),
        places.join(", ")
    )
}

/// One process, a thread for each processor.
pub(crate) fn haproxy_config(vip: SocketAddr, backends: &[SocketAddr]) -> String {
    let servers = (0..).zip(backends);
    let servers: Vec<String> = servers
        .map(|(i, backend)| format!("  server b{i} {backend}\n"))
        .collect();
    format!(
        "global\n  nbthread {CPUS}\n  maxconn {PROXY_CONNECTIONS}\n\
         defaults\n  mode tcp\n  maxconn {PROXY_CONNECTIONS}\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         frontend web\n  bind {vip} backlog 4096\n  default_backend servers\n\
         backend servers\n  balance roundrobin\n{}",
        servers.concat()
    )
}

/// For each of several processes. None of them has a master, which would outlive a killed benchmark.
pub(crate) fn nginx_config(vip: SocketAddr, backends: &[SocketAddr]) -> String {
    let servers: Vec<String> = backends
        .iter()
        .map(|backend| format!("server {backend};"))
        .collect();
    format!(
        "daemon off; master_process off; pid /dev/null; error_log stderr crit;
         events {{ worker_connections {}; }}
         stream {{
           upstream servers {{ {} }}
           server {{ listen {vip} backlog=4096 reuseport; proxy_pass servers; }}
         }}",
        2 * PROXY_CONNECTIONS,
        servers.concat()
    )
}
