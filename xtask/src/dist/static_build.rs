//! `lb` for releases: one static program for any distribution, optimised as a whole, without paths of this machine.

use std::{env::consts::ARCH, fs, path::PathBuf};

use anyhow::{Context, Result, bail};

use crate::{
    build::{self, Profile},
    rust_flags,
    workspace::{Workspace, run},
};

/// Builds it with the C library inside, which it needs for nothing that would have to be loaded: `lb` itself looks up users, groups and
/// host names.
///
/// # Errors
/// When it does not build, or has a path of this machine inside.
pub(super) fn lb(workspace: &Workspace) -> Result<PathBuf> {
    let target = format!("{ARCH}-unknown-linux-gnu");
    // With a target of their own name, flags are not for build scripts and macros, which cannot be static.
    run(workspace
        .cargo()
        .args(["build", "--locked", "--package", "lb-userspace", "--bin", "lb"])
        .args(["--profile", Profile::Shipped.dir(), "--target", &target])
        .env(
            rust_flags::VARIABLE,
            rust_flags::with_hidden_paths(workspace, &["-Ctarget-feature=+crt-static"]),
        )
        .env("LB_COMMIT", build::commit(workspace)))
    .context("building lb")?;
    let lb = workspace
        .target
        .join(target)
        .join(Profile::Shipped.dir())
        .join("lb");
    let bytes = fs::read(&lb).with_context(|| format!("cannot read {}", lb.display()))?;
    for (path, _) in rust_flags::hidden_paths(workspace) {
        let path = path.to_string_lossy();
        // The home of root is a word that occurs for other reasons.
        if path.matches('/').count() > 1 && contains(&bytes, path.as_bytes()) {
            bail!(
                "{} has {path} inside: builds elsewhere would differ",
                lb.display()
            );
        }
    }
    Ok(lb)
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}
