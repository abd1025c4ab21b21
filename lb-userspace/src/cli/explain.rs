//! `lb explain`

use std::net::{IpAddr, SocketAddr};

use clap::Args;
use lb_common::reason::Reason;
use serde::Serialize;

use super::{
    client::with_query,
    error::{CliError, Exit},
    output::Context,
    table::{Table, sentence, text},
    whole_number::whole_number,
};
use crate::{
    api::types::Explanation,
    state::{service::Protocol, words::Word},
};

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  lb explain tcp 198.51.100.7:40000 192.0.2.10:80    what would happen to this packet
  lb explain no_backend                              what a reason means, and what to do about it
  lb explain                                         all reasons")]
pub(super) struct Explain {
    /// tcp or udp, or the name of a reason
    #[arg(value_name = "tcp|udp|REASON")]
    what: Option<String>,
    /// Source of the packet
    #[arg(value_name = "SRC:PORT", requires = "destination")]
    source: Option<SocketAddr>,
    /// Destination of the packet
    #[arg(value_name = "DST:PORT")]
    destination: Option<SocketAddr>,
    /// A TCP packet of an existing connection, instead of a SYN
    #[arg(long)]
    established: bool,
    /// Interface on which it arrives [default: the first one]
    #[arg(long, value_name = "IFACE")]
    iface: Option<String>,
    /// TTL or hop limit [default: 64]
    #[arg(long, value_name = "N", value_parser = whole_number::<u8>(0..=255))]
    ttl: Option<u8>,
    /// Length of the IP packet in bytes [default: one that fits everywhere]
    #[arg(long, value_name = "BYTES", value_parser = whole_number::<u16>(0..=65_535))]
    length: Option<u16>,
    /// Destination connection id of QUIC, in hexadecimal
    #[arg(long, value_name = "HEX")]
    quic_id: Option<String>,
    /// A packet that comes through a tunnel: explain the outer header, then the packet in it
    #[arg(long, value_name = "ipip|gue", requires_all = ["tunnel_from", "tunnel_to"])]
    tunnel: Option<String>,
    /// Source of the outer header
    #[arg(long, value_name = "IP", requires = "tunnel")]
    tunnel_from: Option<IpAddr>,
    /// Destination of the outer header
    #[arg(long, value_name = "IP", requires = "tunnel")]
    tunnel_to: Option<IpAddr>,
}

/// A reason for people and programs.
#[derive(Serialize)]
struct Meaning {
    reason: &'static str,
    action: &'static str,
    meaning: &'static str,
    remedy: &'static str,
}

impl Explain {
    /// Whether its output can be names alone: those of the reasons.
    pub(super) const fn has_names(&self) -> bool {
        self.what.is_none()
    }

    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let Some(what) = self.what.as_deref() else {
            return context.show(&meanings(), |reasons| {
                let names = reasons.iter().map(|meaning| meaning.reason.to_owned());
                context.names_or(names, || list(reasons, context))
            });
        };
        let protocol = Protocol::from_word(what);
        match (protocol, self.source.zip(self.destination)) {
            (Some(protocol), Some((source, destination))) => {
                let values = [
                    ("protocol", Some(protocol.word().to_owned())),
                    ("source", Some(source.to_string())),
                    ("destination", Some(destination.to_string())),
                    ("established", Some(self.established.to_string())),
                    ("interface", self.iface),
                    ("ttl", self.ttl.map(|ttl| ttl.to_string())),
                    ("length", self.length.map(|length| length.to_string())),
                    ("quic_id", self.quic_id),
                    ("tunnel", self.tunnel),
                    ("tunnel_from", self.tunnel_from.map(|from| from.to_string())),
                    ("tunnel_to", self.tunnel_to.map(|to| to.to_string())),
                ];
                let path = with_query("/v1/explain", values);
                let explanation: Explanation = context.client().get(&path).await?;
                context.show(&explanation, steps)
            }
            (Some(_), None) => Err(CliError::new(Exit::Usage, "source and destination are missing")
                .hint(format!("lb explain {what} 198.51.100.7:40000 192.0.2.10:80"))),
            (None, _) => {
                let named = meanings().into_iter().find(|meaning| meaning.reason == what);
                let named = named.ok_or_else(|| {
                    CliError::new(Exit::Usage, format!("{what} is neither tcp, udp nor a reason"))
                        .hint("`lb explain` lists all reasons")
                })?;
                context.show(&named, |meaning| {
                    let Meaning {
                        reason,
                        action,
                        meaning,
                        remedy,
                    } = meaning;
                    format!("{reason} ({action})\n  {meaning}\n  {remedy}\n")
                })
            }
        }
    }
}

fn meanings() -> Vec<Meaning> {
    let meaning = |reason: &Reason| Meaning {
        reason: reason.name(),
        action: reason.action().name(),
        meaning: reason.meaning(),
        remedy: reason.remedy(),
    };
    Reason::ALL.iter().map(meaning).collect()
}

fn list(reasons: &[Meaning], context: &Context) -> String {
    let mut table = Table::new(&[text("REASON"), text("ACTION").rank(1), sentence("MEANING", 16)]);
    for meaning in reasons {
        table.row([
            meaning.reason.into(),
            meaning.action.into(),
            meaning.meaning.into(),
        ]);
    }
    table.render(context.style)
}

fn steps(explanation: &Explanation) -> String {
    let mut text = String::new();
    for (number, step) in (1..).zip(&explanation.steps) {
        text.push_str(&format!("{number:>2}. {step}\n"));
    }
    let interface = explanation
        .output
        .as_ref()
        .and_then(|output| output.interface.as_ref())
        .map(|interface| format!(" out of {interface}"))
        .unwrap_or_default();
    text.push_str(&format!(
        "{}{interface}: {}\n",
        explanation.verdict, explanation.reason
    ));
    if let Some(fault) = &explanation.fault {
        text.push_str(&format!("but flows fail: {fault}\n"));
    }
    if let Some(remedy) = &explanation.remedy {
        text.push_str(&format!("hint: {remedy}\n"));
    }
    text
}
