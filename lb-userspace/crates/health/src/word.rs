//! The words of the configuration, the command line and the API for values that are one of a few.

use lb_common::service::Mode;

use super::settings::{CheckKind, ProxyVersion, RecordType, Require, Through, Transport};

/// A value that has a word.
pub trait Word: Copy + PartialEq + 'static {
    /// The configuration key whose value it is.
    const KEY: &'static str;
    /// Every value with its word, the default first.
    const WORDS: &'static [(Self, &'static str)];

    /// The value's word.
    fn word(self) -> &'static str {
        Self::WORDS
            .iter()
            .find(|(value, _)| *value == self)
            .map_or("", |(_, word)| word)
    }

    /// The value of a word.
    fn from_word(word: &str) -> Option<Self> {
        Self::WORDS
            .iter()
            .find(|(_, known)| *known == word)
            .map(|(value, _)| *value)
    }
}

/// Gives each value of a type its word: `Type, "key": Value = "word", ...;`.
#[macro_export]
macro_rules! words {
    ($($type:ty, $key:literal: $($value:path = $word:literal),+;)+) => {$(
        impl $crate::word::Word for $type {
            const KEY: &'static str = $key;
            const WORDS: &'static [(Self, &'static str)] = &[$(($value, $word)),+];
        }
    )+};
}

words! {
    Mode, "mode": Mode::Nat = "nat", Mode::Dnat = "dnat", Mode::L2dsr = "l2dsr", Mode::Ipip = "ipip", Mode::Gue = "gue";
    RecordType, "record": RecordType::A = "A", RecordType::Aaaa = "AAAA", RecordType::Cname = "CNAME", RecordType::Mx = "MX",
        RecordType::Ns = "NS", RecordType::Ptr = "PTR", RecordType::Soa = "SOA", RecordType::Srv = "SRV", RecordType::Txt = "TXT";
    Transport, "transport": Transport::Udp = "udp", Transport::Tcp = "tcp";
    Require, "require": Require::All = "all", Require::Any = "any";
    ProxyVersion, "send_proxy": ProxyVersion::V1 = "v1", ProxyVersion::V2 = "v2";
    Through, "through": Through::Backend = "backend", Through::Vip = "vip";
}

/// The word of a check's kind.
pub const fn kind(kind: &CheckKind) -> &'static str {
    match kind {
        CheckKind::None => "none",
        CheckKind::Tcp | CheckKind::Dialogue(_) | CheckKind::TcpHalfOpen => "tcp",
        CheckKind::Tls(_) => "tls",
        CheckKind::Http(http) if http.tls.is_some() => "https",
        CheckKind::Http(_) => "http",
        CheckKind::Http2(_) => "http2",
        CheckKind::Grpc(_) => "grpc",
        CheckKind::Dns(_) => "dns",
        CheckKind::Udp(_) => "udp",
        CheckKind::Icmp => "icmp",
        CheckKind::Push(_) => "push",
        CheckKind::Exec(_) => "exec",
    }
}
