//! Finding the service of a packet.

use std::{io, net::IpAddr};

use lb_common::{clients, settings::HAS_WILDCARD};

use super::{walk::Walk, words};
use crate::{
    explain::question::Question,
    state::{effective, service::ServiceKey, words::Word as _},
};

/// Number of services that a step names at most for an address.
const OTHER_PORTS: usize = 8;

impl Walk<'_> {
    /// Finds the service of the packet's destination address.
    pub(super) fn find_service(&mut self) -> io::Result<()> {
        let wildcard = self.settings.flags & HAS_WILDCARD != 0;
        let ports = [Some(self.question.destination.port()), wildcard.then_some(0)];
        for key in ports.into_iter().flatten().map(|port| self.key(port)) {
            if let Some(service) = self.tables.service(&key)? {
                // A service with several ports has one key.
                let own = self.tables.service_key(service.id).unwrap_or(key);
                self.explanation.service = Some(own);
                let name = self.service_name(&own);
                self.say(format!("{key} is service {name}"));
                self.service = service;
                break;
            }
        }
        Ok(())
    }

    /// Finds the service with the longest prefix that the destination lies in.
    pub(super) fn find_service_of_prefix(&mut self) -> io::Result<()> {
        let Question {
            destination,
            protocol,
            ..
        } = *self.question;
        let found = self
            .tables
            .service_of_prefix(destination.ip(), destination.port(), protocol)?;
        if let Some(service) = found {
            self.explanation.service = self.tables.service_key(service.id);
            let of = self.explanation.service.map(|own| (own, self.service_name(&own)));
            let (own, name) = of.map_or((String::new(), String::new()), |(own, name)| {
                (own.to_string(), name)
            });
            let key = self.key(destination.port());
            self.say(format!("{key} lies in {own}, service {name}"));
            self.service = service;
        }
        Ok(())
    }

    /// Adds that there is no service, and the services of the address.
    pub(super) fn say_no_service(&mut self) {
        let destination = self.question.destination;
        self.say(format!("no service on {}", self.key(destination.port())));
        self.say_other_ports(destination.ip());
    }

    fn key(&self, port: u16) -> ServiceKey {
        ServiceKey::new(self.question.destination.ip(), port, self.question.protocol)
    }

    /// Has the service lead to the ring of the packet's client.
    pub(super) fn find_ring_of_client(&mut self) -> io::Result<()> {
        let client = self.question.source.ip();
        let ring = self.tables.client_ring(self.service.id, client)?;
        clients::select(&mut self.service, ring);
        let Some(key) = self.explanation.service else {
            return Ok(());
        };
        let mut services = self.view.desired.services.values();
        let target = self.view.target_service(&key);
        let found = services.find(|service| service.key == key).zip(target);
        if let Some((desired, target)) = found {
            let named = desired.group_of(client);
            let group = effective::group(desired, named.map(|(name, _)| name));
            let taken_by = words::taken_by(target.taken_by(group));
            self.say(match named {
                Some((name, prefix)) => {
                    format!("{client} is a client of {prefix}, which goes to group {name}: {taken_by} take its new flows")
                }
                None => format!("{client} is no client of a group: {taken_by} take its new flows"),
            });
        }
        Ok(())
    }

    /// Adds a step with the services of the address on other ports.
    fn say_other_ports(&mut self, address: IpAddr) {
        let mut services: Vec<_> = self.view.desired.services.values().collect();
        services.retain(|service| service.key.has_address(address));
        services.sort_unstable_by_key(|service| (service.key.port, service.key.protocol));
        let shown = services.iter().take(OTHER_PORTS).map(|service| {
            let ServiceKey { port, protocol, .. } = service.key;
            let several: Vec<String> = service.ports.iter().map(ToString::to_string).collect();
            let ports = if !several.is_empty() {
                several.join(",")
            } else if port == 0 {
                "every other port".to_owned()
            } else {
                port.to_string()
            };
            format!("{ports}/{} ({})", protocol.word(), service.name)
        });
        let mut shown: Vec<String> = shown.collect();
        if shown.is_empty() {
            return;
        }
        if services.len() > shown.len() {
            shown.push(format!("and {} more", services.len() - shown.len()));
        }
        self.say(format!("services of {address}: {}", shown.join(", ")));
    }

    fn service_name(&self, key: &ServiceKey) -> String {
        let mut services = self.view.desired.services.values();
        services.find(|service| service.key == *key).map_or_else(
            || "that is being removed".to_owned(),
            |service| service.name.to_string(),
        )
    }
}
