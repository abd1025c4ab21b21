//! The parts of a test run: checks and lanes, and what each of them waits for.

use anyhow::{Result, ensure};
use clap::ValueEnum;

use super::work::{self, Extent};
use crate::{
    build, setup,
    summary::Count,
    tidy, verifier,
    workspace::{Workspace, run},
};

/// A check, or a lane of tests. Where several could begin, the first one here does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Part {
    /// Rules of the code that no compiler checks
    Tidy,
    /// Format of the code
    Fmt,
    /// Lints
    Clippy,
    /// Links of the documentation of crates
    Rustdoc,
    /// The compiler and the linker of the XDP program
    Setup,
    /// Programs that tests call
    Programs,
    /// Kernel and systems of machines, tools of packages
    Machines,
    /// The XDP programs
    Bpf,
    /// `lb` for the lanes
    Lb,
    /// Test programs of all crates
    TestPrograms,
    /// Lints of the XDP program
    ClippyBpf,
    /// Budget of the XDP program
    Verifier,
    /// Configurations that users copy
    Examples,
    /// Tests with real sockets
    Netns,
    /// Faults under traffic, some of each kind
    Chaos,
    /// Faults under traffic, the whole list; a lane alone
    ChaosWhole,
    /// Packets through the XDP program
    Packets,
    /// Tests on other kernels, some packets of each kind
    Kernels,
    /// Tests on other kernels, all packets; a lane alone
    KernelsWhole,
    /// Tests beside the code with a sanitizer; a lane alone
    Sanitizers,
    /// Packages under systemd
    Packages,
    /// Tests beside the code
    Unit,
}

/// What only one part at a time can use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Exclusive {
    /// Cargo's build directory, for minutes. Lanes only ask cargo for what is built already.
    BuildDirectory,
    /// The package lists and downloads in the cache.
    Archive,
}

impl Part {
    /// Those of a run of all.
    pub(super) fn of_run() -> Vec<Self> {
        let all = Self::value_variants().iter().copied();
        all.filter(|part| ![Self::ChaosWhole, Self::KernelsWhole, Self::Sanitizers].contains(part))
            .collect()
    }

    /// Its name in the table and for `--part`.
    pub(super) fn name(self) -> String {
        let value = self.to_possible_value();
        value.map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Parts that must have passed before this one begins: without them it cannot run.
    pub(super) fn needs(self) -> &'static [Self] {
        match self {
            Self::Setup
            | Self::Programs
            | Self::Machines
            | Self::TestPrograms
            | Self::Tidy
            | Self::Fmt
            | Self::Clippy
            | Self::Rustdoc
            | Self::Sanitizers
            | Self::Unit => &[],
            Self::Bpf => &[Self::Setup],
            Self::ClippyBpf => &[Self::Setup],
            Self::Lb => &[Self::Bpf],
            Self::Verifier => &[Self::Bpf, Self::Programs],
            Self::Examples => &[Self::Lb],
            Self::Packets | Self::Netns | Self::Chaos | Self::ChaosWhole => &[Self::Lb, Self::Programs],
            Self::Kernels | Self::KernelsWhole | Self::Packages => {
                &[Self::Lb, Self::Programs, Self::Machines]
            }
        }
    }

    /// Parts that must have ended before this one begins, passed or not, where they are in the same run: else it would do their work.
    pub(super) fn follows(self) -> &'static [Self] {
        match self {
            Self::Setup
            | Self::Programs
            | Self::Machines
            | Self::Bpf
            | Self::Tidy
            | Self::Fmt
            | Self::Clippy
            | Self::Lb
            | Self::Verifier
            | Self::Sanitizers
            | Self::Examples => &[],
            // What is built with the XDP program inside is built again when that appears.
            Self::TestPrograms => &[Self::Bpf],
            // In one build directory of their own.
            Self::ClippyBpf => &[Self::Bpf],
            // Both read the same metadata of dependencies.
            Self::Rustdoc => &[Self::Clippy],
            Self::Unit | Self::Packets | Self::Packages => &[Self::TestPrograms],
            // It takes what the lane `netns` leaves of the processors.
            Self::Kernels | Self::KernelsWhole => &[Self::TestPrograms, Self::Unit, Self::Packets],
            // Its daemons and clients have to do things between two health checks. Those two lanes take whole processors; beside
            // the others, which mostly wait, it is fine.
            Self::Netns | Self::Chaos | Self::ChaosWhole => &[Self::TestPrograms, Self::Unit, Self::Packets],
        }
    }

    /// What this part uses alone.
    pub(super) fn uses(self) -> Option<Exclusive> {
        match self {
            // The clippy of Debian's compiler is fetched.
            Self::Programs | Self::Machines | Self::ClippyBpf => Some(Exclusive::Archive),
            Self::Lb | Self::TestPrograms | Self::Clippy | Self::Rustdoc => Some(Exclusive::BuildDirectory),
            Self::Setup
            | Self::Bpf
            | Self::Tidy
            | Self::Fmt
            | Self::Verifier
            | Self::Examples
            | Self::Netns
            | Self::Chaos
            | Self::ChaosWhole
            | Self::Packets
            | Self::Kernels
            | Self::KernelsWhole
            | Self::Packages
            | Self::Sanitizers
            | Self::Unit => None,
        }
    }

    /// This part alone: it, and before it what it needs.
    pub(super) fn with_needs(self) -> Vec<Self> {
        let mut wanted = vec![self];
        let mut next = 0;
        while let Some(part) = wanted.get(next) {
            let needs = part.needs();
            wanted.extend(needs);
            next += 1;
        }
        let all = Self::value_variants().iter().copied();
        all.filter(|part| wanted.contains(part)).collect()
    }

    /// Runs it here. A check counts as one test, a lane fills in the count.
    ///
    /// # Errors
    /// When it fails or cannot run, or a lane ran no test.
    pub(super) fn run(self, workspace: &Workspace, yes: bool, count: &mut Count) -> Result<()> {
        let checked = match self {
            Self::Setup => setup::ensure(yes).map(drop),
            Self::Programs => work::programs(),
            Self::Machines => work::machines(),
            Self::Bpf => build::bpf(workspace, &work::toolchain()?),
            Self::Lb => work::lb(workspace),
            Self::TestPrograms => work::test_programs(workspace),
            Self::Tidy => tidy::check(workspace),
            Self::Fmt => run(workspace.cargo().args(["fmt", "--all", "--check"])),
            Self::Clippy => work::clippy(workspace),
            Self::ClippyBpf => work::clippy_bpf(workspace, &work::toolchain()?),
            Self::Rustdoc => work::rustdoc(workspace),
            Self::Verifier => verifier::check(workspace),
            Self::Examples => work::examples(workspace),
            Self::Netns => return lane(count, |count| work::netns(workspace, count)),
            Self::Chaos => return lane(count, |count| work::chaos(workspace, Extent::Short, count)),
            Self::ChaosWhole => return lane(count, |count| work::chaos(workspace, Extent::Whole, count)),
            Self::Packets => return lane(count, |count| work::packets(workspace, count)),
            Self::Kernels => return lane(count, |count| work::kernels(workspace, Extent::Short, count)),
            Self::KernelsWhole => return lane(count, |count| work::kernels(workspace, Extent::Whole, count)),
            Self::Sanitizers => return lane(count, |count| work::sanitizers(workspace, count)),
            Self::Packages => return lane(count, |count| work::packages_lane(workspace, count)),
            Self::Unit => return lane(count, |count| work::unit(workspace, count)),
        };
        match checked {
            Ok(()) => count.passed += 1,
            Err(_) => count.failed += 1,
        }
        checked
    }
}

/// A lane in which no test ran has failed.
fn lane(count: &mut Count, run: impl FnOnce(&mut Count) -> Result<()>) -> Result<()> {
    run(count)?;
    ensure!(*count != Count::default(), "no test ran");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_stands_behind_those_it_needs() {
        let all = Part::value_variants();
        for part in all {
            let place = |part: &Part| all.iter().position(|other| other == part);
            for need in part.needs() {
                assert!(place(need) < place(part), "{part:?} needs {need:?}");
            }
        }
    }

    #[test]
    fn the_unit_lane_alone_needs_no_toolchain_and_others_bring_what_they_need() {
        assert_eq!(Part::Unit.with_needs(), [Part::Unit]);
        assert_eq!(
            Part::Packets.with_needs(),
            [Part::Setup, Part::Programs, Part::Bpf, Part::Lb, Part::Packets]
        );
    }
}
