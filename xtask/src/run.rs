//! `cargo xtask run`: from a checkout to a balancer that forwards.

use std::{ffi::OsString, os::unix::process::CommandExt};

use anyhow::Result;

use crate::{
    build::{self, Profile},
    setup,
    workspace::{Workspace, root_command},
};

/// Options of `cargo xtask run`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Interface to attach to; may be repeated
    #[arg(long, value_name = "IFACE")]
    iface: Vec<String>,
    /// Build `lb` for debugging
    #[arg(long)]
    debug: bool,
    /// Install packages without asking
    #[arg(long)]
    yes: bool,
    /// Arguments for `lb run`
    #[arg(last = true, value_name = "ARGS")]
    arguments: Vec<OsString>,
}

/// Runs `cargo xtask run`. Only `lb` itself runs as root, and it takes this process's place, so that Ctrl-C and
/// `kill` reach it.
pub(crate) fn command(workspace: &Workspace, options: &Options) -> Result<()> {
    let toolchain = setup::ensure(options.yes)?;
    let profile = Profile::from_debug_flag(options.debug);
    build::bpf(workspace, &toolchain)?;
    build::lb(workspace, profile)?;
    let mut command = root_command(workspace.lb(profile.dir()))?;
    command.arg("run");
    for iface in &options.iface {
        command.arg("--iface").arg(iface);
    }
    Err(command.args(&options.arguments).exec().into())
}
