//! The admin API over TLS: who may do what, certificates that change, and clients that only cost.

use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    config::file,
    lane::Lane,
    lb_cli::{LbCli, Outcome},
    scratch::Scratch,
    site::Site,
    topology::{Family, Shape},
    wait,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
};

/// For what takes seconds on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// Where the API is served.
const PORT: u16 = 9901;
/// More connections than the listener takes.
const IDLE: usize = 300;

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// The number of a certificate, by its file's name.
fn serial(name: &str) -> SerialNumber {
    SerialNumber::from_slice(name.as_bytes())
}

fn authority(name: &str) -> Result<Issuer> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

/// A network with a daemon, its authority and clients.
pub(crate) struct Remote {
    pub(crate) site: Site,
    ours: Issuer,
    pub(crate) address: SocketAddr,
}

impl Remote {
    pub(crate) fn start() -> Result<Self> {
        Self::start_with("", |_| Ok(()))
    }

    /// With further lines of the configuration and the files that they name.
    fn start_with(lines: &str, prepare: impl FnOnce(&Self) -> Result<()>) -> Result<Self> {
        let site = Site::new(Shape::OneArmed, 2)?;
        let address = site.net.lb.socket(Family::V4, PORT);
        let remote = Self {
            ours: authority("ours")?,
            address,
            site,
        };
        remote.write("ca.pem", remote.ours.pem())?;
        remote.issue("server", &[], &[&address.ip().to_string()])?;
        for (name, alternative) in [
            ("admin", "alice"),
            ("ops", "oscar"),
            ("reader", "rita"),
            ("nobody", "mallory"),
        ] {
            remote.issue(name, &[alternative], &[])?;
        }
        prepare(&remote)?;
        let dir = |name: &str| remote.path(name).display().to_string();
        let lb = format!(
            "[lb]\napi_address = \"{address}\"\napi_cert_file = {:?}\napi_key_file = {:?}\napi_ca_file = {:?}\n\
             api_admin = [\"alice\"]\napi_operate = [\"oscar\"]\napi_read = [\"rita\", \"x\"]\n{lines}\n",
            dir("server.pem"),
            dir("server.key"),
            dir("ca.pem"),
        );
        let web = file(&[remote.site.web(Family::V4, &[1, 1])]);
        let Self { site, ours, address } = remote;
        let mut site = site;
        site.daemon = site.daemon.config(&format!("{lb}{web}"))?;
        site.daemon.start()?;
        let remote = Self { site, ours, address };
        wait::until_true("the listener is there", LIMIT, || {
            Ok(remote.run("reader", "status")?.code == Some(0))
        })?;
        Ok(remote)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.site.daemon.dir().join(name)
    }

    fn write(&self, name: &str, text: String) -> Result<()> {
        fs::write(self.path(name), text)?;
        Ok(())
    }

    /// Writes certificate and key of `name`, with common names and alternative names.
    fn issue(&self, name: &str, common: &[&str], alternative: &[&str]) -> Result<()> {
        self.issue_by(&self.ours, name, common, alternative)
    }

    fn issue_by(&self, issuer: &Issuer, name: &str, common: &[&str], alternative: &[&str]) -> Result<()> {
        let names: Vec<String> = alternative.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.serial_number = Some(serial(name));
        for common in common {
            params.distinguished_name.push(DnType::CommonName, *common);
        }
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, issuer)?;
        self.write(&format!("{name}.pem"), certificate.pem())?;
        self.write(&format!("{name}.key"), key.serialize_pem())
    }

    /// Writes a list of an authority that revokes the certificates of `names`, to be replaced in the year `until`.
    fn revoke_by(&self, issuer: &Issuer, names: &[&str], until: i32) -> Result<()> {
        let begin = date_time_ymd(2000, 1, 1);
        let revoked = names.iter().map(|name| RevokedCertParams {
            serial_number: serial(name),
            revocation_time: begin,
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: begin,
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        self.write("clients.crl", list.signed_by(issuer)?.pem()?)
    }

    /// Runs a command on the client's machine with the certificate of `who`.
    fn run(&self, who: &str, line: &str) -> Result<Outcome> {
        let api = format!("https://{}", self.address);
        let [cert, key, ca] = ["pem", "key", "ca"].map(|kind| match kind {
            "ca" => self.path("ca.pem").display().to_string(),
            kind => self.path(&format!("{who}.{kind}")).display().to_string(),
        });
        let mut words = vec!["--api", &api, "--cert", &cert, "--key", &key, "--ca", &ca];
        words.extend(line.split(' '));
        LbCli::new(&self.site.net.client.ns, &self.path("none.sock")).run(&words)
    }

    fn ok(&self, who: &str, line: &str) -> Result<String> {
        let outcome = self.run(who, line)?;
        ensure!(outcome.code == Some(0), "{who}: {line}: {outcome:?}");
        Ok(outcome.stdout)
    }

    fn refused(&self, who: &str, line: &str, words: &str) -> Result<()> {
        let outcome = self.run(who, line)?;
        ensure!(
            outcome.code == Some(1) && outcome.stderr.contains(words),
            "{who}: {line}: {outcome:?}"
        );
        Ok(())
    }
}

#[test]
fn certificates_have_roles_and_changes_their_names() -> Result<()> {
    let _lane = Lane::shared()?;
    let remote = Remote::start()?;
    let cli = remote.site.daemon.cli();
    for (who, role) in [("reader", "read"), ("ops", "operate")] {
        ensure!(remote.ok(who, "service list")?.contains("web4"));
        remote.refused(who, "service remove web4", role)?;
        remote.refused(who, "rollback", role)?;
        remote.refused(who, "monitor --count 1", role)?;
    }
    remote.refused("reader", "backend drain web4 b0", "role read of rita")?;
    remote.refused("reader", "flows flush --all --yes", "role read of rita")?;
    remote.ok("ops", "backend drain web4 b0")?;
    remote.ok("ops", "backend enable web4 b0")?;
    remote.ok("ops", "backend set web4 b0 --weight 7")?;
    remote.ok("ops", "flows flush --all --yes")?;
    remote.refused("ops", "backend set web4 b0 --mode l2dsr", "mode of a backend")?;
    remote.refused(
        "nobody",
        "status",
        "no role for a certificate with the names mallory",
    )?;
    ensure!(
        remote
            .ok("admin", "service add other --address 192.0.2.99 --port 1")?
            .contains("+ service other")
    );
    let client = remote.site.net.client.ip(Family::V4).to_string();
    let events = cli.ok("events -o json")?;
    for (what, who) in [
        ("draining", "oscar"),
        ("service", "alice"),
        ("not allowed with this certificate", "rita"),
    ] {
        let by = format!("\"user\":\"{who}\"");
        ensure!(
            events
                .lines()
                .any(|event| event.contains(what) && event.contains(&by) && event.contains(&client)),
            "{what} by {who}: {events}"
        );
    }
    ensure!(cli.ok("history")?.contains(&format!("alice, {client}")));

    // Of another authority, and without any certificate: the handshake fails.
    remote.issue_by(&authority("theirs")?, "eve", &["alice"], &[])?;
    let eve = remote.run("eve", "status")?;
    ensure!(eve.code == Some(5), "{eve:?}");
    let refused = || {
        let labels = [("listener", "api_tls"), ("cause", "handshake")];
        Ok(remote
            .site
            .daemon
            .metrics()?
            .sum("lb_listener_ended_total", &labels)
            >= 1.0)
    };
    wait::until_true("the refused handshake is counted", LIMIT, refused)
}

/// Someone who has left still has the key.
#[test]
fn revoked_certificate_is_refused_whatever_becomes_of_the_list() -> Result<()> {
    const FUTURE: i32 = 2100;
    const PAST: i32 = 2001;
    let _lane = Lane::shared()?;
    let dir = Scratch::new()?;
    let list = dir.join("clients.crl");
    let remote = Remote::start_with(
        &format!("api_crl_file = {:?}", list.display().to_string()),
        |remote| {
            std::os::unix::fs::symlink(remote.path("clients.crl"), &list)?;
            remote.revoke_by(&remote.ours, &[], FUTURE)
        },
    )?;
    let cli = remote.site.daemon.cli();
    let refused = |who: &str| {
        let outcome = remote.run(who, "status")?;
        Ok::<_, anyhow::Error>((outcome.code == Some(5)).then_some(outcome.stderr))
    };
    let missing = |part: &str| {
        let metrics = remote.site.daemon.metrics()?;
        ensure!(
            metrics.sum("lb_part_missing", &[("part", "api_listener")]) == 0.0,
            "the API is served"
        );
        Ok(metrics.sum("lb_part_missing", &[("part", part)]) == 1.0)
    };
    let log = || Ok::<_, anyhow::Error>(fs::read_to_string(remote.path("log"))?);

    // Of `openssl`, so that what the log says can be looked up in certificates and lists.
    let of = |what: &str| -> Result<String> {
        let pem = remote.path("ops.pem").display().to_string();
        let printed = remote
            .site
            .net
            .client
            .ns
            .run("openssl", &["x509", "-noout", what, "-in", &pem])?;
        let (_, value) = printed.trim().split_once('=').context("no value")?;
        Ok(value.replace(" = ", "="))
    };
    let said = ["oscar".to_owned(), of("-serial")?, of("-issuer")?];
    remote.ok("ops", "status")?;
    remote.revoke_by(&remote.ours, &["ops"], FUTURE)?;
    let error = wait::until("the revoked one is refused", LIMIT, || refused("ops"))?;
    ensure!(error.to_lowercase().contains("revoked"), "{error}");
    wait::until_true("the log says why", LIMIT, || {
        let log = log()?;
        let mut lines = log.lines();
        let line =
            lines.find(|line| line.contains("refused a client's certificate: it is revoked by api_crl_file"));
        let Some(line) = line else { return Ok(false) };
        for said in &said {
            ensure!(line.contains(said), "{said} is not in {line}");
        }
        Ok(true)
    })?;
    remote.ok("reader", "status")?;

    remote.write("clients.crl", "garbage".to_owned())?;
    wait::until_true("the bad file is reported", LIMIT, || missing("api_files"))?;
    ensure!(!missing("api_revocation_list")?, "the former list is in force");
    let status = cli.ok("status")?;
    ensure!(
        status.contains("clients.crl: no revocation list in it"),
        "{status}"
    );
    ensure!(refused("ops")?.is_some() && refused("reader")?.is_none());

    remote.revoke_by(&remote.ours, &["ops"], PAST)?;
    wait::until_true("the old list is reported", LIMIT, || {
        Ok(cli.ok("status")?.contains("is out of date since 2001-01-01"))
    })?;
    ensure!(missing("api_revocation_list")? && !missing("api_files")?);
    ensure!(refused("ops")?.is_some() && refused("reader")?.is_none());

    remote.revoke_by(&remote.ours, &["reader"], FUTURE)?;
    wait::until_true(
        "the new list is in force",
        LIMIT,
        || Ok(refused("ops")?.is_none()),
    )?;
    wait::until_true("nothing is missing", LIMIT, || {
        Ok(!missing("api_revocation_list")? && !missing("api_files")?)
    })?;
    ensure!(refused("reader")?.is_some());

    remote.revoke_by(&authority("theirs")?, &[], FUTURE)?;
    wait::until_true("no list of the authority is there", LIMIT, || {
        Ok(refused("ops")?.is_some())
    })?;
    wait::until_true("the log says why", LIMIT, || {
        refused("ops")?;
        Ok(log()?.contains("an authority on its chain has no list in api_crl_file"))
    })
}

#[test]
fn changed_certificates_are_read_again_and_bad_ones_are_not_used() -> Result<()> {
    let _lane = Lane::shared()?;
    let remote = Remote::start()?;
    let cli = remote.site.daemon.cli();
    let missing = || {
        let metrics = remote.site.daemon.metrics()?;
        Ok::<_, anyhow::Error>(metrics.sum("lb_part_missing", &[("part", "api_files")]))
    };
    remote.write("server.pem", "garbage".to_owned())?;
    wait::until_true("the bad file is reported", LIMIT, || Ok(missing()? == 1.0))?;
    ensure!(cli.ok("status")?.contains("the former ones stay in force"));
    remote.ok("reader", "status")?;
    let address = remote.address.ip().to_string();
    remote.issue("server", &["renewed"], &[&address])?;
    wait::until_true("the new one is in force", LIMIT, || Ok(missing()? == 0.0))?;
    remote.ok("reader", "status")?;
    ensure!(cli.ok("events")?.contains("has new certificates"));
    Ok(())
}

/// Clients that hold connections, send half a request or no handshake keep no other client out.
#[test]
fn idle_and_half_open_clients_displace_no_request() -> Result<()> {
    let _lane = Lane::shared()?;
    let remote = Remote::start()?;
    let cli = remote.site.daemon.cli();
    let mut held = Vec::new();
    remote.site.net.client.ns.enter(|| {
        for number in 0..IDLE {
            let mut stream = TcpStream::connect(remote.address)?;
            // Nothing, the begin of a handshake, or no handshake at all; a closed connection is as good.
            let _ = match number % 3 {
                0 => Ok(()),
                1 => stream.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00]),
                _ => stream.write_all(b"GET /v1/status HTTP/1.1\r\n"),
            };
            held.push(stream);
        }
        anyhow::Ok(())
    })??;
    for weight in 2..7 {
        remote.ok("ops", &format!("backend set web4 b0 --weight {weight}"))?;
        cli.ok(&format!("backend set web4 b1 --weight {weight}"))?;
    }
    ensure!(cli.backend("web4", "b0")?["effective_weight"] == 6);
    ensure!(held.len() == IDLE);
    Ok(())
}
