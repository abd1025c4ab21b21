//! A packet that came through a tunnel, as in `lb-ebpf/src/end_tunnel.rs`: what becomes of its outer header.

use std::{io, net::SocketAddr};

use lb_common::{
    addr::NetAddr,
    decap::{self, Carries, EndKey, Outcome, V4, V6},
    reason::Reason,
    settings::{ENDS_TUNNELS, HAS_WILDCARD, Settings},
    tunnel::{self, IPV4_IN_IP},
};

use super::walk::Walk;
use crate::{
    control::ControlView,
    datapath::ReadTables,
    explain::{
        explanation::Explanation,
        question::{Outer, OuterKind, Question},
    },
    state::service::{Protocol, ServiceKey},
};

/// What the tables say about one outer header.
struct Known {
    gue_port: u16,
    is_end: bool,
    is_source: bool,
}

impl decap::Tables for Known {
    fn gue_port(&self) -> u16 {
        self.gue_port
    }

    fn is_end(&self, _: &NetAddr) -> bool {
        self.is_end
    }

    fn is_source(&self, _: u8, _: &NetAddr) -> bool {
        self.is_source
    }
}

/// Explains a packet in a tunnel: its outer header, then the packet in it if the tunnel ends here, else the whole.
pub(super) fn explain(
    outer: &Outer,
    question: &Question,
    tables: &dyn ReadTables,
    view: &ControlView,
) -> io::Result<Explanation> {
    let settings = tables.settings()?;
    let (is_udp, name) = match outer.kind {
        OuterKind::Ipip => (false, "IP in IP"),
        OuterKind::Gue => (true, "GUE"),
    };
    let (from, to) = (outer.source, outer.destination);
    let headers = u16::try_from(tunnel::overhead(from.is_ipv6(), is_udp)).unwrap_or(u16::MAX);
    let whole = Question {
        source: SocketAddr::new(from, 0),
        destination: SocketAddr::new(to, settings.gue_port),
        protocol: Protocol::Udp,
        opens: false,
        length: match question.length {
            0 => 0,
            length => length.saturating_add(headers),
        },
        connection_id: Vec::new(),
        ..question.clone()
    };
    let mut steps = vec![format!("the outer header is {name} from {from} to {to}")];
    let outcome = if is_udp && is_service(&whole, tables, &settings)? {
        steps.push(format!(
            "the outer packet is for a service on UDP port {}: it is no tunnel",
            settings.gue_port
        ));
        Outcome::Passed
    } else {
        outcome(outer, tables, &settings)?
    };
    let ended = outcome == Outcome::Decapsulated;
    steps.push(match outcome {
        Outcome::Decapsulated => format!(
            "{to} is this machine's, and decap_from has {from}: the tunnel ends here; the next steps are for the packet in it"
        ),
        Outcome::UnknownSource => format!("decap_from does not have {from}: the outer header stays"),
        Outcome::Passed if settings.flags & ENDS_TUNNELS == 0 => {
            "no tunnel ends here: decap_from is empty".to_owned()
        }
        Outcome::Passed | Outcome::Malformed | Outcome::Congestion | Outcome::Failed => {
            format!("tunnels to {to} do not end here")
        }
    });
    let explained = |question: &Question| match question.tuple() {
        Some(tuple) => Walk::new(question, tuple, tables, view).explain(),
        None => Err(io::Error::other(
            "source and destination are of different families",
        )),
    };
    let mut explanation = if ended {
        explained(question)?
    } else if is_udp {
        steps.push(format!(
            "the next steps are for the outer packet, a datagram to UDP port {}",
            settings.gue_port
        ));
        explained(&whole)?
    } else {
        steps.push("the kernel gets it unchanged".to_owned());
        let reason = outcome.reason(is_udp).unwrap_or(Reason::OtherProtocol);
        Explanation::of(reason)
    };
    steps.append(&mut explanation.steps);
    Ok(Explanation {
        steps,
        tunnel_ends: Some(ended),
        ..explanation
    })
}

/// Whether the outer packet is for a service: the entry program finds that first.
fn is_service(whole: &Question, tables: &dyn ReadTables, settings: &Settings) -> io::Result<bool> {
    let key = |port| ServiceKey::new(whole.destination.ip(), port, Protocol::Udp);
    let wildcard = settings.flags & HAS_WILDCARD != 0;
    let ports = [Some(settings.gue_port), wildcard.then_some(0)];
    for key in ports.into_iter().flatten().map(key) {
        if tables.service(&key)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What becomes of the outer header, by the rules of the program.
fn outcome(outer: &Outer, tables: &dyn ReadTables, settings: &Settings) -> io::Result<Outcome> {
    if settings.flags & ENDS_TUNNELS == 0 {
        return Ok(Outcome::Passed);
    }
    let [source, destination] = [outer.source, outer.destination].map(NetAddr::from);
    let family = if outer.source.is_ipv4() { V4 } else { V6 };
    let known = Known {
        gue_port: settings.gue_port,
        is_end: tables.ends_tunnels(EndKey::END, outer.destination)?,
        is_source: tables.ends_tunnels(family, outer.source)?,
    };
    let carries = match outer.kind {
        OuterKind::Ipip => Carries::Protocol(IPV4_IN_IP),
        OuterKind::Gue => Carries::Udp(settings.gue_port),
    };
    Ok(
        match decap::admit(&known, carries, family, &source, &destination) {
            Ok(()) => Outcome::Decapsulated,
            Err(outcome) => outcome,
        },
    )
}
