//! `lb migrate`

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, chown},
    path::{Path, PathBuf},
};

use clap::Args;

use super::{
    check_config,
    error::{CliError, Exit},
    output::{Output, print},
};
use crate::config::{file_version::FILE_VERSION, migrate::migrated};

#[derive(Args, Debug)]
pub(super) struct Migrate {
    /// Configuration files, and directories of which each *.toml is one
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Say what would be rewritten without rewriting it
    #[arg(long)]
    dry_run: bool,
}

impl Migrate {
    pub(super) fn execute(self, output: Output) -> Result<(), CliError> {
        let (texts, _) = check_config::checked(&self.files, output)?;
        for text in texts {
            let said = match migrated(&text.text) {
                None => format!("nothing to do, version {FILE_VERSION}"),
                Some(_) if self.dry_run => format!("would be rewritten as version {FILE_VERSION}"),
                Some(new) => {
                    replace(Path::new(&text.file), &new).map_err(|error| {
                        CliError::new(Exit::Failed, format!("{}: cannot rewrite it: {error}", text.file))
                    })?;
                    format!("rewritten as version {FILE_VERSION}")
                }
            };
            print(&format!("{}: {said}\n", text.file))?;
        }
        Ok(())
    }
}

/// Replaces a file as a whole, with its owner and mode. What a symbolic link names is replaced, and the link stays.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let file = fs::canonicalize(file)?;
    let present = fs::metadata(&file)?;
    let new = file.with_extension("toml.migrating");
    fs::write(&new, text)?;
    let done = fs::set_permissions(&new, present.permissions())
        .and_then(|()| chown(&new, Some(present.uid()), Some(present.gid())))
        .and_then(|()| fs::File::open(&new)?.sync_all())
        .and_then(|()| fs::rename(&new, &file));
    if done.is_err() {
        // The first error counts.
        let _ = fs::remove_file(&new);
    }
    done
}
