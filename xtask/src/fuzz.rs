//! `cargo xtask fuzz`: fuzzes what reads packets, configurations, requests, state files, answers to checks, lines of agents and messages of the kernel on the host, under libFuzzer and guided by coverage.
//! It needs a C++ compiler, but no nightly: without sanitizers a stable compiler suffices.

use std::fs;

use anyhow::{Context, Result};

use crate::workspace::{Workspace, run};

/// Flags for coverage by libFuzzer, and for checks that a release leaves out.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions --cfg fuzzing";

/// Options of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// What to break: the parser, the slots of rings, VLAN tags and connection ids, imported configurations, configurations and requests,
    /// answers to health checks, state files, lines of agents, or messages of the kernel's netlink
    target: Target,
    /// Arguments of libFuzzer, such as `-max_total_time=60`
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// The targets of `fuzz/`.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Target {
    Parse,
    Slots,
    Marks,
    Import,
    Config,
    Answers,
    State,
    Agents,
    Netlink,
}

impl Target {
    const fn name(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::Slots => "slots",
            Self::Marks => "marks",
            Self::Import => "import",
            Self::Config => "config",
            Self::Answers => "answers",
            Self::State => "state",
            Self::Agents => "agents",
            Self::Netlink => "netlink",
        }
    }

    /// Directories of the checkout with inputs to begin with.
    const fn seeds(self) -> &'static [&'static str] {
        match self {
            Self::Parse | Self::Slots | Self::Marks | Self::Answers => &[],
            Self::Import => &[
                "lb-userspace/crates/import/tests/cases/haproxy",
                "lb-userspace/crates/import/tests/cases/keepalived",
                "lb-userspace/crates/import/tests/cases/ipvs",
            ],
            Self::Config | Self::State => &["dist"],
            Self::Agents => &["fuzz/seeds/agents"],
            Self::Netlink => &["fuzz/seeds/netlink"],
        }
    }
}

/// Runs `cargo xtask fuzz`. Inputs that reach something new are kept from one run to the next.
pub(crate) fn command(workspace: &Workspace, options: &Options) -> Result<()> {
    let host = workspace.host()?;
    let target = options.target.name();
    let corpus = workspace.target.join("fuzz").join(target);
    fs::create_dir_all(&corpus).with_context(|| format!("cannot create {}", corpus.display()))?;
    // `--target` keeps the flags from build scripts; a separate directory keeps other builds valid.
    run(workspace
        .cargo()
        .env("RUSTFLAGS", FLAGS)
        .args([
            "run",
            "--release",
            "--package",
            "lb-fuzz",
            "--features",
            "libfuzzer",
        ])
        .args(["--bin", target, "--target", &host, "--target-dir"])
        .arg(workspace.target.join("fuzz-build"))
        .arg("--")
        .arg(&corpus)
        .args(options.target.seeds().iter().map(|dir| workspace.root.join(dir)))
        // Failing inputs are written beside the corpus.
        .arg(format!("-artifact_prefix={}-", corpus.display()))
        .args(&options.arguments))
}
