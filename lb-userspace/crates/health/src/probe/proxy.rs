//! The PROXY header before a check, for servers that take no connection without one (HAProxy's `proxy-protocol.txt`).
//!
//! Version 2 sends LOCAL, as the specification demands for health checks without a client. Version 1 has no word for
//! that, so it names the ends of the connection itself.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::settings::ProxyVersion;

/// Signature of a header of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command LOCAL.
const LOCAL: u8 = 0x20;
/// Families of addresses of version 2, with TCP.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// Sends the header of a check of `target`.
pub(super) async fn send(
    version: ProxyVersion,
    target: SocketAddr,
    stream: &mut TcpStream,
) -> io::Result<()> {
    let header = header(version, stream.local_addr()?, target);
    stream.write_all(&header).await
}

/// The header of a connection from `source` to `target`, which are of one family.
fn header(version: ProxyVersion, source: SocketAddr, target: SocketAddr) -> Vec<u8> {
    match version {
        ProxyVersion::V1 => {
            let family = if target.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (source.ip(), target.ip());
            format!(
                "PROXY {family} {from} {to} {} {}\r\n",
                source.port(),
                target.port()
            )
            .into_bytes()
        }
        ProxyVersion::V2 => {
            let mut addresses = Vec::with_capacity(36);
            for end in [source, target] {
                match end.ip() {
                    IpAddr::V4(address) => addresses.extend(address.octets()),
                    IpAddr::V6(address) => addresses.extend(address.octets()),
                }
            }
            addresses.extend(source.port().to_be_bytes());
            addresses.extend(target.port().to_be_bytes());
            let length = u16::try_from(addresses.len()).unwrap_or_default();
            let mut header = SIGNATURE.to_vec();
            header.extend([LOCAL, if target.is_ipv4() { TCP4 } else { TCP6 }]);
            header.extend(length.to_be_bytes());
            header.extend(addresses);
            header
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Byte by byte, as the specification has them.
    #[test]
    fn headers_are_those_of_the_specification() {
        let (v4, v6) = (
            ["10.0.0.2:4660".parse().unwrap(), "10.0.0.11:80".parse().unwrap()],
            [
                "[2001:db8::2]:4660".parse().unwrap(),
                "[2001:db8::11]:80".parse().unwrap(),
            ],
        );
        let of = |version, [source, target]: [SocketAddr; 2]| header(version, source, target);
        assert_eq!(
            of(ProxyVersion::V1, v4),
            b"PROXY TCP4 10.0.0.2 10.0.0.11 4660 80\r\n"
        );
        assert_eq!(
            of(ProxyVersion::V1, v6),
            b"PROXY TCP6 2001:db8::2 2001:db8::11 4660 80\r\n"
        );
        let mut expected = SIGNATURE.to_vec();
        expected.extend([0x20, 0x11, 0, 12, 10, 0, 0, 2, 10, 0, 0, 11, 0x12, 0x34, 0, 80]);
        assert_eq!(of(ProxyVersion::V2, v4), expected);
        let long = of(ProxyVersion::V2, v6);
        assert_eq!((long.len(), &long[12..16]), (16 + 36, &[0x20, 0x21, 0, 36][..]));
        assert_eq!(&long[48..], [0x12, 0x34, 0, 80]);
    }
}
