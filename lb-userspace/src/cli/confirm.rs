//! Changes that remove much at once: confirmed by flags, or on the terminal.

use std::io::{self, IsTerminal};

use clap::Args;

use super::{error::CliError, output::ask};
use crate::{
    api::requests::{Changed, ErrorCode},
    state::removals::MayRemove,
};

/// Flags that confirm removals.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Confirm {
    /// Accept that no service is left
    #[arg(long, alias = "empty")]
    allow_empty: bool,
    /// Remove without a question every service, or more than half of the backends, of all or of one service
    #[arg(short, long)]
    yes: bool,
}

impl Confirm {
    /// Sends a change with what it may remove. If it removes more, asks on a terminal and sends it again.
    pub(super) async fn send(
        self,
        change: impl AsyncFn(MayRemove) -> Result<Changed, CliError>,
    ) -> Result<Changed, CliError> {
        let may = MayRemove {
            all: self.allow_empty || self.yes,
            most: self.yes,
        };
        match change(may).await {
            Err(error) if error.code == Some(ErrorCode::Unconfirmed) && is_terminal() => {
                if ask(&format!("{}. Do it?", error.message))? {
                    change(MayRemove::ANY).await
                } else {
                    Err(CliError::new(error.exit, "not confirmed: nothing was changed"))
                }
            }
            other => other,
        }
    }
}

/// Whether a question reaches somebody who can answer it.
fn is_terminal() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}
