//! How steps name things.

use std::net::{IpAddr, SocketAddr};

use lb_common::{
    backend::{Backend, IPV6},
    service::Mode,
};

use crate::{control::ControlView, plan::groups::TakenBy, state::service::ServiceKey};

/// A backend's address and port, as its record has them.
pub(super) fn address(record: &Backend) -> SocketAddr {
    let ip = if record.has(IPV6) {
        IpAddr::V6(record.address.v6().to_std())
    } else {
        IpAddr::V4(record.address.v4().to_std())
    };
    SocketAddr::new(ip, record.port.get())
}

/// A backend by name, with its address.
pub(super) fn backend(view: &ControlView, key: &ServiceKey, address: SocketAddr) -> String {
    let named = view.backends().find(|(_, of, at)| of == key && *at == address);
    match named {
        Some(((_, name), _, _)) => format!("{name} ({address})"),
        None => format!("{address}, which is being removed"),
    }
}

/// How a mode without a flow table carries a packet to its backend.
pub(super) fn carriage(mode: Mode, backend: &Backend, hash: u32) -> String {
    let outer = || {
        let source = if backend.has(IPV6) {
            IpAddr::V6(backend.outer_source_v6(hash).to_std())
        } else {
            IpAddr::V4(backend.outer_source_v4(hash).to_std())
        };
        format!("from {source} to {}", backend.address.to_ip())
    };
    match mode {
        Mode::Nat => "mode nat: its addresses are translated".to_owned(),
        Mode::Dnat => format!("mode dnat: its destination becomes {}", address(backend)),
        Mode::L2dsr => "mode l2dsr: only its MAC addresses change".to_owned(),
        Mode::Ipip => format!("mode ipip: it gets an outer IP header {}", outer()),
        Mode::Gue => format!("mode gue: it gets outer IP and UDP headers {}", outer()),
    }
}

/// `02:00:00:00:00:01`
pub(super) fn mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Which backends take new flows of a group's clients.
pub(crate) const fn taken_by(backends: TakenBy) -> &'static str {
    match backends {
        TakenBy::Own => "its backends",
        TakenBy::General => "backends of no such group",
        TakenBy::All => "all backends",
        TakenBy::None => "no backends",
    }
}
