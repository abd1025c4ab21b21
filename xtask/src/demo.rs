//! `cargo xtask demo`: a network in namespaces of its own, made by the test harness.

use std::ffi::OsString;

use anyhow::Result;

use crate::{
    build::{self, Profile},
    packages, setup,
    workspace::{Workspace, run},
};

/// Options of `cargo xtask demo`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Install packages without asking
    #[arg(long)]
    yes: bool,
    /// Arguments for the demo itself
    #[arg(last = true, value_name = "ARGS")]
    arguments: Vec<OsString>,
}

/// Runs `cargo xtask demo`.
pub(crate) fn command(workspace: &Workspace, options: &Options) -> Result<()> {
    let toolchain = setup::ensure(options.yes)?;
    packages::ensure_demo()?;
    build::bpf(workspace, &toolchain)?;
    build::lb(workspace, Profile::Release)?;
    let mut command = workspace.cargo();
    packages::run_as_root(&mut command)?;
    command
        // Built as lb itself is, whose libraries it shares.
        .args([
            "run",
            "--release",
            "--quiet",
            "--package",
            "lb-tests",
            "--bin",
            "demo",
            "--",
        ])
        .args(&options.arguments);
    run(&mut command)
}
