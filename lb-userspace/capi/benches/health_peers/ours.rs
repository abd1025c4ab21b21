//! Our checkers, as the library has them, on one thread or on all processors.

use std::{net::SocketAddr, sync::Arc, time::Duration, time::Instant};

use anyhow::{Context as _, Result};
use lb_health_core::{
    CheckError, Checker, DnsChecker, HttpChecker, Latency, Route, TcpProbe, check_all,
    settings::{CheckKind, DnsCheck, HttpCheck},
};
use tokio::runtime::Builder;

use crate::Cost;

const TIMEOUT: Duration = Duration::from_secs(5);

/// A kind of check.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    HalfOpen,
    HttpNew,
    HttpKept,
    Dns,
    /// A query for a name that does not exist: a failure.
    DnsMissing,
}

impl Kind {
    /// The kind of check in words.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::HalfOpen => "tcp half-open",
            Self::HttpNew => "http, new connection",
            Self::HttpKept => "http, every tenth on a new connection",
            Self::Dns | Self::DnsMissing => "dns",
        }
    }

    /// The setting for it.
    pub(crate) fn setting(self) -> CheckKind {
        match self {
            Self::Tcp => CheckKind::Tcp,
            Self::HalfOpen => CheckKind::TcpHalfOpen,
            Self::HttpNew | Self::HttpKept => CheckKind::Http(HttpCheck::default()),
            Self::Dns | Self::DnsMissing => CheckKind::Dns(DnsCheck::default()),
        }
    }

    fn checker(self) -> Result<Ours> {
        let tcp = |half_open| {
            Ours::Tcp(TcpProbe {
                route: Route::default(),
                half_open,
            })
        };
        let http = |every| -> Result<Ours> {
            let checker = HttpChecker::new(&HttpCheck::default())?.with_fresh_every(every);
            Ok(Ours::Http(Box::new(checker)))
        };
        let dns = |name: &str| -> Result<Ours> {
            Ok(Ours::Dns(DnsChecker::new(&DnsCheck {
                name: name.to_owned(),
                ..DnsCheck::default()
            })?))
        };
        match self {
            Self::Tcp => Ok(tcp(false)),
            Self::HalfOpen => Ok(tcp(true)),
            Self::HttpNew => http(1),
            Self::HttpKept => http(u32::MAX),
            Self::Dns => dns("a.example"),
            Self::DnsMissing => dns("no.example"),
        }
    }
}

enum Ours {
    Tcp(TcpProbe),
    Http(Box<HttpChecker>),
    Dns(DnsChecker),
}

impl Checker for Ours {
    async fn check(&self, target: SocketAddr, timeout: Duration) -> Result<Latency, CheckError> {
        match self {
            Self::Tcp(checker) => checker.check(target, timeout).await,
            Self::Http(checker) => checker.check(target, timeout).await,
            Self::Dns(checker) => checker.check(target, timeout).await,
        }
    }
}

/// Where checks run.
#[derive(Clone, Copy)]
pub(crate) enum On {
    /// One thread.
    One,
    /// A runtime with a thread for each processor, as Go's.
    All,
}

/// Cost of `count` checks, `concurrent` at once: the next ones begin when all of them have ended.
pub(crate) fn measure(kind: Kind, target: SocketAddr, count: u32, concurrent: u32, on: On) -> Result<Cost> {
    let checks = (0..concurrent)
        .map(|_| Ok((Arc::new(kind.checker()?), target)))
        .collect::<Result<Vec<_>>>()?;
    let runtime = match on {
        On::One => Builder::new_current_thread().enable_all().build()?,
        On::All => Builder::new_multi_thread().enable_all().build()?,
    };
    runtime
        .block_on(async { tokio::spawn(rounds(checks, count)).await })
        .context("a check panicked")
}

/// Rounds of checks, one after the other.
async fn rounds(checks: Vec<(Arc<Ours>, SocketAddr)>, count: u32) -> Cost {
    round(&checks).await;
    let concurrent = checks.len();
    let rounds = count.div_ceil(u32::try_from(concurrent).unwrap_or(u32::MAX));
    let (begin, cpu) = (Instant::now(), process_time());
    let mut failed = 0;
    for _ in 0..rounds {
        failed += round(&checks).await;
    }
    let (clock, cpu) = (begin.elapsed(), process_time() - cpu);
    let checks = f64::from(rounds) * concurrent as f64;
    Cost {
        clock: clock.as_nanos() as f64 / checks,
        cpu: cpu.as_nanos() as f64 / checks,
        failed: failed as f64 * 100.0 / checks,
    }
}

/// Makes each check once; returns how many failed.
async fn round(checks: &[(Arc<Ours>, SocketAddr)]) -> usize {
    if let [(only, target)] = checks {
        return usize::from(only.check(*target, TIMEOUT).await.is_err());
    }
    let results = check_all(checks.to_vec(), TIMEOUT).await;
    results.iter().filter(|result| result.is_err()).count()
}

/// Processor time of this process so far: only checking threads work meanwhile.
fn process_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the clock is there since Linux 2.6.12, and the pointer is to a timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    Duration::new(
        time.tv_sec.try_into().unwrap_or_default(),
        time.tv_nsec.try_into().unwrap_or_default(),
    )
}
