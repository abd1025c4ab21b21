//! The runs, a file each. `cargo xtask bench` finds their names by their files.

mod cold_start;
mod connections;
mod distribution;
mod endpoint;
mod failover;
mod latency;
mod memory;
mod percentiles;
mod pooling;
mod soak;
mod throughput;

use std::time::Duration;

use anyhow::Result;
use lb_tests::report::document::Report;

use crate::context::Context;

/// A run.
pub(crate) struct Run {
    /// Its name, which is that of its file with dashes.
    pub(crate) name: &'static str,
    /// What it shows, for the list of runs.
    pub(crate) shows: &'static str,
    /// After which it hangs.
    pub(crate) limit: Duration,
    /// Measures.
    pub(crate) measure: fn(&mut Context) -> Result<Report>,
}

/// All of them.
pub(crate) const RUNS: &[Run] = &[
    Run {
        name: "latency",
        shows: "p50, p90, p99 and p99.9 with 100 to 10,000 connections, in each mode and of peers",
        limit: minutes(12),
        measure: latency::measure,
    },
    Run {
        name: "throughput",
        shows: "requests, new connections and bytes a second, in each mode and of peers; whether the metrics have every byte",
        limit: minutes(10),
        measure: throughput::measure,
    },
    Run {
        name: "percentiles",
        shows: "the whole spectrum of latencies at a fixed rate, in each mode and of peers",
        limit: minutes(8),
        measure: percentiles::measure,
    },
    Run {
        name: "distribution",
        shows: "how far new flows are from the weights, and how many a change of backends moves",
        limit: minutes(5),
        measure: distribution::measure,
    },
    Run {
        name: "failover",
        shows: "from a backend's failure to the last lost flow, and to its return, beside HAProxy",
        limit: minutes(10),
        measure: failover::measure,
    },
    Run {
        name: "connections",
        shows: "50,000 real connections and a million crafted flows: memory a flow, time a packet, no loss",
        limit: minutes(8),
        measure: connections::measure,
    },
    Run {
        name: "endpoint",
        shows: "requests a second and their latency at `/healthz`, `/readyz` and `/metrics` while the balancer forwards",
        limit: minutes(5),
        measure: endpoint::measure,
    },
    Run {
        name: "memory",
        shows: "memory of the daemon and of its maps over a run with up to 4,096 services and 65,535 backends",
        limit: minutes(8),
        measure: memory::measure,
    },
    Run {
        name: "soak",
        shows: "whether memory, threads, descriptors and maps end where they began after mixed traffic and random changes",
        limit: minutes(90),
        measure: soak::measure,
    },
    Run {
        name: "pooling",
        shows: "health checks over kept, new and half-open connections, and requests with and without keep-alive",
        limit: minutes(5),
        measure: pooling::measure,
    },
    Run {
        name: "cold-start",
        shows: "from the start to READY and to the first packet, and whether a take-over loses packets",
        limit: minutes(5),
        measure: cold_start::measure,
    },
];

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}
