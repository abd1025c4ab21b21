//! Names of the maps: in the object, in bpffs below the pin path, and in the `map` label of metrics.
//! The XDP program's statics carry exactly these names; a test of the built object compares them.

/// [`crate::settings::Settings`], one entry. Written by the daemon.
pub const SETTINGS: &str = "SETTINGS";
/// [`crate::service::ServiceKeyV4`] to [`crate::service::Service`]. Written by the daemon.
pub const SERVICES_V4: &str = "SERVICES_V4";
/// [`crate::service::ServiceKeyV6`] to [`crate::service::Service`]. Written by the daemon.
pub const SERVICES_V6: &str = "SERVICES_V6";
/// The index entry at the [`crate::service_place::Place`] of each service key. Written by the daemon.
pub const SERVICE_PLACES: &str = "SERVICE_PLACES";
/// Number of a record to [`crate::service_place::ServiceRecord`]. Written by the daemon.
pub const SERVICE_RECORDS: &str = "SERVICE_RECORDS";
/// [`crate::service_prefix::ServicePrefixKey`] to [`crate::service::Service`], the longest prefix counts. Written by the daemon.
pub const PREFIX_SERVICES: &str = "PREFIX_SERVICES";
/// [`crate::decap::EndKey`] to 1. Written by the daemon.
pub const TUNNEL_ENDS: &str = "TUNNEL_ENDS";
/// Bits of the [`crate::service::FilterBit`] of all keys of [`REPLIES_V4`] and [`REPLIES_V6`]. Written by the daemon.
pub const REPLY_FILTER: &str = "REPLY_FILTER";
/// [`crate::addr::NetAddr`] of each service to the [`crate::service::ServiceId`] of one of its services. Written by the
/// daemon.
pub const ADDRESSES: &str = "ADDRESSES";
/// Ring id to a ring: an array of [`crate::ring_slot::RingSlot`]. Written by the daemon.
pub const RINGS: &str = "RINGS";
/// Backend id to [`crate::backend::Backend`]. Written by the daemon.
pub const BACKENDS: &str = "BACKENDS";
/// Endpoint of a backend of mode `dnat`, in the layout of [`crate::service::ServiceKeyV4`], to [`crate::reply::ReplyAsV4`].
/// Written by the daemon.
pub const REPLIES_V4: &str = "REPLIES_V4";
/// As [`REPLIES_V4`], of IPv6.
pub const REPLIES_V6: &str = "REPLIES_V6";
/// Source NAT addresses, [`crate::addr::NetAddr`]: IPv4 from 0, IPv6 from `MAX_SNAT_ADDRESSES`. Written by the daemon.
pub const SNAT_ADDRESSES: &str = "SNAT_ADDRESSES";
/// [`crate::flow::TupleV4`] to [`crate::flow::NatFlowV4`]. Written by the XDP program, swept by the daemon.
pub const FLOWS_V4: &str = "FLOWS_V4";
/// [`crate::flow::TupleV6`] to [`crate::flow::NatFlowV6`]. Written by the XDP program, swept by the daemon.
pub const FLOWS_V6: &str = "FLOWS_V6";
/// Backend id to the number of searches for a source port so far: where the next one begins. Written by the XDP program.
pub const PORT_CURSORS: &str = "PORT_CURSORS";
/// Service id to [`crate::share::FlowUse`]. Written by the XDP program.
pub const FLOW_USES: &str = "FLOW_USES";
/// Service id to the limit of [`crate::share::FlowUse::opened`]; 0: no limit. Written by the daemon.
pub const FLOW_SHARES: &str = "FLOW_SHARES";
/// [`crate::flow::TupleV4`] to [`crate::track::FlowRecord`]: [`crate::track::Table::Tracked`]. Written by the XDP
/// program, swept by the daemon; so are the five below.
pub const TRACKED_V4: &str = "TRACKED_V4";
/// As [`TRACKED_V4`], of IPv6.
pub const TRACKED_V6: &str = "TRACKED_V6";
/// As [`TRACKED_V4`]: [`crate::track::Table::Opening`].
pub const OPENING_V4: &str = "OPENING_V4";
/// As [`OPENING_V4`], of IPv6.
pub const OPENING_V6: &str = "OPENING_V6";
/// As [`TRACKED_V4`]: [`crate::track::Table::Seen`].
pub const SEEN_V4: &str = "SEEN_V4";
/// As [`SEEN_V4`], of IPv6.
pub const SEEN_V6: &str = "SEEN_V6";
/// [`crate::fragment::DatagramV4`] to [`crate::fragment::WentV4`]; forgets the oldest. Written by the XDP program.
pub const FRAGMENTS_V4: &str = "FRAGMENTS_V4";
/// As [`FRAGMENTS_V4`], of IPv6.
pub const FRAGMENTS_V6: &str = "FRAGMENTS_V6";
/// Interface slot and reason to [`crate::counters::PacketCount`], per CPU.
pub const VERDICTS: &str = "VERDICTS";
/// [`crate::counters::Traffic`] by [`crate::counters::service_slot`]: a row for each possible CPU.
pub const SERVICE_TRAFFIC: &str = "SERVICE_TRAFFIC";
/// [`crate::counters::Traffic`] by [`crate::counters::backend_slot`]: a row for each possible CPU.
pub const BACKEND_TRAFFIC: &str = "BACKEND_TRAFFIC";
/// As [`BACKEND_TRAFFIC`], of [`crate::counters::Signals`].
pub const BACKEND_SIGNALS: &str = "BACKEND_SIGNALS";
/// As [`SERVICE_TRAFFIC`], of [`crate::counters::ReasonCounts`].
pub const SERVICE_DROPS: &str = "SERVICE_DROPS";
/// Service id to [`crate::budget::Buckets`]. Written by the XDP program.
pub const BUCKETS: &str = "BUCKETS";
/// [`crate::quic::ConfigKey`] to [`crate::quic::Config`]. Written by the daemon.
pub const QUIC_CONFIGS: &str = "QUIC_CONFIGS";
/// [`crate::quic::ServerKey`] to [`crate::quic::Server`]. Written by the daemon.
pub const QUIC_SERVERS: &str = "QUIC_SERVERS";
/// Copies of entries of [`QUIC_CONFIGS`], by [`crate::quic_place::PlacedConfig::place`]. Written by the daemon.
pub const QUIC_CONFIG_PLACES: &str = "QUIC_CONFIG_PLACES";
/// Copies of entries of [`QUIC_SERVERS`], by [`crate::quic_place::PlacedServer::place`]. Written by the daemon.
pub const QUIC_SERVER_PLACES: &str = "QUIC_SERVER_PLACES";

/// Interface slot to [`crate::own_mac::Mac`]: the interface's own address. Written by the daemon.
pub const INTERFACE_MACS: &str = "INTERFACE_MACS";
/// [`crate::own_mac::OwnMac`] to 1: every address of this machine, by interface. Written by the daemon.
pub const OWN_MACS: &str = "OWN_MACS";

/// [`crate::guard::PrefixKey`] to [`crate::guard::ALLOW`] or [`crate::guard::DENY`], the longest counts. Written by the daemon.
pub const GUARD_PREFIXES: &str = "GUARD_PREFIXES";

/// [`crate::guard::PrefixKey`] to the [`crate::clients::ClientRing`] of its clients, the longest counts. Written by the daemon.
pub const CLIENT_RINGS: &str = "CLIENT_RINGS";

/// Service id to [`crate::guard::FlowGuard`]. Written by the daemon.
pub const FLOW_GUARDS: &str = "FLOW_GUARDS";
/// [`crate::guard::SourceKey`] to the bucket of a source. Written by the XDP program, which forgets the oldest.
pub const GUARD_SOURCES: &str = "GUARD_SOURCES";

/// Backend id to [`crate::check::PathCheck`]. Written by the daemon that makes the checks; not pinned.
pub const CHECKS: &str = "SCRATCH_CHECKS";

/// [`crate::monitor::Filter`], one entry. Written by the daemon; as the three below, of the monitored program alone, and not pinned.
pub const MONITOR_FILTER: &str = "SCRATCH_FILTER";
/// [`crate::monitor::Seen`], per CPU.
pub const MONITOR_SEEN: &str = "SCRATCH_SEEN";
/// [`crate::monitor::Recorded`], one entry. Written by the monitored program.
pub const MONITOR_RECORDED: &str = "SCRATCH_COUNTED";
/// Ring buffer of [`crate::monitor::Record`]. Written by the monitored program.
pub const MONITOR_RECORDS: &str = "SCRATCH_RECORDS";

/// The programs of [`crate::stage::Stage`], by slot. Filled by the daemon; it belongs to the entry program, and has a pin beside
/// that one's.
pub const STAGES: &str = "STAGES";

/// Maps that hold flows.
pub const OF_FLOWS: [&str; 8] = [
    FLOWS_V4, FLOWS_V6, TRACKED_V4, TRACKED_V6, OPENING_V4, OPENING_V6, SEEN_V4, SEEN_V6,
];

/// Maps that packets use only once flows are recorded or counted: the first program of a cold start has placeholders for them.
pub const LATE: [&str; 7] = [
    TRACKED_V4,
    TRACKED_V6,
    OPENING_V4,
    OPENING_V6,
    SEEN_V4,
    SEEN_V6,
    GUARD_SOURCES,
];

/// Every map that is pinned and survives the daemon.
pub const PINNED: [&str; 43] = [
    SETTINGS,
    SERVICES_V4,
    SERVICES_V6,
    SERVICE_PLACES,
    SERVICE_RECORDS,
    PREFIX_SERVICES,
    TUNNEL_ENDS,
    REPLY_FILTER,
    ADDRESSES,
    RINGS,
    BACKENDS,
    REPLIES_V4,
    REPLIES_V6,
    SNAT_ADDRESSES,
    FLOWS_V4,
    FLOWS_V6,
    PORT_CURSORS,
    FLOW_USES,
    FLOW_SHARES,
    TRACKED_V4,
    TRACKED_V6,
    OPENING_V4,
    OPENING_V6,
    SEEN_V4,
    SEEN_V6,
    FRAGMENTS_V4,
    FRAGMENTS_V6,
    VERDICTS,
    SERVICE_TRAFFIC,
    BACKEND_TRAFFIC,
    BACKEND_SIGNALS,
    SERVICE_DROPS,
    BUCKETS,
    GUARD_PREFIXES,
    CLIENT_RINGS,
    QUIC_CONFIGS,
    QUIC_SERVERS,
    QUIC_CONFIG_PLACES,
    QUIC_SERVER_PLACES,
    FLOW_GUARDS,
    GUARD_SOURCES,
    INTERFACE_MACS,
    OWN_MACS,
];
