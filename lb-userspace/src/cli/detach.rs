//! `lb detach`

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::Args;
use serde::Serialize;

use super::{
    error::{CliError, Exit},
    output::Context,
};
use crate::{
    chain::chain,
    datapath::{self, DEFAULT_PIN_DIR, DatapathError, LeftForwarding, left_forwarding},
};

/// The remedy for missing privileges.
const AS_ROOT: &str = "run as root, for example with sudo";

#[derive(Args, Debug)]
pub(super) struct Detach {
    /// Directory in which programs and maps are pinned
    #[arg(long, value_name = "DIR", default_value = DEFAULT_PIN_DIR)]
    pin_dir: PathBuf,
}

/// With `-o json`.
#[derive(Serialize)]
struct Removed {
    removed: Vec<String>,
}

impl Detach {
    pub(super) fn execute(self, context: &Context) -> Result<(), CliError> {
        let failed = |why: String| CliError::new(Exit::Failed, format!("cannot detach: {why}"));
        if let Err(error) = fs::metadata(&self.pin_dir)
            && error.kind() == io::ErrorKind::PermissionDenied
        {
            return Err(failed(format!("{}: {error}", self.pin_dir.display())).hint(AS_ROOT));
        }
        let removed = datapath::detach_leftovers(&self.pin_dir).map_err(|error| {
            let failed = failed(chain(&error));
            match hint(&error) {
                Some(hint) => failed.hint(hint),
                None => failed,
            }
        })?;
        let elsewhere = removed.is_empty().then(left_forwarding).unwrap_or_default();
        context.show(&Removed { removed }, |Removed { removed }| {
            if removed.is_empty() {
                return nothing(&self.pin_dir, &elsewhere);
            }
            removed.iter().map(|what| format!("removed {what}\n")).collect()
        })
    }
}

/// The remedy when the program cannot be removed.
fn hint(error: &DatapathError) -> Option<String> {
    if let DatapathError::PinDirBusy { pid, .. } = error {
        let stop = pid.map_or_else(|| "stop it".to_owned(), |pid| format!("stop it, `kill {pid}`"));
        return Some(format!(
            "{stop} or `systemctl stop lb`; then `lb detach` removes the rest"
        ));
    }
    if let DatapathError::Io { source, .. } = error
        && source.kind() == io::ErrorKind::PermissionDenied
    {
        return Some(AS_ROOT.to_owned());
    }
    error.hint()
}

/// The directory is empty, but the program may be pinned in another one.
fn nothing(pin_dir: &Path, elsewhere: &LeftForwarding) -> String {
    let mut text = format!("nothing to remove in {}\n", pin_dir.display());
    if !elsewhere.interfaces.is_empty() {
        let names: Vec<&str> = elsewhere
            .interfaces
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        text.push_str(&format!(
            "lb still runs on {}: name the directory it is pinned in with --pin-dir; `mount -t bpf` lists where \
             directories for pins are\n",
            names.join(", ")
        ));
    }
    text
}
