//! `proof`: the benchmarks that users know by name, beside what they would use instead. `cargo xtask bench NAME` builds and runs it:
//! `proof run NAME` measures and writes its files, `proof index` writes the page that leads to them.

mod context;
mod crafted;
mod index;
mod load;
mod peers;
mod process;
mod readme;
mod runs;
mod targets;
mod tries;
mod ways;
mod world;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use lb_tests::{
    descriptors,
    lane::Lane,
    report::{document::Origin, machine::Machine},
};

use crate::{
    context::{Context, Scope},
    runs::RUNS,
};

/// Measures, and writes what it measured.
#[derive(Parser)]
#[command(name = "proof")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the names of the runs
    List,
    /// Run one of them
    Run {
        /// Its name
        name: String,
        #[command(flatten)]
        scope: Scope,
        /// Where its files go
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// The command that its files name
        #[arg(long)]
        command: String,
    },
    /// Write the page about all runs whose files are in a directory
    Index {
        /// The directory
        dir: PathBuf,
        /// A file that gets the figures and plots that matter most, between its marks
        #[arg(long, value_name = "FILE")]
        readme: Option<PathBuf>,
    },
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
    match command {
        Command::List => {
            RUNS.iter().for_each(|run| println!("{}", run.name));
            Ok(())
        }
        Command::Index { dir, readme } => {
            index::write(&dir)?;
            readme.map_or(Ok(()), |readme| readme::write(&readme, &dir))
        }
        Command::Run {
            name,
            scope,
            out,
            command,
        } => measure(&name, scope, &out, &command),
    }
}

fn measure(name: &str, scope: Scope, out: &std::path::Path, command: &str) -> Result<()> {
    let Some(run) = RUNS.iter().find(|run| run.name == name) else {
        let names: Vec<_> = RUNS.iter().map(|run| run.name).collect();
        bail!("no run {name}; there are: {}", names.join(", "));
    };
    // A quick run decides nothing about speed.
    let _lane = if scope.quick {
        Lane::shared()?
    } else {
        Lane::alone_for(run.limit)?
    };
    descriptors::raise()?;
    let machine = Machine::read()?;
    let begin = Instant::now();
    let mut context = Context::new(run.name, scope)?;
    let report = (run.measure)(&mut context).with_context(|| name.to_owned())?;
    let origin = Origin {
        name,
        command,
        turns: context.turns(),
        seconds: begin.elapsed().as_secs_f64(),
        machine: &machine,
        versions: context.versions(),
    };
    println!("{}", report.markdown(&origin));
    report.write(out, &origin)?;
    let failures = report.failures();
    if !failures.is_empty() {
        bail!("{name}: {}", failures.join("; "));
    }
    Ok(())
}
