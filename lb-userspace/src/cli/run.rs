//! `lb run`

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

use super::{
    error::{CliError, Exit},
    help::{help, several},
    output::Context,
};
use crate::{
    app::{self, RunError, settings::Flags},
    chain::chain,
    config::{
        daemon::{LogFormat, OnExit},
        keys, values,
    },
    config_file::FileError,
    state::{guard::Prefix, hosts::HostName, xdp_mode::XdpModeChoice},
};

#[derive(Args, Debug)]
pub(super) struct Run {
    /// Configuration file, or directory whose *.toml are one; may be given several times; without one, the stored state is in force
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    #[arg(long = "iface", value_name = "IFACE", value_parser = values::interface, help = several(&keys::LB, "interfaces"))]
    interfaces: Vec<String>,
    #[arg(long, help = help(&keys::LB, "wait_for_interfaces"))]
    wait_for_interfaces: bool,
    #[arg(long, value_name = "MODE", value_parser = values::word::<XdpModeChoice>, help = help(&keys::LB, "xdp_mode"))]
    xdp_mode: Option<XdpModeChoice>,
    #[arg(long, value_name = "GROUP", help = help(&keys::LB, "socket_group"))]
    socket_group: Option<String>,
    #[arg(long, value_name = "PATH", value_parser = values::socket, help = help(&keys::LB, "socket_read"))]
    socket_read: Option<PathBuf>,
    #[arg(long, value_name = "GROUP", help = help(&keys::LB, "socket_read_group"))]
    socket_read_group: Option<String>,
    #[arg(long, value_name = "DIR", help = help(&keys::LB, "state_dir"))]
    state_dir: Option<PathBuf>,
    #[arg(long, value_name = "ADDR", help = help(&keys::LB, "metrics"))]
    metrics: Option<SocketAddr>,
    #[arg(long, value_name = "PREFIX", value_delimiter = ',', value_parser = values::prefix, help = help(&keys::LB, "metrics_access"))]
    metrics_access: Option<Vec<Prefix>>,
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = values::host_name, help = help(&keys::LB, "metrics_names"))]
    metrics_names: Option<Vec<HostName>>,
    #[arg(long, value_name = "DIR", help = help(&keys::LB, "pin_dir"))]
    pin_dir: Option<PathBuf>,
    #[arg(long, value_name = "WHAT", value_parser = values::word::<OnExit>, help = help(&keys::LB, "on_exit"))]
    on_exit: Option<OnExit>,
    #[arg(long, value_name = "FORMAT", value_parser = values::word::<LogFormat>, help = help(&keys::LB, "log_format"))]
    log_format: Option<LogFormat>,
    /// Refuse to start with a file that cannot be used, instead of going on with the last good state
    #[arg(long, requires = "config")]
    strict: bool,
    /// Remove what an earlier daemon left, including its flows, before starting
    #[arg(long)]
    reset: bool,
}

impl Run {
    pub(super) fn execute(self, context: &Context) -> Result<(), CliError> {
        let flags = Flags {
            config: self.config,
            interfaces: self.interfaces,
            wait_for_interfaces: self.wait_for_interfaces,
            xdp_mode: self.xdp_mode,
            socket: context.named_socket().map(ToOwned::to_owned),
            socket_group: self.socket_group,
            socket_read: self.socket_read,
            socket_read_group: self.socket_read_group,
            state_dir: self.state_dir,
            metrics: self.metrics,
            metrics_access: self.metrics_access,
            metrics_names: self.metrics_names,
            pin_dir: self.pin_dir,
            on_exit: self.on_exit,
            log_format: self.log_format,
            strict: self.strict,
            reset: self.reset,
        };
        app::run(&flags).map_err(failed)
    }
}

fn failed(error: RunError) -> CliError {
    let hint = error.hint();
    let message = chain(&error);
    let failed = CliError {
        exit: Exit::Failed,
        message,
        hint,
        details: Vec::new(),
        code: None,
        by_daemon: true,
    };
    if let RunError::File(FileError::Content { errors, .. }) = error {
        return failed.listing(errors);
    }
    failed
}
