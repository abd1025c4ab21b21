//! `lb support-bundle`: what it holds, and that no credential is in it.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use lb_tests::{daemon::Daemon, lane::Lane, netns::Netns, topology::veth, wait};

/// One credential for each place of a configuration, all of which begin alike.
const SECRET: &str = "xyzzy";

/// A configuration with a credential in every place that may have one.
const CONFIG: &str = r#"
[[service]]
name = "web"
address = "192.0.2.10"
port = 80
[service.health]
kind = "http"
path = "/health?token=xyzzy-query&x=1"
headers = { Authorization = "Bearer xyzzy-header", Quoted = 'a "xyzzy-quoted" \ value' }
interval = "200ms"
fast_interval = "100ms"
fall = 1
also = [
    { kind = "tcp", send = "AUTH xyzzy-send\r\n", expect = "OK" },
    { kind = "tcp", steps = [{ send = "PASS xyzzy-step\r\n", expect = "+OK" }] },
    { kind = "tcp", send_hex = "78797a7a792d686578", expect = "OK" },
    { kind = "udp", port = 9, payload = "xyzzy-payload" },
    { kind = "exec", command = ["/bin/echo", "--token=xyzzy-argument"] },
]
[service.agent]
port = 9707
send = "xyzzy-agent\n"
[[service.backend]]
name = "b1"
address = "10.1.0.2:8080"

[[service]]
name = "quic"
address = "192.0.2.11"
port = 443
protocol = "udp"
mode = "nat"
[[service.quic]]
config_id = 1
server_id_length = 4
nonce_length = 12
key = "7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a"
[[service.backend]]
name = "q1"
address = "10.1.0.2:443"
server_ids = ["01020304"]
"#;
/// The QUIC key, which has no letters of its own.
const KEY: &str = "7a7a7a7a";

/// The files of a bundle, as tar unpacks it.
fn unpacked(bundle: &Path, to: &Path) -> Result<BTreeMap<String, String>> {
    fs::create_dir_all(to)?;
    let output = Command::new("tar")
        .arg("-xf")
        .arg(bundle)
        .arg("-C")
        .arg(to)
        .output()?;
    ensure!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(to.join("lb-support"))? {
        let entry = entry?;
        files.insert(
            entry.file_name().to_string_lossy().into_owned(),
            fs::read_to_string(entry.path())?,
        );
    }
    Ok(files)
}

fn ensure_no_credential(files: &BTreeMap<String, String>) -> Result<()> {
    for (name, text) in files {
        for line in text.lines() {
            ensure!(
                !line.contains(SECRET) && !line.contains(KEY) && !line.contains("78797a"),
                "{name}: {line}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_support_bundle_has_everything_but_credentials_with_and_without_a_daemon() -> Result<()> {
    let _lane = Lane::shared()?;
    let (lb, other) = (Netns::new("lb")?, Netns::new("other")?);
    veth(&lb, "eth0", &other, "eth0")?;
    lb.ip("addr add 10.1.0.1/24 dev eth0")?;
    let mut daemon = Daemon::new(&lb, &["eth0"])?.config(CONFIG)?;
    daemon.start()?;
    let cli = daemon.cli();
    // A credential of before, and a reason that repeats one.
    cli.ok("service set web --check-headers X-Old:xyzzy-before")?;
    cli.ok("service set web --check-headers X-New:xyzzy-after")?;
    wait::until_true("the backend is down", std::time::Duration::from_secs(30), || {
        Ok(cli.backend("web", "b1")?["health"] == "down")
    })?;
    ensure!(
        cli.ok("export")?.contains(SECRET),
        "the state has the credentials"
    );

    let bundle = daemon.dir().join("bundle.tar.gz");
    let (state, pins) = (daemon.state_dir(), daemon.pin_dir());
    let line = format!(
        "support-bundle {} --state-dir {} --pin-dir {}",
        bundle.display(),
        state.display(),
        pins.display()
    );
    let said = cli.ok(&line)?;
    ensure!(
        fs::metadata(&bundle)?.permissions().mode() & 0o777 == 0o600,
        "others can read it"
    );
    let files = unpacked(&bundle, &daemon.dir().join("with"))?;
    ensure_no_credential(&files)?;
    for (name, words) in [
        ("about.txt", "lb 0."),
        ("status.json", "\"revision\""),
        ("status.txt", "web"),
        ("doctor.txt", "eth0"),
        ("events.jsonl", "\"health\""),
        ("history.txt", "health.headers"),
        ("metrics.txt", "lb_build_info"),
        ("state.toml", "X-New"),
        ("lb-1.toml", "/health?(hidden)"),
        ("links.txt", "eth0"),
        ("routes4.txt", "10.1.0.0/24"),
        ("neighbours.txt", ""),
        ("sysctls.txt", "net.ipv4.ip_forward = "),
        ("kernel.txt", "Linux version"),
        ("bpf.txt", "map "),
        ("bpf.txt", "instructions verified"),
        ("pins.txt", "/programs"),
    ] {
        let text = files
            .get(name)
            .with_context(|| format!("no {name}: {said}\n{}", files["missing.txt"]))?;
        ensure!(text.contains(words), "{name} without {words:?}:\n{text:.2000}");
    }

    // It is not overwritten without a word, and pipes get it, too.
    let refused = cli.fails(4, &line)?;
    ensure!(refused.contains("--force"), "{refused}");
    cli.ok(&format!("{line} --force"))?;
    let piped = cli.run(&["support-bundle", "-"])?;
    ensure!(piped.code == Some(0) && piped.stdout.len() > 1000);

    // A daemon that is away, with a file that is broken.
    daemon.kill()?;
    daemon.write_config(&format!("[lb\n{CONFIG}"))?;
    let config = daemon.dir().join("lb.toml");
    let away = daemon.dir().join("away.tar");
    let options = format!("--config {}", config.display());
    cli.ok(&format!(
        "{} {options}",
        line.replace(&bundle.display().to_string(), &away.display().to_string())
    ))?;
    let files = unpacked(&away, &daemon.dir().join("without"))?;
    ensure_no_credential(&files)?;
    let missing = &files["missing.txt"];
    for words in [
        "everything that the daemon knows: cannot reach the daemon",
        "lb-1.toml: it is no TOML",
    ] {
        ensure!(missing.contains(words), "{missing}");
    }
    for (name, words) in [
        ("status.txt", "forwarding goes on"),
        ("events.jsonl", "\"health\""),
        ("state.toml", "192.0.2.10"),
        ("history.txt", "revision"),
        ("bpf.txt", "map "),
    ] {
        ensure!(
            files.get(name).is_some_and(|text| text.contains(words)),
            "{name}: {:?}\n{missing}",
            files.get(name)
        );
    }
    Ok(())
}
