//! Selecting the backend of a packet, as in `lb-ebpf/src/select.rs`, and in `follow.rs` where the slot alone does not decide.

use std::{io, time::Duration};

use lb_common::{
    backend::{ALIVE, Backend, BackendId, IN_USE},
    flow::IdleTimeouts,
    hash::HashBy,
    reason::Reason,
    ring_slot::{self, Known, Phase, Pick, RingSlot},
    service::{FORWARDS, OnEmpty, TRACKS_ALL},
    track::Table,
};
use lb_wire::{next_stage::NextStage, order};

use super::walk::Walk;
use crate::{duration, state::service::Protocol};

/// The selected backend, or the next stage of a packet that no backend takes.
pub(super) type Choice = Result<(BackendId, Backend), NextStage>;

impl Walk<'_> {
    /// Selects the backend as the slow path does, and adds the steps that lead to it.
    pub(super) fn explain_follow(&mut self) -> io::Result<Choice> {
        self.explain_choice(Self::follow)
    }

    /// As [`Self::select`], and adds the steps that lead to it.
    pub(super) fn explain_select(&mut self, is_syn: bool) -> io::Result<Choice> {
        self.explain_choice(|walk| walk.select(is_syn))
    }

    fn explain_choice(&mut self, select: impl FnOnce(&Self) -> io::Result<Choice>) -> io::Result<Choice> {
        let service = self.service;
        if let Some((id, backend)) = self.named {
            self.name_backend(&backend);
            return Ok(Ok((id, backend)));
        }
        let Some((index, slot)) = self.slot() else {
            self.say("the service has no ring: no backend takes or has flows");
            return Ok(Err(order::without_backend(&service)));
        };
        self.explanation.slot = Some(index);
        let by = match HashBy::of(&service) {
            HashBy::Tuple => "its tuple",
            HashBy::Source => "its source address",
            HashBy::Port => "its destination port",
        };
        let current = self.name_of(slot.current)?;
        let phase = match slot.phase() {
            Phase::Stable => format!("stable, owned by {current}"),
            Phase::Pinned if slot.current == BackendId::NONE => "without an owner for new flows".to_owned(),
            Phase::Pinned => format!("owned by {current}, except for recorded flows of others"),
            Phase::Transition => {
                let previous = self.name_of(slot.previous)?;
                format!("in transition to {current}; older flows stay with {previous}")
            }
        };
        self.say(format!(
            "the hash of {by} selects slot {index} of {}: {phase}",
            service.ring_size
        ));
        let (_, known) = self.recorded()?;
        if slot.pick() == Pick::LookUp || service.has(TRACKS_ALL) {
            self.say_record(known)?;
        }
        let choice = select(self)?;
        match &choice {
            Ok((_, backend)) => {
                self.name_backend(backend);
                let name = self.backend_name().unwrap_or_default();
                self.say(format!("selected backend: {name}"));
                self.say_backup();
            }
            Err(NextStage::Done(Reason::BackendMissing)) => self.say("the slot names a missing backend"),
            Err(_) => {
                let policy = if service.on_empty == OnEmpty::Reject as u8 {
                    "it is rejected with an answer"
                } else {
                    "it is dropped"
                };
                self.say(format!("no backend takes it: {policy}"));
            }
        }
        Ok(choice)
    }

    /// Adds why a backup takes the packet, if its backend is one.
    pub(super) fn say_backup(&mut self) {
        let (Some(key), Some(address)) = (self.explanation.service, self.explanation.backend) else {
            return;
        };
        let mut services = self.view.desired.services.values();
        let Some(service) = services.find(|service| service.key == key) else {
            return;
        };
        let mut backends = service.backends.iter();
        if !backends.any(|backend| backend.backup && backend.address == address) {
            return;
        }
        let target = self.view.target_backend(&key, address);
        self.say(if target.is_some_and(|target| target.weight > 0) {
            format!(
                "that is a backup: it takes new flows while fewer than {} other backends can",
                service.backup_below
            )
        } else {
            "that is a backup in reserve: it keeps its flows and takes no new ones".to_owned()
        });
    }

    /// Adds when the packet's flow is removed, in mode `nat`.
    pub(super) fn say_idle(&mut self) {
        let Some(service) = self
            .explanation
            .service
            .and_then(|key| self.view.target_service(&key))
        else {
            return;
        };
        let IdleTimeouts {
            established,
            half_open,
            closed,
        } = service.idle;
        let text = |seconds: u32| duration::text(Duration::from_secs(seconds.into()));
        let closed = match self.question.protocol {
            Protocol::Tcp => format!(", {} after it closed", text(closed)),
            Protocol::Udp => String::new(),
        };
        self.say(format!(
            "it is forgotten after {} without a packet, {} while half-open{closed}",
            text(established),
            text(half_open)
        ));
    }

    fn say_record(&mut self, known: Known) -> io::Result<()> {
        let text = match known {
            Known::Proven(id) | Known::Unproven(id) => {
                self.explanation.tracked = true;
                format!("its flow is recorded and belongs to {}", self.name_of(id)?)
            }
            Known::Unknown if self.question.protocol == Protocol::Tcp && self.question.opens => {
                "its flow is not recorded, and a SYN opens a new one".to_owned()
            }
            Known::Unknown => "its flow is not recorded, so it may be older than the last change".to_owned(),
        };
        self.say(text);
        Ok(())
    }

    /// Selects the backend as `follow.rs` of the program does: the slot alone, or the recorded flow.
    fn follow(&self) -> io::Result<Choice> {
        let Some((_, slot)) = self.slot().filter(|_| self.named.is_none()) else {
            return self.usable(BackendId::NONE);
        };
        let tracks_all = self.service.has(TRACKS_ALL);
        let id = match slot.pick() {
            Pick::Owner(owner) if !tracks_all => owner,
            Pick::Owner(_) | Pick::LookUp => {
                let (_, known) = self.recorded()?;
                let decision = if tracks_all {
                    slot.decide_recorded(known, self.question.opens)
                } else {
                    slot.decide(known, self.question.opens)
                };
                decision.backend
            }
        };
        self.usable(id)
    }

    /// Selects the backend as `select_backend` of the program does, for mode `nat`. `is_syn`: the packet counts as a TCP SYN.
    pub(super) fn select(&self, is_syn: bool) -> io::Result<Choice> {
        let Some((_, slot)) = self.slot().filter(|_| self.named.is_none()) else {
            return self.usable(BackendId::NONE);
        };
        let id = match slot.pick() {
            Pick::LookUp if self.service.has(FORWARDS) => {
                let (_, known) = self.recorded()?;
                slot.decide(known, is_syn).backend
            }
            Pick::LookUp | Pick::Owner(_) => slot.current,
        };
        self.usable(id)
    }

    /// The backend that the connection id names, else this one, if packets may be sent to it.
    fn usable(&self, id: BackendId) -> io::Result<Choice> {
        if let Some(named) = self.named {
            return Ok(Ok(named));
        }
        if id == BackendId::NONE {
            return Ok(Err(order::without_backend(&self.service)));
        }
        let Some(record) = self.tables.backend(id)? else {
            return Ok(Err(Reason::BackendMissing.into()));
        };
        let usable = order::is_usable(&self.service, &record);
        Ok(usable.map(|()| (id, record)).map_err(NextStage::from))
    }

    fn slot(&self) -> Option<(u32, RingSlot)> {
        let service = &self.service;
        if service.ring_size == 0 {
            return None;
        }
        let index = ring_slot::index(self.tuple.hash(HashBy::of(service)), service.ring_size);
        Some((index, self.tables.slot(service.ring, index)?))
    }

    /// Looks the flow up in the tables of flow tracking. Only records of living backends count.
    fn recorded(&self) -> io::Result<(Option<Table>, Known)> {
        for table in [Table::Tracked, Table::Opening, Table::Seen] {
            let Some(record) = self.tables.record(&self.tuple, table)? else {
                continue;
            };
            let owner = self.tables.backend(record.backend)?;
            let lives =
                owner.is_some_and(|owner| owner.has(IN_USE | ALIVE) && owner.generation == record.generation);
            if lives {
                return Ok((
                    Some(table),
                    match table {
                        Table::Tracked => Known::Proven(record.backend),
                        Table::Opening | Table::Seen => Known::Unproven(record.backend),
                    },
                ));
            }
        }
        Ok((None, Known::Unknown))
    }
}
