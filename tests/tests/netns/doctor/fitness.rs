//! A machine, its files and its daemon that do not fit: kernel, rights, pins, clock, drivers, certificates, versions.

use std::{
    fs::{self, Permissions},
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr},
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_common::limits::LAYOUT_VERSION;
use lb_tests::{
    config::{Service, file},
    daemon::Daemon,
    lane::Lane,
    lb_cli::{LbCli, lb_binary},
    netns::checked,
    scratch::Scratch,
    site::{HTTP_PORT, SERVICE_PORT, Site},
    topology::{Family, Shape},
    wait,
};
use serde_json::Value;

use super::{Patient, config, doctor, expect, remedy, with_key};

/// A user without rights.
const NOBODY: &str = "65534";

/// A shell that shows a file or directory in the place of one of the kernel's, and then runs its arguments.
const WITH_FILE: &str = "mount --bind \"$0\" \"$1\" && shift && exec \"$@\"";

/// `setpriv` for an ordinary user, with these capabilities, separated by commas and each with a plus sign; none if empty.
fn ordinary(capabilities: &str) -> Vec<String> {
    let mut words = vec![
        "setpriv".to_owned(),
        format!("--reuid={NOBODY}"),
        format!("--regid={NOBODY}"),
        "--clear-groups".to_owned(),
    ];
    if !capabilities.is_empty() {
        words.push(format!("--inh-caps={capabilities}"));
        words.push(format!("--ambient-caps={capabilities}"));
    }
    words
}

fn words(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

fn readable(dir: &Path) -> Result<()> {
    Ok(fs::set_permissions(dir, Permissions::from_mode(0o755))?)
}

#[test]
fn an_old_kernel_and_an_interpreter_are_recognised() -> Result<()> {
    let _lane = Lane::shared()?;
    let patient = Patient::new()?;
    let old = patient
        .dir
        .write("old", "5.15.0-91-generic\n")?
        .display()
        .to_string();
    let release = "/proc/sys/kernel/osrelease";
    expect(
        "old kernel",
        patient.diagnose(
            &["unshare", "--mount", "sh", "-c", WITH_FILE, &old, release],
            &config(&[]),
            &[],
        )?,
        "kernel",
        "fail",
        "machine",
        &["5.15.0-91-generic is too old", "Linux 6.1 or newer"],
    )?;
    // Only the first network namespace has this setting, so a directory with it stands for its own.
    let settings = patient.dir.join("core");
    fs::create_dir(&settings)?;
    fs::write(settings.join("bpf_jit_enable"), "0\n")?;
    let settings = settings.display().to_string();
    let core = "/proc/sys/net/core";
    expect(
        "interpreter",
        patient.diagnose(
            &["unshare", "--mount", "sh", "-c", WITH_FILE, &settings, core],
            &config(&[]),
            &[],
        )?,
        "jit",
        "warn",
        "machine",
        &["sysctl -w net.core.bpf_jit_enable=1"],
    )
}

#[test]
fn a_clock_that_nothing_keeps_right_is_reported_where_certificates_are_verified() -> Result<()> {
    let _lane = Lane::shared()?;
    let patient = Patient::new()?;
    // SAFETY: a structure of numbers, for which zero is a value: nothing is to be changed.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one structure to the place it is given, which lives until the call returns.
    let is_right = unsafe { libc::adjtimex(&raw mut state) } != libc::TIME_ERROR;
    let vip = patient.net.vip(Family::V4, 1).to_string();
    for (keys, matters) in [
        ("kind = \"https\"", true),
        ("kind = \"https\"\nverify = false", false),
    ] {
        let config = config(&[patient.service(&vip)?.health(keys)]);
        let (_, findings) = patient.diagnose(&[], &config, &[])?;
        let reported = findings.iter().any(|finding| finding["check"] == "clock");
        ensure!(reported == (matters && !is_right), "{keys}: {findings:#?}");
    }
    Ok(())
}

#[test]
fn pins_of_another_version_are_recognised_and_the_remedy_lets_the_daemon_start() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = Site::new(Shape::TwoArmed, 1)?;
    let web = site.web(Family::V4, &[1]);
    let pins = site.daemon.pin_dir();
    let config = with_key(
        &config(std::slice::from_ref(&web)),
        &format!("pin_dir = \"{}\"", pins.display()),
    );
    site.daemon = site.daemon.config(&file(&[web]))?;
    site.daemon.start()?;
    let path = site.daemon.dir().write("doctor.toml", &config)?;
    let cli = site.daemon.cli();
    let diagnose = || doctor(&cli, &["--config", &path.display().to_string()]);
    let (_, findings) = diagnose()?;
    let has_pins = |findings: &[Value]| findings.iter().any(|finding| finding["check"] == "pins");
    ensure!(!has_pins(&findings), "a daemon has these pins: {findings:#?}");

    // What a later version would leave: links, maps and programs of another layout.
    site.daemon.kill()?;
    let later = pins.join(format!("v{}", LAYOUT_VERSION + 1));
    fs::rename(pins.join(format!("v{LAYOUT_VERSION}")), &later)?;
    let result = diagnose()?;
    let mends = remedy(&result.1, "pins", "machine")?;
    expect(
        "another version",
        result,
        "pins",
        "fail",
        "machine",
        &[&later.display().to_string(), "refuses to start", "lb run --reset"],
    )?;
    let outcome = site.daemon.run_to_end()?;
    ensure!(
        outcome.code != Some(0) && outcome.stderr.contains("another version of lb"),
        "{outcome:?}"
    );
    let lb = lb_binary()?;
    let mends = mends.replacen("lb ", &format!("{} ", lb.display()), 1);
    site.net.lb.ns.run("sh", &["-c", &mends])?;
    let (_, findings) = diagnose()?;
    ensure!(!has_pins(&findings), "with the remedy, {mends}: {findings:#?}");
    site.daemon.start().map(drop)
}

#[test]
fn what_a_driver_cannot_do_is_recognised() -> Result<()> {
    let _lane = Lane::shared()?;
    let patient = Patient::new()?;
    let (lb, net) = (patient.lb(), &patient.net);

    // Its driver gives programs one buffer.
    lb.ip("tuntap add tap9 mode tap\nlink set tap9 mtu 9000 up")?;
    let of = |more: &str| format!("[lb]\ninterfaces = [\"tap9\"]\n{more}");
    expect(
        "jumbo frames",
        patient.diagnose(&[], &of(""), &[])?,
        "mtu",
        "warn",
        "tap9",
        &["MTU 9000", "tun", "ip link set dev tap9 mtu 3498"],
    )?;
    let (_, findings) = patient.diagnose(&[], &of("xdp_mode = \"generic\"\n"), &[])?;
    ensure!(
        findings.iter().all(|finding| finding["check"] != "mtu"),
        "generic mode takes them: {findings:#?}"
    );
    lb.ip("link set tap9 mtu 3498")?;
    let (_, findings) = patient.diagnose(&[], &of(""), &[])?;
    ensure!(
        findings.iter().all(|finding| finding["check"] != "mtu"),
        "with the remedy: {findings:#?}"
    );

    // Packets come in by an interface in native mode, and by one in generic mode, which sends by any driver.
    lb.ip(
        "link add br9 type bridge\nlink add d9 type veth peer name d8\nlink set d9 master br9\nlink set d8 up\nlink set d9 up\n\
         link set br9 up\naddr add 10.9.0.1/24 dev br9\nneigh add 10.9.0.2 lladdr 02:00:00:00:00:09 dev br9 nud permanent\n\
         link add br8 type bridge\nlink set br8 up\naddr add 10.8.0.1/24 dev br8",
    )?;
    let far = config(&[patient.with_backend("l2dsr", "10.9.0.2:80")?]);
    let mixed = far.replace("\"back\"", "\"br8\"");
    expect(
        "exit of packets that come in natively",
        patient.diagnose(&[], &mixed, &[])?,
        "redirect",
        "warn",
        "br9",
        &["if they come in by front in native mode"],
    )?;

    // Source NAT without an address: an address of the link does not leave it.
    let backend = &net.backends[0];
    let mac = backend
        .ns
        .mac("eth0")?
        .map(|byte| format!("{byte:02x}"))
        .join(":");
    lb.ip(&format!(
        "addr del fd01::1/64 dev front\naddr del fd02::1/64 dev back\nroute add fd02::/64 dev back\n\
         neigh replace {} lladdr {mac} dev back nud permanent",
        backend.v6
    ))?;
    let place = backend.socket(Family::V6, HTTP_PORT).to_string();
    let check = || patient.diagnose(&[], &config(&[patient.with_backend("nat", &place)?]), &[]);
    let result = check()?;
    let mends = remedy(&result.1, "replies", "web")?.replace("ADDRESS", "fd02::1/64");
    expect(
        "no source address",
        result,
        "replies",
        "fail",
        "web",
        &["no IPv6 source address", "snat_addresses in the file"],
    )?;
    lb.run("sh", &["-c", &mends])?;
    // The address is tentative for a moment.
    wait::until_true(
        &format!("it is mended by {mends}"),
        Duration::from_secs(20),
        || Ok(check()?.0 == 0),
    )
}

#[test]
fn what_an_ordinary_user_cannot_see_is_reported_as_such() -> Result<()> {
    let _lane = Lane::shared()?;
    let patient = Patient::new()?;
    readable(patient.dir.path())?;
    let user = ordinary("");
    let user = words(&user);

    // Nobody has asked for this neighbour, and an ordinary user may not have the kernel ask.
    let silent = config(&[patient.with_backend("nat", "10.2.0.77:8080")?]);
    expect(
        "not asked for",
        patient.diagnose(&user, &silent, &["--probe"])?,
        "path",
        "warn",
        "web/b0",
        &["10.2.0.77", "is not known", "sudo"],
    )?;
    expect(
        "no packets",
        patient.diagnose(&user, &silent, &["--probe"])?,
        "probe",
        "warn",
        "machine",
        &["cannot ask the network", "sudo lb doctor --probe"],
    )?;

    let hidden = patient.dir.write("ca.pem", "x")?;
    fs::set_permissions(&hidden, Permissions::from_mode(0o600))?;
    let checked = |health: &str| -> Result<String> {
        let vip = patient.net.vip(Family::V4, 1).to_string();
        Ok(config(&[patient.service(&vip)?.health(health)]))
    };
    let with_ca = |path: &Path| checked(&format!("kind = \"https\"\nca_file = \"{}\"", path.display()));
    expect(
        "a file of root",
        patient.diagnose(&user, &with_ca(&hidden)?, &[])?,
        "certificate_file",
        "warn",
        "web",
        &["may not be read by this user", "sudo"],
    )?;
    expect(
        "a directory",
        patient.diagnose(&[], &with_ca(patient.dir.path())?, &[])?,
        "certificate_file",
        "fail",
        "web",
        &["cannot be read", "ca_file"],
    )?;
    expect(
        "no CA of the system",
        patient.diagnose(
            &["env", "SSL_CERT_FILE=/nonexistent", "SSL_CERT_DIR=/nonexistent"],
            &checked("kind = \"https\"")?,
            &[],
        )?,
        "certificate_file",
        "fail",
        "machine",
        &["trusts no CA", "apt-get install ca-certificates"],
    )
}

/// Relays connections to a daemon, whose answers then have another version.
fn say_another_version(listener: UnixListener, daemon: PathBuf) {
    const SAYS: &str = concat!("\"version\":\"", env!("CARGO_PKG_VERSION"), "\"");
    let relay = move |client: UnixStream| -> io::Result<()> {
        let daemon = UnixStream::connect(&daemon)?;
        let (mut asks, mut asked) = (client.try_clone()?, daemon.try_clone()?);
        thread::spawn(move || {
            io::copy(&mut asks, &mut asked)?;
            asked.shutdown(Shutdown::Write)
        });
        let (mut answers, mut answered) = (daemon, client);
        let mut buffer = vec![0; 1 << 20];
        loop {
            let length = answers.read(&mut buffer)?;
            if length == 0 {
                return answered.shutdown(Shutdown::Both);
            }
            let another = SAYS.replace(|c: char| c.is_ascii_digit(), "9");
            let answer = String::from_utf8_lossy(&buffer[..length]).replace(SAYS, &another);
            answered.write_all(answer.as_bytes())?;
        }
    };
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // The doctor says what it has not got.
            let _ = relay(client);
        }
    });
}

#[test]
fn a_daemon_without_rights_or_of_another_version_is_recognised() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::TwoArmed, 1)?;
    let lb = site.net.lb.ns.clone();
    let files = Scratch::new()?;
    readable(files.path())?;
    let ca = files.write("ca.pem", "x")?;
    checked(
        Command::new("openssl")
            .args([
                "req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "100", "-subj", "/CN=ca", "-out",
            ])
            .arg(&ca)
            .arg("-keyout")
            .arg(files.join("ca.key")),
    )?;
    let vip = SocketAddr::new(site.net.vip(Family::V4, 1), SERVICE_PORT);
    let web = Service::tcp("web", vip)
        .health(&format!("kind = \"https\"\nca_file = \"{}\"", ca.display()))
        .backend("b0", site.net.backends[0].socket(Family::V4, HTTP_PORT), 1);

    // The daemon has a user of its own, who may not read the file.
    let user = ordinary("+bpf,+perfmon,+net_admin,+net_raw,+sys_admin");
    let config = file(&[web]);
    let mut daemon = Daemon::new(&lb, &["front", "back"])?
        .through(&words(&user))
        .config(&config)?;
    checked(
        Command::new("chown")
            .args(["-R", NOBODY])
            .arg(daemon.dir().path()),
    )?;
    daemon.start()?;
    let cli = daemon.cli();
    let (_, findings) = doctor(&cli, &[])?;
    ensure!(
        findings
            .iter()
            .all(|finding| finding["check"] != "certificate_file"),
        "it may read it: {findings:#?}"
    );
    fs::set_permissions(&ca, Permissions::from_mode(0o600))?;
    let result = doctor(&cli, &[])?;
    let mends = remedy(&result.1, "certificate_file", "web")?;
    expect(
        "the daemon may not read it",
        result,
        "certificate_file",
        "fail",
        "web",
        &[&format!("the daemon's user ({NOBODY}) may not read")],
    )?;
    lb.run("sh", &["-c", &mends])?;
    let (_, findings) = doctor(&cli, &[])?;
    ensure!(
        findings
            .iter()
            .all(|finding| finding["check"] != "certificate_file"),
        "with the remedy, {mends}: {findings:#?}"
    );

    // The doctor has no rights, and a daemon runs.
    fs::set_permissions(daemon.dir().path(), Permissions::from_mode(0o777))?;
    fs::set_permissions(daemon.socket(), Permissions::from_mode(0o777))?;
    let output = lb
        .command("setpriv")
        .args(["--bounding-set=-all", "--inh-caps=-all"])
        .arg(lb_binary()?)
        .env("LB_SOCKET", daemon.socket())
        .args(["-o", "json", "doctor"])
        .output()?;
    let report: Value = serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
    let findings = report["findings"].as_array().context("no findings")?.clone();
    expect(
        "a doctor without rights",
        (output.status.code().context("killed")?, findings),
        "capabilities",
        "warn",
        "machine",
        &["cannot see everything", "sudo"],
    )?;

    // The daemon was not restarted after an upgrade.
    let other = files.join("renamed.sock");
    say_another_version(UnixListener::bind(&other)?, daemon.socket());
    expect(
        "another version",
        doctor(&LbCli::new(&lb, &other), &[])?,
        "version",
        "warn",
        "daemon",
        &["runs, and this is", "systemctl restart lb"],
    )?;
    drop(daemon);

    // One that answers what this program does not know.
    let socket = files.join("other.sock");
    let listener = UnixListener::bind(&socket)?;
    let answers = thread::spawn(move || -> Result<()> {
        let (mut stream, _) = listener.accept()?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.extend(byte);
        }
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        Ok(stream.write_all(answer.as_bytes())?)
    });
    expect(
        "not understood",
        doctor(&LbCli::new(&lb, &socket), &[])?,
        "version",
        "warn",
        "daemon",
        &[
            "it is of another version than this program",
            "systemctl restart lb",
        ],
    )?;
    answers.join().ok().context("the server panicked")?
}

#[test]
fn the_daemon_says_why_a_mode_is_not_native() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::TwoArmed, 1)?;
    let lb = &site.net.lb.ns;
    lb.ip("link add br7 type bridge\nlink set br7 up")?;
    let mut daemon = Daemon::new(lb, &["front", "back", "br7"])?;
    daemon.start()?;
    expect(
        "generic",
        doctor(&daemon.cli(), &[])?,
        "xdp_mode",
        "warn",
        "br7",
        &["--xdp-mode generic, if that is enough"],
    )
}
