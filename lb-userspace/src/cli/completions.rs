//! `lb completions`

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, error::CliError, output::print};

#[derive(Args, Debug)]
pub(super) struct Completions {
    /// bash, zsh, fish, elvish or powershell
    shell: Shell,
}

impl Completions {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "lb", &mut script);
        print(&String::from_utf8_lossy(&script))
    }
}
