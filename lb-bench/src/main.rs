//! `lb-bench`: sends requests at a fixed rate or as fast as they are answered, measures their latency, and checks it against limits.
//! docs/lb-bench.md says how to read the result.

mod assertion;
mod connect;
mod deadline;
mod descriptors;
mod echo;
mod failure;
mod hdr;
mod http1;
mod http2;
mod lane;
mod load;
mod measured;
mod options;
mod report;
mod response;
mod schedule;
mod self_test;
mod stats;
mod stream;
mod target;
mod timer;
mod tls;
mod worker;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::Parser;

use crate::{
    hdr::Log,
    options::{Options, Plan},
    report::Report,
};

/// Exit code if an assertion failed.
const FAILED: u8 = 1;
/// Exit code if the load could not be sent, as of a bad command line.
const NOT_STARTED: u8 = 2;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lb-bench: {error:#}");
            ExitCode::from(NOT_STARTED)
        }
    }
}

fn run(options: &Options) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot set up an event loop")?;
    if options.self_test {
        print(&runtime.block_on(self_test::run(options))?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let plan = Plan::new(options)?;
    descriptors::provide(plan.connections, plan.threads)?;
    let measured = runtime.block_on(async {
        let connectors = connect::connectors(&plan, options.connect).await?;
        let log = options.hdr.as_deref().map(|file| {
            let name = || format!("cannot write {}: name another file by --hdr", file.display());
            Log::create(file).with_context(name)
        });
        load::run(&plan, &connectors, log.transpose()?).await
    })?;
    let verdicts: Vec<_> = options
        .assertions
        .iter()
        .map(|assertion| assertion.check(&measured))
        .collect();
    let report = Report {
        plan: &plan,
        measured: &measured,
        verdicts: &verdicts,
    };
    if options.json {
        print(&format!("{:#}", report.json()))?;
    } else {
        print(report.text().trim_end())?;
    }
    if verdicts.iter().all(|verdict| verdict.passed) {
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::from(FAILED))
}

/// Prints a text and ends its line. A reader that has gone wants no more.
fn print(text: &str) -> Result<()> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot print the result"),
    }
}
