//! Sockets of this machine that wait for packets.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::state::service::Protocol;

/// Sockets that wait for packets from anywhere: TCP listeners, and UDP sockets without a peer (proc_net_tcp of the kernel).
pub(super) fn listeners() -> Vec<(Protocol, SocketAddr)> {
    /// States of sockets (include/net/tcp_states.h).
    const LISTEN: &str = "0A";
    const CLOSE: &str = "07";
    let tables = [
        ("tcp", Protocol::Tcp, LISTEN),
        ("tcp6", Protocol::Tcp, LISTEN),
        ("udp", Protocol::Udp, CLOSE),
        ("udp6", Protocol::Udp, CLOSE),
    ];
    let mut found = Vec::new();
    for (table, protocol, state) in tables {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
        let waiting = text.lines().skip(1).filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (local, actual) = (fields.nth(1)?, fields.nth(1)?);
            (actual == state).then(|| socket(local)).flatten()
        });
        found.extend(waiting.map(|address| (protocol, address)));
    }
    found
}

/// An address as the kernel shows it: words of the address in the machine's order, and the port, in hexadecimal.
fn socket(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok();
    let address = if address.len() == 8 {
        IpAddr::V4(Ipv4Addr::from(word(0)?.to_ne_bytes()))
    } else {
        let mut bytes = [0; 16];
        for (to, at) in bytes.chunks_exact_mut(4).zip([0, 8, 16, 24]) {
            to.copy_from_slice(&word(at)?.to_ne_bytes());
        }
        IpAddr::V6(Ipv6Addr::from(bytes))
    };
    Some(SocketAddr::new(address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_sockets_are_read_with_address_and_port() {
        for (text, expected) in [
            ("0100007F:1F90", Some("127.0.0.1:8080")),
            ("00000000:0016", Some("0.0.0.0:22")),
            ("00000000000000000000000001000000:0050", Some("[::1]:80")),
            ("B80D0120000000000000000002000000:0035", Some("[2001:db8::2]:53")),
            ("xyz", None),
            ("0100007F:", None),
        ] {
            assert_eq!(socket(text), expected.map(|text| text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn a_socket_of_this_process_is_among_those_that_wait() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(listeners().contains(&(Protocol::Tcp, address)));
        drop(listener);
        let udp = std::net::UdpSocket::bind("[::1]:0").unwrap();
        assert!(listeners().contains(&(Protocol::Udp, udp.local_addr().unwrap())));
    }
}
