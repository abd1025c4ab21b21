//! Why a service cannot work at all, even if its checks succeed.

use std::{fmt, fs, net::IpAddr, path::Path};

use lb_common::service::Mode;

use crate::{
    datapath::{NextHopState, NextHops},
    state::{
        backend::{Admin, Backend},
        desired::Desired,
        names::BackendName,
        service::Service,
    },
};

/// Why no flow of a service can work: the first backend that should take flows, and its cause.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken {
    /// The backend.
    pub backend: BackendName,
    /// Why no packet reaches it, or no reply its client.
    pub cause: Cause,
}

/// Why no flow of a backend can work.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cause {
    /// Nothing can be sent to it, for this reason.
    Blocked(String),
    /// Source NAT has no address of its family.
    NoSource {
        /// Whether that is IPv6.
        is_v6: bool,
        /// The interface towards it.
        interface: String,
    },
    /// The kernel does not forward its replies.
    NotForwarded {
        /// The setting that forbids it, by its path below `/proc/sys`.
        setting: String,
    },
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.backend, self.cause)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blocked(why) => f.write_str(why),
            Self::NoSource { is_v6, interface } => {
                let family = if *is_v6 { "IPv6" } else { "IPv4" };
                write!(
                    f,
                    "no {family} source address: give {interface} one, or set snat_addresses"
                )
            }
            Self::NotForwarded { setting } => {
                // As sysctl(8) writes it: an interface's name may have dots.
                let swapped = setting.chars().map(|letter| match letter {
                    '/' => '.',
                    '.' => '/',
                    other => other,
                });
                let setting: String = swapped.collect();
                write!(f, "its replies are not forwarded: {setting} is 0")
            }
        }
    }
}

impl Cause {
    /// Commands or changes that mend it, the best first; any of them is enough.
    pub fn remedies(&self, service: &Service) -> Vec<String> {
        match self {
            Self::NotForwarded { setting } => {
                let all = if setting.starts_with("net/ipv4/") {
                    "net.ipv4.ip_forward"
                } else {
                    "net.ipv6.conf.all.forwarding"
                };
                vec![format!("sysctl -w {all}=1"), format!("sysctl -w {setting}=1")]
            }
            Self::NoSource { interface, .. } => vec![
                format!("ip addr add ADDRESS dev {interface}"),
                "snat_addresses in the file".to_owned(),
            ],
            Self::Blocked(_) => vec![format!("lb doctor --vip {}", service.key.address)],
        }
    }
}

/// Why no packet of the service can reach a backend, or no reply its client. `None` if a packet can, as far as is
/// known, or if no backend should take new flows. `forwards` says whether the kernel forwards, by a setting's path below `/proc/sys`.
pub fn broken(
    desired: &Desired,
    service: &Service,
    ways: &NextHops,
    forwards: impl Fn(&str) -> bool,
) -> Option<Broken> {
    let wanted = |backend: &&Backend| backend.admin == Admin::Enabled && backend.weight > 0;
    let mut first = None;
    for backend in service.backends.iter().filter(wanted) {
        let way = ways.get(&backend.address.ip())?;
        let cause = cause(desired, service, backend, way, &forwards)?;
        first.get_or_insert_with(|| Broken {
            backend: backend.name.clone(),
            cause,
        });
    }
    first
}

/// Why no packet of the service can reach one backend on its way, or no reply its client. Arguments as of [`broken`].
pub fn cause(
    desired: &Desired,
    service: &Service,
    backend: &Backend,
    way: &NextHopState,
    forwards: impl Fn(&str) -> bool,
) -> Option<Cause> {
    let address = backend.address.ip();
    if way.is_blocked() {
        return way.error().map(Cause::Blocked);
    }
    let (NextHopState::Reached {
        interface, source, ..
    }
    | NextHopState::Waiting {
        interface, source, ..
    }) = way
    else {
        return None;
    };
    match backend.mode.unwrap_or(service.mode) {
        Mode::Nat => {
            let mut given = desired.settings.snat_addresses.iter();
            let is_given = given.any(|given| given.is_ipv4() == address.is_ipv4());
            let has_source = source.is_some_and(|source| is_usable(source, address));
            (!is_given && !has_source).then(|| Cause::NoSource {
                is_v6: address.is_ipv6(),
                interface: interface.clone(),
            })
        }
        Mode::Dnat => {
            let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
            let setting = format!("net/{family}/conf/{interface}/forwarding");
            (!forwards(&setting)).then_some(Cause::NotForwarded { setting })
        }
        Mode::L2dsr | Mode::Ipip | Mode::Gue => None,
    }
}

/// Whether packets to an address may have this source: a link-local source does not leave the link.
fn is_usable(source: IpAddr, address: IpAddr) -> bool {
    let of_link = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !of_link(source) || of_link(address)
}

/// Whether the kernel forwards, by a setting's path. True if the setting cannot be read, so that a service is not called broken for
/// that.
pub fn forwards(setting: &str) -> bool {
    fs::read_to_string(Path::new("/proc/sys").join(setting)).map_or(true, |value| value.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::testing;

    fn way(source: Option<&str>) -> NextHopState {
        NextHopState::Reached {
            via: "10.0.0.254".parse().unwrap(),
            interface: "eth0".to_owned(),
            answering: true,
            source: source.map(|source| source.parse().unwrap()),
        }
    }

    #[test]
    fn broken_service_is_reported_with_its_reason() {
        let source = "10.0.0.1";
        for (name, mode, way, forwards, expected) in [
            ("all is well", Mode::Nat, way(Some(source)), false, None),
            ("mode dnat", Mode::Dnat, way(None), true, None),
            (
                "no forwarding",
                Mode::Dnat,
                way(Some(source)),
                false,
                Some("a: its replies are not forwarded: net.ipv4.conf.eth0.forwarding is 0"),
            ),
            (
                "no source",
                Mode::Nat,
                way(None),
                true,
                Some("a: no IPv4 source address: give eth0 one, or set snat_addresses"),
            ),
            (
                "a source of the link",
                Mode::Nat,
                way(Some("169.254.0.1")),
                true,
                Some("a: no IPv4 source address: give eth0 one, or set snat_addresses"),
            ),
            (
                "no route",
                Mode::Ipip,
                NextHopState::Unreachable,
                true,
                Some("a: no route to it"),
            ),
            ("no source is needed", Mode::L2dsr, way(None), false, None),
        ] {
            let mut service = testing::service("web", 1, &[("a", 1), ("b", 1), ("c", 0)]);
            service.mode = mode;
            let desired = testing::desired([service.clone()]);
            let ways: NextHops = service
                .backends
                .iter()
                .filter(|backend| backend.weight > 0)
                .map(|backend| (backend.address.ip(), way.clone()))
                .collect();
            let why = |ways: &NextHops| {
                broken(&desired, &service, ways, |_| forwards).map(|broken| broken.to_string())
            };
            assert_eq!(why(&ways).as_deref(), expected, "{name}");
            let mut one = ways;
            one.remove(&service.backends[1].address.ip());
            assert_eq!(why(&one), None, "{name}: nothing is known of one backend's way");
        }
    }
}
