//! Clients of the admin API that only cost: verdicts and changes take effect all the same.

use std::{fmt::Write as _, fs, path::PathBuf, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_tests::{
    hostile::{self, Load},
    lane::Lane,
    site::Site,
    topology::{Family, Shape},
    wait,
};
use tokio_util::sync::CancellationToken;

/// For what takes seconds on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// Earlier events: more than fit between the daemon and a client that does not read.
const EARLIER: usize = 30_000;
/// Clients that ask for them, more than the daemon has threads.
const DEAF: usize = 24;
/// Clients that send half a request: with the others fewer than the listener takes.
const HALF: usize = 40;
const EARLIER_EVENTS: &str = "GET /v1/events?since_ms=1000000000000 HTTP/1.1\r\nhost: lb\r\n\r\n";
const STATUS: &[&str] = &["GET /v1/status HTTP/1.1\r\nhost: lb\r\n\r\n"];
const HALF_REQUEST: &str = "POST /v1/services HTTP/1.1\r\nhost: lb\r\ncontent-length: 1000\r\n\r\n{";

#[test]
fn clients_that_never_read_or_end_keep_no_verdict_and_no_change_waiting() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = Site::new(Shape::OneArmed, 2)?;
    let web = site.web(Family::V4, &[1, 1]).health(
        "kind = \"http\"\npath = \"/health\"\ninterval = \"200ms\"\nfast_interval = \"100ms\"\ntimeout = \"5s\"",
    );
    let journal = site.daemon.state_dir().join("events");
    fs::create_dir_all(&journal)?;
    let mut lines = String::new();
    for seq in 1..=EARLIER {
        writeln!(
            lines,
            "{{\"seq\":{seq},\"at\":\"2026-01-01T00:00:00.000Z\",\"kind\":\"health\",\"service\":\"web4\",\"backend\":\"b0\",\
             \"revision\":1,\"message\":\"down: the server answered 500\"}}"
        )?;
    }
    fs::write(journal.join("current.jsonl"), lines)?;
    site = site.start(&[web])?;
    let cli = site.daemon.cli();
    let is = |name: &str, health: &str| {
        wait::until_true("the health state is there", LIMIT, || {
            Ok(cli.backend("web4", name)?["health"] == health)
        })
    };
    is("b0", "up")?;

    let (load, end) = (Load::default(), CancellationToken::new());
    let clients = clients(site.daemon.socket(), load.clone(), end.clone())?;
    wait::until_true("requests are answered", LIMIT, || {
        Ok(load.answered.load(std::sync::atomic::Ordering::Relaxed) > 100)
    })?;
    for round in 2..5 {
        site.http[0].set_health_status(500);
        is("b0", "down")?;
        cli.ok(&format!("backend set web4 b1 --weight {round}"))?;
        site.http[0].set_health_status(200);
        is("b0", "up")?;
    }
    end.cancel();
    clients.join().ok().context("a client panicked")??;
    let log = site.daemon.log();
    ensure!(!log.contains("the disk is slow"), "a verdict had to wait: {log}");
    ensure!(cli.backend("web4", "b1")?["weight"] == 4);
    Ok(())
}

/// Starts clients, which end with `end`.
fn clients(socket: PathBuf, load: Load, end: CancellationToken) -> Result<thread::JoinHandle<Result<()>>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let clients = async move {
        tokio::join!(
            load.requests(socket.clone(), 100, STATUS),
            hostile::read_nothing(socket.clone(), DEAF, EARLIER_EVENTS),
            hostile::hold(socket.clone(), HALF, HALF_REQUEST),
            hostile::send_huge(socket),
        )
    };
    Ok(thread::spawn(move || {
        runtime.block_on(end.run_until_cancelled(clients));
        Ok(())
    }))
}
