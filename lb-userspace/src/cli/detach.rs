//! `lb detach`

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{
    error::{CliError, Exit},
    output::Context,
};
use crate::{
    control::chain,
    datapath::{self, DEFAULT_PIN_DIR},
};

#[derive(Args, Debug)]
pub(super) struct Detach {
    /// Where program and maps are pinned
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
        let removed = datapath::detach_leftovers(&self.pin_dir).map_err(|error| {
            let failed = CliError::new(Exit::Failed, format!("cannot detach: {}", chain(&error)));
            match error.hint() {
                Some(hint) => failed.hint(hint),
                None => failed,
            }
        })?;
        context.show(&Removed { removed }, |Removed { removed }| {
            if removed.is_empty() {
                return format!("nothing to remove in {}\n", self.pin_dir.display());
            }
            removed.iter().map(|what| format!("removed {what}\n")).collect()
        })
    }
}
