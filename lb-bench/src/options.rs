//! The command line, and the plan that it is checked into.

use std::{fs, net::SocketAddr, num::NonZeroUsize, path::PathBuf, sync::Arc, thread, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use http::{HeaderName, HeaderValue, Method};

use crate::{
    assertion::Assertion,
    target::{Target, Transport},
};

/// Who sends the requests, unless a header says otherwise.
pub(crate) const USER_AGENT: &str = concat!("lb-bench/", env!("CARGO_PKG_VERSION"));
/// Bytes of a UDP payload at most: what a datagram of IPv4 holds.
const MAX_DATAGRAM: usize = 65_507;
/// Bytes of a TCP payload at most: each connection keeps one.
const MAX_PAYLOAD: usize = 1 << 24;

/// Sends requests to servers, measures their latency, and checks it against limits.
///
/// With `--rate` each request has its time beforehand, and its latency counts from that time: a server that stalls shows. Without,
/// each connection sends again as soon as it has its answer, which shows throughput and hides stalls.
///
/// Exit codes: 1 if an assertion failed, 2 if the load could not start.
#[derive(Parser)]
#[command(name = "lb-bench", version)]
pub(crate) struct Options {
    /// Where to: URLs, or addresses of echo servers.
    #[arg(
        value_name = "URL",
        required_unless_present = "self_test",
        help = "http://HOST[:PORT][/PATH] or https://…; HOST:PORT with --tcp and --udp. Connections take turns over several"
    )]
    pub(crate) urls: Vec<String>,
    /// Connections (sockets with --udp), each with one request at a time
    #[arg(short, long, default_value = "64", value_name = "N")]
    pub(crate) connections: NonZeroUsize,
    /// How long to measure
    #[arg(short, long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
    /// How long to send before measuring begins
    #[arg(short, long, default_value = "2s", value_parser = humantime::parse_duration)]
    pub(crate) warm_up: Duration,
    /// Threads, over which the connections are spread [default: one for each CPU]
    #[arg(short, long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Requests a second, of all connections together (open loop)
    #[arg(short, long, value_name = "N")]
    pub(crate) rate: Option<f64>,
    /// Time limit of a request; then it is an error, and its connection is closed
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
    /// Method of the requests
    #[arg(short, long, default_value = "GET")]
    pub(crate) method: Method,
    /// Body of the requests
    #[arg(short, long, conflicts_with = "body_file")]
    pub(crate) body: Option<String>,
    /// File with the body of the requests
    #[arg(long, value_name = "FILE")]
    pub(crate) body_file: Option<PathBuf>,
    /// Header of the requests, as 'NAME: VALUE'; can be repeated
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    pub(crate) headers: Vec<String>,
    /// HTTP version; 2 over http:// is spoken without an upgrade
    #[arg(long, value_enum, default_value = "1.1", value_name = "VERSION")]
    pub(crate) http: HttpVersion,
    /// Requests at a time on each connection with --http 2
    #[arg(long, default_value = "1", value_name = "N")]
    pub(crate) streams: NonZeroUsize,
    /// Open a connection for each request
    #[arg(long)]
    pub(crate) no_keepalive: bool,
    /// Accept any certificate
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Connect to this address, whatever the URL's host is
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) connect: Option<SocketAddr>,
    /// Send payloads to a TCP echo server, and check what comes back
    #[arg(long, conflicts_with = "udp")]
    pub(crate) tcp: bool,
    /// Send datagrams to a UDP echo server, and check what comes back
    #[arg(long)]
    pub(crate) udp: bool,
    /// Bytes of a payload with --tcp and --udp
    #[arg(long, default_value = "64", value_name = "BYTES")]
    pub(crate) size: NonZeroUsize,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Write the latencies of each second to this file, in the HdrHistogram log format
    #[arg(long, value_name = "FILE")]
    pub(crate) hdr: Option<PathBuf>,
    /// Limits, such as 'p99<10ms,errors=0,rps>10000'; exit code 1 if one is not met. Can be repeated
    #[arg(long = "assert", value_name = "LIMITS", value_delimiter = ',')]
    pub(crate) assertions: Vec<Assertion>,
    /// Measure at what rate this tool is itself the limit on this machine, against a server of its own, in the time of -d
    #[arg(long)]
    pub(crate) self_test: bool,
}

/// A version of HTTP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum HttpVersion {
    /// HTTP/1.1.
    #[value(name = "1.1")]
    One,
    /// HTTP/2.
    #[value(name = "2")]
    Two,
}

/// What an exchange consists of.
#[derive(Clone)]
pub(crate) enum Traffic {
    /// A request and its answer.
    Http(Arc<Request>),
    /// A payload and its echo over TCP, of this many bytes.
    Tcp(usize),
    /// As `Tcp`, over UDP.
    Udp(usize),
}

/// The parts of a request that are the same for all targets.
pub(crate) struct Request {
    /// Version to speak.
    pub(crate) version: HttpVersion,
    /// Method.
    pub(crate) method: Method,
    /// Headers by the user.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// Body; empty for none.
    pub(crate) body: bytes::Bytes,
}

/// A load that can be sent.
#[derive(Clone)]
pub(crate) struct Plan {
    /// Where to; connections take turns.
    pub(crate) targets: Vec<Target>,
    /// What.
    pub(crate) traffic: Traffic,
    /// Connections.
    pub(crate) connections: usize,
    /// Requests at a time on a connection.
    pub(crate) streams: usize,
    /// Threads.
    pub(crate) threads: usize,
    /// Requests a second; `None` for a closed loop.
    pub(crate) rate: Option<f64>,
    /// Time before the measurement.
    pub(crate) warm_up: Duration,
    /// Time of the measurement.
    pub(crate) duration: Duration,
    /// Time limit of a request.
    pub(crate) timeout: Duration,
    /// Whether a connection has more than one request.
    pub(crate) keepalive: bool,
    /// Whether any certificate will do.
    pub(crate) insecure: bool,
}

impl Plan {
    /// Checks the options, without `--self-test`, and reads the body.
    ///
    /// # Errors
    /// With the option at fault.
    pub(crate) fn new(options: &Options) -> Result<Self> {
        let transport = match (options.tcp, options.udp) {
            (true, _) => Transport::Tcp,
            (_, true) => Transport::Udp,
            (false, false) => Transport::Http,
        };
        let targets = options.urls.iter().map(|url| Target::parse(url, transport));
        let connections = options.connections.get();
        ensure!(
            options.urls.len() <= connections,
            "{} URLs need as many connections: raise -c",
            options.urls.len()
        );
        if let Some(rate) = options.rate {
            let may = rate.is_finite() && rate > 0.0;
            ensure!(may, "--rate {rate}: a rate is above 0 requests a second");
        }
        for (option, time) in [("-d", options.duration), ("--timeout", options.timeout)] {
            ensure!(!time.is_zero(), "{option} 0s: nothing could be measured");
        }
        Ok(Self {
            targets: targets.collect::<Result<_, _>>()?,
            traffic: traffic(options, transport)?,
            connections,
            streams: streams(options, transport)?,
            threads: threads(options.threads, connections),
            rate: options.rate,
            warm_up: options.warm_up,
            duration: options.duration,
            timeout: options.timeout,
            keepalive: !options.no_keepalive,
            insecure: options.insecure,
        })
    }
}

/// Threads for this many connections: one for each CPU if nothing else is asked for.
pub(crate) fn threads(asked: Option<NonZeroUsize>, connections: usize) -> usize {
    let cpus = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    asked.map_or(cpus, NonZeroUsize::get).min(connections)
}

fn streams(options: &Options, transport: Transport) -> Result<usize> {
    let streams = options.streams.get();
    let multiplexed =
        transport == Transport::Http && options.http == HttpVersion::Two && !options.no_keepalive;
    ensure!(
        streams == 1 || multiplexed,
        "--streams {streams}: only kept connections of HTTP/2 have several requests at a time; add --http 2"
    );
    Ok(streams)
}

fn traffic(options: &Options, transport: Transport) -> Result<Traffic> {
    let size = options.size.get();
    let largest = match transport {
        Transport::Http => {
            return Ok(Traffic::Http(Arc::new(Request {
                version: options.http,
                method: options.method.clone(),
                headers: options
                    .headers
                    .iter()
                    .map(|text| header(text))
                    .collect::<Result<_>>()?,
                body: body(options)?.into(),
            })));
        }
        Transport::Tcp => MAX_PAYLOAD,
        Transport::Udp => MAX_DATAGRAM,
    };
    ensure!(size <= largest, "--size {size}: at most {largest} bytes");
    Ok(if transport == Transport::Tcp {
        Traffic::Tcp(size)
    } else {
        Traffic::Udp(size)
    })
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue)> {
    let Some((name, value)) = text.split_once(':') else {
        bail!("header {text:?}: write it as 'NAME: VALUE'");
    };
    let name = name
        .trim()
        .parse()
        .with_context(|| format!("header {text:?}: bad name"))?;
    let value = value.trim().parse();
    Ok((
        name,
        value.with_context(|| format!("header {text:?}: bad value"))?,
    ))
}

fn body(options: &Options) -> Result<Vec<u8>> {
    match (&options.body_file, &options.body) {
        (Some(file), _) => fs::read(file).with_context(|| format!("cannot read the body {}", file.display())),
        (None, Some(text)) => Ok(text.clone().into_bytes()),
        (None, None) => Ok(Vec::new()),
    }
}
