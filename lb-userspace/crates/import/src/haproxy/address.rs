//! Addresses, ports and times of HAProxy's configuration.

use std::{net::IpAddr, time::Duration};

use lb_model::{number, state::ports::PortRange};

/// The host part of an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Host {
    /// Every address of the machine, of IPv4 (`true`) or IPv6.
    Any(bool),
    /// One address.
    Ip(IpAddr),
    /// A host name.
    Name(String),
}

/// The port part of an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Port {
    /// None: the port of the connection is kept.
    Kept,
    /// One, or a range.
    Range(PortRange),
    /// Something else, such as an offset.
    Other,
}

/// An address, or why it has no counterpart.
pub(super) fn address(text: &str) -> Result<(Host, Port), &'static str> {
    let (family, rest) = match text.split_once('@') {
        Some(("ipv4" | "tcp4", rest)) => (Some(true), rest),
        Some(("ipv6" | "tcp6", rest)) => (Some(false), rest),
        Some(("ip" | "tcp", rest)) => (None, rest),
        Some(("quic4" | "quic6" | "udp" | "udp4" | "udp6", _)) => {
            return Err("HTTP/3 ends at HAProxy; a service with protocol = \"udp\" forwards its datagrams");
        }
        Some(_) => return Err("lb forwards between IP addresses, not sockets of this machine"),
        None if text.starts_with('/') => {
            return Err("lb forwards between IP addresses, not sockets of this machine");
        }
        None => (None, text),
    };
    if rest.contains('$') {
        return Err("variables are not known to lb import: write the address itself");
    }
    let (host, port) = split_port(rest);
    let host = match host {
        "" | "*" => Host::Any(family.unwrap_or(true)),
        "::" => Host::Any(false),
        "0.0.0.0" => Host::Any(true),
        _ => match host.parse() {
            Ok(ip) => Host::Ip(ip),
            Err(_) => Host::Name(host.to_owned()),
        },
    };
    let port = match port {
        None | Some("") => Port::Kept,
        // An offset.
        Some(port) if port.starts_with('+') => Port::Other,
        Some(port) => port.parse().map_or(Port::Other, Port::Range),
    };
    Ok((host, port))
}

/// Host and port. Of an IPv6 address without brackets, HAProxy takes what follows the last colon as the port.
fn split_port(text: &str) -> (&str, Option<&str>) {
    if let Some(rest) = text.strip_prefix('[')
        && let Some((host, after)) = rest.split_once(']')
    {
        return (host, after.strip_prefix(':'));
    }
    match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    }
}

/// A time of HAProxy: a number with a unit, in milliseconds where it has none.
pub(super) fn time(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: u64 = number::decimal(digits)?;
    let millis = match text.get(digits.len()..)? {
        "us" => number / 1000,
        "" | "ms" => number,
        "s" => number.checked_mul(1000)?,
        "m" => number.checked_mul(60_000)?,
        "h" => number.checked_mul(3_600_000)?,
        "d" => number.checked_mul(86_400_000)?,
        _ => return None,
    };
    Some(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_haproxy_reads_them() {
        let range = |text: &str| Port::Range(text.parse().unwrap());
        let ip = |text: &str| Host::Ip(text.parse().unwrap());
        for (text, host, port) in [
            ("*:80", Host::Any(true), range("80")),
            (":80", Host::Any(true), range("80")),
            ("ipv6@:80", Host::Any(false), range("80")),
            ("[::]:80", Host::Any(false), range("80")),
            (":::80", Host::Any(false), range("80")),
            ("192.0.2.10:8000-8010", ip("192.0.2.10"), range("8000-8010")),
            ("192.0.2.10", ip("192.0.2.10"), Port::Kept),
            ("[2001:db8::1]:443", ip("2001:db8::1"), range("443")),
            ("2001:db8::1:443", ip("2001:db8::1"), range("443")),
            ("ipv4@192.0.2.10:1", ip("192.0.2.10"), range("1")),
            (
                "app.example.org:8080",
                Host::Name("app.example.org".into()),
                range("8080"),
            ),
            ("192.0.2.10:+100", ip("192.0.2.10"), Port::Other),
            ("192.0.2.10:80-+90", ip("192.0.2.10"), Port::Other),
        ] {
            assert_eq!(address(text), Ok((host, port)), "{text}");
        }
        for text in [
            "/run/a.sock",
            "unix@a",
            "abns@x",
            "fd@3",
            "quic4@:443",
            "${VIP}:80",
        ] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_have_units() {
        for (text, millis) in [
            ("2000", Some(2000)),
            ("2s", Some(2000)),
            ("1500us", Some(1)),
            ("3m", Some(180_000)),
            ("1h", Some(3_600_000)),
            ("1d", Some(86_400_000)),
            ("x", None),
            ("2w", None),
            ("99999999999999999999s", None),
            ("9999999999999999999d", None),
        ] {
            assert_eq!(time(text), millis.map(Duration::from_millis), "{text}");
        }
    }
}
