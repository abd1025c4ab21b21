//! Checks through the forwarding path.

use super::findings::{Findings, Place, unusable};
use crate::{
    health::settings::{CheckKind, CheckSettings, FurtherCheck, Through, Transport},
    state::{
        service::{Protocol, Service},
        words::{self, Word as _},
    },
};

/// The protocol of a check's packets, or the reason why they cannot test the path.
fn transport(kind: &CheckKind) -> Result<Protocol, &'static str> {
    match kind {
        CheckKind::Tcp
        | CheckKind::Dialogue(_)
        | CheckKind::TcpHalfOpen
        | CheckKind::Tls(_)
        | CheckKind::Http(_)
        | CheckKind::Http2(_)
        | CheckKind::Grpc(_) => Ok(Protocol::Tcp),
        CheckKind::Dns(dns) => Ok(match dns.transport {
            Transport::Udp => Protocol::Udp,
            Transport::Tcp => Protocol::Tcp,
        }),
        CheckKind::Udp(_) => Ok(Protocol::Udp),
        CheckKind::None => Err("nothing is checked"),
        CheckKind::Icmp => Err("the balancer answers pings to services itself"),
        CheckKind::Push(_) => Err("its reports are sent to the balancer"),
        CheckKind::Exec(_) => Err("its program makes connections of its own"),
    }
}

impl Findings {
    pub(super) fn through(&mut self, index: usize, service: &Service) {
        let at = |key| Place::Health(index, key);
        let CheckSettings {
            kind,
            also,
            through,
            port,
            source,
            mark,
            ..
        } = &service.health;
        let vip = &service.key;
        if let Some(source) = source
            && let Some(why) = unusable(*source)
            && *through == Through::Vip
        {
            self.invalid(at("source"), format!("source {source} {why}"), "");
        }
        if *through == Through::Backend {
            return;
        }
        self.kind_through(at("through"), service, kind);
        for FurtherCheck { kind, .. } in also {
            self.kind_through(at("also"), service, kind);
        }
        let ports = also.iter().filter_map(|further| further.port.zip(Some("also")));
        let ports = port.map(|port| (port, "port")).into_iter().chain(ports);
        for (port, key) in ports.filter(|(port, _)| !service.has_port(*port)) {
            self.invalid(
                at(key),
                format!(
                    "port {port} cannot be checked through the VIP: the service {}",
                    match service.ports.as_slice() {
                        [] => format!("is port {}", vip.port),
                        _ => "has other ports".to_owned(),
                    }
                ),
                "leave it out, or use through = \"backend\"",
            );
        }
        if vip.is_prefix() {
            self.invalid(
                at("through"),
                format!(
                    "a check through the VIP needs one address, and service {} has a prefix",
                    service.name
                ),
                "use through = \"backend\"",
            );
        }
        if vip.port == 0 && port.is_none() {
            self.invalid(
                at("through"),
                "a check through the VIP needs a port where the service has every port",
                "add port",
            );
        }
        if mark.is_some() {
            self.invalid(
                at("mark"),
                "mark means nothing through the VIP: the path does not depend on it",
                "remove one of them",
            );
        }
        if let Some(source) = source
            && source.is_ipv4() != vip.address.is_ipv4()
        {
            self.invalid(
                at("source"),
                format!(
                    "a check through {} cannot have the source {source}",
                    vip.address_text()
                ),
                "use an address of the service's family",
            );
        }
    }

    fn kind_through(&mut self, place: Place, service: &Service, kind: &CheckKind) {
        let hint = "use through = \"backend\"";
        let word = words::kind(kind);
        let refuse = |why: String| format!("a check of kind {word} cannot go through the VIP: {why}");
        match transport(kind) {
            Err(why) => self.invalid(place, refuse(why.to_owned()), hint),
            Ok(protocol) if protocol != service.key.protocol => {
                let why = format!(
                    "it speaks {}, the service is {}",
                    protocol.word(),
                    service.key.protocol.word()
                );
                self.invalid(place, refuse(why), hint);
            }
            Ok(_) => {}
        }
        if let CheckKind::Udp(udp) = kind
            && udp.expect_reply.is_none()
        {
            self.invalid(
                place,
                refuse("without expect_reply silence is a success".to_owned()),
                "add expect_reply",
            );
        }
    }
}
