//! Our checkers, as the library has them, on one thread.

use std::{net::SocketAddr, sync::Arc, time::Duration, time::Instant};

use anyhow::Result;
use lb_userspace::health::{
    CheckError, Checker, DnsChecker, HttpChecker, Latency, Route, TcpProbe,
    settings::{CheckKind, DnsCheck, HttpCheck},
};
use tokio::task::JoinSet;

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
    /// A question whose answer is that there is no such name: a failure.
    DnsMissing,
}

impl Kind {
    /// What the engine does for it.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::HalfOpen => "tcp half-open",
            Self::HttpNew => "http, new connection",
            Self::HttpKept => "http, every tenth on a new connection",
            Self::Dns | Self::DnsMissing => "dns",
        }
    }

    /// The setting that asks the engine for it.
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
            Ok(Ours::Http(
                HttpChecker::new(&HttpCheck::default())?.with_fresh_every(every),
            ))
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
    Http(HttpChecker),
    Dns(DnsChecker),
}

impl Ours {
    async fn check(&self, target: SocketAddr) -> Result<Latency, CheckError> {
        match self {
            Self::Tcp(checker) => checker.check(target, TIMEOUT).await,
            Self::Http(checker) => checker.check(target, TIMEOUT).await,
            Self::Dns(checker) => checker.check(target, TIMEOUT).await,
        }
    }
}

/// What `count` checks cost, `concurrent` at once: the next ones begin when all of them have ended.
pub(crate) fn measure(kind: Kind, target: SocketAddr, count: u32, concurrent: u32) -> Result<Cost> {
    let checkers = (0..concurrent)
        .map(|_| Ok(Arc::new(kind.checker()?)))
        .collect::<Result<Vec<_>>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        round(&checkers, target).await;
        let rounds = count.div_ceil(concurrent);
        let checks = f64::from(rounds * concurrent);
        let (begin, cpu) = (Instant::now(), thread_time());
        let mut failed = 0;
        for _ in 0..rounds {
            failed += round(&checkers, target).await;
        }
        let (clock, cpu) = (begin.elapsed(), thread_time() - cpu);
        Ok(Cost {
            clock: clock.as_nanos() as f64 / checks,
            cpu: cpu.as_nanos() as f64 / checks,
            failed: f64::from(failed) * 100.0 / checks,
        })
    })
}

/// Checks once with each; returns how many failed.
async fn round(checkers: &[Arc<Ours>], target: SocketAddr) -> u32 {
    if let [only] = checkers {
        return u32::from(only.check(target).await.is_err());
    }
    let mut checks = JoinSet::new();
    for checker in checkers {
        let checker = Arc::clone(checker);
        checks.spawn(async move { checker.check(target).await.is_err() });
    }
    checks.join_all().await.into_iter().map(u32::from).sum()
}

/// Processor time of this thread so far.
fn thread_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the clock is there since Linux 2.6.12, and the pointer is to a timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(
        time.tv_sec.try_into().unwrap_or_default(),
        time.tv_nsec.try_into().unwrap_or_default(),
    )
}
