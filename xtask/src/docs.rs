//! `cargo xtask docs`: writes the pages that are generated from the code. Tests and `cargo xtask tidy` compare them.

use anyhow::Result;

use crate::{
    tidy,
    workspace::{Workspace, run},
};

/// Options of `cargo xtask docs`.
#[derive(clap::Args)]
pub(crate) struct Options {}

/// Runs `cargo xtask docs`.
///
/// # Errors
/// When a page cannot be made or written.
pub(crate) fn command(workspace: &Workspace, Options {}: &Options) -> Result<()> {
    tidy::write(workspace)?;
    // The tests know everything that the pages show; neither the binary that users get nor this command has a part in it.
    for test in [
        ["--package=lb-userspace", "--lib", "reference::"],
        ["--package=lb-health", "--test=header", "header_matches"],
        ["--package=lb-import", "--test=cases", "each_configuration"],
    ] {
        run(workspace
            .cargo()
            .args(["test", "--quiet"])
            .args(test)
            .env("LB_WRITE_DOCS", "1"))?;
    }
    Ok(())
}
