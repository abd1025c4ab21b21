//! The backend that a QUIC connection id names, as in `lb-ebpf/src/quic.rs`.

use std::io;

use lb_common::{
    backend::{ALIVE, Backend, BackendId, IN_USE},
    quic::{self, ConfigKey, Halves},
    service::Service,
    tunnel,
};

use super::{walk::Walk, words};
use crate::datapath::AnyTuple;

/// Bytes that are read for each half of an id.
const HALF: usize = 16;
/// Bytes of the buffer that both halves are read from.
const ROOM: usize = 4 * HALF;

impl Walk<'_> {
    /// Finds the backend that the packet's connection id names.
    pub(super) fn read_connection_id(&mut self) -> io::Result<()> {
        let service = self.service;
        if self.question.connection_id.is_empty() {
            self.say(
                "a QUIC connection id that names a backend selects it; the next steps are for a packet without one",
            );
            return Ok(());
        }
        if self.is_too_short(&service)? {
            self.say(format!(
                "its {} bytes are too few for a QUIC packet with such a connection id: the id is not read",
                self.question.length
            ));
            return Ok(());
        }
        self.named = self.named_by(&service)?;
        match (&self.named, self.explanation.service) {
            (Some((_, backend)), Some(key)) => {
                let name = words::backend(self.view, &key, words::address(backend));
                self.say(format!(
                    "its connection id names {name}: flow and slot do not count"
                ));
            }
            _ => self.say("its connection id names no living backend of the service: its tuple decides"),
        }
        Ok(())
    }

    /// Whether the program would read beyond the end of the packet, if it has the short header.
    fn is_too_short(&self, service: &Service) -> io::Result<bool> {
        let first = self.question.connection_id.first();
        let key = first.and_then(|first| ConfigKey::of(service.id, *first));
        let Some(config) = key
            .map(|key| self.tables.quic_config(&key))
            .transpose()?
            .flatten()
        else {
            return Ok(false);
        };
        let ip = match self.tuple {
            AnyTuple::V4(_) => tunnel::V4_LEN,
            AnyTuple::V6(_) => tunnel::V6_LEN,
        };
        let block = ip + tunnel::UDP_LEN + quic::SHORT_ID_AT + 1;
        let length = usize::from(self.question.length);
        Ok(length != 0 && length < block + config.right_at() + quic::HALF_READ)
    }

    fn named_by(&self, service: &Service) -> io::Result<Option<(BackendId, Backend)>> {
        let id = self.question.connection_id.as_slice();
        let Some((first, block)) = id.split_first() else {
            return Ok(None);
        };
        let Some(key) = ConfigKey::of(service.id, *first) else {
            return Ok(None);
        };
        let Some(config) = self.tables.quic_config(&key)? else {
            return Ok(None);
        };
        let mut room = [0; ROOM];
        let Some(start) = room.get_mut(..block.len()) else {
            return Ok(None);
        };
        start.copy_from_slice(block);
        let half = |at: usize| Some(quic::words(*room.get(at..)?.first_chunk()?));
        let (Some(left), Some(right)) = (half(0), half(config.right_at())) else {
            return Ok(None);
        };
        if id.len() < config.id_length() {
            return Ok(None);
        }
        let mut halves = Halves([left, right]);
        for number in config.steps() {
            config.step(&mut halves, *number);
        }
        let server = config.server(service.id, &halves);
        let Some(id) = self.tables.quic_server(&server)? else {
            return Ok(None);
        };
        let record = self.tables.backend(id)?;
        let lives = |record: &Backend| record.has(IN_USE | ALIVE) && record.service == service.id;
        Ok(record.filter(lives).map(|record| (id, record)))
    }
}
