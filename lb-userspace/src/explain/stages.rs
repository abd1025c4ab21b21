//! What each stage of `lb-ebpf` does to the packet. Which stage and which check comes next is [`lb_wire::order`], as in the program.

use std::net::SocketAddr;

use lb_common::{
    backend::{ALIVE, Backend, IN_USE},
    flow::PROVEN,
    hash::HashBy,
    reason::Reason,
    service::{GUARDS_CLIENTS, IN_TURN, Mode},
    settings::{HAS_DNAT, HAS_WILDCARD},
};
use lb_wire::{
    header::TcpFlags,
    next_stage::NextStage,
    order::{self, Checks, SynCourse},
};

use super::{
    walk::{Step, Stop, Walk},
    words,
};
use crate::{
    datapath::{AnyTuple, Translated},
    explain::question::Question,
    state::service::{Protocol, ServiceKey},
};

/// Flags of TCP segments (RFC 9293 section 3.1).
const SYN: u32 = 1 << 1;
const ACK: u32 = 1 << 4;

impl Walk<'_> {
    /// Finds the packet's service.
    pub(super) fn entry(&mut self) -> Step {
        self.find_service()?;
        if self.service.is_some() {
            return Ok(order::of_service(&self.service));
        }
        let may_be_reply = self.may_be_reply()?;
        let port = self.destination_port();
        let next = order::of_none(&self.settings, port, || may_be_reply);
        if next != Some(NextStage::Prefix) {
            self.say_no_service();
        }
        Ok(self.of_none(next))
    }

    /// Finds a service whose address is a prefix.
    pub(super) fn prefix(&mut self) -> Step {
        self.find_service_of_prefix()?;
        if self.service.is_some() {
            return Ok(order::of_service(&self.service));
        }
        self.say_no_service();
        let may_be_reply = self.may_be_reply()?;
        let next = order::after_prefixes(&self.settings, self.destination_port(), || may_be_reply);
        Ok(self.of_none(next))
    }

    /// The stage of a packet to no service.
    fn of_none(&mut self, next: Option<NextStage>) -> NextStage {
        if !matches!(next, Some(NextStage::Nat | NextStage::Prefix)) {
            self.say("the port is outside the source ports of mode nat");
        }
        next.unwrap_or_else(|| self.unmatched())
    }

    fn unmatched(&mut self) -> NextStage {
        self.say("it matches no service and no flow: the kernel gets it unchanged");
        Reason::NotOurs.into()
    }

    /// Sockets of this machine, which cannot be foreseen.
    pub(super) fn host_socket(&mut self) -> NextStage {
        self.say(
            "the address is this machine's: packets that its own sockets expect pass to them; other packets go on:",
        );
        order::of_flow(&self.service)
    }

    /// Finds the ring of the packet's client.
    pub(super) fn clients(&mut self) -> Step {
        self.find_ring_of_client()?;
        Ok(order::of_flow(&self.service))
    }

    /// Reads the connection id.
    pub(super) fn quic(&mut self) -> Step {
        self.read_connection_id()?;
        Ok(order::after_quic(&self.service))
    }

    /// Packets of flows of mode `nat`, and packets that may begin one.
    pub(super) fn nat(&mut self) -> Step {
        let mut known = self.tables.translated(&self.tuple)?;
        if let Some(known) = known.filter(|known| known.is_reply) {
            return self.reply(&known);
        }
        if !self.service.is_some() {
            self.say("the port is a source port of mode nat, but no flow is recorded for this packet");
            let next = order::without_flow(self.settings.flags & HAS_DNAT != 0);
            return Ok(next.unwrap_or_else(|| self.unmatched()));
        }
        self.replaces = known.map(|known| known.state);
        let is_overridden = |known: &Translated| self.named.is_some_and(|(id, _)| id != known.backend);
        if known.as_ref().is_some_and(is_overridden) {
            self.say("the recorded flow of this tuple belongs to another backend and is left alone");
            known = None;
        }
        if known.is_none() && order::is_mixed(&self.service) {
            order::check_mixed(self)?;
            match self.select(self.question.opens)? {
                Ok((_, backend)) if !order::translates(&backend, self.is_v6()) => {
                    return Ok(NextStage::SlowPath);
                }
                Ok(_) => {}
                Err(_) => {
                    let (_, backend) = self.explain_select(self.question.opens)??;
                    self.name_backend(&backend);
                }
            }
        }
        order::check_nat(self)?;
        let Some(known) = known else {
            self.say("no flow of mode nat is recorded for it");
            return Ok(NextStage::NewFlow);
        };
        let record = self.tables.backend(known.backend)?;
        let lives = |record: &Backend| record.has(IN_USE | ALIVE) && record.generation == known.generation;
        let Some(owner) = record.filter(lives) else {
            self.say("its flow is recorded for a backend that is dead or gone: it counts as a new flow");
            return Ok(NextStage::NewFlow);
        };
        if self.question.opens && self.is_replaced(&known)? {
            return Ok(NextStage::NewFlow);
        }
        self.explanation.tracked = true;
        self.name_backend(&owner);
        let name = self.backend_name().unwrap_or_default();
        self.say(format!("its flow is recorded and belongs to {name}"));
        self.say_backup();
        self.say(format!(
            "mode nat: rewritten to {} to {}",
            known.source, known.destination
        ));
        self.say_idle();
        self.rewritten = Some((known.source, known.destination));
        Ok(self.way(&owner))
    }

    /// Whether a SYN begins another flow in the place of a recorded one.
    fn is_replaced(&mut self, known: &Translated) -> Result<bool, Stop> {
        let replies = Question {
            source: known.destination,
            destination: known.source,
            ..self.question.clone()
        };
        let peer = replies.tuple().map(|tuple| self.tables.translated(&tuple));
        let Some(peer) = peer.transpose()?.flatten() else {
            return Ok(false);
        };
        match order::syn_course(known.state, peer.state) {
            SynCourse::Repeats => Ok(false),
            SynCourse::Reopens => {
                self.say("the client has closed the recorded flow and opens a new one");
                Ok(false)
            }
            SynCourse::Replaces => {
                self.say("the client has closed the recorded flow and opens a new one");
                let keeps =
                    !self.service.has(IN_TURN) && self.select(true)?.is_ok_and(|(id, _)| id == known.backend);
                Ok(!keeps)
            }
        }
    }

    /// A reply of a backend of mode `nat`.
    fn reply(&mut self, known: &Translated) -> Step {
        self.explanation.service = self.tables.service_key(known.service);
        self.explanation.tracked = true;
        let record = self.tables.backend(known.backend)?;
        let current = record.filter(|record| record.generation == known.generation);
        if let Some(record) = current {
            self.name_backend(&record);
        }
        let from = self
            .backend_name()
            .unwrap_or_else(|| "a backend that is gone".to_owned());
        self.say(format!(
            "a reply from {from}: rewritten to {} to {}",
            known.source, known.destination
        ));
        self.ttl()?;
        self.say("it leaves by the interface on which the client's last packet arrived");
        Ok(self.leaves(known.ifindex).into())
    }

    /// A packet that begins a flow of mode `nat`.
    pub(super) fn new_flow(&mut self) -> Step {
        order::check_new_flow(self)?;
        if self.service.has(IN_TURN) && self.service.ring_size != 0 && self.named.is_none() {
            self.say("round-robin: its flow gets the next slot, which cannot be predicted");
            self.explanation.mode = Mode::from_u8(self.service.mode);
            return Ok(Reason::Redirected.into());
        }
        let is_proven = self.replaces.is_some_and(|state| state & PROVEN != 0);
        let is_syn = self.question.protocol == Protocol::Tcp && (self.question.opens || !is_proven);
        let (_, backend) = self.explain_select(is_syn)??;
        if !order::translates(&backend, self.is_v6()) {
            self.say("a backend of this mode and family cannot take it");
            return Ok(Reason::ModeMissing.into());
        }
        let settings = self.settings;
        let listed = if self.is_v6() {
            settings.snat_v6_count
        } else {
            settings.snat_v4_count
        };
        let source = backend.source.to_ip();
        if listed == 0 && source.is_unspecified() {
            self.say("there is no source address of the backend's family");
            return Ok(Reason::NoSnatAddress.into());
        }
        if settings.snat_port_count == 0 {
            self.say("there are no source ports");
            return Ok(Reason::SnatPortsExhausted.into());
        }
        let from = if listed == 0 {
            source.to_string()
        } else {
            format!("one of {listed} source addresses")
        };
        let last = settings.snat_port_first + (settings.snat_port_count - 1);
        self.say(format!(
            "mode nat: its source becomes {from} and a free port of {}-{last}, and the flow is recorded",
            settings.snat_port_first
        ));
        self.say_idle();
        // A free port, and one of several addresses, are allocated only when the packet arrives.
        let ends = (SocketAddr::new(source, 0), self.destination_at(&backend));
        self.rewritten = (listed == 0).then_some(ends);
        Ok(self.way(&backend))
    }

    /// A TCP segment of mode `nat` that belongs to no flow.
    pub(super) fn no_flow(&mut self) -> NextStage {
        if !self.is_from_host() {
            self.say("only a SYN opens a flow, and its source is not an address to answer to: dropped");
            return Reason::NoFlow.into();
        }
        self.say("only a SYN opens a flow: answered with a reset");
        Reason::NoFlowReset.into()
    }

    /// A packet to a service whose backends get it as it came, or with another destination.
    pub(super) fn slow_path(&mut self) -> Step {
        order::check_slow_path(self)?;
        let (_, backend) = self.explain_follow()??;
        match Mode::from_u8(backend.mode) {
            Some(Mode::Dnat) => {
                self.selected = backend;
                Ok(NextStage::Dnat)
            }
            Some(Mode::Nat) | None => {
                self.say("a backend of this mode and family cannot take it");
                Ok(Reason::ModeMissing.into())
            }
            Some(mode @ (Mode::L2dsr | Mode::Ipip | Mode::Gue)) => {
                self.say(words::carriage(mode, &backend, self.tuple.hash(HashBy::Tuple)));
                Ok(self.way(&backend))
            }
        }
    }

    /// A packet to a backend of mode `dnat`.
    pub(super) fn dnat(&mut self) -> Step {
        let backend = self.selected;
        if backend.has(lb_common::backend::IPV6) != self.is_v6() {
            self.say("a backend of this mode and family cannot take it");
            return Ok(Reason::ModeMissing.into());
        }
        self.ttl()?;
        self.rewritten = Some((self.question.source, self.destination_at(&backend)));
        self.say(words::carriage(
            Mode::Dnat,
            &backend,
            self.tuple.hash(HashBy::Tuple),
        ));
        Ok(self.way(&backend))
    }

    /// A packet that may come from a backend of mode `dnat`.
    pub(super) fn dnat_reply(&mut self) -> Step {
        for key in self.endpoints() {
            let Some(answers) = self.tables.answers_from(&key)? else {
                continue;
            };
            self.explanation.service = self.tables.service_key(answers.service);
            if let Some(record) = self.tables.backend(answers.backend)? {
                self.name_backend(&record);
            }
            let name = self.backend_name().unwrap_or_default();
            self.say(format!(
                "a reply from {name} in mode dnat: its source becomes {}",
                answers.source
            ));
            self.say(
                "the kernel's routes decide where it leaves; a packet that they lead to this machine stays unchanged",
            );
            self.ttl()?;
            return Ok(Reason::Redirected.into());
        }
        Ok(self.unmatched())
    }

    fn may_be_reply(&self) -> Result<bool, Stop> {
        let mut found = Vec::new();
        for key in self.endpoints() {
            found.push(self.tables.answers_from(&key)?.is_some());
        }
        let is_endpoint = |wildcard| found.get(usize::from(wildcard)).copied().unwrap_or_default();
        Ok(order::may_be_reply(self.settings.flags, is_endpoint))
    }

    /// The endpoints that the packet may be a reply from: its source, and every port of that.
    fn endpoints(&self) -> impl Iterator<Item = ServiceKey> + use<> {
        let (source, protocol) = (self.question.source, self.question.protocol);
        let wildcard = self.settings.flags & HAS_WILDCARD != 0;
        let ports = [Some(source.port()), wildcard.then_some(0)].into_iter().flatten();
        ports.map(move |port| ServiceKey::new(source.ip(), port, protocol))
    }

    /// A packet of a service that has no backend, and says so.
    pub(super) fn reject(&mut self) -> NextStage {
        if !self.is_from_host() {
            self.say("its source is not an address to answer to: dropped");
            return Reason::NoBackend.into();
        }
        match self.question.protocol {
            Protocol::Tcp => Reason::RejectedReset.into(),
            Protocol::Udp => Reason::RejectedUnreachable.into(),
        }
    }

    /// A packet that does not fit the way to its backend.
    pub(super) fn too_big(&mut self) -> NextStage {
        if self.is_from_host() {
            Reason::TooBigAnswered.into()
        } else {
            self.say("its source is not an address to answer to: dropped");
            Reason::TooBig.into()
        }
    }

    /// Whether the packet's source is an address that answers can go to.
    const fn is_from_host(&self) -> bool {
        match self.tuple {
            AnyTuple::V4(tuple) => tuple.src.is_host(),
            AnyTuple::V6(tuple) => tuple.src.is_host(),
        }
    }

    const fn destination_port(&self) -> lb_common::addr::NetPort {
        match self.tuple {
            AnyTuple::V4(tuple) => tuple.dst_port,
            AnyTuple::V6(tuple) => tuple.dst_port,
        }
    }
}

impl Checks for Walk<'_> {
    type Stop = Stop;

    /// A question is about a packet with a right header.
    fn header(&mut self) -> Result<(), Stop> {
        Ok(())
    }

    fn client(&mut self) -> Result<(), Stop> {
        if !self.service.has(GUARDS_CLIENTS) || self.is_admitted {
            return Ok(());
        }
        let client = self.question.source.ip();
        if self.tables.denies(self.service.id, client)? {
            self.say(format!("the service's ACL denies {client}"));
            return Err(Reason::ClientDenied.into());
        }
        self.say(format!("the service's ACL admits {client}"));
        self.is_admitted = true;
        Ok(())
    }

    fn source(&mut self) -> Result<(), Stop> {
        let (is_martian, is_own) = match self.tuple {
            AnyTuple::V4(tuple) => (tuple.src.is_martian(), tuple.src == tuple.dst),
            AnyTuple::V6(tuple) => (tuple.src.is_martian(), tuple.src == tuple.dst),
        };
        let client = self.question.source.ip();
        if is_own {
            self.say(format!(
                "{client} is the service's own address, which no client can have: dropped"
            ));
        } else if is_martian {
            self.say(format!(
                "{client} is no valid source address: the sender is forged"
            ));
        } else {
            return Ok(());
        }
        Err(Reason::MartianSource.into())
    }

    fn ttl(&mut self) -> Result<(), Stop> {
        let ttl = self.question.ttl;
        if ttl > 1 {
            return Ok(());
        }
        self.say(format!("its TTL of {ttl} would reach 0: this mode routes"));
        Err(Reason::TtlExpired.into())
    }

    fn begin(&mut self) -> Result<(), Stop> {
        let flags = match self.question.protocol {
            Protocol::Tcp => TcpFlags::from_word(if self.question.opens { SYN } else { ACK }),
            Protocol::Udp => TcpFlags::NONE,
        };
        Ok(order::may_begin(flags, self.replaces.is_some())?)
    }

    fn is_syn(&self) -> bool {
        self.question.protocol == Protocol::Tcp && self.question.opens
    }

    /// Budgets of the moment are not part of an explanation.
    fn rate(&mut self) -> Result<(), Stop> {
        Ok(())
    }
}
