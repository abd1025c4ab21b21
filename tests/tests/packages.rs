//! The packages, as a user has them: installed, started, upgraded and removed under a real systemd, in a machine of Debian's packages.

use std::{
    collections::BTreeSet,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_tests::{
    client::{KeepAlive, http_requests},
    lane::Lane,
    machine::Machine,
    netns::{Netns, checked},
    nginx::Nginx,
    scratch::Scratch,
    site::{NGINX_PORT, SERVICE_PORT, Site},
    topology::{Family, Shape},
    wait,
};
use serde_json::Value;

/// Longest wait for something that the daemon or systemd does.
const SOON: Duration = Duration::from_secs(20);
/// Connections that traffic of a test keeps busy, and answers that each must get before the next step.
const CONNECTIONS: usize = 40;
const ROUNDS: u64 = 5;
/// Exposure that `systemd-analyze security` may find, from 0 (none) to 10.
const MAX_EXPOSURE: f64 = 2.0;
/// What lintian says of the program that the lane packs, which is not the static one of a release.
const OF_THE_TEST_BUILD: &str = "missing-dependency-on-libc,mismatched-override,hardening-no-pie,hardening-no-relro,shared-library-lacks-prerequisites";

/// A machine with the package, and the network around it.
struct Installed {
    machine: Machine,
    site: Site,
    _servers: Vec<Nginx>,
}

impl Installed {
    /// Installs the package in a new machine; nothing is configured yet.
    fn new() -> Result<Self> {
        let site = Site::new(Shape::TwoArmed, 2)?;
        let servers = site.nginx(Family::V4)?;
        let machine = Machine::boot(&site.net.lb.ns)?;
        let this = Self {
            machine,
            site,
            _servers: servers,
        };
        this.machine
            .run(&format!("dpkg --install {}", this.package(Version::This)?))?;
        Ok(this)
    }

    /// Puts a package into the machine, and gives its place there.
    fn package(&self, version: Version) -> Result<String> {
        let name = match version {
            Version::This => format!("lb_{}-1_", env!("CARGO_PKG_VERSION")),
            Version::Next => format!("lb_{}.1-1_", env!("CARGO_PKG_VERSION")),
        };
        let place = format!("/tmp/{name}.deb");
        self.machine.put(&made(&name, "deb")?, &place)?;
        Ok(place)
    }

    /// Names the interfaces in the file, and starts the service.
    fn start(&self) -> Result<()> {
        self.machine
            .run("sed -i 's/^#interfaces = .*/interfaces = [\"front\", \"back\"]/' /etc/lb/lb.toml")?;
        self.machine.run("systemctl restart lb")?;
        Ok(())
    }

    /// Adds the service `web` with both backends, and waits until these are up.
    fn add_service(&self, by: &str) -> Result<()> {
        let target = self.site.service_address(Family::V4);
        let lb = |line: &str| self.machine.run(&format!("{by} lb {line}"));
        lb(&format!(
            "service add web --address {} --port {SERVICE_PORT} --check tcp --check-interval 500ms",
            target.ip()
        ))?;
        for (i, host) in self.site.net.backends.iter().enumerate() {
            lb(&format!(
                "backend add web b{i} --address {}",
                host.socket(Family::V4, NGINX_PORT)
            ))?;
        }
        let status = lb("status")?;
        ensure!(
            status.contains("lb.toml, in force") && status.contains("+ service web"),
            "{status}"
        );
        wait::until_true("both backends are up", SOON, || {
            let backends = self.backends()?;
            Ok(backends.len() == 2 && backends.iter().all(|backend| backend["health"] == "up"))
        })
        .with_context(|| {
            self.machine
                .run("lb status; lb backend list -o json")
                .unwrap_or_default()
        })
    }

    /// The backends of the service.
    fn backends(&self) -> Result<Vec<Value>> {
        let text = self.machine.run("lb backend list -o json")?;
        let services: Value = serde_json::from_str(&text)?;
        Ok(services[0]["backends"].as_array().cloned().unwrap_or_default())
    }

    fn load(&self) -> Result<KeepAlive> {
        let target = self.site.service_address(Family::V4);
        let load = KeepAlive::start(&self.site.net.client.ns, target, CONNECTIONS)?;
        load.wait_rounds(ROUNDS)?;
        Ok(load)
    }

    /// Interfaces of the machine that have an XDP program.
    fn with_program(&self) -> Result<Vec<String>> {
        let programs = programs(&self.site.net.lb.ns)?;
        Ok(programs.into_iter().map(|(interface, _)| interface).collect())
    }

    /// What identifies the instructions of the program that all interfaces have: the whole one, which follows the first of a start.
    fn program_tag(&self) -> Result<String> {
        wait::until_true("the whole program runs", SOON, || {
            let kept = self.machine.run("ls /sys/fs/bpf/lb/v*/programs")?;
            Ok(!kept.is_empty() && !kept.contains("-first"))
        })?;
        let mut tags: Vec<String> = programs(&self.site.net.lb.ns)?
            .into_iter()
            .map(|(_, tag)| tag)
            .collect();
        ensure!(tags.len() == 2, "{tags:?}");
        tags.dedup();
        ensure!(tags.len() == 1, "two programs: {tags:?}");
        Ok(tags.remove(0))
    }

    /// Installs another version under the load's connections: the daemon is another, and so is the program, by instructions.
    fn exchange(&self, version: Version, load: &KeepAlive) -> Result<()> {
        let before = (self.machine.main_pid("lb")?, self.program_tag()?);
        let exchange = self
            .machine
            .run(&format!("dpkg --install {}", self.package(version)?))?;
        ensure!(exchange.contains("Unpacking lb"), "{exchange}");
        ensure!(self.machine.main_pid("lb")? != before.0, "the old daemon runs on");
        ensure!(self.program_tag()? != before.1, "the old program runs on");
        load.wait_rounds(ROUNDS)
    }
}

/// Which of two packages, whose programs have other instructions.
#[derive(Clone, Copy)]
enum Version {
    This,
    Next,
}

/// Interfaces that have an XDP program, with its tag.
fn programs(ns: &Netns) -> Result<Vec<(String, String)>> {
    let links: Value = serde_json::from_str(&ns.run("ip", &["-details", "-j", "link"])?)?;
    let links = links.as_array().cloned().unwrap_or_default();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let attached = links.iter().filter(|link| link.get("xdp").is_some());
    Ok(attached
        .map(|link| (word(&link["ifname"]), word(&link["xdp"]["prog"]["tag"])))
        .collect())
}

/// The package that the lane has made whose name has this beginning and extension.
fn made(beginning: &str, extension: &str) -> Result<PathBuf> {
    for entry in fs::read_dir(Machine::packages()?)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.starts_with(beginning) && name.ends_with(extension) {
            return Ok(path);
        }
    }
    anyhow::bail!("no package {beginning}….{extension}")
}

fn text(output: &Output) -> String {
    let parts = [&output.stdout, &output.stderr].map(|part| String::from_utf8_lossy(part).into_owned());
    parts.concat()
}

/// A fresh package touches no interface and says what to do; a member of its group runs a service; an upgrade loses nothing; a bad file
/// stops nothing; removal ends forwarding, and a purge leaves only the user.
#[test]
fn a_package_lives_from_installation_to_purge() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Installed::new()?;
    let machine = &site.machine;
    let state = machine.output("systemctl is-enabled lb; systemctl is-active lb")?;
    assert_eq!(text(&state), "disabled\ninactive\n");

    machine.run("systemctl enable --now lb")?;
    let status = machine.run("lb status")?;
    ensure!(
        status.contains("no interface is configured") && status.contains("`interfaces` in [lb]"),
        "{status}"
    );
    assert_eq!(site.with_program()?, [""; 0], "no interface is named");
    for unit in ["lb.service", "lb-decap@front.service"] {
        let report = machine.output(&format!("systemd-analyze security --no-pager {unit}"))?;
        let report = text(&report);
        let exposure = report
            .lines()
            .find_map(|line| line.split_once("exposure level for ")?.1.split(": ").nth(1));
        let exposure = exposure.and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok());
        ensure!(exposure.is_some_and(|found| found <= MAX_EXPOSURE), "{report}");
    }

    site.start()?;
    machine.run("useradd --groups lb alice && useradd bob")?;
    site.add_service("runuser -u alice --")?;
    let refused = machine.output("runuser -u bob -- lb backend drain web b0")?;
    ensure!(
        !refused.status.success() && text(&refused).contains("ermission denied"),
        "{}",
        text(&refused)
    );
    let events = machine.run("lb events")?;
    ensure!(events.contains("alice"), "{events}");
    let target = site.site.service_address(Family::V4);
    http_requests(&site.site.net.client.ns, target, 20_000, 20, 4)?.ensure_complete(20)?;

    // The sandbox must leave programs and pings to checks. Between them a check fails, so that none takes an earlier one's result.
    for check in ["exec --check-command /bin/true", "icmp"] {
        for (check, health) in [("exec --check-command /bin/false", "down"), (check, "up")] {
            machine.run(&format!("lb service set web --check {check}"))?;
            wait::until_true("both backends are judged", SOON, || {
                Ok(site.backends()?.iter().all(|backend| backend["health"] == health))
            })
            .with_context(|| format!("{check}: {}", machine.run("lb status").unwrap_or_default()))?;
        }
    }

    let load = site.load()?;
    let first = site.program_tag()?;
    site.exchange(Version::Next, &load)?;
    site.exchange(Version::This, &load)?;
    assert_eq!(
        site.program_tag()?,
        first,
        "a downgrade brings the old program back"
    );
    let file = machine.run("cat /etc/lb/lb.toml")?;
    ensure!(
        file.contains("\ninterfaces"),
        "the upgrade has replaced a changed file:\n{file}"
    );

    machine.run("cp /etc/lb/lb.toml /tmp/good && echo rubbish >> /etc/lb/lb.toml")?;
    let reload = machine.output("systemctl reload lb")?;
    ensure!(!reload.status.success(), "a bad file was taken");
    machine.run("systemctl restart lb")?;
    let status = machine.run("lb status")?;
    ensure!(
        status.contains("last good state") && status.contains("web"),
        "{status}"
    );
    load.wait_rounds(ROUNDS)?;
    machine.run("cp /tmp/good /etc/lb/lb.toml && systemctl reload lb")?;

    machine.run("systemctl stop lb")?;
    load.wait_rounds(ROUNDS)?;
    assert_eq!(
        site.with_program()?.len(),
        2,
        "a stopped daemon leaves its program"
    );
    // As after `lb detach`, which removes the directory of pins.
    load.stop()?.ensure_flawless()?;
    machine.run("lb detach && systemctl start lb")?;
    let load = site.load()?;
    load.stop()?.ensure_flawless()?;

    let removal = machine.run("dpkg --remove lb 2>&1")?;
    ensure!(
        removal.contains("removed"),
        "says that forwarding ended: {removal}"
    );
    assert_eq!(site.with_program()?, [""; 0], "nothing forwards for ever");
    machine.run("test ! -e /sys/fs/bpf/lb && test -f /etc/lb/lb.toml && test -d /var/lib/lb")?;
    let enabled = machine.output("systemctl is-enabled lb")?;
    ensure!(!text(&enabled).contains("enabled\n"), "{}", text(&enabled));
    machine.run("dpkg --purge lb")?;
    let left = machine.run(
        "find / -xdev \\( -path /proc -o -path /sys -o -path /tmp -o -path /dev -o -path /var/log \\) -prune -o \\( -name 'lb' -o -name 'lb.*' -o -name 'lb-*' \\) -print; ls -A /sys/fs/bpf | grep -v debug || true",
    )?;
    assert_eq!(left, "", "a purge leaves nothing");
    machine.run("getent passwd lb || grep ^lb: /etc/passwd")?;
    Ok(())
}

/// A daemon that is frozen, as a whole or in its thread of health checks alone, is replaced, and nothing is lost meanwhile.
#[test]
fn a_frozen_daemon_is_replaced() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Installed::new()?;
    let machine = &site.machine;
    machine.run("mkdir -p /etc/systemd/system/lb.service.d && printf '[Service]\\nWatchdogSec=2s\\n' > /etc/systemd/system/lb.service.d/soon.conf && systemctl daemon-reload")?;
    site.start()?;
    site.add_service("")?;
    let load = site.load()?;
    for part in [None, Some("lb-health")] {
        let before = machine.main_pid("lb")?;
        match part {
            None => machine
                .run("kill -STOP $(systemctl show --value --property MainPID lb)")
                .map(drop)?,
            Some(name) => freeze_thread(before, name)?,
        }
        wait::until_true("systemd has replaced the daemon", SOON, || {
            let state = machine.output("systemctl is-active lb")?;
            Ok(text(&state) == "active\n" && machine.main_pid("lb").is_ok_and(|now| now != before))
        })
        .with_context(|| format!("frozen: {part:?}"))?;
        load.wait_rounds(ROUNDS)?;
    }
    let log = machine.run("journalctl --unit lb --output cat")?;
    ensure!(log.matches("Watchdog timeout").count() == 2, "{log}");
    load.stop()?.ensure_flawless()
}

/// Stops one thread of a process as a debugger does; the others go on. It ends with its process.
fn freeze_thread(pid: u32, name: &str) -> Result<()> {
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = entry?.path();
        if fs::read_to_string(path.join("comm"))?.trim() != name {
            continue;
        }
        let number = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let number: libc::pid_t = number.parse()?;
        for request in [libc::PTRACE_SEIZE, libc::PTRACE_INTERRUPT] {
            // SAFETY: neither request reads or writes memory of ours; the kernel checks the thread's number.
            let result = unsafe { libc::ptrace(request, number, 0, 0) };
            ensure!(result == 0, "ptrace: {}", io::Error::last_os_error());
        }
        // The end of a traced thread is seen by its tracer first.
        thread::spawn(move || {
            let mut status = 0;
            // SAFETY: the call writes to `status` alone, which lives until it returns.
            while unsafe { libc::waitpid(number, &raw mut status, libc::__WALL) } == number
                && !libc::WIFEXITED(status)
                && !libc::WIFSIGNALED(status)
            {}
        });
        return Ok(());
    }
    anyhow::bail!("no thread {name} in {pid}")
}

/// apt installs the package from a repository in a directory, upgrades it, goes back, and takes it away, with a running daemon each time.
#[test]
fn apt_installs_upgrades_and_removes_the_package() -> Result<()> {
    let _lane = Lane::shared()?;
    let ns = Netns::new("apt")?;
    let machine = Machine::boot(&ns)?;
    machine
        .run("mkdir /srv/lb && echo 'deb [trusted=yes] file:/srv/lb ./' > /etc/apt/sources.list.d/lb.list")?;
    let apt = |line: &str| {
        machine.run(&format!(
            "DEBIAN_FRONTEND=noninteractive apt-get --quiet --yes {line} 2>&1"
        ))
    };
    let publish = |version: &str| {
        let package = made(&format!("lb_{version}-1_"), "deb")?;
        machine.put(&package, &format!("/srv/lb/lb_{version}.deb"))?;
        machine.run("cd /srv/lb && dpkg-scanpackages --multiversion . > Packages")?;
        apt("update")
    };
    let (this, next) = (
        env!("CARGO_PKG_VERSION"),
        concat!(env!("CARGO_PKG_VERSION"), ".1"),
    );
    let installed = || machine.run("dpkg-query --show --showformat '${Version} ${db:Status-Status}' lb");

    publish(this)?;
    let installation = apt("install lb")?;
    ensure!(
        installation.contains("systemctl enable --now lb"),
        "{installation}"
    );
    assert_eq!(installed()?, format!("{this}-1 installed"));
    machine.run("systemctl enable --now lb")?;
    let mut daemon = machine.main_pid("lb")?;

    publish(next)?;
    for (line, version) in [
        ("upgrade".to_owned(), next),
        (format!("install --allow-downgrades lb={this}-1"), this),
    ] {
        apt(&line)?;
        assert_eq!(installed()?, format!("{version}-1 installed"));
        let now = machine.main_pid("lb")?;
        ensure!(now != daemon, "the daemon is the one from before {line}");
        daemon = now;
    }

    apt("remove lb")?;
    assert_eq!(installed()?, format!("{this}-1 config-files"));
    machine.run("test ! -e /usr/bin/lb && test -f /etc/lb/lb.toml")?;
    apt("purge lb")?;
    machine.run("test ! -e /etc/lb && test ! -e /var/lib/lb")?;
    Ok(())
}

/// The end of tunnels runs as its unit says, and removal takes it away.
#[test]
fn the_unit_of_lb_decap_runs_and_goes_with_the_package() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Installed::new()?;
    let machine = &site.machine;
    let from: IpAddr = site.site.net.backends[0].ip(Family::V4);
    fs::write(
        machine.path("/etc/lb/decap.env"),
        format!("LB_DECAP_FROM=\"--from {from}\"\n"),
    )?;
    machine.run("systemctl enable --now lb-decap@back")?;
    assert_eq!(site.with_program()?, ["back"]);
    machine.run("systemctl restart lb-decap@back")?;
    assert_eq!(site.with_program()?, ["back"]);
    machine.run("dpkg --remove lb")?;
    assert_eq!(site.with_program()?, [""; 0]);
    let units = machine.run("systemctl list-units --all --plain --no-legend 'lb*'; ls /etc/systemd/system/multi-user.target.wants")?;
    ensure!(!units.contains("lb-decap"), "{units}");
    Ok(())
}

/// The tool by which Debian checks its packages finds nothing.
#[test]
fn debians_check_of_packages_finds_nothing() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Installed::new()?;
    let package = site.package(Version::This)?;
    let found = site.machine.output(&format!(
        "lintian --allow-root --suppress-tags {OF_THE_TEST_BUILD} {package}"
    ))?;
    assert_eq!(text(&found), "", "{}", found.status);
    Ok(())
}

/// Each part of the container image is there under its checksum, and the program starts from it.
#[test]
fn container_image_is_complete() -> Result<()> {
    let _lane = Lane::shared()?;
    let scratch = Scratch::new()?;
    let unpack = |archive: &Path, place: &Path| {
        fs::create_dir_all(place)?;
        checked(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(place))
    };
    let image = scratch.join("image");
    unpack(&made("lb-", "oci.tar")?, &image)?;
    let read = |path: &Path| -> Result<Value> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
    let blob = |part: &Value| -> Result<PathBuf> {
        let digest = part["digest"]
            .as_str()
            .and_then(|digest| digest.strip_prefix("sha256:"));
        let digest = digest.context("no digest")?;
        let path = image.join("blobs/sha256").join(digest);
        let sum = checked(Command::new("sha256sum").arg(&path))?;
        ensure!(
            sum.starts_with(digest) && fs::metadata(&path)?.len() == part["size"],
            "{part}"
        );
        Ok(path)
    };
    assert_eq!(read(&image.join("oci-layout"))?["imageLayoutVersion"], "1.0.0");
    let manifest = read(&blob(&read(&image.join("index.json"))?["manifests"][0])?)?;
    let config = read(&blob(&manifest["config"])?)?;
    assert_eq!(config["config"]["Entrypoint"][0], "/usr/bin/lb");
    let root = scratch.join("root");
    unpack(&blob(&manifest["layers"][0])?, &root)?;
    let version = checked(Command::new(root.join("usr/bin/lb")).arg("--version"))?;
    ensure!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    ensure!(root.join("etc/lb/lb.toml").is_file());
    Ok(())
}

/// The package for RPM has the same files, keeps a changed configuration, and its scripts run.
#[test]
fn rpm_installs_the_same_files() -> Result<()> {
    let _lane = Lane::shared()?;
    let package = made("lb-", "rpm")?;
    // It would make a database in the home of whoever runs the test.
    let database = Scratch::new()?;
    let query = |arguments: &[&str]| {
        let mut rpm = Command::new("rpm");
        rpm.arg("--dbpath").arg(database.path());
        checked(rpm.arg("-qp").args(arguments).arg(&package))
    };
    let files: BTreeSet<String> = query(&["--list"])?.lines().map(str::to_owned).collect();
    for file in [
        "/usr/bin/lb",
        "/usr/lib/systemd/system/lb.service",
        "/usr/lib/systemd/system/lb-decap@.service",
        "/usr/lib/sysusers.d/lb.conf",
        "/usr/lib/tmpfiles.d/lb.conf",
        "/usr/share/man/man1/lb-service-add.1.gz",
        "/usr/share/man/man5/lb.toml.5.gz",
        "/usr/share/bash-completion/completions/lb",
        "/usr/share/zsh/site-functions/_lb",
        "/usr/share/fish/vendor_completions.d/lb.fish",
    ] {
        ensure!(files.contains(file), "{file} is missing among {files:?}");
    }
    assert_eq!(query(&["--configfiles"])?.trim(), "/etc/lb/lb.toml");
    let scripts = query(&["--scripts"])?;
    ensure!(
        scripts.contains("systemd-sysusers") && scripts.contains("lb detach"),
        "{scripts}"
    );

    let ns = Netns::new("rpm")?;
    let machine = Machine::boot(&ns)?;
    machine.put(&package, "/tmp/lb.rpm")?;
    // Debian's packages, which satisfy its dependencies, are not in RPM's database.
    machine.run("rpm --nodeps --install /tmp/lb.rpm")?;
    machine.run(
        "grep ^lb: /etc/passwd && grep ^lb: /etc/group && stat --format %U:%a /sys/fs/bpf/lb | grep lb:700",
    )?;
    machine.run("systemctl daemon-reload && systemctl start lb && lb status && systemctl stop lb")?;
    machine.run("rpm --erase lb")?;
    machine.run("test ! -e /usr/bin/lb && test ! -e /sys/fs/bpf/lb")?;
    Ok(())
}
