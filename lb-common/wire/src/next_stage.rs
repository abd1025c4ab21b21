//! What comes next for a packet. A label of a metric ([`Reason`]) is never an instruction: this is.

use lb_common::reason::Reason;

/// What comes next. As large as a reason, so that no word of a `Result` that holds one is ever unset: the compiler copies such
/// words, and the verifier of older kernels refuses that.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum NextStage {
    /// Nothing: this has become of the packet.
    Done(Reason),
    /// A frame that is not plain: VLAN tags, options, extension headers, a fragment.
    Classify,
    /// A packet to a service that shares its address with sockets of this machine.
    HostSocket,
    /// A packet that may have come through a tunnel that ends at this machine.
    EndTunnel,
    /// A packet that may be for a service whose address is a prefix.
    Prefix,
    /// A packet to a service some of whose clients have a ring of their own.
    Clients,
    /// A packet to a service that reads QUIC connection ids.
    Quic,
    /// A packet to a service whose backends get it as it came, or with another destination.
    SlowPath,
    /// A packet of a flow that may be in the NAT flow table.
    Nat,
    /// A client's packet that may begin a flow of mode `nat`.
    NewFlow,
    /// A TCP segment of mode `nat` that belongs to no flow.
    NoFlow,
    /// A packet to a backend of mode `dnat`, which was selected.
    Dnat,
    /// A packet that may come from a backend of mode `dnat`.
    DnatReply,
    /// An ICMP message.
    Icmp,
    /// An echo request.
    Echo,
    /// A fragment: one that follows a first one, or a first one for no service.
    Fragment,
    /// A packet of a service that has no backend, and says so.
    Reject,
    /// A packet that does not fit the way to its backend.
    TooBig,
}

const _: () = assert!(size_of::<NextStage>() == size_of::<Reason>());

impl From<Reason> for NextStage {
    #[inline(always)]
    fn from(reason: Reason) -> Self {
        Self::Done(reason)
    }
}

impl NextStage {
    /// The reason of a packet that goes no further, where no other stage can be entered.
    #[inline(always)]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Done(reason) => reason,
            Self::TooBig => Reason::TooBig,
            Self::Reject => Reason::NoBackend,
            Self::Fragment => Reason::Fragment,
            Self::NoFlow => Reason::NoFlow,
            Self::Classify => Reason::Vlan,
            Self::EndTunnel
            | Self::HostSocket
            | Self::Prefix
            | Self::Clients
            | Self::Quic
            | Self::SlowPath
            | Self::Nat
            | Self::NewFlow
            | Self::Dnat
            | Self::DnatReply
            | Self::Icmp
            | Self::Echo => Reason::Internal,
        }
    }
}
