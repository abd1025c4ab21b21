//! `cargo xtask dist`: a release as one archive.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use crate::{
    build::{self, Profile},
    setup,
    workspace::{Workspace, run},
};

/// Files of the archive besides the binary: path in the checkout, path in the archive.
const FILES: [(&str, &str); 19] = [
    ("lb-userspace/capi/include/lb_health.h", "lb_health.h"),
    ("dist/lb.service", "lb.service"),
    ("dist/lb-decap@.service", "lb-decap@.service"),
    ("dist/lb.toml", "lb.toml"),
    ("dist/INSTALL.md", "INSTALL.md"),
    ("README.md", "README.md"),
    ("CHANGELOG.md", "CHANGELOG.md"),
    ("docs/commands.md", "docs/commands.md"),
    ("docs/configuration.md", "docs/configuration.md"),
    ("docs/example.toml", "docs/example.toml"),
    ("docs/metrics.md", "docs/metrics.md"),
    ("docs/operations.md", "docs/operations.md"),
    ("docs/reasons.md", "docs/reasons.md"),
    ("docs/runbook.md", "docs/runbook.md"),
    (
        "contrib/prometheus/lb.rules.yml",
        "contrib/prometheus/lb.rules.yml",
    ),
    ("contrib/grafana/lb.json", "contrib/grafana/lb.json"),
    ("LICENSE-MIT", "LICENSE-MIT"),
    ("LICENSE-APACHE", "LICENSE-APACHE"),
    ("LICENSE-GPL-2.0", "LICENSE-GPL-2.0"),
];

/// Options of `cargo xtask dist`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Install packages without asking
    #[arg(long)]
    yes: bool,
}

/// Runs `cargo xtask dist`.
pub(crate) fn command(workspace: &Workspace, options: &Options) -> Result<()> {
    let toolchain = setup::ensure(options.yes)?;
    build::bpf(workspace, &toolchain)?;
    build::lb(workspace, Profile::Shipped)?;
    let library = build::health_library(workspace)?;

    let name = format!(
        "lb-{}-{}-linux",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH
    );
    let parent = workspace.target.join("dist");
    let dir = parent.join(&name);
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    copy(&workspace.lb(Profile::Shipped.dir()), &dir.join("lb"))?;
    copy(&library, &dir.join("liblb_health.so"))?;
    for (from, to) in FILES {
        copy(&workspace.root.join(from), &dir.join(to))?;
    }
    // Owner, order and names do not depend on the packing user.
    run(Command::new("tar")
        .args([
            "--create",
            "--gzip",
            "--owner=0",
            "--group=0",
            "--sort=name",
            "--file",
        ])
        .arg(format!("{name}.tar.gz"))
        .arg(&name)
        .current_dir(&parent))?;
    println!("{}", parent.join(format!("{name}.tar.gz")).display());
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let dir = to.parent().context("a file without a directory")?;
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}
