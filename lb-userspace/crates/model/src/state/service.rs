//! A service as the operator wants it.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_common::{
    flow::IdleTimeouts,
    hash::HashBy,
    service::{Mode, TCP, UDP},
};

use super::{
    backend::Backend,
    clients::Clients,
    guard::{Guard, Prefix},
    hosts::HostBackend,
    names::{GroupName, ServiceName},
    ports::PortRange,
    quic::QuicSettings,
};
use crate::health::{
    agent::AgentSettings,
    settings::{CheckKind, CheckSettings, TlsCheck},
    word::Word as _,
};

/// Default percent of a service's weight that checks may take out: all of it.
pub const ALL_PERCENT: u8 = 100;

/// Default number of other backends below which backups take flows: backups wait until no other backend can.
pub const DEFAULT_BACKUP_BELOW: u32 = 1;

/// Transport protocol of a service.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Its number in IP headers.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => TCP,
            Self::Udp => UDP,
        }
    }
}

/// Address, port and protocol of a service; no two services share them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ServiceKey {
    /// Address (VIP); the first one, where it is a prefix.
    pub address: IpAddr,
    /// Length of the prefix in bits; the whole address if it is not a prefix.
    pub length: u8,
    /// Port; 0: every port that no other service of this address has.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

impl ServiceKey {
    /// A key of one address.
    pub const fn new(address: IpAddr, port: u16, protocol: Protocol) -> Self {
        Self {
            address,
            length: Prefix::most(address),
            port,
            protocol,
        }
    }

    /// A key of all addresses of a prefix.
    pub const fn of_prefix(prefix: Prefix, port: u16, protocol: Protocol) -> Self {
        Self {
            address: prefix.address(),
            length: prefix.length(),
            port,
            protocol,
        }
    }

    /// Whether it has several addresses.
    pub const fn is_prefix(&self) -> bool {
        self.length < Prefix::most(self.address)
    }

    /// Its addresses.
    pub fn prefix(&self) -> Prefix {
        Prefix::around(self.address, self.length)
    }

    /// Whether an address is one of its own.
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.prefix().contains(address)
    }

    /// Address and port: `192.0.2.10:80`, `[2001:db8::10]:80` or `192.0.2.0/28:80`.
    pub fn endpoint(&self) -> String {
        let Self { address, port, .. } = self;
        match (address, self.is_prefix()) {
            (IpAddr::V4(_), true) => format!("{}:{port}", self.prefix()),
            (IpAddr::V6(_), true) => format!("[{}]:{port}", self.prefix()),
            (IpAddr::V4(_) | IpAddr::V6(_), false) => SocketAddr::new(*address, *port).to_string(),
        }
    }

    /// Its address as the file has it: `192.0.2.10`, or `192.0.2.0/28`.
    pub fn address_text(&self) -> String {
        if self.is_prefix() {
            self.prefix().to_string()
        } else {
            self.address.to_string()
        }
    }
}

/// `192.0.2.10:80/tcp`, with `*` for every port; `192.0.2.0/28:80/tcp` where the address is a prefix.
impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(_) => write!(f, "{}:", self.address_text())?,
            IpAddr::V6(_) => write!(f, "[{}]:", self.address_text())?,
        }
        match self.port {
            0 => f.write_str("*")?,
            port => write!(f, "{port}")?,
        }
        write!(f, "/{}", self.protocol.word())
    }
}

/// How the backend of a new flow is selected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// Consistent hashing over a Maglev ring.
    Maglev,
    /// Smooth weighted round-robin, for services that record every flow.
    RoundRobin,
}

/// The part of a flow that selects its backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Affinity {
    /// Addresses and ports: each flow on its own.
    None,
    /// The client's address: all flows of a client share a backend.
    Source,
    /// The destination port: all flows to a port share a backend.
    Port,
}

impl Affinity {
    /// The part of a tuple that is hashed.
    pub const fn hash_by(self) -> HashBy {
        match self {
            Self::None => HashBy::Tuple,
            Self::Source => HashBy::Source,
            Self::Port => HashBy::Port,
        }
    }
}

/// Which flows are recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tracking {
    /// Flows that a change of the ring would move.
    JustEnough,
    /// All flows.
    Full,
}

/// Number of slots of the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RingSize {
    /// Derived from the number of backends.
    Auto,
    /// A prime from 251 to 131,071.
    Slots(u32),
}

/// Policy for packets while no backend takes new flows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnEmpty {
    /// Dropped.
    Drop,
    /// Answered with a reset or an ICMP unreachable.
    Reject,
    /// All enabled backends take flows, also those that are down.
    All,
}

/// Default of `on_down_after`: longer than a blip that two fast checks notice, shorter than usual timeouts of clients.
pub const ON_DOWN_AFTER: Duration = Duration::from_secs(3);

/// Policy for established flows of a backend that checks call down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnDown {
    /// After `on_down_after` they move to a live backend, which resets them, so that clients reconnect.
    Move,
    /// They stay; only new flows avoid the backend.
    Keep,
}

/// Idle timeouts of flows, in whole seconds; `None`: the protocol's default.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IdleSettings {
    /// Of established flows.
    pub established: Option<Duration>,
    /// Of half-open flows.
    pub half_open: Option<Duration>,
    /// Of TCP connections that both ends closed, or one end reset.
    pub closed: Option<Duration>,
}

impl IdleSettings {
    /// The timeouts with the defaults of `protocol`.
    pub fn in_force(&self, protocol: Protocol) -> IdleTimeouts {
        let default = IdleTimeouts::of(match protocol {
            Protocol::Tcp => TCP,
            Protocol::Udp => UDP,
        });
        let or = |time: Option<Duration>, default| {
            time.map_or(default, |time| u32::try_from(time.as_secs()).unwrap_or(u32::MAX))
        };
        IdleTimeouts {
            established: or(self.established, default.established),
            half_open: or(self.half_open, default.half_open),
            closed: or(self.closed, default.closed),
        }
    }
}

/// A service and its backends.
#[derive(Clone, PartialEq, Debug)]
pub struct Service {
    /// Unique name.
    pub name: ServiceName,
    /// Address, port and protocol; the first port, if it has several.
    pub key: ServiceKey,
    /// All ports in the order of the file, the port of the key first; empty if it has only one.
    pub ports: Vec<PortRange>,
    /// Mode of backends without their own.
    pub mode: Mode,
    /// How backends are selected.
    pub algorithm: Algorithm,
    /// The part of a flow that selects its backend.
    pub affinity: Affinity,
    /// Which flows are recorded.
    pub tracking: Tracking,
    /// Size of the ring.
    pub ring_size: RingSize,
    /// Policy while no backend takes new flows.
    pub on_empty: OnEmpty,
    /// Policy for flows of a backend that went down.
    pub on_down: OnDown,
    /// With [`OnDown::Move`], time for which a backend that went down keeps its established flows.
    pub on_down_after: Duration,
    /// Share of the backends' weight that checks alone may take out, in percent; see `max_removed_percent` in docs/configuration.md.
    pub max_removed_percent: u8,
    /// Backups take flows while fewer of the other backends than this can; from 1.
    pub backup_below: u32,
    /// Time over which a new or recovered backend's weight rises to its full value.
    pub slow_start: Duration,
    /// Idle timeouts of its flows.
    pub idle: IdleSettings,
    /// ACL and rate limits.
    pub guard: Guard,
    /// How backends are checked.
    pub health: CheckSettings,
    /// How agents of backends are asked; `None`: they are not.
    pub agent: Option<AgentSettings>,
    /// Clients that go to groups of backends, one for each group.
    pub clients: Vec<Clients>,
    /// How connection ids of QUIC name backends, by configuration id; empty if they do not.
    pub quic: Vec<QuicSettings>,
    /// Backends in the order of the file; backends that host names found are last.
    pub backends: Vec<Backend>,
    /// Host names whose addresses are backends, in the order of the file.
    pub hosts: Vec<HostBackend>,
}

/// The TLS settings of a check; `None` if it uses no TLS.
fn tls(kind: &CheckKind) -> Option<&TlsCheck> {
    match kind {
        CheckKind::Tls(tls) => Some(tls),
        CheckKind::Http(http) | CheckKind::Http2(http) => http.tls.as_ref(),
        CheckKind::Grpc(grpc) => grpc.tls.as_ref(),
        CheckKind::None
        | CheckKind::Tcp
        | CheckKind::Dialogue(_)
        | CheckKind::TcpHalfOpen
        | CheckKind::Dns(_)
        | CheckKind::Udp(_)
        | CheckKind::Icmp
        | CheckKind::Push(_)
        | CheckKind::Exec(_) => None,
    }
}

impl Service {
    /// Its ports, the port of its key first; 0 alone is every port.
    pub fn all_ports(&self) -> impl Iterator<Item = u16> {
        let only = self.ports.is_empty().then_some(self.key.port);
        only.into_iter()
            .chain(self.ports.iter().flat_map(|range| range.ports()))
    }

    /// Its ports except the port of its key.
    pub fn more_ports(&self) -> impl Iterator<Item = u16> {
        self.all_ports().skip(1)
    }

    /// Number of its ports.
    pub fn port_count(&self) -> usize {
        self.ports.iter().map(|range| range.count()).sum::<usize>().max(1)
    }

    /// Whether it takes packets to this port of its address, unless another service has the port.
    pub fn has_port(&self, port: u16) -> bool {
        self.key.port == 0 || self.all_ports().any(|own| own == port)
    }

    /// Whether its backends are checked.
    pub fn is_checked(&self) -> bool {
        self.health.kind.is_check()
    }

    /// TLS settings of its checks.
    pub fn tls_checks(&self) -> impl Iterator<Item = &TlsCheck> {
        let further = self.health.also.iter().map(|check| &check.kind);
        [&self.health.kind].into_iter().chain(further).filter_map(tls)
    }

    /// Address of a backend's agent; `None` if it is not asked.
    pub fn agent_of(&self, backend: &Backend) -> Option<SocketAddr> {
        let settings = self.agent.as_ref().filter(|settings| settings.enabled)?;
        let port = backend.agent_port.or(settings.port).filter(|port| *port != 0)?;
        Some(SocketAddr::new(backend.address.ip(), port))
    }

    /// The group of a client, and the prefix that decides; `None`: the client goes to backends of no such group.
    pub fn group_of(&self, client: IpAddr) -> Option<(&GroupName, Prefix)> {
        let all = self
            .clients
            .iter()
            .flat_map(|clients| clients.from.iter().map(|prefix| (&clients.group, *prefix)));
        all.filter(|(_, prefix)| prefix.contains(client))
            .max_by_key(|(_, prefix)| prefix.length())
    }

    /// A service without backends, with every setting at its default.
    pub fn new(name: ServiceName, key: ServiceKey) -> Self {
        Self {
            name,
            key,
            ports: Vec::new(),
            mode: Mode::Nat,
            algorithm: Algorithm::Maglev,
            affinity: Affinity::None,
            tracking: Tracking::JustEnough,
            ring_size: RingSize::Auto,
            on_empty: OnEmpty::Drop,
            on_down: OnDown::Move,
            on_down_after: ON_DOWN_AFTER,
            max_removed_percent: ALL_PERCENT,
            backup_below: DEFAULT_BACKUP_BELOW,
            slow_start: Duration::ZERO,
            idle: IdleSettings::default(),
            guard: Guard::default(),
            health: CheckSettings::default(),
            agent: None,
            clients: Vec::new(),
            quic: Vec::new(),
            backends: Vec::new(),
            hosts: Vec::new(),
        }
    }
}
