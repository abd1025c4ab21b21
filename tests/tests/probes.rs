//! Checks against the servers that people run: nginx for http and https, dnsmasq for DNS.

use std::{
    fs,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_tests::{lane::Lane, netns::Netns, scratch::Scratch, wait};
use lb_userspace::health::{
    CheckError, Checker, DnsChecker, HttpChecker, TlsChecker,
    settings::{DnsCheck, HttpCheck, RecordType, TlsCheck, Transport},
};

/// Longer than any stall of the machine.
const PLENTY: Duration = Duration::from_secs(30);
const UP: Duration = Duration::from_secs(10);

/// A server. Dropping it kills it.
struct Server(Child);

impl Server {
    fn start(command: &mut Command) -> Result<Self> {
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(
            command.spawn().with_context(|| format!("start {command:?}"))?,
        ))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One check, from inside the namespace.
fn check(ns: &Netns, checker: &impl Checker, target: SocketAddr) -> Result<Result<(), CheckError>> {
    ns.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(runtime.block_on(checker.check(target, PLENTY)).map(drop))
    })?
}

fn wait_for(ns: &Netns, checker: &impl Checker, target: SocketAddr) -> Result<()> {
    wait::until_true("the server answers", UP, || {
        Ok(check(ns, checker, target)?.is_ok())
    })
}

#[test]
fn nginx_passes_and_fails_as_its_configuration_says() -> Result<()> {
    let _lane = Lane::shared()?;
    let ns = Netns::new("probes")?;
    let scratch = Scratch::new()?;
    let dir = scratch.path().display();
    let own = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()])?;
    let ca = scratch.write("cert.pem", own.cert.pem())?;
    scratch.write("key.pem", own.signing_key.serialize_pem())?;
    let config = format!(
        "daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/error.log;
         events {{ worker_connections 64; }}
         http {{
            access_log off; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;
            uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
            server {{
               listen 127.0.0.1:80; listen 127.0.0.1:443 ssl; listen 127.0.0.1:444 ssl http2;
               ssl_certificate {dir}/cert.pem; ssl_certificate_key {dir}/key.pem;
               location = /ok {{ return 200 \"all is well\"; }}
               location = /bad {{ return 503 \"sorry\"; }}
               location = /post {{ if ($request_method != POST) {{ return 405; }} return 204; }}
            }}
         }}"
    );
    scratch.write("nginx.conf", config)?;
    let mut nginx = ns.command("nginx");
    let _nginx = Server::start(
        nginx
            .arg("-p")
            .arg(scratch.path())
            .arg("-c")
            .arg(scratch.join("nginx.conf")),
    )?;

    let trusted = TlsCheck {
        ca_file: Some(ca.display().to_string()),
        server_name: Some("a.example".to_owned()),
        ..TlsCheck::default()
    };
    let web = |path: &str, change: fn(&mut HttpCheck), tls: Option<&TlsCheck>| {
        let mut settings = HttpCheck {
            path: path.to_owned(),
            expect_body: Some("well$".to_owned()),
            tls: tls.cloned(),
            ..HttpCheck::default()
        };
        change(&mut settings);
        HttpChecker::new(&settings)
    };
    let (plain, secure): (SocketAddr, SocketAddr) = ("127.0.0.1:80".parse()?, "127.0.0.1:443".parse()?);
    wait_for(&ns, &web("/ok", |_| {}, None)?, plain)?;
    let post = |http: &mut HttpCheck| {
        http.method = "POST".to_owned();
        http.expect_status = vec![204];
        http.expect_body = None;
    };
    for (target, tls) in [(plain, None), (secure, Some(&trusted))] {
        let checker = web("/ok", |_| {}, tls)?;
        for _ in 0..3 {
            ensure!(check(&ns, &checker.sibling(), target)? == Ok(()));
        }
        ensure!(check(&ns, &web("/post", post, tls)?, target)? == Ok(()));
        let wrong = check(&ns, &web("/bad", |_| {}, tls)?, target)?;
        ensure!(
            matches!(wrong, Err(CheckError::Status { status: 503, .. })),
            "{wrong:?}"
        );
        let other = check(
            &ns,
            &web("/ok", |http| http.expect_body = Some("ill".into()), tls)?,
            target,
        )?;
        ensure!(matches!(other, Err(CheckError::Body { .. })), "{other:?}");
    }
    // TLS to a port without it, and the other way round.
    let mixed = check(&ns, &web("/ok", |_| {}, Some(&trusted))?, plain)?;
    ensure!(matches!(mixed, Err(CheckError::Tls { .. })), "{mixed:?}");
    let mixed = check(&ns, &web("/ok", |_| {}, None)?, secure)?;
    ensure!(
        matches!(mixed, Err(CheckError::Status { status: 400, .. })),
        "{mixed:?}"
    );
    let untrusted = TlsChecker::new(&TlsCheck {
        server_name: trusted.server_name.clone(),
        ca_file: Some(stranger(&scratch)?),
        ..TlsCheck::default()
    })?;
    let error = check(&ns, &untrusted, secure)?;
    ensure!(matches!(error, Err(CheckError::Certificate { .. })), "{error:?}");
    let h2 = TlsChecker::new(&TlsCheck {
        alpn: vec!["h2".to_owned()],
        ..trusted
    })?;
    ensure!(check(&ns, &h2, "127.0.0.1:444".parse()?)? == Ok(()));
    Ok(())
}

/// The file of a certificate that nginx has nothing to do with.
fn stranger(scratch: &Scratch) -> Result<String> {
    let other = rcgen::generate_simple_self_signed(vec!["b.example".to_owned()])?;
    Ok(scratch
        .write("other.pem", other.cert.pem())?
        .display()
        .to_string())
}

#[test]
fn dnsmasq_answers_and_refuses_by_datagram_and_connection() -> Result<()> {
    let _lane = Lane::shared()?;
    let ns = Netns::new("probes")?;
    let scratch = Scratch::new()?;
    let hosts = scratch.write("hosts", "10.0.0.7 a.example\n2001:db8::7 a.example\n")?;
    let mut dnsmasq = ns.command("dnsmasq");
    let _dnsmasq = Server::start(
        dnsmasq
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--no-resolv",
                "--no-hosts",
                "--user=root",
            ])
            .args([
                "--listen-address=127.0.0.1",
                "--bind-interfaces",
                "--local=/example/",
                "--pid-file",
            ])
            .args([
                "--cname=www.example,a.example",
                "--txt-record=t.example,all is well",
            ])
            .arg(format!("--addn-hosts={}", hosts.display())),
    )?;
    ensure!(fs::exists(&hosts)?);
    let target: SocketAddr = "127.0.0.1:53".parse()?;
    let ask = |name: &str, record, transport, expect: Option<&str>| {
        DnsChecker::new(&DnsCheck {
            name: name.to_owned(),
            record,
            transport,
            expect_answer: expect.map(str::to_owned),
        })
    };
    wait_for(
        &ns,
        &ask("a.example", RecordType::A, Transport::Tcp, None)?,
        target,
    )?;
    for transport in [Transport::Udp, Transport::Tcp] {
        for (name, record, expect) in [
            ("a.example", RecordType::A, Some("10.0.0.7")),
            ("A.Example.", RecordType::Aaaa, Some("2001:DB8:0::7")),
            ("www.example", RecordType::Cname, Some("a.example.")),
            ("www.example", RecordType::A, None),
            ("t.example", RecordType::Txt, Some("all is well")),
        ] {
            let result = check(&ns, &ask(name, record, transport, expect)?, target)?;
            ensure!(result == Ok(()), "{name}: {result:?}");
        }
        for (name, record, expect, wrong) in [
            (
                "a.example",
                RecordType::A,
                Some("10.0.0.8"),
                "10.0.0.7, expected 10.0.0.8",
            ),
            ("no.example", RecordType::A, None, "NXDOMAIN"),
            ("a.example", RecordType::Txt, None, "no TXT record"),
            ("elsewhere.invalid", RecordType::A, None, "REFUSED"),
        ] {
            let result = check(&ns, &ask(name, record, transport, expect)?, target)?;
            let Err(CheckError::Answer { reason, .. }) = &result else {
                anyhow::bail!("{name}: {result:?}");
            };
            ensure!(**reason == *wrong, "{name}: {reason}");
        }
    }
    Ok(())
}
