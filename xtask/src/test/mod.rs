//! `cargo xtask test`: every check and every test lane. A lane that cannot run fails, with the reason.

mod beside;
mod end;
mod part;
mod work;

use std::{env, process::Command};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use self::part::Part;
use crate::{
    setup,
    summary::{Count, Summary},
    workspace::{self, Workspace},
};

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run this lane alone, without the checks
    #[arg(long)]
    lane: Option<Lane>,
    /// Run this part alone, without those it needs, for the run of all
    #[arg(long, hide = true, conflicts_with = "lane")]
    part: Option<Part>,
    /// Remove what tests left when the run of all is gone
    #[arg(long, hide = true, exclusive = true)]
    guard: bool,
    /// Install packages without asking
    #[arg(long)]
    yes: bool,
}

/// A lane of tests.
#[derive(Clone, Copy, ValueEnum)]
enum Lane {
    /// Tests beside the code; neither root nor BPF
    Unit,
    /// Packet tables through BPF_PROG_TEST_RUN; root
    Packets,
    /// Real sockets in network namespaces; root
    Netns,
    /// Packet tables and real sockets on Linux 6.1 and 6.12, in virtual machines, in a quarter of an hour; root
    Kernels,
    /// Tests beside the code with the sanitizer of addresses, built for it in minutes; neither root nor BPF
    Sanitizers,
    /// Packages under systemd, in a machine of namespaces; root
    Packages,
    /// Faults under traffic, the whole list, in a quarter of an hour; root
    Chaos,
}

impl From<Lane> for Part {
    fn from(lane: Lane) -> Self {
        match lane {
            Lane::Unit => Self::Unit,
            Lane::Packets => Self::Packets,
            Lane::Netns => Self::Netns,
            Lane::Kernels => Self::KernelsWhole,
            Lane::Sanitizers => Self::Sanitizers,
            Lane::Packages => Self::Packages,
            Lane::Chaos => Self::ChaosWhole,
        }
    }
}

/// Runs `cargo xtask test`.
///
/// # Errors
/// When a check or a lane failed or could not run.
pub(crate) fn command(workspace: &Workspace, options: &Options) -> Result<()> {
    if options.guard {
        return end::guard(workspace);
    }
    if let Some(part) = options.part {
        end::end_with_run(&workspace.target)?;
        let mut count = Count::default();
        let result = part.run(workspace, options.yes, &mut count);
        beside::print_result(count);
        return result;
    }
    let _run = end::Run::begin(&workspace.target)?;
    let summary = match options.lane {
        Some(lane) => alone(workspace, lane.into(), options.yes),
        None => {
            ask(options.yes);
            let program = env::current_exe().context("path of this program")?;
            beside::run(|| Command::new(&program), &workspace.target, &Part::of_run())?
        }
    };
    println!("{}", summary.table());
    if !summary.passed() {
        bail!("tests failed");
    }
    Ok(())
}

/// Runs a part after those it needs, and shows its output as it comes.
fn alone(workspace: &Workspace, part: Part, yes: bool) -> Summary {
    let mut summary = Summary::default();
    for part in part.with_needs() {
        summary.run(part.name(), |count| part.run(workspace, yes, count));
        if !summary.passed() {
            break;
        }
    }
    summary
}

/// Asks what parts that run beside others cannot ask. After a refusal they fail, with the reason.
fn ask(yes: bool) {
    let asked = setup::ensure_packages(yes).and_then(|()| workspace::ask_for_root());
    if let Err(error) = asked {
        eprintln!("warning: {error:#}");
    }
}
