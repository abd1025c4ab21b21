//! `lb doctor`

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use clap::Args;
use serde::Serialize;

use super::{
    error::{CliError, Exit},
    output::Context,
    table::Tone,
};
use crate::{
    api::types::{Status, XdpMode},
    chain::chain,
    config::{self, Config},
    config_file, datapath,
    doctor::{self, DaemonUser, Facts, Finding, Level, Setup},
    serve::TlsFiles,
};

#[derive(Args, Debug)]
#[command(after_help = "Exit codes: 0 all is well, 1 failures, 10 warnings alone.

Examples:
  lb doctor --iface eth0             before the first start: kernel, rights, driver
  lb doctor --config lb.toml         before a file is applied
  lb doctor                          while the daemon runs: interfaces, addresses, ways to backends, its own problems
  lb doctor --vip 192.0.2.10 --probe one address; asks the network whether another machine has it, and its backends
                                     through the path of clients whether they answer")]
pub(super) struct Doctor {
    /// Look at this interface instead of the daemon's or the file's; may be given several times
    #[arg(long = "iface", value_name = "IFACE")]
    interfaces: Vec<String>,
    /// Look at services of this address alone, or at the address if no service has it; may be given several times
    #[arg(long = "vip", value_name = "IP")]
    addresses: Vec<IpAddr>,
    /// Look at what this file would do, instead of at the daemon's state
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Send packets: ask by ARP or neighbour discovery whether other machines have the services' addresses, and ask each backend
    /// through its mode, also in tunnels, whether it answers for the service
    #[arg(long)]
    probe: bool,
}

/// With `-o json`.
#[derive(Serialize)]
struct Report {
    level: Level,
    findings: Vec<Finding>,
}

impl Doctor {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        if let Some(host) = context.remote_host() {
            let message = format!("`lb doctor` looks at the machine that it runs on, not at {host}");
            return Err(CliError::new(Exit::Usage, message).hint("run it there, and without --api"));
        }
        let client = context.client();
        // Without a daemon, the machine and the file are looked at.
        let (status, away) = match client.get::<Status>("/v1/status").await {
            Ok(status) => (Some(status), None),
            Err(error) if error.exit == Exit::Unreachable => (None, Some(doctor::away(error.message))),
            // It answers what this program does not understand.
            Err(error) if error.code.is_none() => (None, Some(doctor::not_understood(error.message))),
            Err(error) => return Err(error),
        };
        let config = match (&self.config, &status) {
            (Some(file), _) => config_file::read(std::slice::from_ref(file)).map_err(|error| {
                let summary = CliError::new(Exit::Failed, chain(&error));
                match error {
                    config_file::FileError::Content { errors, .. } => summary.listing(errors),
                    config_file::FileError::Read { .. } | config_file::FileError::NoFile { .. } => summary,
                }
            })?,
            (None, Some(_)) => running(&client.text("/v1/export").await?)?,
            (None, None) => Config::default(),
        };
        let setup = self.setup(config, status.as_ref());
        let failed = |error| CliError::new(Exit::Failed, format!("cannot ask the kernel: {error}"));
        let facts = Facts::gather(&setup).map_err(failed)?;
        let mut findings = doctor::diagnose(&setup, &facts);
        if self.probe {
            findings.extend(doctor::probe(&setup, &facts));
        }
        findings.extend(doctor::of_daemon(status.as_ref(), &facts));
        let looks_at_daemon = self.interfaces.is_empty() && self.config.is_none();
        findings.extend(away.filter(|_| looks_at_daemon));
        show(findings, context)
    }

    fn setup(&self, config: Config, status: Option<&Status>) -> Setup {
        // A daemon exports no settings of its own: those of its file are in force since it started.
        let file = status
            .and_then(|status| status.config.file.as_ref())
            .map(PathBuf::from);
        let started_with = file.and_then(|file| config_file::read(&[file]).ok());
        let api_files = match (&self.config, started_with) {
            (None, Some(file)) => TlsFiles::of(&file.daemon),
            (Some(_), _) | (None, None) => TlsFiles::of(&config.daemon),
        };
        let interfaces = if !self.interfaces.is_empty() {
            self.interfaces.clone()
        } else if let (None, Some(status)) = (&self.config, status) {
            status
                .interfaces
                .iter()
                .map(|interface| interface.name.clone())
                .collect()
        } else {
            config.daemon.interfaces
        };
        let running = status.into_iter().flat_map(|status| &status.interfaces);
        let mode = |mode| match mode {
            XdpMode::Native => Some(datapath::XdpMode::Native),
            XdpMode::Generic => Some(datapath::XdpMode::Generic),
            XdpMode::None => None,
        };
        let services = config.desired.services.values();
        let is_known = |address: &IpAddr| services.clone().any(|service| service.key.has_address(*address));
        let unknown = self
            .addresses
            .iter()
            .copied()
            .filter(|address| !is_known(address))
            .collect();
        Setup {
            interfaces,
            xdp_mode: config.daemon.xdp_mode,
            running: running
                .filter_map(|interface| Some((interface.name.clone(), mode(interface.xdp_mode)?)))
                .collect::<BTreeMap<_, _>>(),
            has_daemon: status.is_some(),
            daemon_user: status.and_then(|status| DaemonUser::of_process(status.pid)),
            api_files,
            pin_dir: config.daemon.pin_dir,
            addresses: unknown,
            only: self.addresses.clone(),
            desired: config.desired,
        }
    }
}

/// The state of a running daemon, as it exports it: with fingerprints in place of keys, which no file may have and no finding needs.
fn running(text: &str) -> Result<Config, CliError> {
    let has_no_key = |line: &&str| !line.trim_start().starts_with("key = \"hidden:");
    let lines: Vec<&str> = text.lines().filter(has_no_key).collect();
    config::parse(&lines.join("\n"), "export").map_err(|errors| {
        let first = errors.first().map(ToString::to_string).unwrap_or_default();
        CliError::new(Exit::Failed, format!("cannot read the daemon's state: {first}"))
            .hint("this `lb` is of another version than the daemon")
    })
}

fn show(findings: Vec<Finding>, context: &Context) -> Result<(), CliError> {
    let level = findings
        .iter()
        .map(|finding| finding.level)
        .max()
        .unwrap_or(Level::Ok);
    let report = Report { level, findings };
    context.show(&report, |report| {
        let lines = report.findings.iter().map(|finding| {
            let tone = match finding.level {
                Level::Ok => Tone::Good,
                Level::Warn => Tone::Notice,
                Level::Fail => Tone::Bad,
            };
            let text = finding.to_string();
            let (level, rest) = text.split_at(text.find(' ').unwrap_or(0));
            if context.style.colour {
                tone.paint(level) + rest
            } else {
                text
            }
        });
        lines.collect()
    })?;
    match level {
        Level::Ok => Ok(()),
        Level::Warn => Err(CliError::shown(Exit::Warnings)),
        Level::Fail => Err(CliError::shown(Exit::Failed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fields::Keys;

    #[test]
    fn a_state_with_keys_of_quic_is_read_as_it_is_exported() {
        let toml = r#"
            [[service]]
            name = "quic"
            address = "192.0.2.11"
            port = 443
            protocol = "udp"
            [[service.quic]]
            config_id = 1
            server_id_length = 4
            nonce_length = 12
            key = "00112233445566778899aabbccddeeff"
            [[service.backend]]
            name = "q1"
            address = "10.1.0.2:443"
            server_ids = ["01020304"]
        "#;
        let config = config::parse(toml, "file").unwrap();
        let text = config::export(&config.desired, Keys::Hidden);
        assert!(text.contains("hidden:"));
        assert_eq!(running(&text).unwrap().desired.services.len(), 1);
    }
}
