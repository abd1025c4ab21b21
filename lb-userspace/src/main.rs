//! `lb`: parses the command line, does what it says, and ends with the exit code that says how it went.

use std::process::ExitCode;

use clap::Parser;
use lb_userspace::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().execute() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            error.exit.into()
        }
    }
}
