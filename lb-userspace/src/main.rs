//! `lb`: parses the command line, runs the command, and exits with its code.

use std::process::ExitCode;

use lb_userspace::cli::{Cli, answer_shell};

fn main() -> ExitCode {
    answer_shell();
    match Cli::parse_or_exit().execute() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.print();
            error.exit.into()
        }
    }
}
