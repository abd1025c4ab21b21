//! The checks of a client's packet, in the order that [`crate::order`] has.

use lb_common::{flow::Tuple, reason::Reason, service::Service};

use crate::{
    family::Family,
    forward::rewrite,
    guard,
    header::{Ip, Protocol, TcpFlags},
    next_stage::NextStage,
    order::{self, Checks},
    packet::Packet,
    transport,
};

/// A packet to check. `ERRORS`: it may be an ICMP error about a packet of the backend's, which is quoted under the tuple.
pub(crate) struct Checked<'a, A, const ERRORS: bool> {
    packet: &'a Packet,
    ip: &'a Ip,
    service: &'a Service,
    tuple: &'a Tuple<A>,
    /// Whether it takes the place of a flow that is known.
    replaces: bool,
    /// Its TCP flags, from [`Checks::header`] on.
    pub(crate) flags: TcpFlags,
}

impl<'a, A: Family, const ERRORS: bool> Checked<'a, A, ERRORS> {
    #[inline(always)]
    pub(crate) fn new(
        packet: &'a Packet,
        ip: &'a Ip,
        service: &'a Service,
        tuple: &'a Tuple<A>,
        replaces: bool,
    ) -> Self {
        Self {
            packet,
            ip,
            service,
            tuple,
            replaces,
            flags: TcpFlags::NONE,
        }
    }
}

impl<A: Family, const ERRORS: bool> Checks for Checked<'_, A, ERRORS> {
    type Stop = NextStage;

    #[inline(always)]
    fn header(&mut self) -> Result<(), NextStage> {
        if !ERRORS || self.ip.protocol != Protocol::Icmp {
            self.flags = transport::check::<A>(self.packet, self.ip)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn client(&mut self) -> Result<(), NextStage> {
        Ok(guard::admit_client(self.service, self.tuple.src)?)
    }

    #[inline(always)]
    fn source(&mut self) -> Result<(), NextStage> {
        if transport::is_martian(self.tuple) {
            return Err(Reason::MartianSource.into());
        }
        Ok(())
    }

    #[inline(always)]
    fn ttl(&mut self) -> Result<(), NextStage> {
        Ok(rewrite::may_route(self.ip)?)
    }

    #[inline(always)]
    fn begin(&mut self) -> Result<(), NextStage> {
        order::may_begin(self.flags, self.replaces)
    }

    #[inline(always)]
    fn is_syn(&self) -> bool {
        self.flags.is_syn()
    }

    #[inline(always)]
    fn rate(&mut self) -> Result<(), NextStage> {
        Ok(guard::admit_flow(self.service, self.tuple.src)?)
    }
}
