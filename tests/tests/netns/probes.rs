//! Checks against the servers that people run: nginx for http, https and http2, gRPC's own server for grpc, dnsmasq for
//! DNS.

mod dnsmasq;
mod grpc;
mod nginx;
mod old_tls;
mod ways;

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use lb_tests::{netns::Netns, scratch::Scratch, wait};
use lb_userspace::health::{CheckError, Checker, settings::TlsCheck};

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

/// The first failure of `count` checks, one after the other, from inside the namespace.
fn checks(
    ns: &Netns,
    checker: &impl Checker,
    target: SocketAddr,
    count: u32,
) -> Result<Result<(), CheckError>> {
    ns.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(runtime.block_on(async {
            for _ in 0..count {
                checker.check(target, PLENTY).await?;
            }
            Ok(())
        }))
    })?
}

/// One check, from inside the namespace.
fn check(ns: &Netns, checker: &impl Checker, target: SocketAddr) -> Result<Result<(), CheckError>> {
    checks(ns, checker, target, 1)
}

fn wait_for(ns: &Netns, checker: &impl Checker, target: SocketAddr) -> Result<()> {
    wait::until_true("the server answers", UP, || {
        Ok(check(ns, checker, target)?.is_ok())
    })
}

/// A certificate for a.example in `cert.pem` and its key in `key.pem`, and how a client trusts it.
fn certificate(scratch: &Scratch) -> Result<TlsCheck> {
    let own = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()])?;
    scratch.write("key.pem", own.signing_key.serialize_pem())?;
    let ca = scratch.write("cert.pem", own.cert.pem())?;
    Ok(TlsCheck {
        ca_file: Some(ca.display().to_string()),
        server_name: Some("a.example".to_owned()),
        ..TlsCheck::default()
    })
}

/// The file of an unrelated certificate.
fn stranger(scratch: &Scratch) -> Result<String> {
    let other = rcgen::generate_simple_self_signed(vec!["b.example".to_owned()])?;
    let file = scratch.write("other.pem", other.cert.pem())?;
    Ok(file.display().to_string())
}

/// As [`certificate`], but not valid any more: in `expired.pem` and `expired-key.pem`.
fn expired(scratch: &Scratch) -> Result<()> {
    let key = rcgen::KeyPair::generate()?;
    let mut wanted = rcgen::CertificateParams::new(vec!["a.example".to_owned()])?;
    wanted.not_before = rcgen::date_time_ymd(2001, 1, 1);
    wanted.not_after = rcgen::date_time_ymd(2002, 1, 1);
    scratch.write("expired.pem", wanted.self_signed(&key)?.pem())?;
    scratch.write("expired-key.pem", key.serialize_pem())?;
    Ok(())
}
