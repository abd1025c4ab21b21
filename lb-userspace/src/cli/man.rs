//! `lb man`

use std::{fs, io, path::PathBuf};

use clap::{Args, Command};

use super::{
    error::{CliError, Exit},
    man_of_file,
    output::print,
};

/// The directory of commands' pages among those of all sections, and that of files' pages beside it.
const COMMANDS: &str = "man1";
const FILES: &str = "man5";

#[derive(Args, Debug)]
pub(super) struct Man {
    /// Directory for the pages, for example /usr/local/share/man/man1; that of the file goes to man5 beside a man1
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl Man {
    pub(super) fn execute(self, commands: Command) -> Result<(), CliError> {
        let directory = self.directory.display().to_string();
        self.write(commands)
            .map_err(|error| CliError::new(Exit::Failed, format!("{directory}: {error}")))?;
        print(&format!(
            "pages for lb, its commands and its file are in {directory}; `man lb` shows the first\n"
        ))
    }

    fn write(&self, commands: Command) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        clap_mangen::generate_to(commands, &self.directory)?;
        let of_file = if self.directory.ends_with(COMMANDS) {
            self.directory.with_file_name(FILES)
        } else {
            self.directory.clone()
        };
        fs::create_dir_all(&of_file)?;
        fs::write(of_file.join(man_of_file::NAME), man_of_file::page())
    }
}
