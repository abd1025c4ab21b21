//! Every size, bound and timeout of the data plane, by name and with its unit. `lb status` and the documentation show
//! them from here.

/// Version of all map layouts together; part of the pin path. Raised by any change of a key, value or meaning, so
/// that a daemon never reads maps of another layout as its own.
pub const LAYOUT_VERSION: u32 = 5;

/// Services at most.
pub const MAX_SERVICES: u32 = 4_096;

/// Entries of the map of services whose address is a prefix: one for each port, and one for each prefix and protocol.
pub const MAX_PREFIX_SERVICES: u32 = 2 * MAX_SERVICES;

/// Entries of the map of tunnel ends: prefixes of balancers, and addresses of this machine, [`crate::decap::MAX_ENTRIES`] of each; new
/// ones are there before old ones are removed.
pub const MAX_TUNNEL_ENDS: u32 = 4 * crate::decap::MAX_ENTRIES;

/// Backend ids: 1 to 65,535 name a backend, 0 means "none".
pub const MAX_BACKENDS: u32 = 65_536;

/// Ring ids: twice the services, since a ring that changes its size is built beside the old one.
pub const MAX_RINGS: u32 = 2 * MAX_SERVICES;

/// Slots of the smallest ring.
pub const RING_SIZE_MIN: u32 = 251;

/// Slots of the largest ring.
pub const RING_SIZE_MAX: u32 = 131_071;

/// Entries of each family's flow table. A NAT flow takes two, one for each direction.
pub const MAX_FLOWS: u32 = 1 << 20;

/// Entries of each family's table of proven flows, for services that record flows otherwise than mode `nat`.
pub const MAX_TRACKED: u32 = 1 << 20;

/// Entries of each family's table of flows that have only opened. The kernel allocates all of them at once.
pub const MAX_OPENING: u32 = 1 << 15;

/// Entries of each family's table of older flows that sent one packet since their slot changed. The kernel allocates
/// all of them at once.
pub const MAX_SEEN: u32 = 1 << 16;

/// Datagrams of each family whose later fragments are expected. The kernel allocates all of them at once.
pub const MAX_FRAGMENTED: u32 = 1 << 13;

/// Seconds after the first fragment of a datagram that the others follow it: Linux waits as long for them.
pub const FRAGMENT_SECS: u32 = 30;

/// Prefixes of clients in the guards of all services together.
pub const MAX_GUARD_PREFIXES: u32 = 1 << 16;

/// Entries of the map of prefixes: during a change it has the old and the new ones together.
pub const MAX_GUARD_PREFIX_ENTRIES: u32 = 2 * MAX_GUARD_PREFIXES + MAX_SERVICES;

/// Prefixes of clients that go to groups of backends, of all services together.
pub const MAX_CLIENT_PREFIXES: u32 = 1 << 16;

/// Entries of the map of such prefixes: during a change it has the old and the new ones together.
pub const MAX_CLIENT_PREFIX_ENTRIES: u32 = 2 * MAX_CLIENT_PREFIXES;

/// Groups of backends of a service that clients go to: each has a ring at least.
pub const MAX_GROUPS: usize = 32;

/// Sources whose new flows are counted, of all services together; beyond that, the longest idle one is forgotten and
/// starts with a full budget. The kernel allocates all of them at once.
pub const MAX_GUARD_SOURCES: u32 = 1 << 16;

/// ICMP messages a second, and at once, to clients of one service: that it has no backend, or which size fits (RFC 4443
/// section 2.4 (f) requires a limit; this is the kernel's for all of its messages).
pub const MESSAGE_RATE: u32 = 1_000;
/// See [`MESSAGE_RATE`].
pub const MESSAGE_BURST: u32 = 50;

/// Echo requests to one address of services that are answered a second, and at once.
pub const ECHO_RATE: u32 = 1_000;
/// See [`ECHO_RATE`].
pub const ECHO_BURST: u32 = 50;

/// Bytes of an ICMP message about a packet, from its own IPv4 header on (RFC 1812 section 4.3.2.3).
pub const ICMP_ERROR_V4: usize = 576;
/// Bytes of an ICMPv6 message about a packet, from its own IPv6 header on: the smallest MTU (RFC 4443 section 2.4 (c)).
pub const ICMP_ERROR_V6: usize = 1_280;

/// TTL and hop limit of packets that the balancer itself makes.
pub const OWN_HOP_LIMIT: u8 = 64;

/// Configurations of QUIC connection ids, of all services.
pub const MAX_QUIC_CONFIGS: u32 = 4_096;

/// Server ids of QUIC connection ids, of all services and configurations.
pub const MAX_QUIC_SERVERS: u32 = 65_536;

/// Interfaces that one daemon serves at once.
pub const MAX_INTERFACES: u32 = 16;

/// Link-layer addresses of this machine, of all interfaces that are served and the devices above them. An interface with
/// more takes every unicast frame.
pub const MAX_OWN_MACS: u32 = 4_096;

/// Source NAT addresses per family.
pub const MAX_SNAT_ADDRESSES: u32 = 16;

/// Ports tried for a new flow in turn. The next search continues after them.
pub const SNAT_PORT_TURNS: u32 = 32;

/// Ports tried anywhere in the range, since flows that were opened together hold ports side by side:
/// [`GIVING_WAY_PATIENCE`]` / 2` after as many in turn, the others when none of [`SNAT_PORT_TURNS`] is free. After them the flow
/// is dropped with `snat_ports_exhausted`.
pub const SNAT_PORT_DRAWS: u32 = 32;

/// The number of the first port that is tried when none in turn is free.
pub const SNAT_LAST_DRAWS: u32 = SNAT_PORT_TURNS + GIVING_WAY_PATIENCE / 2;

/// Ports looked at, one after the other in turn, for a half-open flow that gives way when its service is over its share of the
/// flow table, or the table is full. In turn, the oldest comes first.
pub const GIVING_WAY_TURNS: u32 = 16;

/// The first ports that are tried, one half in turn and the other anywhere in the range. A half-open flow gives way there only if
/// it is idle for [`GIVING_WAY_IDLE_SECS`]: if ports are not scarce, one of them is free, even where the turn has come to ports
/// that were taken just now, as after a change of the range.
pub const GIVING_WAY_PATIENCE: u32 = 8;

/// Seconds for which a half-open flow is idle that gives way at once: its client sends a SYN again sooner than that.
pub const GIVING_WAY_IDLE_SECS: u32 = 2;

/// IPv6 extension headers walked before a packet counts as not understood.
pub const MAX_EXTENSION_HEADERS: u32 = 6;

/// Seconds that a TCP flow is kept after its last packet (RFC 5382 REQ-5 requires at least 2 h 4 min).
pub const TCP_ESTABLISHED_IDLE_SECS: u32 = 7_440;

/// Seconds that a half-open TCP flow is kept.
pub const TCP_OPENING_IDLE_SECS: u32 = 60;

/// Seconds that a closed TCP flow is kept (by FIN or RST of both sides, or reset before it was established): long
/// enough for the last segments, short enough to free ports.
pub const TCP_CLOSED_IDLE_SECS: u32 = 10;

/// Seconds that an established TCP flow is kept after a RST from one side alone without later packets: the RST may be
/// forged (RFC 7857 section 2.2 requires 4 min).
pub const TCP_RESET_IDLE_SECS: u32 = 240;

/// Milliseconds after a SYN from which on a repetition means that there was no answer: by RFC 6298 section 2 a client
/// waits for 1 s, less some variation of the network's delay. An earlier repetition is no signal.
pub const SYN_REPEAT_MILLIS: u32 = 900;

/// Seconds within which repeated SYNs of two clients count against a backend: one client alone proves nothing.
pub const SYN_REPEAT_SECS: u32 = 10;

/// Seconds that a UDP flow is kept after its last packet (RFC 4787 REQ-5: at least 2 min, recommended 5).
pub const UDP_IDLE_SECS: u32 = 300;

/// Seconds that an unanswered UDP flow is kept.
pub const UDP_OPENING_IDLE_SECS: u32 = 60;

const _: () = assert!(MAX_BACKENDS == 1 << 16, "backend ids are u16");
const _: () = assert!(
    MAX_SERVICES <= 1 << 16 && MAX_RINGS <= 1 << 16,
    "service and ring ids are u16"
);
const _: () = assert!(TCP_CLOSED_IDLE_SECS < TCP_OPENING_IDLE_SECS);
