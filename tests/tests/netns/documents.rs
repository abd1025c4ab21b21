//! Commands that README.md and docs/ show: each is run, and its output compared. `LB_WRITE_DOCS=1` writes the outputs of this run to
//! the documents where they differ.

use std::{env, fs, net::SocketAddr, os::unix::fs::symlink, process::Command, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use lb_tests::{
    client::http_requests,
    daemon::Daemon,
    document::{self, Document, Shown, settled},
    http::HttpServer,
    lane::Lane,
    lb_cli::lb_binary,
    scratch::Scratch,
    topology::{Shape, Topology},
    wait,
};

/// For operations that normally take seconds.
const LIMIT: Duration = Duration::from_secs(60);
/// Requests that "some requests" are.
const REQUESTS: u16 = 60;

/// The documents with commands, each run on a network of its own.
const DOCUMENTS: [&str; 4] = ["README.md", "docs/first-hour.md", INSTALL, "docs/migrate.md"];
/// Its daemon has no interface yet.
const INSTALL: &str = "docs/install.md";

/// Files that documents name and do not show.
const FILES: [(&str, &str); 2] = [
    (
        "bad.toml",
        "[[service]]\nname = \"web\"\naddress = \"192.0.2.10\"\nport = 800000\nmod = \"nat\"\n",
    ),
    (
        "new.toml",
        "[[service]]\nname = \"web\"\naddress = \"192.0.2.10\"\nport = 80\n\n[service.health]\nkind = \"http\"\npath = \
         \"/health\"\n\n[[service.backend]]\nname = \"web-1\"\naddress = \"10.0.0.11:8080\"\n\n[[service.backend]]\nname = \
         \"web-3\"\naddress = \"10.0.0.13:8080\"\n",
    ),
];

#[test]
fn every_block_with_commands_is_run_or_says_why_not() -> Result<()> {
    let mut others = Vec::new();
    for document in document::all()? {
        let is_run = DOCUMENTS.contains(&document.path.as_str());
        for block in document.blocks.iter().filter(|block| !block.is_illustration) {
            let text = document.text(block);
            let has_commands = block.kind == "console" || text.lines().any(|line| line.starts_with("$ "));
            if (has_commands && !(is_run && block.kind == "console")) || block.kind == "sh" {
                others.push(format!("{}: {text}", document.path));
            }
        }
    }
    ensure!(
        others.is_empty(),
        "make these blocks of kind console in one of DOCUMENTS of this file, or say why they are not run (tests/src/document.rs):\n{}",
        others.join("\n")
    );
    Ok(())
}

#[test]
fn readme_shows_what_its_commands_print() -> Result<()> {
    compare("README.md")
}

#[test]
fn the_first_hour_shows_what_its_commands_print() -> Result<()> {
    compare("docs/first-hour.md")
}

#[test]
fn the_installation_shows_what_its_commands_print() -> Result<()> {
    compare(INSTALL)
}

#[test]
fn the_migration_shows_what_its_commands_print() -> Result<()> {
    compare("docs/migrate.md")
}

/// Runs the commands of a document in order.
fn compare(path: &str) -> Result<()> {
    let _lane = Lane::shared()?;
    let document = Document::read(path)?;
    let mut stage = Stage::new(path)?;
    for block in &document.blocks {
        if let Some(name) = &block.file {
            stage.files.write(name, document.text(block))?;
        }
    }
    let all = document.shown()?;
    ensure!(!all.is_empty(), "{path} shows no command");
    let mut differing = Vec::new();
    for shown in &all {
        let output = stage
            .run(path, shown)
            .with_context(|| format!("{path}:{}: {}", shown.line, shown.command))?;
        if settled(&output) != settled(&shown.output) {
            differing.push((shown, output));
        }
    }
    if env::var_os("LB_WRITE_DOCS").is_some() {
        document.write(&differing)?;
    }
    let lines = differing.iter().map(|(shown, output)| {
        format!(
            "{path}:{}: {}\nshows\n{}prints\n{output}",
            shown.line, shown.command, shown.output
        )
    });
    ensure!(differing.is_empty(), "{}", lines.collect::<Vec<_>>().join("\n"));
    Ok(())
}

/// The network of the documents: a client at 10.1.0.2, the balancer with `eth0` towards it and `eth1`, and the servers of `web-1` and
/// `web-2`.
struct Stage {
    servers: Vec<HttpServer>,
    daemon: Daemon,
    runs: bool,
    /// The directory that commands are run in.
    files: Scratch,
    net: Topology,
}

impl Stage {
    fn new(path: &str) -> Result<Self> {
        let net = Topology::new(Shape::TwoArmed, 2)?;
        for (old, new) in [("front", "eth0"), ("back", "eth1")] {
            net.lb.ns.ip(&format!(
                "link set {old} down\nlink set {old} name {new}\nlink set {new} up"
            ))?;
        }
        net.lb.ns.ip("address add 10.0.0.1/24 dev eth1")?;
        let mut servers = Vec::new();
        for (host, last) in net.backends.iter().zip([11, 12]) {
            host.ns.ip(&format!("address add 10.0.0.{last}/24 dev eth0"))?;
            let address: SocketAddr = ([10, 0, 0, last], 8080).into();
            servers.push(HttpServer::start(&host.ns, "server", &[address])?);
        }
        let files = Scratch::new()?;
        for (name, text) in FILES {
            files.write(name, text)?;
        }
        symlink(fs::canonicalize(lb_binary()?)?, files.join("lb"))?;
        let daemon = if path == INSTALL {
            Daemon::new(&net.lb.ns, &[])?.args("--wait-for-interfaces")
        } else {
            Daemon::new(&net.lb.ns, &["eth0", "eth1"])?
        };
        Ok(Self {
            servers,
            daemon,
            runs: false,
            files,
            net,
        })
    }

    /// The output of a command, after what the text around it says.
    fn run(&mut self, path: &str, shown: &Shown) -> Result<String> {
        if let Some(options) = shown.command.strip_prefix("lb run") {
            ensure!(
                options.trim() == "--iface eth0 --iface eth1",
                "the daemon of this test has other options"
            );
            return self.start(&shown.output);
        }
        if [INSTALL, "docs/first-hour.md"].contains(&path) && !self.runs {
            self.start("")?;
        }
        self.before(path, &shown.command)?;
        let search = format!(
            "{}:{}",
            self.files.path().display(),
            env::var("PATH").unwrap_or_default()
        );
        let mut command: Command = self.net.lb.ns.command("sh");
        let output = command
            .args(["-c", &format!("exec 2>&1; {}", shown.command)])
            .current_dir(self.files.path())
            .env("PATH", search)
            .env("LB_SOCKET", self.daemon.socket())
            .output()?;
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Starts the daemon. Gives the part of its output that is as long as `greeting` and begins like it, or all of it.
    fn start(&mut self, greeting: &str) -> Result<String> {
        self.daemon.start()?;
        self.runs = true;
        let state = self.daemon.dir().join("state").display().to_string();
        let log = self.daemon.log().replace(&state, "/var/lib/lb");
        let Some(first) = greeting.lines().next() else {
            return Ok(log);
        };
        // Of another socket than the usual one.
        let is_shown = |line: &&str| !line.starts_with("  export LB_SOCKET=");
        let lines = log.lines().skip_while(|line| *line != first).filter(is_shown);
        let part: Vec<&str> = lines.take(greeting.lines().count()).collect();
        Ok(if part.is_empty() {
            log
        } else {
            part.join("\n") + "\n"
        })
    }

    /// What the text before a command says.
    fn before(&mut self, path: &str, command: &str) -> Result<()> {
        match (path, command) {
            // What moves depends on whether the first one takes flows.
            (_, command) if command.starts_with("lb backend add web web-2") => self.wait_for(0, "up"),
            ("README.md", "lb status") => {
                self.wait_for(0, "up")?;
                self.wait_for(1, "up")?;
                self.send_requests()?;
                self.stop_second()
            }
            ("docs/first-hour.md", "lb backend list") => {
                self.wait_for(0, "up")?;
                self.wait_for(1, "up")?;
                self.send_requests()
            }
            ("docs/first-hour.md", command) if command.starts_with("lb status") => self.stop_second(),
            _ => Ok(()),
        }
    }

    fn send_requests(&self) -> Result<()> {
        let target: SocketAddr = ([192, 0, 2, 10], 80).into();
        let report = http_requests(&self.net.client.ns, target, 20_000, REQUESTS, 4)?;
        report.ensure_complete(REQUESTS.into())
    }

    fn stop_second(&mut self) -> Result<()> {
        if self.servers.pop().is_none() {
            bail!("there is no server left to stop");
        }
        self.wait_for(1, "down")?;
        let cli = self.daemon.cli();
        wait::until_true("new flows go to the first one alone", LIMIT, || {
            Ok(cli.json("service show web")?["healthy_backends"] == 1)
        })
    }

    fn wait_for(&self, backend: usize, health: &str) -> Result<()> {
        let cli = self.daemon.cli();
        wait::until_true(&format!("backend {backend} is {health}"), LIMIT, || {
            let shown = cli.json("service show web")?;
            Ok(shown["backends"][backend]["health"] == health)
        })
    }
}
