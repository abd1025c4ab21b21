//! Crafted flows through the program of a running daemon.

use std::{collections::HashSet, net::SocketAddr};

use anyhow::{Context as _, Result, ensure};
use lb_common::map_names::{FLOWS_V4, FLOWS_V6, OPENING_V4, SEEN_V4, TRACKED_V4};
use lb_tests::{report::samples::Samples, test_run::Runner, topology::Family};

use crate::{
    crafted::{self, ACK, Balancer, SYN},
    process,
};

/// Backends of each service: with the source ports of each, more than enough for all flows.
const BACKENDS: u32 = 32;

/// Flows of mode `nat`, half of each family.
pub(super) struct Crafted {
    /// By the daemon's count.
    pub(super) counted: u64,
    /// Bytes a flow of IPv4, of IPv6 and of either in the flow tables, and in the daemon.
    pub(super) of_family: [f64; 2],
    pub(super) tables: f64,
    pub(super) daemon: f64,
    /// Seconds a packet: forward and reply of IPv4, of IPv6.
    pub(super) seconds: [Samples; 4],
}

impl Crafted {
    /// Opens flows, and sends `packets` packets of them in each turn, direction and family.
    ///
    /// # Errors
    /// When a packet is not sent on, or not to the ends of its flow.
    pub(super) fn measure(count: u32, turns: usize, packets: u32) -> Result<Self> {
        let balancer = Balancer::start()?;
        let addresses = [Family::V4, Family::V6].map(|family| (family, crafted::address(family, 10, 80)));
        let services = addresses.iter().map(|(family, address)| {
            let backends = (1..=BACKENDS).map(|number| (number, 1));
            crafted::service(
                &format!("{family:?}"),
                *address,
                "mode = \"nat\"",
                *family,
                backends,
            )
        });
        balancer.apply(&services.collect::<Result<Vec<_>>>()?)?;
        let memory = || -> Result<[f64; 3]> {
            let daemon = &balancer.daemon;
            let tables = [FLOWS_V4, FLOWS_V6].map(|name| process::map_bytes(daemon, name));
            let [v4, v6] = tables;
            Ok([v4?, v6?, process::resident(daemon.pid()?)?])
        };
        let before = memory()?;
        let flows =
            addresses.map(|(_, address)| balancer.packets(|runner| Flows::open(runner, address, count / 2)));
        let [of_v4, of_v6] = flows;
        let flows = [of_v4?, of_v6?];
        let mut grown = memory()?;
        grown
            .iter_mut()
            .zip(before)
            .for_each(|(after, before)| *after -= before);
        let [v4, v6, daemon] = grown;
        let counted = balancer.daemon.cli().json("flows count")?["flows"].as_u64();
        let mut seconds: [Samples; 4] = Default::default();
        for _ in 0..turns {
            for (flows, samples) in flows.iter().zip(seconds.chunks_mut(2)) {
                let both = balancer.packets(|runner| flows.seconds(runner, packets))?;
                samples
                    .iter_mut()
                    .zip(both)
                    .for_each(|(samples, value)| samples.push(value));
            }
        }
        Ok(Self {
            counted: counted.context("no count of flows")?,
            of_family: [v4, v6].map(|grown| grown / f64::from(count / 2)),
            tables: (v4 + v6) / f64::from(count),
            daemon: daemon / f64::from(count),
            seconds,
        })
    }
}

/// Flows of one service, all of which the program knows.
struct Flows {
    service: SocketAddr,
    /// Source and destination of each flow's packets behind the balancer.
    translated: Vec<(SocketAddr, SocketAddr)>,
}

impl Flows {
    /// Opens flows: SYN, answer, ACK.
    fn open(runner: &mut Runner<'_>, service: SocketAddr, count: u32) -> Result<Self> {
        let mut translated = Vec::new();
        for flow in 0..count {
            let client = crafted::client(flow, service.ip());
            let to_backend = crafted::sent(runner, &crafted::tcp(client, service, SYN)?)?;
            let (source, backend) = (to_backend.source, to_backend.destination);
            let to_client = crafted::sent(runner, &crafted::tcp(backend, source, SYN | ACK)?)?;
            ensure!(
                (to_client.source, to_client.destination) == (service, client),
                "the answer to {client} went to {} from {}",
                to_client.destination,
                to_client.source
            );
            let again = crafted::sent(runner, &crafted::tcp(client, service, ACK)?)?;
            ensure!(
                (again.source, again.destination) == (source, backend),
                "the flow of {client} moved"
            );
            translated.push((source, backend));
        }
        let distinct: HashSet<_> = translated.iter().collect();
        ensure!(
            distinct.len() == translated.len(),
            "two flows have the same addresses at a backend"
        );
        Ok(Self { service, translated })
    }

    /// Seconds that the program takes for a packet of a known flow, forward and back: medians of packets of flows in random order.
    fn seconds(&self, runner: &mut Runner<'_>, packets: u32) -> Result<[f64; 2]> {
        let mut took = [Vec::new(), Vec::new()];
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..packets {
            let flow = random.usize(..self.translated.len());
            let (source, backend) = *self.translated.get(flow).context("no such flow")?;
            let client = crafted::client(u32::try_from(flow)?, self.service.ip());
            for (took, (from, to)) in took.iter_mut().zip([(client, self.service), (backend, source)]) {
                took.push(f64::from(crafted::timed(runner, &crafted::tcp(from, to, ACK)?)?) / 1e9);
            }
        }
        Ok(took.map(|took| Samples::new(took).median()))
    }
}

/// Flows of a mode that records none.
pub(super) struct Untracked {
    /// Flows whose packets were sent on.
    pub(super) flows: f64,
    /// Bytes a flow, of the tables that could record them.
    pub(super) tables: f64,
}

/// Opens flows of mode `ipip`.
///
/// # Errors
/// When a packet is not sent on, or a flow moves.
pub(super) fn untracked(count: u32) -> Result<Untracked> {
    let balancer = Balancer::start()?;
    let address = crafted::address(Family::V4, 10, 80);
    let backends = (1..=BACKENDS).map(|number| (number, 1));
    balancer.apply(&[crafted::service(
        "tunnels",
        address,
        "mode = \"ipip\"",
        Family::V4,
        backends,
    )?])?;
    let memory = || -> Result<f64> {
        let tables = [TRACKED_V4, OPENING_V4, SEEN_V4].map(|name| process::map_bytes(&balancer.daemon, name));
        tables.into_iter().sum()
    };
    let before = memory()?;
    balancer.packets(|runner| {
        for flow in 0..count {
            let client = crafted::client(flow, address.ip());
            let began = crafted::tunnelled(runner, &crafted::tcp(client, address, SYN)?)?;
            let went_on = crafted::tunnelled(runner, &crafted::tcp(client, address, ACK)?)?;
            ensure!(began == went_on, "the flow of {client} moved");
        }
        Ok(())
    })?;
    Ok(Untracked {
        flows: f64::from(count),
        tables: (memory()? - before) / f64::from(count),
    })
}
