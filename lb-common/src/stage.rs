//! The stages of the XDP program: programs of their own, which the entry program and each other enter by tail call, through a map
//! of programs.

/// The program that interfaces run. It has no slot: no stage enters it.
pub const ENTRY: &str = "lb";

/// Slots of the map of programs.
pub const STAGE_SLOTS: u32 = 64;

/// Defines the stages: two programs each, one for each family, and the stages that they may enter.
macro_rules! stages {
    ($($(#[doc = $meaning:literal])+ $stage:ident = $number:literal, $v4:literal, $v6:literal => [$($next:ident),*];)+) => {
        /// The stages after the entry program.
        #[repr(u32)]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Stage {
            $($(#[doc = $meaning])+ $stage = $number,)+
        }

        impl Stage {
            /// All stages.
            pub const ALL: &'static [Self] = &[$(Self::$stage),+];

            /// The names of its programs in the object: IPv4, IPv6.
            pub const fn programs(self) -> [&'static str; 2] {
                match self {
                    $(Self::$stage => [$v4, $v6],)+
                }
            }

            /// The stages that it may enter: bit `n` is that of number `n`. None of them leads back to it.
            pub const fn leads_to(self) -> u32 {
                match self {
                    $(Self::$stage => 0 $(| Self::$next.bit())*,)+
                }
            }
        }

        $(const _: () = assert!(Stage::$stage.slot(true) < STAGE_SLOTS);)+
    };
}

stages! {
    /// Classifies what the entry program leaves: frames with VLAN tags, which it takes off, packets with options or extension
    /// headers, first fragments. One program serves both families.
    Classify = 0, "classify", "classify" => [Quic, SlowPath, Nat, DnatReply, Icmp, Fragment, HostSocket, Prefix, Clients];
    /// Reads the connection id of a QUIC packet.
    Quic = 1, "quic_v4", "quic_v6" => [SlowPath, Nat];
    /// Packets that backends get as they are, or with another destination.
    SlowPath = 2, "slow_path_v4", "slow_path_v6" => [Dnat, Reject, TooBig];
    /// Flows of mode `nat`.
    Nat = 3, "nat_v4", "nat_v6" => [SlowPath, NewFlow, DnatReply, Fragment, Reject, TooBig];
    /// New flows of mode `nat`.
    NewFlow = 4, "new_flow_v4", "new_flow_v6" => [NoFlow, Reject, TooBig];
    /// Segments of mode `nat` that belong to no flow.
    NoFlow = 5, "no_flow_v4", "no_flow_v6" => [];
    /// Packets to backends of mode `dnat`.
    Dnat = 6, "dnat_v4", "dnat_v6" => [TooBig];
    /// Replies of mode `dnat`.
    DnatReply = 7, "dnat_reply_v4", "dnat_reply_v6" => [Fragment];
    /// ICMP messages.
    Icmp = 8, "icmp_v4", "icmp_v6" => [SlowPath, DnatReply, Echo, Fragment, TooBig, Clients];
    /// Echo requests.
    Echo = 9, "echo_v4", "echo_v6" => [];
    /// Fragments.
    Fragment = 10, "fragment_v4", "fragment_v6" => [];
    /// Packets of services without backends that answer with a rejection.
    Reject = 11, "reject_v4", "reject_v6" => [];
    /// Packets that do not fit the way to their backend.
    TooBig = 12, "too_big_v4", "too_big_v6" => [];
    /// Packets to services that share their address with sockets of this machine.
    HostSocket = 13, "host_socket_v4", "host_socket_v6" => [Quic, SlowPath, Nat, Fragment, Clients];
    /// Packets that may be for a service whose address is a prefix.
    Prefix = 14, "prefix_v4", "prefix_v6" => [Quic, SlowPath, Nat, Dnat, DnatReply, Fragment, HostSocket, Clients];
    /// Packets that may have come through a tunnel that ends at this machine: takes the outer header off. One program serves both
    /// families.
    EndTunnel = 15, "end_tunnel", "end_tunnel" => [Classify];
    /// Packets to services with groups of backends for some clients: finds the ring of the client.
    Clients = 16, "clients_v4", "clients_v6" => [Quic, SlowPath, Nat, Dnat];
}

/// The stages that the entry program may enter, as in [`Stage::leads_to`].
pub const ENTRY_LEADS_TO: u32 =
    Stage::EndTunnel.bit() | Stage::Classify.bit() | Stage::Classify.leads_to() | Stage::Dnat.bit();

impl Stage {
    /// The slot of the program of a family.
    pub const fn slot(self, is_v6: bool) -> u32 {
        2 * self as u32 + is_v6 as u32
    }

    /// Its bit in [`Self::leads_to`].
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// Programs of stages, by their slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StageSet(u64);

const _: () = assert!(STAGE_SLOTS <= u64::BITS);
// Bits of `Stage::leads_to`.
const _: () = assert!(Stage::ALL.len() <= u32::BITS as usize);

impl StageSet {
    /// None.
    pub const NONE: Self = Self(0);

    /// All of them.
    pub fn all() -> Self {
        Stage::ALL.iter().fold(Self::NONE, |set, stage| {
            set.with(*stage, false).with(*stage, true)
        })
    }

    /// The stages that any packet may enter, independent of services.
    pub fn of_any_packet() -> Self {
        // Its port may be one of source NAT, and what is for no service passes behind these stages.
        [
            Stage::Classify,
            Stage::Nat,
            Stage::Icmp,
            Stage::Echo,
            Stage::Fragment,
        ]
        .into_iter()
        .fold(Self::NONE, |set, stage| set.with(stage, false).with(stage, true))
    }

    /// The program of one slot.
    pub const fn of_slot(slot: u32) -> Self {
        Self(1 << slot)
    }

    /// These, and a stage's program for a family.
    #[must_use]
    pub const fn with(self, stage: Stage, is_v6: bool) -> Self {
        Self(self.0 | 1 << stage.slot(is_v6))
    }

    /// These and others.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These without others.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The set as a number.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The set of a number.
    pub const fn of_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the program of a slot is one of them.
    pub const fn has(self, slot: u32) -> bool {
        self.0 & (1 << slot) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_stage_leads_back_to_itself() {
        for stage in Stage::ALL {
            let mut reached = stage.leads_to();
            // Each round goes one stage further.
            for _ in Stage::ALL {
                let next = Stage::ALL.iter().filter(|next| reached & next.bit() != 0);
                reached = next.fold(reached, |reached, next| reached | next.leads_to());
            }
            assert_eq!(reached & stage.bit(), 0, "{stage:?}");
        }
    }

    #[test]
    fn a_set_holds_what_was_put_in() {
        let both = StageSet::NONE.with(Stage::Nat, false).with(Stage::Dnat, true);
        let slots = |set: StageSet| (0..STAGE_SLOTS).filter(|slot| set.has(*slot)).collect::<Vec<_>>();
        assert_eq!(slots(both), [6, 13]);
        assert_eq!(slots(both.without(StageSet::NONE.with(Stage::Nat, false))), [13]);
        assert_eq!(slots(StageSet::all()).len(), 2 * Stage::ALL.len());
        assert_eq!(StageSet::all().and(both), StageSet::all());
        assert!(StageSet::NONE.is_empty() && !both.is_empty());
    }
}
