//! Echo messages and ICMP errors as bytes (RFC 792, RFC 4443), and the kernel's records of errors (ip(7), `IP_RECVERR`).

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Bytes after the header of an echo request, as ping(8) sends them.
const PAYLOAD: usize = 56;
/// Type, code, checksum, identifier, sequence number.
const HEADER: usize = 8;

/// IPv4 or IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Family {
    V4,
    V6,
}

/// An echo request with random bytes, by which the reply is recognised.
#[derive(Clone, Debug)]
pub(super) struct Echo {
    family: Family,
    identifier: u16,
    nonce: [u8; 16],
}

impl Echo {
    pub(super) fn new(target: IpAddr) -> Self {
        Self {
            family: if target.is_ipv4() { Family::V4 } else { Family::V6 },
            identifier: fastrand::u16(..),
            nonce: fastrand::u128(..).to_be_bytes(),
        }
    }

    /// The message. Kernels replace the identifier on ping sockets, and fill in the checksum there and for ICMPv6.
    pub(super) fn request(&self) -> [u8; HEADER + PAYLOAD] {
        let mut message = [0; HEADER + PAYLOAD];
        message[0] = match self.family {
            Family::V4 => 8,
            Family::V6 => 128,
        };
        message[4..6].copy_from_slice(&self.identifier.to_be_bytes());
        message[7] = 1;
        message[HEADER..HEADER + self.nonce.len()].copy_from_slice(&self.nonce);
        if self.family == Family::V4 {
            let sum = checksum(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        message
    }

    /// Whether `message` is the reply to this request.
    pub(super) fn is_reply(&self, message: &[u8]) -> bool {
        let reply = match self.family {
            Family::V4 => 0,
            Family::V6 => 129,
        };
        message.starts_with(&[reply, 0])
            && message.get(HEADER..HEADER + self.nonce.len()) == Some(&self.nonce)
    }
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum(message: &[u8]) -> u16 {
    let words = message
        .chunks_exact(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// The part after the IPv4 header of a packet; empty if the header is not whole.
pub(super) fn without_header(packet: &[u8]) -> &[u8] {
    let length = packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
    packet.get(length..).unwrap_or_default()
}

/// An ICMP error about a message of ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Notice {
    /// Its sender.
    pub(super) from: IpAddr,
    /// Its meaning.
    pub(super) words: Cow<'static, str>,
}

/// Bytes of a control message's header on this machine: length, level, type.
const CONTROL_HEADER: usize = size_of::<libc::cmsghdr>();
/// Bytes of `sock_extended_err`, after which comes the sender's address.
const EXTENDED: usize = 16;
/// `SO_EE_ORIGIN_ICMP` and `SO_EE_ORIGIN_ICMP6`.
const FROM_NETWORK: [u8; 2] = [2, 3];

/// The ICMP error in the control messages of an error queue, if there is one.
pub(super) fn notice(family: Family, control: &[u8]) -> Option<Notice> {
    let mut rest = control;
    loop {
        let length = rest.first_chunk().map(|length| usize::from_ne_bytes(*length))?;
        let level = i32::from_ne_bytes(*rest.get(size_of::<usize>()..)?.first_chunk()?);
        let kind = i32::from_ne_bytes(*rest.get(size_of::<usize>() + 4..)?.first_chunk()?);
        let data = rest.get(CONTROL_HEADER..length)?;
        let wanted = match family {
            Family::V4 => (libc::IPPROTO_IP, libc::IP_RECVERR),
            Family::V6 => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
        };
        if (level, kind) == wanted {
            return extended(family, data);
        }
        rest = rest.get(length.next_multiple_of(size_of::<usize>())..)?;
    }
}

/// Reads a `sock_extended_err` with the address behind it.
fn extended(family: Family, data: &[u8]) -> Option<Notice> {
    let [_, _, _, _, origin, kind, code, ..] = *data.first_chunk::<EXTENDED>()?;
    let address = data.get(EXTENDED..)?;
    if !FROM_NETWORK.contains(&origin) {
        return None;
    }
    let from = match family {
        // sockaddr_in: family, port, address.
        Family::V4 => IpAddr::V4(Ipv4Addr::from(*address.get(4..)?.first_chunk::<4>()?)),
        // sockaddr_in6: family, port, flow label, address.
        Family::V6 => IpAddr::V6(Ipv6Addr::from(*address.get(8..)?.first_chunk::<16>()?)),
    };
    let words = words(family, kind, code)?;
    Some(Notice { from, words })
}

/// The meaning of an ICMP error; `None` if it is no failure.
fn words(family: Family, kind: u8, code: u8) -> Option<Cow<'static, str>> {
    let known = match (family, kind, code) {
        (Family::V4, 3, 0 | 6 | 11) => "network unreachable",
        (Family::V4, 3, 1 | 7 | 12) | (Family::V6, 1, 3) => "host unreachable",
        (Family::V4, 3, 2) => "protocol unreachable",
        // "Fragmentation needed" and "packet too big" are about sizes, and the kernel sends smaller ones from then on.
        (Family::V4, 3, 4) | (Family::V6, 2, _) => return None,
        (Family::V4, 3, 9 | 10 | 13) | (Family::V6, 1, 1 | 5) => "administratively prohibited",
        (Family::V6, 1, 0) => "no route",
        (Family::V6, 1, 6) => "route rejects it",
        (Family::V4, 11, _) | (Family::V6, 3, _) => "time to live exceeded (a routing loop?)",
        (Family::V4, 3, _) | (Family::V6, 1, _) => {
            return Some(format!("destination unreachable (code {code})").into());
        }
        (Family::V4 | Family::V6, _, _) => return Some(format!("ICMP type {kind} code {code}").into()),
    };
    Some(Cow::Borrowed(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 11));
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    /// Only the reply to this very request counts, not one to another process, nor the request itself come back.
    #[test]
    fn reply_is_distinguished_from_other_messages() {
        for (target, reply) in [(V4, 0), (V6, 129)] {
            let echo = Echo::new(target);
            let request = echo.request();
            assert!(!echo.is_reply(&request), "{target}: the request itself");
            let mut good = request;
            good[0] = reply;
            assert!(echo.is_reply(&good), "{target}");
            // A ping socket's kernel has put in an identifier of its own.
            good[4] ^= 0xff;
            assert!(echo.is_reply(&good), "{target}: other identifier");
            assert!(!Echo::new(target).is_reply(&good), "{target}: another's");
            for length in 0..HEADER + 16 {
                assert!(!echo.is_reply(&good[..length]), "{target}: {length} bytes");
            }
        }
    }

    #[test]
    fn requests_of_raw_sockets_carry_a_right_checksum() {
        let request = Echo::new(V4).request();
        assert_eq!(checksum(&request), 0);
        assert_ne!(request[2..4], [0, 0]);
    }

    #[test]
    fn the_ip_header_is_skipped_with_its_options() {
        assert_eq!(without_header(&[0x45; 24]), &[0x45; 4]);
        assert_eq!(without_header(&[0x46; 24]), b"");
        assert_eq!(without_header(&[0x4f; 24]), b"");
        assert_eq!(without_header(b""), b"");
    }

    /// A control message as the kernel writes it.
    fn control(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
        let length = CONTROL_HEADER + data.len();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(level.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(data);
        bytes.resize(length.next_multiple_of(size_of::<usize>()), 0);
        bytes
    }

    fn error(origin: u8, kind: u8, code: u8) -> Vec<u8> {
        let mut data = vec![113, 0, 0, 0, origin, kind, code, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        data.extend([2, 0, 0, 0, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        control(libc::IPPROTO_IP, libc::IP_RECVERR, &data)
    }

    #[test]
    fn icmp_errors_are_read_behind_other_control_messages() {
        let mut bytes = control(libc::SOL_SOCKET, libc::SO_TIMESTAMP, &[1; 13]);
        bytes.extend(error(2, 3, 1));
        let expected = Notice {
            from: "10.0.0.1".parse().unwrap(),
            words: "host unreachable".into(),
        };
        assert_eq!(notice(Family::V4, &bytes), Some(expected));
        for length in 0..bytes.len() {
            // Cut anywhere, it is no error and no panic; the padding of the address may miss.
            let _ = notice(Family::V4, &bytes[..length]);
        }
        for (bytes, what) in [
            (error(1, 0, 0), "an error of this machine"),
            (error(2, 3, 4), "a size"),
            (
                control(libc::IPPROTO_IP, libc::IP_TTL, &[64, 0, 0, 0]),
                "no error",
            ),
            (Vec::new(), "nothing"),
        ] {
            assert_eq!(notice(Family::V4, &bytes), None, "{what}");
        }
    }
}
