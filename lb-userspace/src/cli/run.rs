//! `lb run`

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

use super::{
    error::{CliError, Exit},
    output::Context,
};
use crate::{
    app::{
        self, RunError,
        settings::{FileError, Flags},
    },
    config::{daemon, daemon::OnExit, values},
    control::chain,
    datapath::XdpModeChoice,
};

#[derive(Args, Debug)]
pub(super) struct Run {
    /// Configuration file; without it, what was stored last is in force
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Interface to attach to, beside those of the file; may be given several times
    #[arg(long = "iface", value_name = "IFACE", value_parser = daemon::interface)]
    interfaces: Vec<String>,
    /// Start also where an interface is missing, and attach to it when it appears
    #[arg(long)]
    wait_for_interfaces: bool,
    /// auto, native or generic [default: auto]
    #[arg(long, value_name = "MODE", value_parser = values::word::<XdpModeChoice>)]
    xdp_mode: Option<XdpModeChoice>,
    /// Where the desired state is kept [default: /var/lib/lb]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Where metrics are served [default: 127.0.0.1:9900]
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
    /// Where program and maps are pinned [default: /sys/fs/bpf/lb]
    #[arg(long, value_name = "DIR")]
    pin_dir: Option<PathBuf>,
    /// detach, or keep: go on forwarding without the daemon [default: detach]
    #[arg(long, value_name = "WHAT", value_parser = values::word::<OnExit>)]
    on_exit: Option<OnExit>,
    /// Remove what an earlier daemon left, with its flows, before starting
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
            state_dir: self.state_dir,
            metrics: self.metrics,
            pin_dir: self.pin_dir,
            on_exit: self.on_exit,
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
        details: None,
        by_daemon: true,
    };
    if let RunError::File(FileError::Content { file, errors }) = error {
        return failed.listing(&file, errors);
    }
    failed
}
