//! All that is counted about a packet: verdict, service and backend.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Result, ensure};
use lb_common::{
    counters::{PacketCount, Traffic},
    reason::Reason,
};
use lb_userspace::state::service::ServiceKey;

use super::{bench::Bench, build::Frame};

/// How a packet counts for its service and backend.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Counted {
    /// Forwarded to a backend; it may open a flow.
    Forward { new: bool },
    /// A backend's, sent on to its client.
    Reply,
    /// Refused by the service, or answered in its name.
    Refused(Reason),
}

/// The counters at one moment.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Counts {
    verdicts: BTreeMap<Reason, PacketCount>,
    services: BTreeMap<ServiceKey, Traffic>,
    backends: BTreeMap<(ServiceKey, SocketAddr), Traffic>,
    refused: BTreeMap<(ServiceKey, Reason), u64>,
}

impl Counts {
    pub(crate) fn of(bench: &Bench) -> Result<Self> {
        let snapshot = bench.snapshot()?;
        let backends = snapshot.backends.into_iter();
        Ok(Self {
            verdicts: snapshot.interfaces[0].by_reason.iter().copied().collect(),
            services: snapshot.services,
            backends: backends.map(|(key, stats)| (key, stats.traffic)).collect(),
            refused: snapshot.service_drops,
        })
    }

    /// With one frame more. Services and backends do not count the bytes of its tags.
    fn add(
        &mut self,
        reason: Reason,
        frame: &Frame,
        (key, backend): (ServiceKey, SocketAddr),
        counted: Counted,
    ) {
        let verdict = self.verdicts.entry(reason).or_default();
        verdict.packets += 1;
        verdict.bytes += frame.len() as u64;
        let bytes = (frame.len() - frame.tags_len()) as u64;
        let all = [
            self.services.entry(key).or_default(),
            self.backends.entry((key, backend)).or_default(),
        ];
        match counted {
            Counted::Forward { new } => {
                for traffic in all {
                    traffic.packets += 1;
                    traffic.bytes += bytes;
                    traffic.new_flows += u64::from(new);
                }
            }
            Counted::Reply => {
                for traffic in all {
                    traffic.reply_packets += 1;
                    traffic.reply_bytes += bytes;
                }
            }
            Counted::Refused(reason) => *self.refused.entry((key, reason)).or_default() += 1,
        }
    }

    /// Whether `after` is this and one frame.
    pub(crate) fn ensure_one_more(
        mut self,
        after: &Self,
        reason: Reason,
        frame: &Frame,
        of: (ServiceKey, SocketAddr),
        counted: Counted,
    ) -> Result<()> {
        let before = self.clone();
        self.add(reason, frame, of, counted);
        ensure!(
            self == *after,
            "counted {}, not {}",
            after.since(&before),
            self.since(&before)
        );
        Ok(())
    }

    /// The differences from `before`, as text.
    fn since(&self, before: &Self) -> String {
        fn changed<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
            now: &BTreeMap<K, V>,
            before: &BTreeMap<K, V>,
        ) -> String {
            let new = now.iter().filter(|(key, value)| before.get(key) != Some(value));
            new.map(|(key, value)| format!("\n    {key:?}: {:?} -> {value:?}", before.get(key)))
                .collect()
        }
        [
            changed(&self.verdicts, &before.verdicts),
            changed(&self.services, &before.services),
            changed(&self.backends, &before.backends),
            changed(&self.refused, &before.refused),
        ]
        .concat()
    }
}
