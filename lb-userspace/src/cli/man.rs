//! `lb man`

use std::{fs, path::PathBuf};

use clap::{Args, Command};

use super::{
    error::{CliError, Exit},
    output::print,
};

#[derive(Args, Debug)]
pub(super) struct Man {
    /// Directory for the pages, for example /usr/local/share/man/man1
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl Man {
    pub(super) fn execute(self, commands: Command) -> Result<(), CliError> {
        let directory = self.directory.display().to_string();
        fs::create_dir_all(&self.directory)
            .and_then(|()| clap_mangen::generate_to(commands, &self.directory))
            .map_err(|error| CliError::new(Exit::Failed, format!("{directory}: {error}")))?;
        print(&format!(
            "pages for lb and its commands are in {directory}; `man lb` shows the first\n"
        ))
    }
}
