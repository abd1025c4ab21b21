//! Time of single checks, of concurrent ones, and of the library calls around them, all on loopback. Prints only.

#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::{
    future::Future,
    hint::black_box,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use criterion::{Criterion, Throughput};
use lb_common::counters::Signals;
use lb_health_core::{
    Breaker, Checker, DnsChecker, HealthCheckMonitor, HttpChecker, MonitorConfig, Route, TcpChecker,
    TcpProbe, check_all,
    settings::{BreakerSettings, CheckSettings, DnsCheck, HttpCheck},
};
use tokio::{
    net::TcpSocket,
    runtime::Runtime,
    task::{JoinError, JoinSet},
};

const TIMEOUT: Duration = Duration::from_secs(5);

/// A port that is bound and refuses.
fn refusing(runtime: &Runtime) -> Result<(TcpSocket, SocketAddr)> {
    let _guard = runtime.enter();
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    let address = socket.local_addr()?;
    Ok((socket, address))
}

/// A server that accepts and drops connections.
fn accepting() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || listener.incoming().for_each(drop));
    Ok(address)
}

/// A server that answers each request of up to `connections` connections at a time.
fn answering(connections: usize) -> Result<SocketAddr> {
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0")?);
    let address = listener.local_addr()?;
    for _ in 0..connections {
        let listener = Arc::clone(&listener);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut request = [0; 1024];
                // A check is one small write: one read has the whole request.
                while stream.read(&mut request).is_ok_and(|read| read > 0) {
                    let sent = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                    if sent.is_err() {
                        break;
                    }
                }
            }
        });
    }
    Ok(address)
}

/// A DNS server that answers every question with one address.
fn resolving() -> Result<SocketAddr> {
    // A pointer to the name of the question, type A, class IN, a minute, four bytes (RFC 1035 section 4.1).
    const RECORD: [u8; 16] = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, 7];
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let address = socket.local_addr()?;
    thread::spawn(move || {
        let mut message = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut message) {
            // Flags: an answer, recursion available; counts: one question, one answer.
            message[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
            let end = message[12..length]
                .iter()
                .position(|byte| *byte == 0)
                .map_or(length, |root| 12 + root + 5);
            message[end..end + RECORD.len()].copy_from_slice(&RECORD);
            let _ = socket.send_to(&message[..end + RECORD.len()], client);
        }
    });
    Ok(address)
}

fn http(fresh_every: u32) -> Result<HttpChecker> {
    Ok(HttpChecker::new(&HttpCheck::default())?.with_fresh_every(fresh_every))
}

/// Cost of the same work by blocking calls, without our code: results are ratios to these.
fn floors(c: &mut Criterion, runtime: &Runtime) -> Result<()> {
    let (_taken, refused) = refusing(runtime)?;
    let mut stream = TcpStream::connect(answering(1)?)?;
    let mut group = c.benchmark_group("health/floor");
    group.bench_function("connect refused", |b| b.iter(|| TcpStream::connect(refused)));
    group.bench_function("http exchange, kept connection", |b| {
        b.iter(|| {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
            stream.read(&mut [0; 4096])
        });
    });
    group.finish();
    Ok(())
}

fn single_checks(c: &mut Criterion, runtime: &Runtime) -> Result<()> {
    let (_taken, refused) = refusing(runtime)?;
    let tcp = accepting()?;
    let web = answering(2)?;
    let (fresh, kept) = (http(1)?, http(u32::MAX)?);
    let names = resolving()?;
    let dns = DnsChecker::new(&DnsCheck {
        name: "a.example".to_owned(),
        expect_answer: Some("10.0.0.7".to_owned()),
        ..DnsCheck::default()
    })?;
    // Its port is bound for TCP alone.
    let silent = refused;
    let half_open = TcpProbe {
        route: Route::default(),
        half_open: true,
    };
    // The measured check must do what its name says.
    runtime.block_on(async {
        anyhow::ensure!(TcpChecker.check(refused, TIMEOUT).await.is_err());
        anyhow::ensure!(dns.check(silent, TIMEOUT).await.is_err());
        TcpChecker.check(tcp, TIMEOUT).await?;
        half_open.check(tcp, TIMEOUT).await?;
        dns.check(names, TIMEOUT).await?;
        fresh.check(web, TIMEOUT).await?;
        kept.check(web, TIMEOUT).await?;
        Ok(())
    })?;
    let mut group = c.benchmark_group("health/check");
    group.bench_function("tcp refused", |b| {
        b.iter(|| runtime.block_on(TcpChecker.check(refused, TIMEOUT)));
    });
    group.bench_function("tcp success", |b| {
        b.iter(|| runtime.block_on(TcpChecker.check(tcp, TIMEOUT)));
    });
    group.bench_function("tcp half-open", |b| {
        b.iter(|| runtime.block_on(half_open.check(tcp, TIMEOUT)));
    });
    group.bench_function("dns refused", |b| {
        b.iter(|| runtime.block_on(dns.check(silent, TIMEOUT)));
    });
    group.bench_function("dns success", |b| {
        b.iter(|| runtime.block_on(dns.check(names, TIMEOUT)));
    });
    group.bench_function("http refused", |b| {
        b.iter(|| runtime.block_on(fresh.check(refused, TIMEOUT)));
    });
    group.bench_function("http success, new connection", |b| {
        b.iter(|| runtime.block_on(fresh.check(web, TIMEOUT)));
    });
    group.bench_function("http success, kept connection", |b| {
        b.iter(|| runtime.block_on(kept.check(web, TIMEOUT)));
    });
    group.finish();
    Ok(())
}

/// Does `work` on one of the runtime's own threads, as a server does.
fn on_thread<T: Send + 'static>(
    runtime: &Runtime,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, JoinError> {
    runtime.block_on(async { tokio::spawn(work).await })
}

/// Time of a whole round; the rate printed beside it is in checks.
fn concurrent_checks(c: &mut Criterion, runtime: &Runtime) -> Result<()> {
    let (_taken, refused) = refusing(runtime)?;
    let all = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let tcp = Arc::new(TcpChecker);
    for count in [1_u32, 10, 100] {
        let web = answering(usize::try_from(count)?)?;
        let checkers = (0..count)
            .map(|_| Ok(Arc::new(http(u32::MAX)?)))
            .collect::<Result<Vec<Arc<HttpChecker>>>>()?;
        let mut group = c.benchmark_group(format!("health/concurrent {count}"));
        group.throughput(Throughput::Elements(count.into()));
        group.bench_function("tcp refused, a task each", |b| {
            b.iter(|| {
                runtime.block_on(async {
                    let mut checks = JoinSet::new();
                    for _ in 0..count {
                        checks.spawn(TcpChecker.check(refused, TIMEOUT));
                    }
                    checks.join_all().await
                })
            });
        });
        for (threads, runtime) in [("one thread", runtime), ("all processors", &all)] {
            group.bench_function(format!("tcp refused, {threads}"), |b| {
                let checks = vec![(Arc::clone(&tcp), refused); checkers.len()];
                b.iter(|| on_thread(runtime, check_all(checks.clone(), TIMEOUT)));
            });
            group.bench_function(format!("http kept, {threads}"), |b| {
                let checks: Vec<_> = checkers
                    .iter()
                    .map(|checker| (Arc::clone(checker), web))
                    .collect();
                b.iter(|| on_thread(runtime, check_all(checks.clone(), TIMEOUT)));
            });
        }
        group.finish();
    }
    Ok(())
}

/// Monitors as a program uses them: made from settings, and read after they have checked.
fn monitors(c: &mut Criterion, runtime: &Runtime) -> Result<()> {
    let (_taken, refused) = refusing(runtime)?;
    let settings = CheckSettings::default();
    let config = MonitorConfig::new(refused, &settings);
    let mut group = c.benchmark_group("health/monitor");
    group.bench_function("new and drop", |b| {
        b.iter(|| HealthCheckMonitor::new(TcpChecker, black_box(config)));
    });
    group.bench_function("new and drop, with its config", |b| {
        b.iter(|| HealthCheckMonitor::new(TcpChecker, MonitorConfig::new(refused, black_box(&settings))));
    });
    group.bench_function("new, start and drop", |b| {
        b.iter(|| {
            runtime.block_on(async {
                drop(HealthCheckMonitor::new(TcpChecker, black_box(config)).start());
                // Its task has its end.
                tokio::task::yield_now().await;
            });
        });
    });
    let monitor = HealthCheckMonitor::new(TcpChecker, config);
    // Outside of a runtime the monitor checks on a thread of its own. It has an error to show.
    monitor.start()?;
    let end = Instant::now() + TIMEOUT;
    while monitor.stats().last_error.is_none() {
        anyhow::ensure!(Instant::now() < end, "no check ends");
        thread::yield_now();
    }
    group.bench_function("is_healthy", |b| b.iter(|| black_box(&monitor).is_healthy()));
    group.bench_function("stats", |b| b.iter(|| black_box(&monitor).stats()));
    group.finish();
    Ok(())
}

/// A breaker that takes a failure every 3 s, of which its window holds four, and does not open.
fn breakers(c: &mut Criterion) {
    let settings = BreakerSettings {
        failures: 1_000,
        window: Duration::from_secs(10),
        open: Duration::from_secs(30),
    };
    let failure = Signals {
        refused: 1,
        ..Signals::default()
    };
    let mut breaker = Breaker::default();
    let mut now = Instant::now();
    let mut group = c.benchmark_group("health/breaker");
    group.bench_function("check", |b| {
        b.iter(|| (breaker.pass(black_box(now), &settings), breaker.state()));
    });
    group.bench_function("check and record", |b| {
        b.iter(|| {
            now += Duration::from_secs(3);
            let passed = breaker.pass(black_box(now), &settings);
            (
                passed,
                breaker.state(),
                breaker.take_signals(black_box(failure), now, &settings),
            )
        });
    });
    group.finish();
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut criterion = Criterion::default().configure_from_args();
    floors(&mut criterion, &runtime)?;
    single_checks(&mut criterion, &runtime)?;
    concurrent_checks(&mut criterion, &runtime)?;
    monitors(&mut criterion, &runtime)?;
    breakers(&mut criterion);
    criterion.final_summary();
    Ok(())
}
