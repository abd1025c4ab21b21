//! The way of one packet, from one stage of `lb-ebpf` to the next.

use std::{io, net::SocketAddr};

use lb_common::{
    backend::{Backend, BackendId, IN_USE},
    reason::Reason,
    service::{Mode, Service},
    settings::Settings,
};
use lb_wire::next_stage::NextStage;

use super::words;
use crate::{
    control::ControlView,
    datapath::{AnyTuple, ReadTables},
    explain::{explanation::Explanation, question::Question},
};

/// The explanation of one packet, as far as it has come.
pub(super) struct Walk<'a> {
    pub(super) question: &'a Question,
    pub(super) tuple: AnyTuple,
    pub(super) tables: &'a dyn ReadTables,
    pub(super) view: &'a ControlView,
    pub(super) explanation: Explanation,
    pub(super) settings: Settings,
    /// Its service; the default is none.
    pub(super) service: Service,
    /// Whether its client was said to be admitted.
    pub(super) is_admitted: bool,
    /// State of the flow that it takes the place of.
    pub(super) replaces: Option<u8>,
    /// The backend of mode `dnat` that was selected.
    pub(super) selected: Backend,
    /// The backend that its connection id names.
    pub(super) named: Option<(BackendId, Backend)>,
    /// Its source and destination on the way to the backend, in modes that rewrite them.
    pub(super) rewritten: Option<(SocketAddr, SocketAddr)>,
}

/// Why a stage is left before its end.
pub(super) enum Stop {
    /// The packet goes on there.
    Next(NextStage),
    /// A table cannot be read.
    Failed(io::Error),
}

impl From<NextStage> for Stop {
    fn from(next: NextStage) -> Self {
        Self::Next(next)
    }
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Self {
        Self::Next(reason.into())
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// Where a packet goes on after a stage.
pub(super) type Step = Result<NextStage, Stop>;

impl<'a> Walk<'a> {
    /// A packet without steps yet.
    pub(super) fn new(
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
            settings: Settings::default(),
            service: Service::default(),
            is_admitted: false,
            replaces: None,
            selected: Backend::default(),
            named: None,
            rewritten: None,
        }
    }

    /// Takes all steps.
    pub(super) fn explain(mut self) -> io::Result<Explanation> {
        self.settings = self.tables.settings()?;
        let mut step = self.entry();
        loop {
            let next = match step {
                Ok(next) | Err(Stop::Next(next)) => next,
                Err(Stop::Failed(error)) => return Err(error),
            };
            step = match next {
                NextStage::Done(reason) => {
                    self.explanation.reason = reason;
                    return Ok(self.explanation);
                }
                NextStage::HostSocket => Ok(self.host_socket()),
                NextStage::Prefix => self.prefix(),
                NextStage::Clients => self.clients(),
                NextStage::Quic => self.quic(),
                NextStage::SlowPath => self.slow_path(),
                NextStage::Nat => self.nat(),
                NextStage::NewFlow => self.new_flow(),
                NextStage::NoFlow => Ok(self.no_flow()),
                NextStage::Dnat => self.dnat(),
                NextStage::DnatReply => self.dnat_reply(),
                NextStage::Reject => Ok(self.reject()),
                NextStage::TooBig => Ok(self.too_big()),
                // A question is about a whole and plain TCP or UDP packet.
                NextStage::Classify
                | NextStage::EndTunnel
                | NextStage::Icmp
                | NextStage::Echo
                | NextStage::Fragment => Ok(next.reason().into()),
            };
        }
    }

    /// A backend's address and port; for a backend without a port, the packet's own port.
    pub(super) fn destination_at(&self, backend: &Backend) -> SocketAddr {
        let mut to = words::address(backend);
        if to.port() == 0 {
            to.set_port(self.question.destination.port());
        }
        to
    }

    pub(super) const fn is_v6(&self) -> bool {
        matches!(self.tuple, AnyTuple::V6(_))
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
