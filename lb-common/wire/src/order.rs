//! The order of decisions about a TCP or UDP packet: which stage goes on with it, and which check goes before which.
//!
//! The XDP program takes the decisions by these functions, and `lb explain` explains them by the same ones, so that neither knows
//! an order of its own. What a check does is each one's own affair: [`Checks`].

use lb_common::{
    addr::NetPort,
    backend::{ALIVE, Backend, IN_USE, IPV6},
    flow::{FIN, RST, is_closed},
    reason::Reason,
    service::{BY_CLIENTS, FORWARDS, Mode, OnEmpty, QUIC, SHARES_ADDRESS, Service, TRANSLATES},
    settings::{HAS_DNAT, HAS_PREFIX, HAS_WILDCARD, Settings},
};

use crate::{header::TcpFlags, next_stage::NextStage};

/// The stage of a packet to a service.
#[inline(always)]
pub const fn of_service(service: &Service) -> NextStage {
    if service.has(SHARES_ADDRESS) {
        NextStage::HostSocket
    } else {
        of_flow(service)
    }
}

/// The stage of a packet to a service that no socket of this machine expects.
#[inline(always)]
pub const fn of_flow(service: &Service) -> NextStage {
    if !service.has_any(BY_CLIENTS | QUIC) {
        after_quic(service)
    } else if service.has(BY_CLIENTS) {
        NextStage::Clients
    } else {
        NextStage::Quic
    }
}

/// The stage of a packet whose connection id was read, if there is any.
#[inline(always)]
pub const fn after_quic(service: &Service) -> NextStage {
    if service.has(TRANSLATES) {
        NextStage::Nat
    } else {
        NextStage::SlowPath
    }
}

/// The stage of a packet to no service of one address, to this port; `None` if no stage handles it. `may_be_reply` is
/// [`may_be_reply`].
#[inline(always)]
pub fn of_none(settings: &Settings, port: NetPort, may_be_reply: impl FnOnce() -> bool) -> Option<NextStage> {
    // Most packets that are not ours.
    if !is_reply_port(settings, port) && settings.flags & (HAS_DNAT | HAS_PREFIX) == 0 {
        return None;
    }
    if settings.flags & HAS_PREFIX != 0 {
        return Some(NextStage::Prefix);
    }
    after_prefixes(settings, port, may_be_reply)
}

/// As [`of_none`], of a packet to no prefix either.
#[inline(always)]
pub fn after_prefixes(
    settings: &Settings,
    port: NetPort,
    may_be_reply: impl FnOnce() -> bool,
) -> Option<NextStage> {
    if is_reply_port(settings, port) {
        Some(NextStage::Nat)
    } else if may_be_reply() {
        Some(NextStage::DnatReply)
    } else {
        None
    }
}

/// Whether replies of mode `nat` may come to this port. Cheap, and where most packets end that are not ours.
#[inline(always)]
const fn is_reply_port(settings: &Settings, port: NetPort) -> bool {
    port.get().wrapping_sub(settings.reply_port_first) < settings.reply_port_count
}

/// Whether a packet may come from a backend of mode `dnat`. `is_endpoint` looks its source up: the wildcard if `true`.
#[inline(always)]
pub fn may_be_reply(flags: u32, mut is_endpoint: impl FnMut(bool) -> bool) -> bool {
    flags & HAS_DNAT != 0 && (is_endpoint(false) || (flags & HAS_WILDCARD != 0 && is_endpoint(true)))
}

/// The stage of a packet to no service that is in no flow of mode `nat`; `None` if no stage handles it.
#[inline(always)]
pub const fn without_flow(has_dnat: bool) -> Option<NextStage> {
    if has_dnat {
        Some(NextStage::DnatReply)
    } else {
        None
    }
}

/// Checks of a client's packet. Each ends the packet's way, or does nothing.
pub trait Checks {
    /// What goes on with a packet that a check ends.
    type Stop;

    /// Its TCP or UDP header.
    fn header(&mut self) -> Result<(), Self::Stop>;
    /// Its client, by the ACL of the service.
    fn client(&mut self) -> Result<(), Self::Stop>;
    /// Its source: an address that packets may come from.
    fn source(&mut self) -> Result<(), Self::Stop>;
    /// Its TTL, in modes that route.
    fn ttl(&mut self) -> Result<(), Self::Stop>;
    /// Whether it may begin a flow of mode `nat`: [`may_begin`].
    fn begin(&mut self) -> Result<(), Self::Stop>;
    /// Whether it is a TCP SYN without ACK.
    fn is_syn(&self) -> bool;
    /// The rate limits of new flows.
    fn rate(&mut self) -> Result<(), Self::Stop>;
}

/// Checks of a packet in the slow path, before its backend is selected.
#[inline(always)]
pub fn check_slow_path<C: Checks>(checks: &mut C) -> Result<(), C::Stop> {
    checks.header()?;
    checks.client()?;
    checks.source()?;
    if checks.is_syn() { checks.rate() } else { Ok(()) }
}

/// Checks of a packet in no flow of mode `nat`, before its backend is selected to see whether that is of another mode.
#[inline(always)]
pub fn check_mixed<C: Checks>(checks: &mut C) -> Result<(), C::Stop> {
    checks.header()?;
    checks.client()
}

/// Checks of a packet for mode `nat`, whether its flow is known or not.
#[inline(always)]
pub fn check_nat<C: Checks>(checks: &mut C) -> Result<(), C::Stop> {
    checks.header()?;
    checks.client()?;
    checks.ttl()
}

/// Further checks of a packet that begins a flow of mode `nat`.
#[inline(always)]
pub fn check_new_flow<C: Checks>(checks: &mut C) -> Result<(), C::Stop> {
    checks.header()?;
    checks.source()?;
    checks.begin()?;
    // Whatever would begin a flow, not its first packet alone: each asks for an entry.
    checks.rate()
}

/// Whether the backend of a packet without a flow must be known before mode `nat` begins one: it may be of another mode.
#[inline(always)]
pub const fn is_mixed(service: &Service) -> bool {
    service.has(FORWARDS)
}

/// Whether a packet may begin a flow of mode `nat`. `replaces`: in the place of one, whose backend is gone.
#[inline(always)]
pub const fn may_begin(flags: TcpFlags, replaces: bool) -> Result<(), NextStage> {
    if flags.are_some() && (flags.rst() || !(flags.is_syn() || replaces)) {
        return Err(NextStage::NoFlow);
    }
    Ok(())
}

/// What a SYN does to the flow that its tuple is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SynCourse {
    /// It is repeated: nothing has ended.
    Repeats,
    /// The client says that it has ended the flow; the backend knows whether that is true.
    Reopens,
    /// Both have ended it. It begins anew if the client keeps its port of ours, and another one else.
    Replaces,
}

/// What a SYN does to a flow in these states of its two directions.
#[inline(always)]
pub const fn syn_course(client: u8, backend: u8) -> SynCourse {
    if client & (FIN | RST) == 0 {
        SynCourse::Repeats
    } else if !is_closed(client, backend) {
        SynCourse::Reopens
    } else {
        SynCourse::Replaces
    }
}

/// The stage of a packet that no backend of its service takes.
#[inline(always)]
pub const fn without_backend(service: &Service) -> NextStage {
    if service.on_empty == OnEmpty::Reject as u8 {
        NextStage::Reject
    } else {
        NextStage::Done(Reason::NoBackend)
    }
}

/// Whether packets of a service may be sent to a backend.
#[inline(always)]
pub fn is_usable(service: &Service, backend: &Backend) -> Result<(), Reason> {
    if !backend.has(IN_USE) || backend.service != service.id {
        return Err(Reason::BackendMissing);
    }
    // Between the moment a backend is declared dead and the ring that leaves it out.
    if !backend.has(ALIVE) {
        return Err(Reason::NoBackend);
    }
    Ok(())
}

/// Whether a flow of this family can be translated to the backend.
#[inline(always)]
pub const fn translates(backend: &Backend, is_v6: bool) -> bool {
    backend.mode == Mode::Nat as u8 && backend.has(IPV6) == is_v6
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts checks, and stops at one of them.
    struct Counted {
        is_syn: bool,
        left: u32,
    }

    impl Counted {
        fn check(&mut self, name: &'static str) -> Result<(), &'static str> {
            match self.left.checked_sub(1) {
                Some(left) => {
                    self.left = left;
                    Ok(())
                }
                None => Err(name),
            }
        }
    }

    impl Checks for Counted {
        type Stop = &'static str;

        fn header(&mut self) -> Result<(), Self::Stop> {
            self.check("header")
        }

        fn client(&mut self) -> Result<(), Self::Stop> {
            self.check("client")
        }

        fn source(&mut self) -> Result<(), Self::Stop> {
            self.check("source")
        }

        fn ttl(&mut self) -> Result<(), Self::Stop> {
            self.check("ttl")
        }

        fn begin(&mut self) -> Result<(), Self::Stop> {
            self.check("begin")
        }

        fn is_syn(&self) -> bool {
            self.is_syn
        }

        fn rate(&mut self) -> Result<(), Self::Stop> {
            self.check("rate")
        }
    }

    /// A client that an ACL denies must not use up the budget of new flows.
    #[test]
    fn budgets_are_taken_after_every_other_check() {
        for order in [check_slow_path::<Counted>, check_new_flow] {
            let passed = |left| order(&mut Counted { is_syn: true, left });
            assert_eq!(passed(0), Err("header"));
            assert_eq!(passed(3), Err("rate"));
            assert_eq!(passed(4), Ok(()));
        }
        let later = check_slow_path(&mut Counted {
            is_syn: false,
            left: 3,
        });
        assert_eq!(
            later,
            Ok(()),
            "only a packet that begins a flow takes from the budget"
        );
    }

    #[test]
    fn packets_for_no_service_end_in_the_first_comparison_unless_something_may_know_them() {
        let never = || -> bool { panic!("nothing is looked up") };
        let settings = Settings {
            reply_port_first: 1_024,
            reply_port_count: 100,
            ..Settings::default()
        };
        let port = NetPort::new;
        assert!(of_none(&settings, port(80), never).is_none());
        assert!(matches!(
            of_none(&settings, port(1_024), never),
            Some(NextStage::Nat)
        ));
        let with = |flags| Settings { flags, ..settings };
        assert!(matches!(
            of_none(&with(HAS_PREFIX), port(1_024), never),
            Some(NextStage::Prefix)
        ));
        assert!(matches!(
            of_none(&with(HAS_DNAT), port(80), || true),
            Some(NextStage::DnatReply)
        ));
        assert!(after_prefixes(&with(HAS_PREFIX), port(80), || false).is_none());
    }
}
