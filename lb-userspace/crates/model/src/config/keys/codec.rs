//! Values of keys as text: how each type is read from a file, and written in TOML.

use std::{
    collections::BTreeSet,
    fmt::Display,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    str::FromStr,
    time::{Duration, SystemTime},
};

use toml::Value;

use crate::{
    config::{
        error::Reporter,
        table::Table,
        values::{self, ValueError},
    },
    duration,
    state::{
        desired::Desired,
        guard::Prefix,
        hosts::HostName,
        names::{BackendName, GroupName},
        ports::PortRange,
        quic::ServerId,
        service::RingSize,
        words::Word,
    },
};

/// A value being read.
pub(in crate::config) struct Input<'i, 'r, 't> {
    /// Its table.
    pub(in crate::config) table: &'i mut Table<'t>,
    /// Takes the errors.
    pub(in crate::config) reporter: &'i mut Reporter<'r>,
    /// Its key.
    pub(in crate::config) key: &'static str,
    /// Has the keys whose fingerprints may stand in the file.
    pub(in crate::config) known: &'i Desired,
}

/// Reads a type and writes it.
pub(super) struct Codec<V> {
    /// `None` if the value is missing or wrong; a wrong one is reported.
    pub(super) read: fn(&mut Input<'_, '_, '_>) -> Option<V>,
    /// The value in TOML.
    pub(super) write: fn(&V) -> String,
}

impl<V> Codec<V> {
    /// The value in TOML.
    pub(super) fn text(&self, value: &V) -> String {
        (self.write)(value)
    }
}

impl Input<'_, '_, '_> {
    /// The value; `None` if it is missing or wrong.
    pub(super) fn value<V>(&mut self, codec: &Codec<V>) -> Option<V> {
        (codec.read)(self)
    }

    fn text<V>(&mut self, parse: impl FnOnce(&str) -> Result<V, ValueError>) -> Option<V> {
        self.table.text(self.reporter, self.key, parse)
    }

    fn number<V>(&mut self, parse: impl FnOnce(&str) -> Result<V, ValueError>) -> Option<V> {
        self.table.number(self.reporter, self.key, parse)
    }

    fn list<V>(&mut self, parse: impl Fn(&str) -> Result<V, ValueError>) -> Option<Vec<V>> {
        self.table.list(self.reporter, self.key, parse, false)
    }
}

/// A text of TOML.
pub(in crate::config) fn quoted(text: impl Display) -> String {
    Value::from(text.to_string()).to_string()
}

/// A list of texts.
fn quoted_list<T: Display>(values: &[T]) -> String {
    let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
    Value::from(texts).to_string()
}

fn quoted_path(path: &Path) -> String {
    quoted(path.display())
}

/// One of a few words.
pub(super) const fn word<W: Word>() -> Codec<W> {
    Codec {
        read: |input| input.text(values::word),
        write: |value| quoted(value.word()),
    }
}

/// A whole number.
pub(super) const fn count<N: FromStr + Display>() -> Codec<N> {
    Codec {
        read: |input| input.number(values::count),
        write: N::to_string,
    }
}

pub(super) const BOOL: Codec<bool> = Codec {
    read: |input| input.table.boolean(input.reporter, input.key),
    write: bool::to_string,
};

pub(super) const STRING: Codec<String> = Codec {
    read: |input| input.text(owned),
    write: |text| quoted(text),
};

pub(super) const STRINGS: Codec<Vec<String>> = Codec {
    read: |input| input.list(owned),
    write: |texts| quoted_list(texts),
};

pub(super) const TIME: Codec<Duration> = Codec {
    read: |input| input.table.duration(input.reporter, input.key),
    write: |time| quoted(duration::text(*time)),
};

pub(super) const MOMENT: Codec<SystemTime> = Codec {
    read: |input| input.text(values::moment),
    write: |moment| quoted(values::rfc3339(*moment)),
};

pub(super) const PORT_NUMBER: Codec<u16> = Codec {
    read: |input| input.number(values::port),
    write: u16::to_string,
};

pub(super) const WEIGHT: Codec<u16> = Codec {
    read: |input| input.number(values::weight),
    write: u16::to_string,
};

/// From 0 to 1.
pub(super) const SHARE: Codec<f64> = Codec {
    read: |input| input.table.real(input.reporter, input.key, values::share),
    write: |share| Value::from(*share).to_string(),
};

pub(super) const IP: Codec<IpAddr> = Codec {
    read: |input| input.text(values::address),
    write: |address| quoted(address),
};

pub(super) const IPS: Codec<Vec<IpAddr>> = Codec {
    read: |input| input.list(values::address),
    write: |addresses| quoted_list(addresses),
};

pub(super) const ENDPOINT: Codec<SocketAddr> = Codec {
    read: |input| input.text(values::endpoint),
    write: |endpoint| quoted(endpoint),
};

pub(super) const PREFIX_LIST: Codec<Vec<Prefix>> = Codec {
    read: |input| input.list(values::prefix),
    write: |prefixes| quoted_list(prefixes),
};

pub(super) const HOST_NAMES: Codec<Vec<HostName>> = Codec {
    read: |input| input.list(values::host_name),
    write: |names| quoted_list(names),
};

pub(super) const PORTS: Codec<RangeInclusive<u16>> = Codec {
    read: |input| input.text(values::ports),
    write: |ports| quoted(format_args!("{}-{}", ports.start(), ports.end())),
};

pub(super) const PATH: Codec<PathBuf> = Codec {
    read: |input| input.text(values::path),
    write: |path| quoted_path(path),
};

pub(super) const SOCKET: Codec<PathBuf> = Codec {
    read: |input| input.text(values::socket),
    write: |path| quoted_path(path),
};

pub(super) const INTERFACES: Codec<Vec<String>> = Codec {
    read: |input| input.list(values::interface),
    write: |names| quoted_list(names),
};

pub(super) const RING_SIZE: Codec<RingSize> = Codec {
    read: |input| {
        input
            .table
            .text_or_number(input.reporter, input.key, values::ring_size)
    },
    write: |size| match size {
        RingSize::Auto => quoted("auto"),
        RingSize::Slots(slots) => slots.to_string(),
    },
};

pub(super) const BACKEND_NAME: Codec<BackendName> = Codec {
    read: |input| input.text(values::name),
    write: |name| quoted(name),
};

pub(super) const GROUP: Codec<GroupName> = Codec {
    read: |input| input.text(values::name),
    write: |name| quoted(name),
};

pub(super) const SERVER_IDS: Codec<Vec<ServerId>> = Codec {
    read: |input| input.list(values::hex),
    write: |ids| quoted_list(ids),
};

/// Statuses in ascending order.
pub(super) const STATUSES: Codec<Vec<u16>> = Codec {
    read: |input| {
        let ranges = input
            .table
            .texts_or_numbers(input.reporter, input.key, values::statuses)?;
        let statuses: BTreeSet<u16> = ranges.into_iter().flatten().flatten().collect();
        Some(statuses.into_iter().collect())
    },
    write: |statuses| values::status_text(statuses),
};

/// Pairs in the order of the file.
pub(super) const HEADERS: Codec<Vec<(String, String)>> = Codec {
    read: |input| input.table.strings(input.reporter, input.key),
    write: |headers| inline(headers.iter().map(|(name, value)| (name.as_str(), quoted(value)))),
};

fn owned(text: &str) -> Result<String, ValueError> {
    Ok(text.to_owned())
}

/// Several ports and ranges.
pub(super) fn port_list(ports: &[PortRange]) -> String {
    let port = |range: &PortRange| match range.count() {
        1 => range.first().to_string(),
        _ => quoted(range),
    };
    let ports: Vec<String> = ports.iter().map(port).collect();
    format!("[{}]", ports.join(", "))
}

/// An inline table.
pub(super) fn inline<'k>(pairs: impl Iterator<Item = (&'k str, String)>) -> String {
    let pairs: Vec<String> = pairs
        .map(|(key, value)| format!("{} = {value}", bare(key)))
        .collect();
    format!("{{ {} }}", pairs.join(", "))
}

/// A list of inline tables.
pub(super) fn inline_list(tables: impl Iterator<Item = String>) -> String {
    format!("[{}]", tables.collect::<Vec<_>>().join(", "))
}

/// A key of TOML: quoted unless it is bare.
fn bare(key: &str) -> String {
    let is_bare = !key.is_empty()
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if is_bare { key.to_owned() } else { quoted(key) }
}
