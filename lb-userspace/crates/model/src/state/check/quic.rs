//! QUIC tables, and the server ids of backends.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use lb_common::quic::{MAX_BLOCK, MAX_CONFIG_ID, MIN_NONCE};

use super::findings::{Findings, Place};
use crate::state::{
    backend::Backend,
    quic::{QuicSettings, ServerId},
    service::{Protocol, Service},
};

impl Findings {
    pub(super) fn quic(&mut self, index: usize, service: &Service) {
        if !service.quic.is_empty() && service.key.protocol != Protocol::Udp {
            self.invalid(
                Place::Quic(index, 0, "config_id"),
                format!("service {} reads connection ids, but is not of UDP", service.name),
                "set protocol = \"udp\"",
            );
        }
        let mut ids = BTreeMap::new();
        for (place, settings) in service.quic.iter().enumerate() {
            let at = |key| Place::Quic(index, place, key);
            self.lengths(at, settings);
            if ids.insert(settings.config_id, place).is_some() {
                let what = format!(
                    "service {} has config_id {} twice",
                    service.name, settings.config_id
                );
                self.conflict(
                    at("config_id"),
                    what,
                    "give each table one of its own, from 0 to 6",
                );
            }
        }
        self.server_ids(index, service);
    }

    fn lengths(&mut self, at: impl Fn(&'static str) -> Place, settings: &QuicSettings) {
        let QuicSettings {
            config_id,
            server_id_length,
            nonce_length,
            key: _,
        } = settings;
        if *config_id > MAX_CONFIG_ID {
            let what = format!("config_id {config_id} is above {MAX_CONFIG_ID}");
            self.invalid(
                at("config_id"),
                what,
                "7 marks connection ids that name no backend",
            );
        } else if settings.config().is_none() {
            let what = format!(
                "server_id_length {server_id_length} and nonce_length {nonce_length} make no connection id"
            );
            let hint = format!(
                "a server id has at least 1 byte, a nonce {MIN_NONCE}, both together at most {MAX_BLOCK}"
            );
            self.invalid(at("server_id_length"), what, hint);
        }
    }

    fn server_ids(&mut self, index: usize, service: &Service) {
        let lengths: BTreeSet<usize> = service
            .quic
            .iter()
            .map(|settings| settings.server_id_length.into())
            .collect();
        let mut owners: HashMap<ServerId, &Backend> = HashMap::new();
        for (place, backend) in service.backends.iter().enumerate() {
            let name = format!("{}/{}", service.name, backend.name);
            for id in &backend.server_ids {
                let at = Place::Backend(index, place, "server_ids");
                if lengths.is_empty() {
                    let what = format!("backend {name} has server id {id}, which no connection id holds");
                    self.invalid(at, what, "add a [[service.quic]] table to its service");
                } else if !lengths.contains(&id.as_bytes().len()) {
                    let (own, wanted) = (id.as_bytes().len(), words(&lengths));
                    let what = format!(
                        "server id {id} of backend {name} has {own} bytes, server_id_length is {wanted}"
                    );
                    self.invalid(at, what, "");
                }
                if let Some(other) = owners.insert(*id, backend) {
                    let what = format!(
                        "backend {name} has server id {id}, as backend {}/{}",
                        service.name, other.name
                    );
                    self.conflict(at, what, "give each backend one of its own");
                }
            }
        }
    }
}

/// `3` or `3 or 8`.
fn words(lengths: &BTreeSet<usize>) -> String {
    let lengths: Vec<_> = lengths.iter().map(ToString::to_string).collect();
    lengths.join(" or ")
}
