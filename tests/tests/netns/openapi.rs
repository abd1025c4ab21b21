//! The document of the API: valid, as the daemon answers, and good enough for a client that is generated from it.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use lb_tests::{
    config::file,
    lane::Lane,
    netns::checked,
    scratch::Scratch,
    site::{SERVICE_PORT, Site},
    topology::{Family, Shape},
};

use super::remote::Remote;

/// Python with the validator and the generator, from set-up.
const PYTHON: &str = "python3-openapi";
const SCRIPTS: [(&str, &str); 6] = [
    ("connection.py", include_str!("openapi/connection.py")),
    ("conforms.py", include_str!("openapi/conforms.py")),
    ("generate.py", include_str!("openapi/generate.py")),
    ("client.py", include_str!("openapi/client.py")),
    ("generate_go.py", include_str!("openapi/generate_go.py")),
    ("client.go", include_str!("openapi/client.go")),
];

/// Memory that refused requests may take, in KiB: one without a length is held up to the largest size (64 MiB).
const LARGEST_GROWTH: u64 = 96 << 10;

/// The scripts, in a directory.
fn scripts() -> Result<Scratch> {
    let scratch = Scratch::new()?;
    for (name, text) in SCRIPTS {
        scratch.write(name, text)?;
    }
    Ok(scratch)
}

#[test]
fn document_is_valid_and_every_answer_is_as_it_says() -> Result<()> {
    let _lane = Lane::shared()?;
    let scripts = scripts()?;
    let mut site = Site::new(Shape::OneArmed, 2)?;
    let reading = site.daemon.dir().join("read.sock");
    let web = file(&[site.web(Family::V4, &[1, 1])]);
    let config = site.daemon.write_config(&web)?;
    site.daemon = site.daemon.args(&format!(
        "--config {} --socket-read {}",
        config.display(),
        reading.display()
    ));
    site.daemon.start()?;
    site.daemon.wait_for_whole_program()?;
    let client = format!("/run/netns/{}", site.net.client.ns.name());
    let vip = site.service_address(Family::V4).ip().to_string();
    let said = checked(
        site.net
            .lb
            .ns
            .command(PYTHON)
            .arg(scripts.join("conforms.py"))
            .args([site.daemon.socket(), reading, config])
            .args([client, vip, SERVICE_PORT.to_string()]),
    )?;
    ensure!(said.contains("answers as described"), "{said}");
    Ok(())
}

#[test]
fn generated_client_reads_and_changes_over_socket_and_tls() -> Result<()> {
    let _lane = Lane::shared()?;
    let scripts = scripts()?;
    let remote = Remote::start()?;
    let (lb, socket) = (&remote.site.net.lb.ns, remote.site.daemon.socket());
    let script = |name: &str| {
        let mut command = lb.command(PYTHON);
        command.arg(scripts.join(name));
        command
    };
    checked(script("generate.py").arg(&socket).arg(scripts.path()))?;
    checked(
        script("client.py")
            .arg(scripts.path())
            .arg("read,change")
            .arg(&socket),
    )?;
    let before = peak_memory(&remote)?;
    for (who, work) in [("admin", "read,large"), ("reader", "read,refused")] {
        let mut command = remote.site.net.client.ns.command(PYTHON);
        command
            .arg(scripts.join("client.py"))
            .arg(scripts.path())
            .args([work, &remote.address.to_string()])
            .args(
                [format!("{who}.pem"), format!("{who}.key"), "ca.pem".to_owned()]
                    .map(|name| remote.path(&name)),
            );
        checked(&mut command)?;
    }
    let grown = peak_memory(&remote)?.saturating_sub(before);
    ensure!(
        grown < LARGEST_GROWTH,
        "two requests of 100 MiB took {grown} KiB of memory"
    );
    Ok(())
}

#[test]
fn generated_client_in_go_reads_and_changes_over_socket_and_tls() -> Result<()> {
    let _lane = Lane::shared()?;
    let scripts = scripts()?;
    let remote = Remote::start()?;
    let (lb, socket) = (&remote.site.net.lb.ns, remote.site.daemon.socket());
    checked(
        lb.command(PYTHON)
            .arg(scripts.join("generate_go.py"))
            .arg(&socket)
            .arg(scripts.path()),
    )?;
    // Beside Go is the library that generated clients import, laid out for builds without modules.
    let go = checked(lb.command("go").args(["env", "GOROOT"]))?;
    let client = scripts.join("client");
    checked(
        lb.command("go")
            .args(["build", "-o"])
            .args([&client, &scripts.join("client.go")])
            .current_dir(scripts.path())
            .env("GO111MODULE", "off")
            .env("GOFLAGS", "")
            .env("CGO_ENABLED", "0")
            .env("GOPATH", Path::new(go.trim()).join("../../share/gocode"))
            .env("GOCACHE", scripts.join("cache")),
    )?;
    checked(lb.command(&client).arg("read,change").arg(&socket))?;
    for (who, work) in [("admin", "read,change"), ("reader", "read,refused")] {
        let files = [format!("{who}.pem"), format!("{who}.key"), "ca.pem".to_owned()];
        let mut command = remote.site.net.client.ns.command(&client);
        command.args([work, &remote.address.to_string()]);
        checked(command.args(files.map(|name| remote.path(&name))))?;
    }
    Ok(())
}

/// The most memory that the daemon has had so far, in KiB.
fn peak_memory(remote: &Remote) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", remote.site.daemon.pid()?))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(peak.context("no VmHWM")?.parse()?)
}
