//! `--self-test`: at what rate this tool is itself the limit, against a server that does nothing but answer.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    sync::Arc,
    thread,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Builder,
};

use crate::{
    connect::Connector,
    descriptors, load,
    measured::{Measured, latency},
    options::{HttpVersion, Options, Plan, Request, Traffic},
    target::{Target, Transport},
};

/// The share of a load's time that goes by before it is measured.
const WARM_UP: f64 = 0.2;
/// Fixed rates, in shares of the rate of the closed loop.
const SHARES: [f64; 5] = [0.25, 0.5, 0.75, 0.9, 1.0];
/// The tool keeps a rate if at most this share of the requests starts late.
const MAX_LATE: f64 = 0.01;
/// The answer to each request.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Measures, and gives the report.
///
/// # Errors
/// When no load can be sent on loopback.
pub(crate) async fn run(options: &Options) -> Result<String> {
    let connections = options.connections.get();
    // The loads share the time of `-d`: the closed loop, and each fixed rate.
    let each = options.duration.div_f64((1 + SHARES.len()) as f64);
    let address = serve()?;
    let plan = Plan {
        targets: vec![Target::parse(&format!("http://{address}/"), Transport::Http)?],
        traffic: Traffic::Http(Arc::new(Request {
            version: HttpVersion::One,
            method: Method::GET,
            headers: Vec::new(),
            body: Bytes::new(),
        })),
        connections,
        streams: 1,
        // The server needs the other CPUs.
        threads: options.threads.map_or(1, NonZeroUsize::get).min(connections),
        rate: None,
        warm_up: each.mul_f64(WARM_UP),
        duration: each.mul_f64(1.0 - WARM_UP),
        timeout: options.timeout,
        keepalive: true,
        insecure: false,
    };
    descriptors::provide(2 * connections, plan.threads)?;
    let connectors = [Connector::plain(address)];
    let closed = load::run(&plan, &connectors, None).await?;
    let mut text = format!(
        "closed loop: {:.0} requests/s over {} connections, {} of CPU a request: with -t {} this tool sends {:.0}/s at most\n",
        closed.rate(),
        plan.connections,
        latency(closed.cpu_per_exchange()),
        plan.threads,
        limit(&closed, plan.threads),
    );
    let mut kept = None;
    for share in SHARES {
        let rate = (closed.rate() * share).round().max(1.0);
        let plan = Plan {
            rate: Some(rate),
            ..plan.clone()
        };
        let open = load::run(&plan, &connectors, None).await?;
        let late = late_share(&open);
        let p99 = open
            .stats
            .percentile(99.0)
            .map_or_else(|| "-".to_owned(), latency);
        text += &format!(
            "open loop at {rate:.0}/s: {:.2} % started late, p99 {p99}\n",
            late * 100.0
        );
        if late <= MAX_LATE {
            kept = Some(rate);
        }
    }
    text += &match kept {
        Some(rate) => {
            format!("up to {rate:.0} requests/s this tool keeps its times here, its server included")
        }
        None => "this tool kept its times at none of these rates: the machine is too busy to measure latency"
            .to_owned(),
    };
    Ok(text)
}

/// Requests a second that the threads could send if they did nothing but run.
#[allow(clippy::cast_precision_loss, reason = "few threads")]
fn limit(closed: &Measured, threads: usize) -> f64 {
    let cost = closed.cpu_per_exchange().as_secs_f64();
    if cost > 0.0 { threads as f64 / cost } else { 0.0 }
}

#[allow(clippy::cast_precision_loss, reason = "counts below 2^53")]
fn late_share(open: &Measured) -> f64 {
    let stats = &open.stats;
    let late = stats.late + stats.overslept + stats.unsent;
    late as f64 / stats.latencies().len().max(1) as f64
}

/// Starts the server, which lives as long as the process.
fn serve() -> Result<SocketAddr> {
    let listener =
        std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen on loopback")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().spawn(move || {
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener)?;
            loop {
                let (stream, _) = listener.accept().await?;
                // A connection that fails is missed by the load.
                tokio::spawn(async move { answer(stream).await });
            }
            #[allow(unreachable_code, reason = "gives the block its type")]
            io::Result::Ok(())
        })
    })?;
    Ok(address)
}

/// Answers each request of a connection. The requests are this tool's own, each of which comes in one piece.
async fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; 1024];
    while stream.read(&mut buffer).await? > 0 {
        stream.write_all(ANSWER).await?;
    }
    Ok(())
}
