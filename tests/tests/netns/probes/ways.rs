//! Failures of each kind of check, against real servers behind a packet filter that simulates broken networks.

use std::{fs::File, net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_tests::{lane::Lane, netns::Netns, nginx, scratch::Scratch};
use lb_userspace::health::{
    CertificateProblem, CheckError, Checker, Checkers, ConfiguredChecker, Stage,
    settings::{CheckKind, CheckSettings, DnsCheck, GrpcCheck, HttpCheck, RecordType, TlsCheck, Transport},
};
use tokio::task::JoinSet;

use super::{PLENTY, Server, certificate, expired, grpc, stranger, wait_for};

/// Timeout of checks that must time out. Long enough for the steps before, also on a busy machine.
const GIVE_UP: Duration = Duration::from_secs(5);

/// The servers listen on all addresses of loopback; the packet filter makes them differ by the last byte.
const GOOD: u8 = 1;
const HOLE: u8 = 2;
const REFUSING: u8 = 3;
const CUT: u8 = 4;
const RESETTING: u8 = 5;

const HTTP: u16 = 80;
const H2C: u16 = 81;
const DNS: u16 = 53;
const HTTPS: u16 = 443;
const H2: u16 = 444;
/// Both versions, with a certificate that is over.
const EXPIRED: u16 = 445;

fn at(address: u8, port: u16) -> SocketAddr {
    ([127, 0, 0, address], port).into()
}

/// nginx, gRPC's own server and dnsmasq.
struct Servers {
    ns: Netns,
    _scratch: Scratch,
    trusted: TlsCheck,
    stranger: String,
    running: Vec<Server>,
}

impl Servers {
    fn start() -> Result<Self> {
        let ns = Netns::new("probes")?;
        // Small packets and many acknowledgements: there is a middle to be cut in.
        ns.ip("link set lo mtu 1500")?;
        ns.run("ethtool", &["-K", "lo", "tso", "off", "gso", "off"])?;
        ns.run_with_input("nft", &["-f", "-"], &filter())?;
        let scratch = Scratch::new()?;
        let trusted = certificate(&scratch)?;
        expired(&scratch)?;
        File::create(scratch.join("big"))?.set_len(900 << 10)?;
        File::create(scratch.join("endless"))?.set_len(1 << 40)?;
        nginx::configure(&scratch, &web(&scratch))?;
        let script = scratch.write("server.py", grpc::SERVER)?;
        let mut commands = [
            nginx::command(&ns, &scratch),
            ns.command("python3"),
            ns.command("dnsmasq"),
        ];
        let [_, calls, names] = &mut commands;
        calls.arg(script).arg(scratch.path());
        names.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
        ]);
        names.args(["--user=root", "--pid-file=", "--local=/example/"]);
        names.arg("--host-record=a.example,10.0.0.7");
        let running = commands.iter_mut().map(Server::start).collect::<Result<_>>()?;
        let servers = Self {
            stranger: stranger(&scratch)?,
            ns,
            _scratch: scratch,
            trusted,
            running,
        };
        for (_, kind, port, _) in servers.kinds() {
            wait_for(&servers.ns, &checker(&kind)?, at(GOOD, port))?;
        }
        Ok(servers)
    }

    fn http(&self, path: &str, tls: bool) -> HttpCheck {
        HttpCheck {
            path: path.to_owned(),
            // Any body is good, but all of it must come.
            expect_body: Some(String::new()),
            max_body: 1 << 20,
            tls: tls.then(|| self.trusted.clone()),
            ..HttpCheck::default()
        }
    }

    /// The kinds of HTTP, and the ports they go to.
    fn web(&self, path: &str) -> [(&'static str, CheckKind, u16); 4] {
        [
            ("http", CheckKind::Http(self.http(path, false)), HTTP),
            ("https", CheckKind::Http(self.http(path, true)), HTTPS),
            ("http2", CheckKind::Http2(self.http(path, false)), H2C),
            ("http2 over TLS", CheckKind::Http2(self.http(path, true)), H2),
        ]
    }

    /// Every kind, its port, and the stage in which a server that is mute leaves it.
    fn kinds(&self) -> Vec<(&'static str, CheckKind, u16, Option<Stage>)> {
        let call = |tls: bool| {
            CheckKind::Grpc(GrpcCheck {
                tls: tls.then(|| self.trusted.clone()),
                ..GrpcCheck::default()
            })
        };
        let question = |transport| {
            CheckKind::Dns(DnsCheck {
                name: "a.example".to_owned(),
                record: RecordType::A,
                transport,
                expect_answer: Some("10.0.0.7".to_owned()),
            })
        };
        let (handshake, request) = (Some(Stage::Handshake), Some(Stage::Request));
        let mut kinds = vec![
            ("tcp", CheckKind::Tcp, HTTP, None),
            ("tcp half-open", CheckKind::TcpHalfOpen, HTTP, None),
            ("tls", CheckKind::Tls(self.trusted.clone()), HTTPS, handshake),
            ("grpc", call(false), 50054, request),
            ("grpc over TLS", call(true), 50052, handshake),
            ("dns over UDP", question(Transport::Udp), DNS, request),
            ("dns over TCP", question(Transport::Tcp), DNS, request),
        ];
        kinds.extend(self.web("/ok").map(|(name, kind, port)| {
            let stage = if port == HTTPS || port == H2 {
                handshake
            } else {
                request
            };
            (name, kind, port, stage)
        }));
        kinds
    }

    /// Silences all servers without ending them: the kernel still accepts connections for them.
    fn mute(&self) -> Result<()> {
        for Server(child) in &self.running {
            let pid = libc::pid_t::try_from(child.id())?;
            // SAFETY: plain system call; the process is ours and has not been waited for.
            let result = unsafe { libc::kill(pid, libc::SIGSTOP) };
            ensure!(result == 0, "cannot stop {pid}");
        }
        Ok(())
    }

    /// Makes all checks at once and compares the outcomes.
    fn expect(&self, checks: Vec<(String, CheckKind, SocketAddr, Expected)>) -> Result<()> {
        let outcomes = self.ns.enter(|| -> Result<_> {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let mut running = JoinSet::new();
                for (name, kind, target, expected) in checks {
                    let checker = checker(&kind)?;
                    let timeout = if expected.waits() { GIVE_UP } else { PLENTY };
                    running.spawn(
                        async move { (name, expected, checker.check(target, timeout).await.map(drop)) },
                    );
                }
                Ok(running.join_all().await)
            })
        })??;
        let wrong = outcomes
            .iter()
            .filter(|(_, expected, outcome)| !expected.is(outcome));
        let wrong: Vec<String> = wrong
            .map(|(name, expected, outcome)| format!("{name}: {outcome:?}, expected {expected:?}"))
            .collect();
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    }
}

/// Expected result of a check.
#[derive(Debug)]
enum Expected {
    Exactly(Result<(), CheckError>),
    /// The words of an error.
    Words(String),
    /// In the middle of an answer; HTTP/2 may be in a frame.
    TimedOutWithin,
    ResetWithin,
}

impl Expected {
    fn waits(&self) -> bool {
        matches!(
            self,
            Self::TimedOutWithin | Self::Exactly(Err(CheckError::TimedOut { .. }))
        )
    }

    fn is(&self, outcome: &Result<(), CheckError>) -> bool {
        let within = |stage: &Stage| matches!(stage, Stage::Body | Stage::Frame);
        match (self, outcome) {
            (Self::Exactly(expected), outcome) => expected == outcome,
            (Self::Words(words), Err(error)) => error.to_string() == *words,
            (Self::TimedOutWithin, Err(CheckError::TimedOut { stage, .. }))
            | (Self::ResetWithin, Err(CheckError::Reset { stage, .. })) => within(stage),
            (Self::Words(_) | Self::TimedOutWithin | Self::ResetWithin, _) => false,
        }
    }
}

fn timed_out(target: SocketAddr, stage: Stage) -> Expected {
    Expected::Exactly(Err(CheckError::TimedOut {
        target,
        stage,
        after: GIVE_UP,
    }))
}

fn checker(kind: &CheckKind) -> Result<ConfiguredChecker> {
    let settings = CheckSettings {
        kind: kind.clone(),
        ..CheckSettings::default()
    };
    Ok(Checkers::new(settings)?.checker())
}

/// The behaviour of each address.
fn filter() -> String {
    let mut rules = format!(
        "ip daddr 127.0.0.{HOLE} drop
         ip daddr 127.0.0.{REFUSING} meta l4proto tcp reject with tcp reset
         ip daddr 127.0.0.{REFUSING} reject\n"
    );
    // More than a handshake and the head of an answer, less than an answer and its acknowledgements.
    for (port, from_client) in [(HTTP, 1_000), (H2C, 1_000), (HTTPS, 2_000), (H2, 2_000)] {
        rules += &format!(
            "ip saddr 127.0.0.{CUT} tcp sport {port} quota over 8000 bytes drop
             ip daddr 127.0.0.{RESETTING} tcp dport {port} quota over {from_client} bytes reject with tcp reset\n"
        );
    }
    format!("table inet ways {{ chain in {{ type filter hook input priority 0;\n{rules}}}\n}}")
}

fn web(scratch: &Scratch) -> String {
    let dir = scratch.path().display();
    let locations = format!(
        "location = /ok {{ return 200 \"all is well\"; }}
         location = /bad {{ return 503 \"sorry\"; }}
         location = /mute {{ proxy_pass http://127.0.0.{HOLE}:9; }}
         location = /big {{ root {dir}; }}
         location = /endless {{ root {dir}; }}
         location = /slow {{ limit_rate 100; alias {dir}/big; }}
         location / {{ return 404; }}"
    );
    format!(
        "ssl_buffer_size 1k;
         server {{
            listen {HTTP}; listen {HTTPS} ssl; listen {H2C} http2; listen {H2} ssl http2;
            ssl_certificate {dir}/cert.pem; ssl_certificate_key {dir}/key.pem; {locations}
         }}
         server {{
            listen {EXPIRED} ssl http2;
            ssl_certificate {dir}/expired.pem; ssl_certificate_key {dir}/expired-key.pem; {locations}
         }}"
    )
}

#[test]
fn each_kind_distinguishes_failures_of_network_and_server() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut servers = Servers::start()?;
    let of_each = |way: &str, address: u8, expected: &dyn Fn(&str, SocketAddr, Option<Stage>) -> Expected| {
        let kinds = servers.kinds().into_iter();
        let checks = kinds.map(|(name, kind, port, stage)| {
            let target = at(address, port);
            (
                format!("{name}, {way}"),
                kind,
                target,
                expected(name, target, stage),
            )
        });
        checks.collect::<Vec<_>>()
    };
    let well = |_: &str, _, _| Expected::Exactly(Ok(()));
    let refused = |_: &str, target, _| Expected::Exactly(Err(CheckError::Refused(target)));
    let mut checks = of_each("well", GOOD, &well);
    checks.extend(of_each("refused", REFUSING, &refused));
    checks.extend(of_each("black hole", HOLE, &|name, target, _| {
        let first = if name == "dns over UDP" {
            Stage::Request
        } else {
            Stage::Connect
        };
        timed_out(target, first)
    }));
    servers.expect(checks)?;

    servers.mute()?;
    servers.expect(of_each("mute", GOOD, &|_, target, stage| {
        stage.map_or(Expected::Exactly(Ok(())), |stage| timed_out(target, stage))
    }))?;

    let gone = of_each("gone", GOOD, &refused);
    servers.running.clear();
    servers.expect(gone)
}

#[test]
fn late_long_truncated_and_wrong_answers_are_distinguished() -> Result<()> {
    let _lane = Lane::shared()?;
    let servers = Servers::start()?;
    let mut checks = Vec::new();
    let mut add = |way: &str, address, path: &str, expected: &dyn Fn(SocketAddr, &str) -> Expected| {
        for (name, kind, port) in servers.web(path) {
            let scheme = if port == HTTPS || port == H2 {
                "https"
            } else {
                "http"
            };
            let target = at(address, port);
            let url = format!("{scheme}://{target}{path}");
            checks.push((format!("{name}, {way}"), kind, target, expected(target, &url)));
        }
    };
    add("slow first byte", GOOD, "/mute", &|target, _| {
        timed_out(target, Stage::Request)
    });
    add("slow body", GOOD, "/slow", &|_, _| Expected::TimedOutWithin);
    add("endless body", GOOD, "/endless", &|_, _| {
        Expected::Exactly(Ok(()))
    });
    add("cut in the middle", CUT, "/big", &|_, _| Expected::TimedOutWithin);
    add("reset in the middle", RESETTING, "/big", &|_, _| {
        Expected::ResetWithin
    });
    add("wrong status", GOOD, "/bad", &|_, url| {
        Expected::Words(format!("status 503 from {url}, expected 200"))
    });
    let call = CheckKind::Grpc(GrpcCheck::default());
    let words = format!(
        "status 404 from http://{}/grpc.health.v1.Health/Check, expected 200",
        at(GOOD, H2C)
    );
    checks.push((
        "grpc, no gRPC".to_owned(),
        call,
        at(GOOD, H2C),
        Expected::Words(words),
    ));
    servers.expect(checks)
}

#[test]
fn invalid_certificates_are_reported_with_their_reason() -> Result<()> {
    let _lane = Lane::shared()?;
    let servers = Servers::start()?;
    let trusted = &servers.trusted;
    let ca = trusted.ca_file.clone().context("no CA")?;
    let other_name = TlsCheck {
        server_name: Some("b.example".to_owned()),
        ..trusted.clone()
    };
    let other_ca = TlsCheck {
        ca_file: Some(servers.stranger.clone()),
        ..trusted.clone()
    };
    let over = TlsCheck {
        ca_file: Some(ca.replace("cert.pem", "expired.pem")),
        ..trusted.clone()
    };
    let mut checks = Vec::new();
    for (way, tls, port, problem) in [
        (
            "wrong name",
            other_name,
            None,
            CertificateProblem::WrongName {
                expected: "b.example".to_owned(),
                presented: vec!["a.example".to_owned()],
            },
        ),
        ("unknown CA", other_ca, None, CertificateProblem::UnknownIssuer),
        (
            "expired",
            over,
            Some(EXPIRED),
            CertificateProblem::Expired(Some(rcgen::date_time_ymd(2002, 1, 1).into())),
        ),
    ] {
        let web = HttpCheck {
            tls: Some(tls.clone()),
            ..servers.http("/ok", false)
        };
        let call = GrpcCheck {
            tls: Some(tls.clone()),
            ..GrpcCheck::default()
        };
        for (name, kind, usual) in [
            ("tls", CheckKind::Tls(tls.clone()), HTTPS),
            ("https", CheckKind::Http(web.clone()), HTTPS),
            ("http2", CheckKind::Http2(web.clone()), H2),
            ("grpc", CheckKind::Grpc(call.clone()), 50052),
        ] {
            let target = at(GOOD, port.unwrap_or(usual));
            let error = CheckError::Certificate {
                target,
                problem: problem.clone(),
            };
            checks.push((
                format!("{name}, {way}"),
                kind,
                target,
                Expected::Exactly(Err(error)),
            ));
        }
    }
    servers.expect(checks)
}
