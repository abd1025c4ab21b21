//! Is a DNS question answered as expected?

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    connect::Budget,
    dns_message::{self, Malformed, Reply},
    problem::ProbeError,
    udp,
};
use crate::{
    error::{CheckError, Latency, Stage},
    probe::{checker::Checker, route::Route},
    settings::{DnsCheck, RecordType, Transport},
    word::Word as _,
};

/// Datagrams that are looked at for the reply to one question.
const MAX_REPLIES: usize = 64;

/// Everything that makes `settings` no check.
pub(super) fn problems(settings: &DnsCheck) -> Vec<ProbeError> {
    let DnsCheck {
        name,
        record: _,
        transport: _,
        expect_answer: _,
    } = settings;
    match dns_message::encode_name(name) {
        Some(_) => Vec::new(),
        None => vec![ProbeError::DnsName(name.clone())],
    }
}

/// Sends a question and compares the answer. After a truncated answer it asks again over TCP (RFC 7766).
#[derive(Clone, Debug)]
pub struct DnsChecker {
    name: Arc<[u8]>,
    record: RecordType,
    transport: Transport,
    expect: Option<Arc<str>>,
    route: Route,
}

impl DnsChecker {
    /// A checker for `settings`.
    ///
    /// # Errors
    /// When their name is invalid.
    pub fn new(settings: &DnsCheck) -> Result<Self, ProbeError> {
        let name = dns_message::encode_name(&settings.name)
            .ok_or_else(|| ProbeError::DnsName(settings.name.clone()))?;
        Ok(Self {
            name: name.into(),
            record: settings.record,
            transport: settings.transport,
            expect: settings.expect_answer.as_deref().map(Into::into),
            route: Route::default(),
        })
    }

    /// Uses `route`.
    #[must_use]
    pub fn with_route(self, route: Route) -> Self {
        Self { route, ..self }
    }

    async fn ask_udp(&self, budget: &mut Budget, query: &[u8]) -> Result<Vec<u8>, CheckError> {
        let socket = budget
            .spend(Stage::Connect, udp::connect(budget.target, self.route))
            .await?;
        let mut reply = Vec::with_capacity(udp::MAX_DATAGRAM);
        let answered = budget
            .spend(Stage::Request, async {
                socket.send(query).await?;
                for _ in 0..MAX_REPLIES {
                    reply.clear();
                    socket.recv_buf(&mut reply).await?;
                    // Skip a late reply to an earlier question from the same port.
                    if dns_message::id(&reply).is_none_or(|id| Some(id) == dns_message::id(query)) {
                        return Ok(true);
                    }
                }
                Ok(false)
            })
            .await?;
        if answered {
            return Ok(reply);
        }
        Err(CheckError::Answer {
            target: budget.target,
            reason: format!("{MAX_REPLIES} replies, and none to this question").into(),
        })
    }

    async fn ask_tcp(&self, budget: &mut Budget, query: &[u8]) -> Result<Vec<u8>, CheckError> {
        let mut stream = budget.connect(self.route).await?;
        let length = u16::try_from(query.len()).unwrap_or_default();
        let mut message = length.to_be_bytes().to_vec();
        message.extend_from_slice(query);
        let length = budget
            .spend(Stage::Request, async {
                stream.write_all(&message).await?;
                stream.read_u16().await
            })
            .await?;
        let mut reply = vec![0; length.into()];
        budget.spend(Stage::Body, stream.read_exact(&mut reply)).await?;
        Ok(reply)
    }

    fn judge(&self, target: SocketAddr, reply: &Reply) -> Result<(), CheckError> {
        let wrong = |reason: String| {
            Err(CheckError::Answer {
                target,
                reason: reason.into(),
            })
        };
        if reply.code != 0 {
            return wrong(dns_message::code(reply.code));
        }
        if reply.records.is_empty() {
            return wrong(format!("no {} record", self.record.word()));
        }
        match &self.expect {
            Some(expected) if !reply.records.iter().any(|found| self.same(found, expected)) => {
                wrong(format!("{}, expected {expected}", reply.records.join(", ")))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn same(&self, found: &str, expected: &str) -> bool {
        match self.record {
            RecordType::Txt => found == expected,
            // Many texts for one address.
            RecordType::Aaaa => expected
                .parse::<std::net::Ipv6Addr>()
                .is_ok_and(|expected| expected.to_string() == found),
            RecordType::A
            | RecordType::Cname
            | RecordType::Mx
            | RecordType::Ns
            | RecordType::Ptr
            | RecordType::Soa
            | RecordType::Srv => found == dns_message::normal(expected),
        }
    }
}

impl Checker for DnsChecker {
    async fn check(&self, target: SocketAddr, timeout: Duration) -> Result<Latency, CheckError> {
        let mut budget = Budget::start(target, timeout);
        let id = fastrand::u16(..);
        let query = dns_message::query(id, &self.name, self.record);
        let read = |message: &[u8]| {
            dns_message::parse(message, &query, self.record).map_err(|Malformed(reason)| CheckError::Answer {
                target,
                reason: reason.into(),
            })
        };
        let reply = match self.transport {
            Transport::Tcp => read(&self.ask_tcp(&mut budget, &query).await?)?,
            Transport::Udp => {
                let reply = read(&self.ask_udp(&mut budget, &query).await?)?;
                if reply.truncated {
                    read(&self.ask_tcp(&mut budget, &query).await?)?
                } else {
                    reply
                }
            }
        };
        self.judge(target, &reply)?;
        Ok(Latency(budget.started.elapsed()))
    }
}
