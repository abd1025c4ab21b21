//! Commands of this repository: `cargo xtask COMMAND`. One file a command; the others call `setup` first.

mod apt;
mod archive;
mod bench;
mod build;
mod bundle;
mod demo;
mod dist;
mod docs;
mod fuzz;
mod graph;
mod modules;
mod packages;
mod progress;
mod proof;
mod root;
mod run;
mod rust_flags;
mod setup;
mod summary;
mod test;
mod test_program;
mod tidy;
mod time_limit;
mod toolchain;
mod verifier;
mod vm;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Set-up, build, run, test and release commands of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find or install the BPF toolchain; under a second when nothing is missing
    Setup(setup::Options),
    /// Build the XDP program and `lb`
    Build(build::Options),
    /// Set up, build, and run `lb run` in the foreground; Ctrl-C detaches
    Run(run::Options),
    /// Set up, build, and run every check and test lane
    Test(test::Options),
    /// A client, the balancer and HTTP backends in namespaces of their own on this machine
    Demo(demo::Options),
    /// Measure; figures are ratios to a floor of the same run
    Bench(bench::Options),
    /// Check the rules of the code that no compiler checks
    Tidy(tidy::Options),
    /// Write the documents that are generated from the code
    Docs(docs::Options),
    /// Load the XDP program and hold its verified instructions and stack against the budget
    Verifier(verifier::Options),
    /// Print which files of a crate use which, and fail if any have an import cycle
    Graph(graph::Options),
    /// Try to break the parser, the slot logic and the import of configurations on the host, under libFuzzer
    Fuzz(fuzz::Options),
    /// Make a release: archive, packages, container image, bill of materials
    Dist(dist::Options),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let workspace = Workspace::find()?;
    match command {
        Command::Setup(options) => setup::command(&options),
        Command::Build(options) => build::command(&workspace, &options),
        Command::Run(options) => run::command(&workspace, &options),
        Command::Test(options) => test::command(&workspace, &options),
        Command::Demo(options) => demo::command(&workspace, &options),
        Command::Bench(options) => bench::command(&workspace, &options),
        Command::Tidy(options) => tidy::command(&workspace, &options),
        Command::Docs(options) => docs::command(&workspace, &options),
        Command::Verifier(options) => verifier::command(&workspace, &options),
        Command::Graph(options) => graph::command(&workspace, &options),
        Command::Fuzz(options) => fuzz::command(&workspace, &options),
        Command::Dist(options) => dist::command(&workspace, &options),
    }
}
