//! What load on the admin API and the metrics address adds to the time from an answer to a check until the verdict about it, and
//! until the maps are written: 1,000 requests a second over the socket and over TLS, beside idle connections, half requests, clients
//! that read nothing, and bodies of 100 MB. Quiet and loaded turns alternate.
//!
//! Argument: verdicts of each turn (100 without).

use std::{
    fs, io,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use lb_tests::{
    config::{Service, file},
    daemon::{Daemon, METRICS},
    descriptors,
    hostile::{self, Dial, Load},
    lane::Lane,
    netns::Netns,
    topology::{Family, Shape, Topology},
    wait,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

/// Turns with load, and as many without.
const TURNS: usize = 3;
/// Verdicts of a turn.
const VERDICTS: usize = 100;
/// Requests a second over the socket, and as many over TLS.
const RATE: u32 = 500;
/// Connections that send nothing, by listener.
const IDLE: usize = 1_600;
/// Connections that send half a request, by listener.
const HALF: usize = 24;
/// Clients that read nothing, by request and listener.
const DEAF: usize = 16;
/// Niceness of the clients over that of the daemon.
const CLIENTS: libc::c_int = 10;
/// Longest wait for what takes a fraction of a second.
const LIMIT: Duration = Duration::from_secs(60);
/// Seconds of a day.
const DAY: f64 = 86_400.0;
/// Port of the API over TLS, and of the checked server.
const TLS_PORT: u16 = 9901;
const CHECK_PORT: u16 = 9000;
const REQUESTS: &[&str] = &[
    "GET /v1/status HTTP/1.1\r\nhost: lb\r\n\r\n",
    "GET /v1/services HTTP/1.1\r\nhost: lb\r\n\r\n",
    "GET /v1/services/web HTTP/1.1\r\nhost: lb\r\n\r\n",
    "GET /v1/events HTTP/1.1\r\nhost: lb\r\n\r\n",
    "GET /v1/export HTTP/1.1\r\nhost: lb\r\n\r\n",
    "GET /v1/flows/count HTTP/1.1\r\nhost: lb\r\n\r\n",
    "GET /openapi.json HTTP/1.1\r\nhost: lb\r\n\r\n",
    "GET /v1/health HTTP/1.1\r\nhost: lb\r\n\r\n",
];
const HALF_REQUEST: &str = "POST /v1/apply HTTP/1.1\r\nhost: lb\r\ncontent-length: 100000\r\n\r\n{";
const FOLLOW: &str = "GET /v1/events?follow=true HTTP/1.1\r\nhost: lb\r\n\r\n";
const LIST: &str = "GET /v1/flows HTTP/1.1\r\nhost: lb\r\n\r\n";
const SCRAPE: &str = "GET /metrics HTTP/1.1\r\nhost: lb\r\n\r\n";

fn main() -> Result<()> {
    let count = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with("--"));
    let count = count.map_or(Ok(VERDICTS), |count| count.parse())?;
    let _lane = Lane::alone()?;
    descriptors::raise()?;
    let bench = Bench::start()?;
    let (mut quiet, mut loaded) = (Delays::default(), Delays::default());
    for _ in 0..TURNS {
        bench.verdicts(count, &mut quiet)?;
        let (load, cancel) = (Load::default(), CancellationToken::new());
        let begun = Instant::now();
        let clients = bench.load(&load, &cancel)?;
        bench.verdicts(count, &mut loaded)?;
        let seconds = begun.elapsed().as_secs_f64();
        let [answered, failed] = [&load.answered, &load.failed].map(|count| count.load(Ordering::Relaxed));
        println!(
            "load: {:.0} requests a second answered, {:.0} refused or lost",
            answered as f64 / seconds,
            failed as f64 / seconds
        );
        cancel.cancel();
        for client in clients {
            client
                .join()
                .map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
    }
    let count = quiet.verdict.len();
    println!("\nmilliseconds from the server's answer     p50      p99      max   (of {count})");
    for (what, quiet, loaded) in [
        ("to the verdict", quiet.verdict, loaded.verdict),
        ("to the maps", quiet.maps, loaded.maps),
    ] {
        let (quiet, loaded) = (percentiles(quiet), percentiles(loaded));
        let added = [0, 1, 2].map(|at| loaded[at] - quiet[at]);
        for (how, [half, most, max]) in [("quiet", quiet), ("loaded", loaded), ("added", added)] {
            println!("  {what:<16} {how:<18} {half:>8.2} {most:>8.2} {max:>8.2}");
        }
    }
    Ok(())
}

/// Median, 99th percentile and maximum.
fn percentiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    let at = |percent: usize| {
        let index = (values.len() * percent / 100).min(last);
        values.get(index).copied().unwrap_or(f64::NAN)
    };
    [at(50), at(99), at(100)]
}

/// Delays in milliseconds.
#[derive(Default)]
struct Delays {
    verdict: Vec<f64>,
    maps: Vec<f64>,
}

/// A server that answers checks as it is told, and notes when it first did.
#[derive(Clone, Default)]
struct Checked(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    is_up: bool,
    /// Seconds of the day at which it first answered so.
    since: Option<f64>,
}

impl Checked {
    fn start(net: &Topology) -> Result<Self> {
        let address = net.backends[0].socket(Family::V4, CHECK_PORT);
        let listener = net.backends[0].ns.enter(|| TcpListener::bind(address))??;
        let checked = Self::default();
        checked.turn(true);
        let told = checked.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let told = told.clone();
                thread::spawn(move || told.serve(stream));
            }
        });
        Ok(checked)
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes its answers.
    fn turn(&self, is_up: bool) {
        *self.lock() = Told { is_up, since: None };
    }

    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        for line in BufReader::new(stream.try_clone()?).lines() {
            if line?.is_empty() {
                let mut told = self.lock();
                let status = if told.is_up { "200 OK" } else { "500 No" };
                told.since.get_or_insert_with(second_of_day);
                stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes())?;
            }
        }
        Ok(())
    }
}

fn second_of_day() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs_f64() % DAY
}

/// The second of the day of a time in RFC 3339, UTC.
fn parsed(time: &str) -> Result<f64> {
    let clock = time
        .get(11..)
        .and_then(|clock| clock.strip_suffix('Z'))
        .context("no time")?;
    let parts: Vec<f64> = clock.split(':').map(str::parse).collect::<Result<_, _>>()?;
    ensure!(parts.len() == 3, "{time} is no time");
    Ok(parts[0] * 3600.0 + parts[1] * 60.0 + parts[2])
}

struct Bench {
    daemon: Daemon,
    net: Topology,
    checked: Checked,
    tls: Secure,
}

impl Bench {
    fn start() -> Result<Self> {
        let net = Topology::new(Shape::OneArmed, 1)?;
        let checked = Checked::start(&net)?;
        let mut daemon = Daemon::new(&net.lb.ns, net.lb_interfaces())?;
        let address = net.lb.socket(Family::V4, TLS_PORT);
        let (lb, tls) = secure(&daemon, address)?;
        let web = Service::tcp("web", SocketAddr::new(net.vip(Family::V4, 10), 80))
            .backend("b0", net.backends[0].socket(Family::V4, CHECK_PORT), 1)
            .health("kind = \"http\"\ninterval = \"50ms\"\nfast_interval = \"50ms\"\ndown_interval_max = \"50ms\"\nrise = 1\nfall = 1");
        let others = (0..50_u16).map(|number| {
            let address = SocketAddr::new(net.vip(Family::V4, 20), 1_000 + number);
            (0..10_u8).fold(
                Service::tcp(&format!("s{number}"), address),
                |service, backend| {
                    service.backend(
                        &format!("b{backend}"),
                        SocketAddr::from(([10, 9, 0, backend + 1], 80)),
                        1,
                    )
                },
            )
        });
        let services: Vec<_> = [web].into_iter().chain(others).collect();
        daemon = daemon
            .config(&format!("{lb}{}", file(&services)))?
            .through(&["env", "LB_LOG=info,lb_userspace::control=debug"]);
        daemon.start()?;
        daemon.wait_for_whole_program()?;
        let bench = Self {
            daemon,
            net,
            checked,
            tls,
        };
        wait::until_true("the backend is up", LIMIT, || {
            Ok(bench.daemon.cli().backend("web", "b0")?["health"] == "up")
        })?;
        wait::until_true("TLS is served", LIMIT, || {
            Ok(bench.net.client.ns.enter(|| TcpStream::connect(address))?.is_ok())
        })?;
        Ok(bench)
    }

    /// Turns the backend down and up `count` times in all.
    fn verdicts(&self, count: usize, delays: &mut Delays) -> Result<()> {
        let before = self.health_events()?.len();
        let mut begun = Vec::new();
        let log = self.daemon.dir().join("log");
        for number in 0..count / 2 * 2 {
            let before = usize::try_from(fs::metadata(&log)?.len())?;
            self.checked.turn(number % 2 == 1);
            let (since, written) = wait::until("the maps are written", LIMIT, || {
                let Some(since) = self.checked.lock().since else {
                    return Ok(None);
                };
                let text = fs::read(&log)?;
                let new = String::from_utf8_lossy(text.get(before..).unwrap_or_default()).into_owned();
                // Other changes may have been programmed just before.
                let written = new
                    .lines()
                    .filter(|line| line.contains("DEBUG programmed"))
                    .filter_map(|line| parsed(line.split(' ').next()?).ok())
                    .find(|at| *at >= since);
                Ok(written.map(|written| (since, written)))
            })?;
            begun.push(since);
            delays.maps.push((written - since) * 1e3);
        }
        let events = self.health_events()?;
        ensure!(
            events.len() == before + begun.len(),
            "{} verdicts",
            events.len() - before
        );
        let new = events.iter().skip(before).zip(begun);
        delays
            .verdict
            .extend(new.map(|(at, since)| (at - since).max(0.0) * 1e3));
        Ok(())
    }

    /// The times of verdicts.
    fn health_events(&self) -> Result<Vec<f64>> {
        // The API may be too busy to answer at once.
        let lines = wait::until("events are listed", LIMIT, || {
            let outcome = self.daemon.cli().run(&["-o", "json", "events"])?;
            Ok((outcome.code == Some(0)).then_some(outcome.stdout))
        })?;
        let events = lines.lines().map(serde_json::from_str::<serde_json::Value>);
        let mut times = Vec::new();
        for event in events {
            let event = event?;
            if event["kind"] == "health" && event["service"] == "web" {
                times.push(parsed(event["at"].as_str().context("no time")?)?);
            }
        }
        Ok(times)
    }

    /// Starts all clients.
    fn load(&self, load: &Load, cancel: &CancellationToken) -> Result<Vec<JoinHandle<Result<()>>>> {
        let (socket, tls) = (self.daemon.socket(), self.tls.clone());
        let api: SocketAddr = self.tls.address;
        let metrics: SocketAddr = METRICS.parse()?;
        let (of_socket, of_tls, end) = (load.clone(), load.clone(), cancel.clone());
        let local = async move {
            tokio::join!(
                of_socket.requests(socket.clone(), RATE, REQUESTS),
                hostile::hold(socket.clone(), IDLE, ""),
                hostile::hold(socket.clone(), HALF, HALF_REQUEST),
                hostile::read_nothing(socket.clone(), DEAF, FOLLOW),
                hostile::read_nothing(socket.clone(), DEAF, LIST),
                hostile::read_nothing(socket.clone(), DEAF, REQUESTS[1]),
                hostile::send_huge(socket),
                hostile::hold(metrics, IDLE, ""),
                hostile::read_nothing(metrics, DEAF, SCRAPE),
            );
        };
        let remote = async move {
            tokio::join!(
                of_tls.requests(tls.clone(), RATE, REQUESTS),
                hostile::hold(api, IDLE, ""),
                hostile::hold(tls.clone(), HALF, HALF_REQUEST),
                hostile::read_nothing(tls.clone(), DEAF, FOLLOW),
                hostile::read_nothing(tls.clone(), DEAF, REQUESTS[1]),
                hostile::send_huge(tls),
            );
        };
        Ok(vec![
            run_in(&self.net.lb.ns, end.clone(), local)?,
            run_in(&self.net.client.ns, end, remote)?,
        ])
    }
}

/// Runs clients on a thread in a namespace until `cancel`.
fn run_in(
    ns: &Netns,
    cancel: CancellationToken,
    clients: impl Future<Output = ()> + Send + 'static,
) -> Result<JoinHandle<Result<()>>> {
    let run = move || {
        // Real clients have processors of their own.
        // SAFETY: both calls touch no memory; 0 means the calling thread.
        unsafe {
            libc::setpriority(
                libc::PRIO_PROCESS,
                0,
                libc::getpriority(libc::PRIO_PROCESS, 0) + CLIENTS,
            )
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(cancel.run_until_cancelled(clients));
        anyhow::Ok(())
    };
    let thread = ns.spawn(run)?;
    Ok(thread::spawn(move || {
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("a client panicked"))??
    }))
}

/// The API over TLS, for a client with a certificate.
#[derive(Clone)]
struct Secure {
    address: SocketAddr,
    connector: TlsConnector,
}

impl Dial for Secure {
    type Io = TlsStream<tokio::net::TcpStream>;

    async fn dial(&self) -> io::Result<Self::Io> {
        let stream = tokio::net::TcpStream::connect(self.address).await?;
        self.connector
            .connect(ServerName::IpAddress(self.address.ip().into()), stream)
            .await
    }
}

/// Makes certificates for server and client. Gives the daemon's configuration, and the client.
fn secure(daemon: &Daemon, address: SocketAddr) -> Result<(String, Secure)> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let issue = |name: &str, alternative: Vec<String>| -> Result<(String, String)> {
        let mut params = CertificateParams::new(alternative)?;
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &authority)?.pem(), key.serialize_pem()))
    };
    let (cert, key) = issue("server", vec![address.ip().to_string()])?;
    let place = |name: &str, text: &str| daemon.dir().write(name, text);
    let (cert, key, ca) = (
        place("server.pem", &cert)?,
        place("server.key", &key)?,
        place("ca.pem", &authority.pem())?,
    );
    let lb = format!(
        "[lb]\napi_address = \"{address}\"\napi_cert_file = {cert:?}\napi_key_file = {key:?}\napi_ca_file = {ca:?}\n\
         api_admin = [\"admin\"]\n"
    );
    let (cert, key) = issue("admin", Vec::new())?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes())?)?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(cert.as_bytes())?],
            PrivateKeyDer::from_pem_slice(key.as_bytes())?,
        )?;
    let connector = TlsConnector::from(Arc::new(config));
    Ok((lb, Secure { address, connector }))
}
