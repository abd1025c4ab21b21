//! Certificates of this machine and of backends: what is wrong with them, and the remedy.

use std::{
    fs::Permissions,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};
use lb_tests::{
    config::{Service, file},
    lane::Lane,
    nginx,
    scratch::Scratch,
    site::{SERVICE_PORT, Site},
    topology::{Family, Shape},
    wait,
};
use lb_userspace::doctor::DaemonUser;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, SerialNumber, date_time_ymd,
};

use serde_json::Value;

use super::{Patient, config, expect, troubles, with_key};

const DAY: Duration = Duration::from_secs(86_400);
/// Port of the TLS servers.
const PORT: u16 = 8443;

/// Writes a certificate and its key, valid from `from` days ago for `days` days.
fn write(
    dir: &Scratch,
    name: &str,
    from: i64,
    days: u32,
    change: impl Fn(&mut CertificateParams),
) -> Result<()> {
    let mut params = CertificateParams::new(vec!["a.example".to_owned()])?;
    let begin = if from < 0 {
        SystemTime::now() + u32::try_from(-from)? * DAY
    } else {
        SystemTime::now() - u32::try_from(from)? * DAY
    };
    params.not_before = begin.into();
    params.not_after = (begin + days * DAY).into();
    change(&mut params);
    let key = KeyPair::generate()?;
    dir.write(&format!("{name}.pem"), params.self_signed(&key)?.pem())?;
    dir.write(&format!("{name}.key"), key.serialize_pem())?;
    Ok(())
}

/// Writes a revocation list that is to be replaced in the year `until`.
fn revocation_list(dir: &Scratch, name: &str, until: i32) -> Result<()> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2000, 1, 1),
        next_update: date_time_ymd(until, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    dir.write(name, list.signed_by(&issuer)?.pem()?)?;
    Ok(())
}

/// A service whose checks have these keys, which name files of a directory by `{dir}`.
fn checked(patient: &Patient, keys: &str) -> Result<String> {
    let keys = keys.replace("{dir}", &patient.dir.path().display().to_string());
    let service = patient
        .service(&patient.net.vip(Family::V4, 1).to_string())?
        .health(&format!("kind = \"https\"\n{keys}"));
    Ok(config(&[service]))
}

/// Fails if anything is not as it should be, but for the clock: nothing may keep that of a virtual machine right.
fn is_well(name: &str, (code, findings): (i32, Vec<Value>)) -> Result<Vec<Value>> {
    let (clock, others): (Vec<Value>, Vec<Value>) = findings
        .into_iter()
        .partition(|finding| finding["check"] == "clock");
    let expected = if clock.is_empty() { 0 } else { 10 };
    ensure!(
        code == expected && troubles(&others).is_empty(),
        "{name}: exit code {code}: {others:#?}"
    );
    Ok(others)
}

#[test]
fn certificates_of_this_machine_that_do_not_work_are_recognised() -> Result<()> {
    let _lane = Lane::shared()?;
    let patient = Patient::new()?;
    let dir = &patient.dir;
    let ca = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let client = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    let server = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    write(dir, "ca", 1, 300, ca)?;
    write(dir, "client", 1, 300, client)?;
    write(dir, "server", 1, 300, server)?;
    write(dir, "other", 1, 300, client)?;
    write(dir, "over", 30, 20, client)?;
    write(dir, "early", -3, 300, client)?;
    write(dir, "soon", 20, 29, client)?;
    write(dir, "old-ca", 30, 20, ca)?;
    dir.write("words", "no certificate\n")?;

    let good =
        "ca_file = \"{dir}/ca.pem\"\ncert_file = \"{dir}/client.pem\"\nkey_file = \"{dir}/client.key\"";
    let findings = is_well(
        "all is well",
        patient.diagnose(&[], &checked(&patient, good)?, &[])?,
    )?;
    let said = findings.iter().find(|finding| finding["check"] == "certificate");
    ensure!(said.is_some_and(|said| said["subject"] == "web"), "{findings:#?}");

    let with = |from: &str, to: &str| good.replace(from, to);
    for (name, keys, check, level, words) in [
        (
            "CA file missing",
            with("ca.pem", "none.pem"),
            "certificate_file",
            "fail",
            "does not exist",
        ),
        (
            "CA file of words",
            with("ca.pem", "words"),
            "certificate_file",
            "fail",
            "is not PEM",
        ),
        (
            "key in place of a CA",
            with("ca.pem", "ca.key"),
            "certificate_file",
            "fail",
            "no certificate",
        ),
        (
            "expired CA",
            with("ca.pem", "old-ca.pem"),
            "certificate",
            "warn",
            "has expired at",
        ),
        (
            "certificate missing",
            with("client.pem", "none.pem"),
            "certificate_file",
            "fail",
            "does not exist",
        ),
        (
            "key missing",
            with("client.key", "none.key"),
            "certificate_file",
            "fail",
            "does not exist",
        ),
        (
            "another key",
            with("client.key", "other.key"),
            "certificate_key",
            "fail",
            "is not the key of",
        ),
        (
            "expired",
            with("/client.", "/over."),
            "certificate",
            "fail",
            "has expired at",
        ),
        (
            "not valid yet",
            with("/client.", "/early."),
            "certificate",
            "fail",
            "timedatectl set-ntp true",
        ),
        (
            "expires soon",
            with("/client.", "/soon."),
            "certificate",
            "warn",
            "expires in 8 days, at",
        ),
        (
            "a server's",
            with("/client.", "/server."),
            "certificate_usage",
            "warn",
            "clientAuth",
        ),
    ] {
        let result = patient.diagnose(&[], &checked(&patient, &keys)?, &[])?;
        expect(name, result, check, level, "web", &[words])?;
    }
    let (code, findings) = patient.diagnose(
        &[],
        &checked(&patient, &with("client.key", "none.key"))?,
        &["--vip", "192.0.2.77"],
    )?;
    ensure!(code == 0, "of another service: {findings:#?}");

    // The binary form can be converted.
    let path = |name: &str| dir.join(name).display().to_string();
    patient.lb().run(
        "openssl",
        &[
            "x509",
            "-in",
            &path("ca.pem"),
            "-outform",
            "der",
            "-out",
            &path("ca.der"),
        ],
    )?;
    let result = patient.diagnose(&[], &checked(&patient, &with("ca.pem", "ca.der"))?, &[])?;
    let remedy = super::remedy(&result.1, "certificate_file", "web")?;
    expect(
        "DER",
        result,
        "certificate_file",
        "fail",
        "web",
        &["openssl x509 -inform der"],
    )?;
    patient.lb().run("sh", &["-c", &remedy])?;
    let result = patient.diagnose(&[], &checked(&patient, &with("ca.pem", "ca.der.pem"))?, &[])?;
    is_well(&format!("with the remedy, {remedy}"), result)?;

    // The admin API: a server, the CA of its clients and the certificates that it has revoked.
    let api = |ca: &str, own: &str, key: &str| {
        let (ca, list) = ca.split_once(' ').unwrap_or((ca, ""));
        let lists = if list.is_empty() {
            String::new()
        } else {
            format!("\napi_crl_file = \"{}\"", path(list))
        };
        let lines = format!(
            "api_address = \"10.1.0.1:9443\"\napi_ca_file = \"{}\"\napi_cert_file = \"{}\"\napi_key_file = \"{}\"\napi_admin = [\"alice\"]{lists}",
            path(ca),
            path(own),
            path(key)
        );
        patient.diagnose(&[], &with_key(&config(&[]), &lines), &[])
    };
    is_well("the API", api("ca.pem", "server.pem", "server.key")?)?;
    revocation_list(dir, "good.crl", 2100)?;
    revocation_list(dir, "old.crl", 2001)?;
    is_well("a list", api("ca.pem good.crl", "server.pem", "server.key")?)?;
    for (name, files, check, level, words) in [
        (
            "API: expired",
            ["ca.pem", "over.pem", "over.key"],
            "certificate",
            "fail",
            "has expired at",
        ),
        (
            "API: an old list",
            ["ca.pem old.crl", "server.pem", "server.key"],
            "certificate",
            "warn",
            "is out of date since 2001-01-01",
        ),
        (
            "API: no list",
            ["ca.pem none.crl", "server.pem", "server.key"],
            "certificate_file",
            "fail",
            "none.crl does not exist",
        ),
        (
            "API: certificates for a list",
            ["ca.pem ca.pem", "server.pem", "server.key"],
            "certificate_file",
            "fail",
            "has no certificate, key or list of the wanted kind",
        ),
        (
            "API: a client's",
            ["ca.pem", "client.pem", "client.key"],
            "certificate_usage",
            "warn",
            "serverAuth",
        ),
        (
            "API: no CA",
            ["server.pem", "server.pem", "server.key"],
            "certificate_usage",
            "warn",
            "api_ca_file",
        ),
        (
            "API: no key",
            ["ca.pem", "server.pem", "none"],
            "certificate_file",
            "fail",
            "not served over TLS",
        ),
        (
            "API: another key",
            ["ca.pem", "server.pem", "other.key"],
            "certificate_key",
            "fail",
            "is not the key",
        ),
    ] {
        let [ca, own, key] = files;
        expect(name, api(ca, own, key)?, check, level, "api", &[words])?;
    }
    Ok(())
}

/// A process of another user. Dropping it kills it.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn files_that_another_user_may_not_read_are_told_with_the_directory_in_the_way() -> Result<()> {
    let _lane = Lane::shared()?;
    const USER: u32 = 65_534;
    let dir = Scratch::new()?;
    let mode =
        |path: &std::path::Path, mode: u32| std::fs::set_permissions(path, Permissions::from_mode(mode));
    let closed = dir.join("closed");
    std::fs::create_dir(&closed)?;
    let (open, inside) = (dir.write("open.pem", "x")?, dir.write("closed/in.pem", "x")?);
    let private = dir.write("private.pem", "x")?;
    mode(dir.path(), 0o755)?;
    mode(&open, 0o644)?;
    mode(&inside, 0o644)?;
    mode(&closed, 0o700)?;
    mode(&private, 0o600)?;
    let user = USER.to_string();
    let other = Command::new("setpriv")
        .args([
            "--reuid",
            &user,
            "--regid",
            &user,
            "--clear-groups",
            "sleep",
            "600",
        ])
        .spawn()?;
    let other = Other(other);
    let of = || DaemonUser::of_process(other.0.id()).filter(|of| of.user == USER);
    let daemon = wait::until("the process has its user", Duration::from_secs(10), || Ok(of()))?;
    ensure!(daemon.denial(&open).is_none(), "it may read that");
    ensure!(
        daemon.denial(&private) == Some(None),
        "{:?}",
        daemon.denial(&private)
    );
    ensure!(
        daemon.denial(&inside) == Some(Some(closed)),
        "{:?}",
        daemon.denial(&inside)
    );
    // The thread that looked was another one.
    std::fs::read(&private).context("this process is still root")?;
    ensure!(
        DaemonUser::of_process(std::process::id()).is_none(),
        "root may read all"
    );
    Ok(())
}

/// nginx with TLS and the files `NAME.pem` and `NAME.key` of a directory. Dropping it kills it.
struct Tls {
    child: Child,
    _scratch: Scratch,
}

impl Tls {
    fn start(site: &Site, files: &Scratch, address: SocketAddr, name: &str) -> Result<Self> {
        let scratch = Scratch::new()?;
        let pem = files.join(name).display().to_string();
        nginx::configure(
            &scratch,
            &format!(
                "server {{ listen {address} ssl; ssl_certificate {pem}.pem; ssl_certificate_key {pem}.key;
                 location / {{ return 200 \"well\"; }} }}"
            ),
        )?;
        let child = nginx::spawn(&site.net.backends[0].ns, &scratch)?;
        Ok(Self {
            child,
            _scratch: scratch,
        })
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_backends_certificate_that_fails_its_check_is_named_with_the_remedy() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = Site::new(Shape::TwoArmed, 1)?;
    let files = Scratch::new()?;
    write(&files, "good", 1, 300, |_| {})?;
    write(&files, "over", 30, 20, |_| {})?;
    write(&files, "other", 1, 300, |_| {})?;
    let address = site.net.backends[0].socket(Family::V4, PORT);
    let vip = SocketAddr::new(site.net.vip(Family::V4, 1), SERVICE_PORT);
    let ca = |name: &str| files.join(name).display().to_string();
    let health = |name: &str, ca_file: &str| {
        format!(
            "kind = \"https\"\ninterval = \"200ms\"\nfast_interval = \"100ms\"\nfall = 1\nrise = 1\nserver_name = \"{name}\"\nca_file = \"{ca_file}\""
        )
    };
    let service = Service::tcp("web", vip)
        .health(&health("a.example", &ca("good.pem")))
        .backend("b0", address, 1);
    let mut server = Some(Tls::start(&site, &files, address, "good")?);
    site.daemon = site.daemon.config(&file(&[service]))?;
    site.daemon.start()?;
    let cli = site.daemon.cli();
    let is = |expected: &str| {
        wait::until_true(&format!("web is {expected}"), Duration::from_secs(30), || {
            Ok(super::state(&cli, "web")?.0 == expected)
        })
    };
    let diagnosed = || super::doctor(&cli, &[]);
    let set = |arguments: &str| cli.ok(&format!("service set web {arguments}"));
    is("ok")?;

    set("--check-server-name b.example")?;
    is("down")?;
    let (code, findings) = diagnosed()?;
    let remedy = super::remedy(&findings, "status", "web/b0")?;
    expect(
        "wrong name",
        (code, findings),
        "status",
        "warn",
        "web/b0",
        &["is not for b.example, but for a.example"],
    )?;
    ensure!(
        remedy == "lb service set web --check-server-name a.example",
        "{remedy}"
    );
    cli.ok(remedy.trim_start_matches("lb "))?;
    is("ok")?;

    set(&format!("--check-ca-file {}", ca("other.pem")))?;
    is("down")?;
    expect(
        "unknown CA",
        diagnosed()?,
        "status",
        "warn",
        "web/b0",
        &["unknown CA", "--check-ca-file"],
    )?;
    set(&format!("--check-ca-file {}", ca("good.pem")))?;
    is("ok")?;

    // A check that cannot be made leaves the backend up, and says so.
    set(&format!("--check-ca-file {}", ca("none.pem")))?;
    wait::until_true("the check is not made", Duration::from_secs(30), || {
        let status = cli.json("status")?;
        let problems = status["problems"].to_string();
        Ok(problems.contains("is not checked") && problems.contains("none.pem"))
    })?;
    expect(
        "no CA file",
        diagnosed()?,
        "certificate_file",
        "fail",
        "web",
        &["none.pem does not exist"],
    )?;
    set(&format!("--check-ca-file {}", ca("over.pem")))?;

    drop(server.take());
    let _server = Tls::start(&site, &files, address, "over")?;
    is("down")?;
    wait::until_true("the reason shows", Duration::from_secs(30), || {
        Ok(cli.ok("status")?.contains("has expired at"))
    })?;
    expect(
        "expired",
        diagnosed()?,
        "status",
        "warn",
        "web/b0",
        &["has expired at 20", "openssl s_client"],
    )?;
    Ok(())
}
