//! The stages of the XDP program: programs of their own, which the entry program and each other enter by tail call, through a map
//! of programs.

/// The program that interfaces run. It has no slot: no stage enters it.
pub const ENTRY: &str = "lb";

/// Slots of the map of programs.
pub const STAGE_SLOTS: u32 = 32;

/// Defines the stages: two programs each, one for each family.
macro_rules! stages {
    ($($(#[doc = $meaning:literal])+ $stage:ident = $number:literal, $v4:literal, $v6:literal;)+) => {
        /// What comes after the entry program.
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
        }

        $(const _: () = assert!(Stage::$stage.slot(true) < STAGE_SLOTS);)+
    };
}

stages! {
    /// Takes VLAN tags off a frame, and classifies it. Its families are those of the frame: one program does for both.
    Vlan = 0, "vlan", "vlan";
    /// Reads the connection id of a QUIC packet.
    Quic = 1, "quic_v4", "quic_v6";
    /// Packets that backends get as they are, or with another destination.
    SlowPath = 2, "slow_path_v4", "slow_path_v6";
    /// Flows of mode `nat`.
    Nat = 3, "nat_v4", "nat_v6";
    /// New flows of mode `nat`.
    NewFlow = 4, "new_flow_v4", "new_flow_v6";
    /// Segments of mode `nat` that belong to no flow.
    NoFlow = 5, "no_flow_v4", "no_flow_v6";
    /// Packets to backends of mode `dnat`.
    Dnat = 6, "dnat_v4", "dnat_v6";
    /// Replies of mode `dnat`.
    DnatReply = 7, "dnat_reply_v4", "dnat_reply_v6";
    /// ICMP messages.
    Icmp = 8, "icmp_v4", "icmp_v6";
    /// Echo requests.
    Echo = 9, "echo_v4", "echo_v6";
    /// Fragments.
    Fragment = 10, "fragment_v4", "fragment_v6";
    /// Packets of services without backends that say so.
    Reject = 11, "reject_v4", "reject_v6";
    /// Packets that do not fit the way to their backend.
    TooBig = 12, "too_big_v4", "too_big_v6";
    /// Packets to services that share their address with sockets of this machine.
    HostSocket = 13, "host_socket_v4", "host_socket_v6";
}

impl Stage {
    /// The slot of the program of a family.
    pub const fn slot(self, is_v6: bool) -> u32 {
        2 * self as u32 + is_v6 as u32
    }
}
