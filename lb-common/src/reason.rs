//! Why a packet was forwarded, passed or dropped. One list for the XDP program, the metrics, the command line and the
//! documentation.
//!
//! ```
//! use lb_common::reason::{Action, Reason};
//!
//! let reason = Reason::NoBackend;
//! assert_eq!((reason.name(), reason.action()), ("no_backend", Action::Drop));
//! // The number in the counter maps; it is never reused.
//! assert_eq!(Reason::from_number(reason as u32), Some(reason));
//! ```

/// Slots reserved for reasons in counter maps. Numbers stay below the last one, [`TUNNELS_ENDED`].
pub const REASON_SLOTS: u32 = 64;

/// The number beside those of reasons under which packets count that came through a tunnel which ends here. Their verdict counts
/// under its own reason.
pub const TUNNELS_ENDED: u32 = REASON_SLOTS - 1;

/// The XDP action a reason ends in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Sent out of the interface it came in on.
    Tx,
    /// Sent out of another interface.
    Redirect,
    /// Given to the kernel, unchanged except for [`Reason::ReplyByKernel`].
    Pass,
    /// Discarded.
    Drop,
    /// Discarded because the program itself failed.
    Aborted,
}

impl Action {
    /// Name in the `action` label of metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tx => "tx",
            Self::Redirect => "redirect",
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Aborted => "aborted",
        }
    }
}

/// The remedy where none is needed.
pub const NOTHING: &str = "Nothing to do.";

/// Defines the enum, its names, actions and remedies in one table. Numbers are written out and never reused.
macro_rules! reasons {
    ($($variant:ident = $number:literal, $action:ident, $name:literal, $meaning:literal, $remedy:expr;)+) => {
        /// Why a packet ended as it did. Each reason has one action, so counting reasons counts actions.
        #[repr(u32)]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Reason {
            $(#[doc = $meaning] $variant = $number,)+
        }

        impl Reason {
            /// All reasons in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The reason of a number; `None` where none has it.
            #[inline(always)]
            pub const fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// The action this reason ends in.
            #[inline(always)]
            pub const fn action(self) -> Action {
                match self { $(Self::$variant => Action::$action,)+ }
            }

            /// Whether the balancer has answered the packet itself.
            #[inline(always)]
            pub const fn is_reply(self) -> bool {
                match self.action() {
                    Action::Tx | Action::Redirect => !matches!(self, Self::SentBack | Self::Redirected),
                    Action::Pass | Action::Drop | Action::Aborted => false,
                }
            }

            /// Name in metrics, JSON and tables.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Its meaning, in one sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)+ }
            }

            /// The remedy for an operator; [`NOTHING`] where none is needed.
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)+ }
            }

            /// Whether its remedy is more than [`NOTHING`].
            pub fn has_remedy(self) -> bool {
                self.remedy() != NOTHING
            }
        }

        $(const _: () = assert!($number < TUNNELS_ENDED);)+
    };
}

reasons! {
    SentBack = 0, Tx, "forwarded_tx", "Forwarded out of the interface on which it arrived.", NOTHING;
    Redirected = 1, Redirect, "forwarded_redirect", "Forwarded out of another interface.", NOTHING;
    NotOurs = 2, Pass, "not_ours", "Neither a service nor a known flow.", "Nothing to do; the kernel handles it.";
    NotIp = 3, Pass, "not_ip", "Not IPv4 or IPv6, for example ARP.", "Nothing to do; the kernel handles it.";
    OtherProtocol = 4, Pass, "other_protocol", "Neither TCP, UDP nor an ICMP error about a known flow.", "Nothing to do; the kernel handles it.";
    Vlan = 5, Pass, "vlan", "Carries more than two VLAN tags, or no IP packet behind them.", "Nothing to do; ARP in a VLAN counts here, too.";
    Truncated = 6, Pass, "truncated", "Ends before its headers do, so it cannot be classified.", "Look for a broken sender or link.";
    Malformed = 7, Pass, "malformed", "A header contradicts itself or the frame, before a service was found.", "Look for a broken sender.";
    Fragment = 8, Pass, "fragment", "A fragment of a datagram that is for no service.", NOTHING;
    ExtensionHeaders = 9, Pass, "extension_headers", "More IPv6 extension headers than are walked.", "Look for a broken or hostile sender.";
    ReplyByKernel = 10, Pass, "reply_by_kernel", "A reply in mode dnat that the kernel handles. Translated: the next hop's link-layer address is not known yet, or the packet must be fragmented. Unchanged: the kernel reports to the backend that it is too big.", "Nothing to do. If clients miss such replies, set net.ipv4.conf.*.accept_local to 1 and rp_filter to 0 or 2 on the way to the backends.";
    ForwardingDisabled = 11, Pass, "forwarding_disabled", "From a backend of mode dnat, on an interface from which this machine does not forward: passed unchanged.", "Set net.ipv4.ip_forward and net.ipv6.conf.all.forwarding to 1.";
    OtherHost = 12, Pass, "other_host", "To the link-layer address of another machine: a switch floods, or the interface is promiscuous.", "Nothing to do. If services cannot be reached, compare the destination with `ip link`: the program accepts the addresses of the interface and of devices above it.";
    HostSocket = 13, Pass, "host_socket", "To a service on every port of an address of this machine, and expected by a socket of this machine: a connection of its own, or a server on the port.", "Nothing to do. If the service is to have a port that a server of this machine listens on, name that port in a service (`port` or `ports`).";
    NoBackend = 16, Drop, "no_backend", "The service has no backend that takes new flows.", "Check the backends' health with `lb backend list`.";
    RingMissing = 17, Drop, "ring_missing", "The service's ring is missing.", "Report it; `lb status` shows what is not programmed.";
    BackendMissing = 18, Drop, "backend_missing", "A slot names a missing backend.", "Report it; `lb status` shows what is not programmed.";
    FlowTableFull = 19, Drop, "flow_table_full", "The flow table is full.", "Look for a flood; compare `lb_flows` with `lb_map_capacity`.";
    SnatPortsExhausted = 20, Drop, "snat_ports_exhausted", "No free source port towards the backend.", "Add `snat_addresses`, widen `snat_ports`, or add backends.";
    NoSnatAddress = 21, Drop, "no_snat_address", "No source address of the backend's family.", "Give the interface an address of that family or set `snat_addresses`.";
    NoNextHop = 22, Drop, "no_next_hop", "Neither the daemon nor the kernel has a next hop.", "Check route and neighbour entry with `ip route get` and `ip neigh`.";
    TtlExpired = 23, Drop, "ttl_expired", "The TTL or hop limit would reach 0.", "Look for a routing loop, or a traceroute.";
    BadLength = 24, Drop, "bad_length", "Addressed to a service, but its lengths contradict the frame.", "Look for a broken or hostile sender.";
    TooBig = 25, Drop, "too_big", "Does not fit the MTU of the path, and its sender gets no message: their limit is reached, or the packet is an ICMP error itself.", "Make the MTUs of the paths equal.";
    ModeMissing = 26, Drop, "mode_missing", "The backend has a mode that this program does not know.", "Start the daemon and the program of one version.";
    NoHeadroom = 27, Drop, "no_headroom", "The driver left no headroom for the headers of a tunnel.", "Use mode nat, dnat or l2dsr, or `--xdp-mode generic`.";
    TooBigAnswered = 28, Tx, "too_big_answered", "Does not fit the MTU of the path to the backend: its sender got an ICMP message with the size that does.", "Nothing to do; senders lower their size. A tunnel's headers count, so a larger MTU towards the backends avoids it.";
    RejectedReset = 40, Tx, "rejected_reset", "The service has no backend that takes new flows: answered with a TCP reset.", "Check the backends' health with `lb backend list`.";
    RejectedUnreachable = 41, Tx, "rejected_unreachable", "The service has no backend that takes new flows: answered with an ICMP port unreachable.", "Check the backends' health with `lb backend list`.";
    UnreachableRate = 42, Drop, "unreachable_rate", "The service has no backend that takes new flows, and the limit of ICMP messages is reached.", "Check the backends' health with `lb backend list`.";
    EchoAnswered = 43, Tx, "echo_answered", "An echo request (ping) to the address of a service: answered.", NOTHING;
    EchoRate = 44, Drop, "echo_rate", "An echo request to the address of a service, beyond the limit of answers.", "Identify the flooding source; the limit protects the other clients.";
    FragmentAlone = 45, Drop, "fragment_alone", "A later fragment to the address of a service, before the first one of its datagram or long after.", "Look for paths that reorder packets; lower the sender's datagram size or raise the path's MTU.";
    ClientDenied = 46, Drop, "client_denied", "The service does not serve this client: a prefix denies it, or none allows it.", "Nothing to do, or change `allow` and `deny` of `[service.guard]`.";
    NewFlowRate = 47, Drop, "new_flow_rate", "More new flows than the rate limit of the service allows.", "Look for a flood, or raise `new_flows` of `[service.guard]`.";
    Internal = 48, Aborted, "internal", "A kernel helper failed unexpectedly.", "Report it with the kernel's version.";
    SourceRate = 49, Drop, "source_rate", "More new flows of one source than the rate limit of the service allows.", "Look for a flood, or raise `source_new_flows` of `[service.guard]`.";
    MartianSource = 50, Drop, "martian_source", "To a service, from an address that is no valid source: loopback, 0.0.0.0/8, multicast, broadcast, the unspecified address, or the service's own.", "Nothing to do: the sender is forged (RFC 1122 section 3.2.1.3). `lb_xdp_packets_total` names the interface.";
    NoFlow = 51, Drop, "no_flow", "A TCP reset, or a fragment, of an unknown connection of mode nat.", "Nothing to do: left-overs, scans and backscatter are normal.";
    NoFlowReset = 52, Tx, "no_flow_reset", "A TCP segment in mode nat that neither opens a connection nor belongs to a known one: answered with a TCP reset.", "Nothing to do; many of them are a flood, or clients whose connections were idle for too long.";
    StageMissing = 53, Aborted, "stage_missing", "The part of the program that this packet needs is not loaded.", "Restart the daemon, which loads it; its pin was removed, or the kernel has refused it: see the log.";
    TunnelMalformed = 54, Drop, "tunnel_malformed", "Came through a tunnel that ends at this machine (`decap_from`), without a whole packet in it, or was marked for congestion on its way, which the packet within does not support (RFC 6040 section 4.2).", "Look for a broken or congested path between the balancers.";
    TunnelSource = 55, Pass, "tunnel_source", "IP in IP to an address at which tunnels end, from an address that is not in `decap_from`: passed unchanged. Such a packet in UDP (GUE) counts as any datagram does.", "Nothing to do if the kernel ends this tunnel. If a balancer sent it, add its address or its `tunnel_sources` to `decap_from`.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_number_and_name() {
        for (i, a) in Reason::ALL.iter().enumerate() {
            assert!((*a as u32) < REASON_SLOTS);
            assert_eq!(Reason::from_number(*a as u32), Some(*a));
            for b in &Reason::ALL[i + 1..] {
                assert_ne!(*a as u32, *b as u32);
                assert_ne!(a.name(), b.name());
            }
        }
    }
}
