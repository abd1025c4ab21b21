//! The steps of one packet, in the order of the stages of `lb-ebpf`.

use std::{io, net::SocketAddr};

use lb_common::{
    backend::{ALIVE, Backend, BackendId, IN_USE, IPV6},
    flow::{FIN, RST, is_closed},
    hash::HashBy,
    reason::Reason,
    service::{FORWARDS, GUARDS_CLIENTS, IN_TURN, Mode, Service, TRANSLATES},
    settings::{HAS_DNAT, HAS_WILDCARD, Settings},
};

use super::{AnyTuple, Explanation, Question, ReadTables, Translated, words};
use crate::{
    control::ControlView,
    state::service::{Protocol, ServiceKey},
};

/// The explanation of one packet, as far as it has come.
pub(super) struct Walk<'a> {
    pub(super) question: &'a Question,
    pub(super) tuple: AnyTuple,
    pub(super) tables: &'a dyn ReadTables,
    pub(super) view: &'a ControlView,
    pub(super) explanation: Explanation,
    /// The backend that its connection id names.
    pub(super) named: Option<(BackendId, Backend)>,
    /// Its source and destination on the way to the backend, in modes that rewrite them.
    pub(super) rewritten: Option<(SocketAddr, SocketAddr)>,
    /// UDP port of GUE.
    pub(super) gue_port: u16,
}

impl<'a> Walk<'a> {
    /// A packet without steps yet.
    pub(super) const fn new(
        question: &'a Question,
        tuple: AnyTuple,
        tables: &'a dyn ReadTables,
        view: &'a ControlView,
    ) -> Self {
        Self {
            question,
            tuple,
            tables,
            view,
            explanation: Explanation::of(Reason::NotOurs),
            named: None,
            rewritten: None,
            gue_port: 0,
        }
    }

    /// Takes all steps.
    pub(super) fn explain(mut self) -> io::Result<Explanation> {
        self.explanation.reason = self.packet()?;
        Ok(self.explanation)
    }
}

impl Walk<'_> {
    fn packet(&mut self) -> io::Result<Reason> {
        let settings = self.tables.settings()?;
        self.gue_port = settings.gue_port;
        let service = self.service(&settings)?;
        if let Some(service) = service.filter(|service| !service.has(TRANSLATES)) {
            if self.is_denied(&service)? {
                return Ok(Reason::ClientDenied);
            }
            if self.is_martian() {
                return Ok(Reason::MartianSource);
            }
            return self.as_is(&service);
        }
        let port = self.question.destination.port();
        let reply_port = port.wrapping_sub(settings.reply_port_first) < settings.reply_port_count;
        if service.is_none() && !reply_port {
            self.say("the port is outside the source ports of mode nat");
            return self.foreign(&settings);
        }
        let mut known = self.tables.translated(&self.tuple)?;
        if let Some(known) = known.filter(|known| known.is_reply) {
            return self.reply(&known);
        }
        let Some(service) = service else {
            self.say("the port is a source port of mode nat, but no flow is recorded for this packet");
            return self.foreign(&settings);
        };
        if self.is_denied(&service)? {
            return Ok(Reason::ClientDenied);
        }
        let leaves = |known: &Translated| self.named.is_some_and(|(id, _)| id != known.backend);
        if known.as_ref().is_some_and(leaves) {
            self.say("the recorded flow of this tuple belongs to another backend and is left alone");
            known = None;
        }
        match known {
            Some(known) => self.known(&service, &settings, &known),
            None => self.unknown(&service, &settings),
        }
    }

    /// A packet for no service and no flow; perhaps a reply of mode `dnat`.
    fn foreign(&mut self, settings: &Settings) -> io::Result<Reason> {
        let (source, protocol) = (self.question.source, self.question.protocol);
        let key = |port| ServiceKey::new(source.ip(), port, protocol);
        let wildcard = settings.flags & HAS_WILDCARD != 0;
        let ports = [Some(source.port()), wildcard.then_some(0)].into_iter().flatten();
        for key in ports.filter(|_| settings.flags & HAS_DNAT != 0).map(key) {
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
            if self.expires() {
                return Ok(Reason::TtlExpired);
            }
            return Ok(Reason::Redirected);
        }
        self.say("it matches no service and no flow: the kernel gets it unchanged");
        Ok(Reason::NotOurs)
    }

    /// Whether no packet may have this source address.
    fn is_martian(&mut self) -> bool {
        let (source, own) = match self.tuple {
            AnyTuple::V4(tuple) => (tuple.src.is_martian(), tuple.src == tuple.dst),
            AnyTuple::V6(tuple) => (tuple.src.is_martian(), tuple.src == tuple.dst),
        };
        let client = self.question.source.ip();
        if own {
            self.say(format!(
                "{client} is the service's own address, which no client can have: dropped"
            ));
        } else if source {
            self.say(format!(
                "{client} is no valid source address: the sender is forged"
            ));
        }
        source || own
    }

    fn is_denied(&mut self, service: &Service) -> io::Result<bool> {
        if !service.has(GUARDS_CLIENTS) {
            return Ok(false);
        }
        let client = self.question.source.ip();
        let denied = self.tables.denies(service.id, client)?;
        let verb = if denied { "denies" } else { "admits" };
        self.say(format!("the service's ACL {verb} {client}"));
        Ok(denied)
    }

    /// A reply of a backend.
    fn reply(&mut self, known: &Translated) -> io::Result<Reason> {
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
        if self.expires() {
            return Ok(Reason::TtlExpired);
        }
        self.say("it leaves by the interface on which the client's last packet arrived");
        Ok(self.leaves(known.ifindex))
    }

    /// A packet of a recorded flow of mode `nat`.
    fn known(&mut self, service: &Service, settings: &Settings, known: &Translated) -> io::Result<Reason> {
        if self.expires() {
            return Ok(Reason::TtlExpired);
        }
        let record = self.tables.backend(known.backend)?;
        let owner =
            record.filter(|record| record.has(IN_USE | ALIVE) && record.generation == known.generation);
        let Some(owner) = owner else {
            self.say("its flow is recorded for a backend that is dead or gone: it counts as a new flow");
            return self.new_flow(service, settings);
        };
        if known.state & (FIN | RST) != 0 && self.question.opens {
            let answers = Question {
                source: known.destination,
                destination: known.source,
                ..self.question.clone()
            };
            let answers = answers.tuple().map(|tuple| self.tables.translated(&tuple));
            let closed = answers
                .transpose()?
                .flatten()
                .is_some_and(|reply| is_closed(known.state, reply.state));
            let same = !service.has(IN_TURN) && self.pick(service)?.is_ok_and(|(id, _)| id == known.backend);
            self.say("the client has closed the recorded flow and opens a new one");
            if closed && !same {
                return self.new_flow(service, settings);
            }
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

    /// A packet without a recorded flow of mode `nat`.
    fn unknown(&mut self, service: &Service, settings: &Settings) -> io::Result<Reason> {
        if service.has(FORWARDS)
            && let Ok((_, backend)) = self.pick(service)?
            && !self.translates(&backend)
        {
            return self.as_is(service);
        }
        self.say("no flow of mode nat is recorded for it");
        if self.is_martian() {
            return Ok(Reason::MartianSource);
        }
        if self.question.protocol == Protocol::Tcp && !self.question.opens {
            self.say("only a SYN opens a flow: answered with a reset");
            return Ok(Reason::NoFlowReset);
        }
        self.new_flow(service, settings)
    }

    fn new_flow(&mut self, service: &Service, settings: &Settings) -> io::Result<Reason> {
        if self.expires() {
            return Ok(Reason::TtlExpired);
        }
        if service.has(IN_TURN) && service.ring_size != 0 && self.named.is_none() {
            self.say("round-robin: its flow gets the next slot, which cannot be predicted");
            self.explanation.mode = Mode::from_u8(service.mode);
            return Ok(Reason::Redirected);
        }
        let (_, backend) = match self.explain_pick(service)? {
            Ok(choice) => choice,
            Err(reason) => return Ok(reason),
        };
        if !self.translates(&backend) {
            self.say("a backend of this mode and family cannot take it");
            return Ok(Reason::ModeMissing);
        }
        let listed = match self.tuple {
            AnyTuple::V4(_) => settings.snat_v4_count,
            AnyTuple::V6(_) => settings.snat_v6_count,
        };
        let source = backend.source.to_ip();
        if listed == 0 && source.is_unspecified() {
            self.say("there is no source address of the backend's family");
            return Ok(Reason::NoSnatAddress);
        }
        if settings.snat_port_count == 0 {
            self.say("there are no source ports");
            return Ok(Reason::SnatPortsExhausted);
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

    /// A packet for a mode without a flow table.
    fn as_is(&mut self, service: &Service) -> io::Result<Reason> {
        match self.explain_pick(service)? {
            Ok((_, backend)) => {
                match Mode::from_u8(backend.mode) {
                    Some(Mode::Nat) | None => return Ok(Reason::ModeMissing),
                    Some(Mode::Dnat) if !self.same_family(&backend) => return Ok(Reason::ModeMissing),
                    Some(Mode::Dnat) if self.expires() => return Ok(Reason::TtlExpired),
                    Some(mode @ (Mode::Dnat | Mode::L2dsr | Mode::Ipip | Mode::Gue)) => {
                        let ends = (self.question.source, self.destination_at(&backend));
                        self.rewritten = (mode == Mode::Dnat).then_some(ends);
                        self.say(words::carriage(mode, &backend, self.tuple.hash(HashBy::Tuple)));
                    }
                }
                Ok(self.way(&backend))
            }
            Err(reason) => Ok(reason),
        }
    }

    fn translates(&self, backend: &Backend) -> bool {
        backend.mode == Mode::Nat as u8 && self.same_family(backend)
    }

    /// A backend's address and port; for a backend without a port, the packet's own port.
    fn destination_at(&self, backend: &Backend) -> SocketAddr {
        let mut to = words::address(backend);
        if to.port() == 0 {
            to.set_port(self.question.destination.port());
        }
        to
    }

    fn same_family(&self, backend: &Backend) -> bool {
        backend.has(IPV6) == matches!(self.tuple, AnyTuple::V6(_))
    }

    pub(super) fn say(&mut self, text: impl Into<String>) {
        self.explanation.steps.push(text.into());
    }

    pub(super) fn name_backend(&mut self, record: &Backend) {
        self.explanation.backend = Some(words::address(record));
        self.explanation.mode = Mode::from_u8(record.mode);
    }

    pub(super) fn backend_name(&self) -> Option<String> {
        let (key, address) = (self.explanation.service?, self.explanation.backend?);
        Some(words::backend(self.view, &key, address))
    }

    pub(super) fn name_of(&self, id: BackendId) -> io::Result<String> {
        if id == BackendId::NONE {
            return Ok("no backend".to_owned());
        }
        let record = self.tables.backend(id)?.filter(|record| record.has(IN_USE));
        Ok(match (record, self.explanation.service) {
            (Some(record), Some(key)) => words::backend(self.view, &key, words::address(&record)),
            (Some(_), None) | (None, _) => "a missing backend".to_owned(),
        })
    }
}
