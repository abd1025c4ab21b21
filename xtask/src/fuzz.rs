//! `cargo xtask fuzz`: tries to break what of the data plane runs on the host, under libFuzzer and guided by coverage.
//! It needs a compiler for C++, and no nightly: without sanitizers, stable compilers have all that it takes.

use std::fs;

use anyhow::{Context, Result};

use crate::workspace::{Workspace, output_of, run};

/// What libFuzzer is guided by, and the checks that a release leaves out.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions --cfg fuzzing";

/// Options of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// What to break: the parser, the slots of rings, or VLAN tags and connection ids
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
}

impl Target {
    const fn name(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::Slots => "slots",
            Self::Marks => "marks",
        }
    }
}

/// Runs `cargo xtask fuzz`. Inputs that reach something new are kept from one run to the next.
pub(crate) fn command(workspace: &Workspace, options: &Options) -> Result<()> {
    let version = output_of(workspace.cargo().arg("-vV")).context("cargo does not say its version")?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("cargo does not say what it runs on")?;
    let target = options.target.name();
    let corpus = workspace.target.join("fuzz").join(target);
    fs::create_dir_all(&corpus).with_context(|| format!("cannot create {}", corpus.display()))?;
    // With `--target`, build scripts have none of the flags; in a directory of its own, other builds stay what they are.
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
        .args(["--bin", target, "--target", host, "--target-dir"])
        .arg(workspace.target.join("fuzz-build"))
        .arg("--")
        .arg(&corpus)
        // What breaks it is written beside.
        .arg(format!("-artifact_prefix={}-", corpus.display()))
        .args(&options.arguments))
}
