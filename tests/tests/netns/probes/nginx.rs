//! HTTP of both versions, with and without TLS.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use lb_tests::{lane::Lane, netns::Netns, nginx, scratch::Scratch};
use lb_userspace::health::{
    CheckError, Checker, Checkers, Http2Checker, Http2Problem, HttpChecker, Latency, TlsChecker,
    settings::{
        Bytes, CheckKind, CheckSettings, DialogueStep, Expected, HttpCheck, ProxyVersion, TcpDialogue,
        TlsCheck,
    },
};

use super::{Server, certificate, check, checks, stranger, wait_for};

/// A version of HTTP.
#[derive(Clone, Copy, Debug)]
enum Version {
    One,
    Two,
}

/// A checker of either version.
enum Web {
    One(HttpChecker),
    Two(Http2Checker),
}

impl Web {
    /// A check that expects a body ending with "well", modified by `change`.
    fn new(version: Version, tls: Option<&TlsCheck>, path: &str, change: fn(&mut HttpCheck)) -> Result<Self> {
        let mut settings = HttpCheck {
            path: path.to_owned(),
            expect_body: Some("well$".to_owned()),
            tls: tls.cloned(),
            ..HttpCheck::default()
        };
        change(&mut settings);
        Ok(match version {
            Version::One => Self::One(HttpChecker::new(&settings)?),
            Version::Two => Self::Two(Http2Checker::new(&settings)?),
        })
    }
}

impl Checker for Web {
    async fn check(&self, target: SocketAddr, timeout: Duration) -> Result<Latency, CheckError> {
        match self {
            Self::One(checker) => checker.check(target, timeout).await,
            Self::Two(checker) => checker.check(target, timeout).await,
        }
    }
}

#[test]
fn nginx_passes_and_fails_by_its_configuration() -> Result<()> {
    let _lane = Lane::shared()?;
    let ns = Netns::new("probes")?;
    let scratch = Scratch::new()?;
    let dir = scratch.path().display();
    let trusted = certificate(&scratch)?;
    let server = format!(
        "keepalive_requests 4;
         server {{
            listen 127.0.0.1:80; listen 127.0.0.1:443 ssl;
            listen 127.0.0.1:81 http2; listen 127.0.0.1:444 ssl http2;
            ssl_certificate {dir}/cert.pem; ssl_certificate_key {dir}/key.pem;
            location = /ok {{ return 200 \"all is well\"; }}
            location = /bad {{ return 503 \"sorry\"; }}
            location = /post {{ if ($request_method != POST) {{ return 405; }} return 204; }}
            location = /cut {{ return 444; }}
         }}"
    );
    nginx::configure(&scratch, &server)?;
    let _nginx = Server::start(&mut nginx::command(&ns, &scratch))?;

    let port = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let (plain, secure, plain2, secure2) = (port(80), port(443), port(81), port(444));
    let any: fn(&mut HttpCheck) = |_| {};
    wait_for(&ns, &Web::new(Version::One, None, "/ok", any)?, plain)?;
    for (version, target, tls) in [
        (Version::One, plain, None),
        (Version::One, secure, Some(&trusted)),
        (Version::Two, plain2, None),
        (Version::Two, secure2, Some(&trusted)),
    ] {
        let web = |path, change| Web::new(version, tls, path, change);
        // nginx gives up each connection after 4 requests, which must not show.
        let kept = checks(&ns, &web("/ok", any)?, target, 30)?;
        ensure!(kept == Ok(()), "{version:?} {target}: {kept:?}");
        let post = web("/post", |http| {
            http.method = "POST".to_owned();
            http.expect_status = vec![204];
            http.expect_body = None;
        })?;
        ensure!(check(&ns, &post, target)? == Ok(()), "{version:?} {target}");
        let Err(error) = check(&ns, &web("/bad", any)?, target)? else {
            bail!("{version:?} {target} passes with status 503");
        };
        ensure!(matches!(error, CheckError::Status { status: 503, .. }), "{error}");
        let ill = web("/ok", |http| http.expect_body = Some("ill".into()))?;
        let error = check(&ns, &ill, target)?;
        ensure!(matches!(error, Err(CheckError::Body { .. })), "{error:?}");
        let error = check(&ns, &web("/cut", any)?, target)?;
        let cut = match version {
            Version::One => matches!(error, Err(CheckError::Closed { .. })),
            Version::Two => matches!(error, Err(CheckError::Http2 { .. })),
        };
        ensure!(cut, "{version:?}: {error:?}");
    }
    // TLS to a port without it, and the other way round.
    let mixed = |version, tls, target| check(&ns, &Web::new(version, tls, "/ok", any)?, target);
    let error = mixed(Version::One, Some(&trusted), plain)?;
    ensure!(matches!(error, Err(CheckError::Tls { .. })), "{error:?}");
    let error = mixed(Version::One, None, secure)?;
    ensure!(
        matches!(error, Err(CheckError::Status { status: 400, .. })),
        "{error:?}"
    );
    // HTTP/2 where only HTTP/1 is spoken.
    let error = mixed(Version::Two, None, plain)?;
    let old = Http2Problem::Http1;
    ensure!(
        matches!(&error, Err(CheckError::Http2 { problem, .. }) if *problem == old),
        "{error:?}"
    );
    let error = mixed(Version::Two, Some(&trusted), secure)?;
    ensure!(matches!(error, Err(CheckError::Protocol { .. })), "{error:?}");

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
    ensure!(check(&ns, &h2, secure2)? == Ok(()));
    Ok(())
}

/// nginx closes connections that begin otherwise than with a PROXY header, and a check without one must show that.
#[test]
fn a_server_that_demands_a_proxy_header_gets_one_from_each_kind() -> Result<()> {
    let _lane = Lane::shared()?;
    let ns = Netns::new("proxied")?;
    let scratch = Scratch::new()?;
    let dir = scratch.path().display();
    let trusted = certificate(&scratch)?;
    // The answer contains the client's address from the header.
    let server = format!(
        "server {{
            listen 127.0.0.1:80 proxy_protocol; listen 127.0.0.1:443 ssl proxy_protocol;
            listen 127.0.0.1:81 http2 proxy_protocol; listen 127.0.0.1:444 ssl http2 proxy_protocol;
            listen [::1]:80 proxy_protocol;
            ssl_certificate {dir}/cert.pem; ssl_certificate_key {dir}/key.pem;
            location / {{ return 200 \"from $proxy_protocol_addr to $proxy_protocol_server_port: well\"; }}
         }}"
    );
    nginx::configure(&scratch, &server)?;
    let _nginx = Server::start(&mut nginx::command(&ns, &scratch))?;

    let port = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let web = |tls: Option<&TlsCheck>, body: &str| HttpCheck {
        expect_body: Some(body.to_owned()),
        tls: tls.cloned(),
        ..HttpCheck::default()
    };
    let says = |text: &str| DialogueStep {
        send: Some(Bytes::Text("GET / HTTP/1.0\r\n\r\n".to_owned())),
        expect: Some(Expected::Bytes(Bytes::Text(text.to_owned()))),
    };
    for version in [None, Some(ProxyVersion::V1), Some(ProxyVersion::V2)] {
        // Version 2 says that the check has no client.
        let (body, to) = match version {
            Some(ProxyVersion::V1) => ("^from 127.0.0.1 to 80: well$", "from 127.0.0.1 to 80: well"),
            Some(ProxyVersion::V2) | None => ("^from  to : well$", "from  to : well"),
        };
        let dialogue = TcpDialogue {
            steps: vec![says(to)],
        };
        for (kind, target) in [
            (CheckKind::Http(web(None, body)), port(80)),
            (CheckKind::Http(web(Some(&trusted), "well$")), port(443)),
            (CheckKind::Http2(web(None, "well$")), port(81)),
            (CheckKind::Http2(web(Some(&trusted), "well$")), port(444)),
            (CheckKind::Tls(trusted.clone()), port(443)),
            (CheckKind::Dialogue(dialogue), port(80)),
            (CheckKind::Http(web(None, "well$")), "[::1]:80".parse()?),
        ] {
            let settings = CheckSettings {
                kind,
                send_proxy: version,
                ..CheckSettings::default()
            };
            let name = format!("{version:?} {:?} {target}", settings.kind);
            let checker = Checkers::new(settings)?.checker();
            if version.is_some() {
                wait_for(&ns, &checker, target).with_context(|| name.clone())?;
                // Later checks use the connection again, which has its header.
                ensure!(checks(&ns, &checker, target, 5)? == Ok(()), "{name}");
            } else {
                let Err(error) = check(&ns, &checker, target)? else {
                    bail!("{name} passes without a header");
                };
                ensure!(!error.is_local(), "{name}: {error}");
            }
        }
    }
    Ok(())
}
