//! `cargo xtask test`: every check and every test lane. A lane that cannot run fails, with the reason.

mod work;

use anyhow::{Result, bail};

use crate::{
    packages, setup,
    summary::Summary,
    test_program, tidy, verifier, vm,
    workspace::{Workspace, run},
};

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run this lane alone, without the checks
    #[arg(long)]
    lane: Option<Lane>,
    /// Install packages without asking
    #[arg(long)]
    yes: bool,
}

/// A lane of tests.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Lane {
    /// Tests beside the code; neither root nor BPF
    Unit,
    /// Packet tables through BPF_PROG_TEST_RUN; root
    Packets,
    /// Real sockets in network namespaces; root
    Netns,
    /// The same on the oldest kernel, in a virtual machine
    Kernels,
    /// Packages under systemd, in a machine of namespaces; root
    Packages,
}

/// Runs `cargo xtask test`.
///
/// # Errors
/// When a check or a lane failed or could not run.
pub(crate) fn command(workspace: &Workspace, options: &Options) -> Result<()> {
    let wanted = |lane| options.lane.is_none_or(|only| only == lane);
    let all = options.lane.is_none();
    let mut summary = Summary::default();
    let mut toolchain = None;
    if options.lane != Some(Lane::Unit) {
        summary.check("setup", || {
            toolchain = Some(setup::ensure(options.yes)?);
            packages::ensure()?;
            packages::ensure_browser()?;
            packages::ensure_modules()
        });
        summary.check("build", || work::build(workspace, toolchain.as_ref()));
    }
    if all {
        summary.check("tidy", || tidy::check(workspace));
        summary.check("fmt", || run(workspace.cargo().args(["fmt", "--all", "--check"])));
        summary.check("clippy", || work::clippy(workspace));
        summary.check("clippy-bpf", || work::clippy_bpf(workspace, toolchain.as_ref()));
        summary.check("rustdoc", || work::rustdoc(workspace));
        summary.check("verifier", || verifier::check(workspace));
        summary.check("examples", || work::examples(workspace));
    }
    if wanted(Lane::Unit) {
        summary.lane("unit", |count| work::unit(workspace, count));
    }
    if wanted(Lane::Packets) {
        summary.lane("packets", |count| work::packets(workspace, count));
    }
    if wanted(Lane::Netns) {
        summary.lane("netns", |count| work::netns(workspace, count));
    }
    if wanted(Lane::Kernels) {
        summary.lane("kernels", |count| {
            test_program::run(&mut vm::command(workspace, work::KERNELS)?, count)
        });
    }
    if wanted(Lane::Packages) {
        summary.lane("packages", |count| work::packages_lane(workspace, count));
    }
    println!("{}", summary.table());
    if !summary.passed() {
        bail!("tests failed");
    }
    Ok(())
}
