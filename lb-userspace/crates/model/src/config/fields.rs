//! Settings as keys and values of the configuration file, for `export` and diffs.

mod health;

use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

use lb_common::service::Mode;
use toml::Value;

pub use self::health::health;
use super::{DaemonSettings, duration, quic::DEFAULT_NONCE_LENGTH, service::DEFAULT_WEIGHT, values::rfc3339};
pub use super::{
    agent::{AGENT, fields as agent},
    guard::{GUARD, fields as guard},
};
use crate::state::{
    backend::{Admin, Backend},
    desired::Settings,
    hosts::HostBackend,
    ports::PortRange,
    quic::QuicSettings,
    service::{IdleSettings, RingSize, Service},
    words::Word,
};

/// A key and its value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Field {
    /// The key; keys of a service's health, agent and guard tables begin with [`HEALTH`], [`AGENT`] and [`GUARD`].
    pub key: &'static str,
    /// The value in TOML.
    pub value: String,
    /// Whether the value is the default, so that the key can be left out.
    pub is_default: bool,
}

/// Keys of one thing, in the order in which they are written.
pub type Fields = Vec<Field>;

/// How secret keys are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keys {
    /// As fingerprints, in all output.
    Hidden,
    /// As they are, in files that only the daemon reads.
    Whole,
}

/// Prefix of the keys of a health table.
pub const HEALTH: &str = "health.";

pub(super) fn always(key: &'static str, value: impl Into<Value>) -> Field {
    Field {
        key,
        value: value.into().to_string(),
        is_default: false,
    }
}

pub(super) fn field<T: PartialEq>(
    key: &'static str,
    value: &T,
    default: &T,
    text: impl Fn(&T) -> Value,
) -> Field {
    Field {
        key,
        value: text(value).to_string(),
        is_default: value == default,
    }
}

fn word<W: Word>(value: W, default: W) -> Field {
    field(W::KEY, &value, &default, |value| Value::from(value.word()))
}

pub(super) fn time(key: &'static str, value: Duration, default: Duration) -> Field {
    field(key, &value, &default, |value| Value::from(duration::text(*value)))
}

pub(super) fn number<N: PartialEq + Copy + Into<i64>>(key: &'static str, value: N, default: N) -> Field {
    field(key, &value, &default, |value| Value::from((*value).into()))
}

/// An optional value; left out where there is none.
pub(super) fn optional<T>(key: &'static str, value: Option<&T>, text: impl Fn(&T) -> Value) -> Option<Field> {
    value.map(|value| always(key, text(value)))
}

pub(super) fn texts<T: ToString>(values: &[T]) -> Value {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().into()
}

/// The part of the `[lb]` table that only a start of the daemon reads.
pub fn daemon(settings: &DaemonSettings) -> Fields {
    let default = DaemonSettings::default();
    let DaemonSettings {
        interfaces,
        xdp_mode,
        socket,
        state_dir,
        metrics,
        pin_dir,
        on_exit,
        wait_for_interfaces,
    } = settings;
    let path = |path: &PathBuf| Value::from(path.display().to_string());
    vec![
        field("interfaces", interfaces, &default.interfaces, |names| {
            texts(names)
        }),
        word(*xdp_mode, default.xdp_mode),
        field("socket", socket, &default.socket, path),
        field("state_dir", state_dir, &default.state_dir, path),
        field("metrics", metrics, &default.metrics, |at| {
            Value::from(at.to_string())
        }),
        field("pin_dir", pin_dir, &default.pin_dir, path),
        word(*on_exit, default.on_exit),
        field(
            "wait_for_interfaces",
            wait_for_interfaces,
            &default.wait_for_interfaces,
            |waits| Value::from(*waits),
        ),
    ]
}

/// The part of the `[lb]` table that can change while the daemon runs.
pub fn settings(settings: &Settings) -> Fields {
    let default = Settings::default();
    let Settings {
        snat_addresses,
        snat_ports,
        tunnel_sources,
        gue_port,
        decap_from,
        transition,
    } = settings;
    vec![
        field(
            "snat_addresses",
            snat_addresses,
            &default.snat_addresses,
            |list| texts(list),
        ),
        field("snat_ports", snat_ports, &default.snat_ports, |range| {
            Value::from(format!("{}-{}", range.start(), range.end()))
        }),
        field(
            "tunnel_sources",
            tunnel_sources,
            &default.tunnel_sources,
            |list| texts(list),
        ),
        number("gue_port", *gue_port, default.gue_port),
        field("decap_from", decap_from, &default.decap_from, |list| texts(list)),
        time("transition", *transition, default.transition),
    ]
}

/// A service without its tables and its backends. The name is not among them.
pub fn service(service: &Service) -> Fields {
    let default = Service::new(service.name.clone(), service.key);
    let Service {
        name: _,
        key,
        ports,
        mode,
        algorithm,
        affinity,
        tracking,
        ring_size,
        on_empty,
        on_down,
        on_down_after,
        max_removed_percent,
        backup_below,
        slow_start,
        idle: IdleSettings {
            established,
            half_open,
            closed,
        },
        guard: _,
        health: _,
        agent: _,
        quic: _,
        backends: _,
        hosts: _,
    } = service;
    let mut fields = vec![
        always("address", key.address_text()),
        if ports.is_empty() {
            always("port", i64::from(key.port))
        } else {
            always("ports", ports.iter().map(port_range).collect::<Vec<_>>())
        },
        word(key.protocol, crate::state::service::Protocol::Tcp),
        word(*mode, default.mode),
        word(*algorithm, default.algorithm),
        word(*affinity, default.affinity),
        word(*tracking, default.tracking),
        field("ring_size", ring_size, &default.ring_size, |size| match size {
            RingSize::Auto => Value::from("auto"),
            RingSize::Slots(slots) => Value::from(i64::from(*slots)),
        }),
        word(*on_empty, default.on_empty),
        word(*on_down, default.on_down),
        time("on_down_after", *on_down_after, default.on_down_after),
        number(
            "max_removed_percent",
            *max_removed_percent,
            default.max_removed_percent,
        ),
        number("backup_below", *backup_below, default.backup_below),
        time("slow_start", *slow_start, default.slow_start),
    ];
    for (key, time) in [
        ("idle_timeout", established),
        ("half_open_timeout", half_open),
        ("closed_timeout", closed),
    ] {
        fields.extend(optional(key, time.as_ref(), |time| {
            Value::from(duration::text(*time))
        }));
    }
    fields
}

fn port_range(range: &PortRange) -> Value {
    if range.count() == 1 {
        return Value::from(i64::from(range.first()));
    }
    Value::from(range.to_string())
}

/// One of a service's QUIC tables.
pub fn quic(settings: &QuicSettings, keys: Keys) -> Fields {
    let QuicSettings {
        config_id,
        server_id_length,
        nonce_length,
        key,
    } = settings;
    let mut fields = vec![
        always("config_id", i64::from(*config_id)),
        always("server_id_length", i64::from(*server_id_length)),
        number("nonce_length", *nonce_length, DEFAULT_NONCE_LENGTH),
    ];
    fields.extend(optional("key", key.as_ref(), |key| {
        Value::from(match keys {
            Keys::Hidden => key.fingerprint().to_string(),
            Keys::Whole => key.reveal(),
        })
    }));
    fields
}

/// A backend. The name is not among them.
pub fn backend(backend: &Backend) -> Fields {
    let discovered_by = backend.discovered_by.as_ref();
    let discovered_by = optional("discovered_by", discovered_by, |name| Value::from(name.as_str()));
    backend_at(&backend.address.to_string(), backend)
        .into_iter()
        .chain(discovered_by)
        .collect()
}

/// A host name that stands for backends. The name is not among them.
pub fn host(host: &HostBackend) -> Fields {
    // The address is a dummy: the host replaces it.
    backend_at(&host.address(), &host.at(Ipv4Addr::UNSPECIFIED.into()))
}

/// A backend, at an address as the file writes it.
fn backend_at(address: &str, backend: &Backend) -> Fields {
    let Backend {
        name: _,
        address: _,
        weight,
        mode,
        server_ids,
        agent_port,
        backup,
        admin,
        drain_until,
        discovered_by: _,
    } = backend;
    let mut fields = vec![
        always("address", address),
        number("weight", *weight, DEFAULT_WEIGHT),
    ];
    fields.extend(optional(Mode::KEY, mode.as_ref(), |mode| {
        Value::from(mode.word())
    }));
    fields.push(field("server_ids", server_ids, &Vec::new(), |ids| texts(ids)));
    fields.extend(optional("agent_port", agent_port.as_ref(), |port| {
        Value::from(i64::from(*port))
    }));
    fields.push(field("backup", backup, &false, |backup| Value::from(*backup)));
    fields.push(word(*admin, Admin::Enabled));
    fields.extend(optional("drain_until", drain_until.as_ref(), |until| {
        Value::from(rfc3339(*until))
    }));
    fields
}
