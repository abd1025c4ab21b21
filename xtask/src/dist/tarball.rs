//! The archive, for machines without a package manager that we pack for.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{
    epoch::Epoch,
    files,
    release::{Release, copy, empty},
};
use crate::workspace::{Workspace, run};

/// Files of the archive besides programs and documents: path in the checkout, path in the archive.
const FILES: [(&str, &str); 7] = [
    ("lb-userspace/capi/include/lb_health.h", "lb_health.h"),
    ("dist/lb.service", "lb.service"),
    ("dist/lb-decap@.service", "lb-decap@.service"),
    ("dist/lb.sysusers", "lb.sysusers"),
    ("dist/lb.tmpfiles", "lb.tmpfiles"),
    ("dist/lb.toml", "lb.toml"),
    ("dist/INSTALL.md", "INSTALL.md"),
];

/// Packs it, with `library` as the library of health checks.
///
/// # Errors
/// When a file is missing.
pub(super) fn make(
    workspace: &Workspace,
    release: &Release,
    library: &Path,
    epoch: &Epoch,
) -> Result<PathBuf> {
    let name = format!("lb-{}-{}-linux", release.version, release.arch.word());
    let dir = release.work.join(&name);
    empty(&dir)?;
    copy(&release.binary, &dir.join("lb"))?;
    copy(library, &dir.join("liblb_health.so"))?;
    for (from, to) in FILES {
        copy(&workspace.root.join(from), &dir.join(to))?;
    }
    files::documents(workspace, &dir)?;
    for licence in files::LICENCES {
        copy(&workspace.root.join(licence), &dir.join(licence))?;
    }
    epoch.stamp(&dir)?;
    let archive = release.out.join(format!("{name}.tar.gz"));
    run(epoch
        .tar()
        .args(["--use-compress-program", "gzip --no-name --best", "--file"])
        .arg(&archive)
        .arg("--directory")
        .arg(&release.work)
        .arg(&name))?;
    Ok(archive)
}
