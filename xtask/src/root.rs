//! A root file system for machines in namespaces, where packages are installed under a real systemd: Debian's packages, unpacked and
//! configured in the cache. Tests put a layer of their own over it, so it stays as it is.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};

use crate::{apt, archive::Archive, progress, workspace, workspace::cache_dir};

/// Packages besides the essential ones: the first process; users of tests; the check of packages; the installer of others.
const PACKAGES: [&str; 4] = ["systemd-sysv", "passwd", "lintian", "rpm"];
/// Raised when the script changes.
const FORMAT: u32 = 1;
const SCRIPT: &str = include_str!("root/make.sh");

/// The directory of the root file system, after making it if it is missing.
///
/// # Errors
/// Where there is no apt, or a package cannot be had or configured.
pub(crate) fn ensure() -> Result<PathBuf> {
    ensure!(
        apt::is_debian(),
        "the machine to install packages in is made of Debian's packages: run this on a Debian"
    );
    let dir = cache_dir()?.join("machine");
    let (root, stamp) = (dir.join("root"), dir.join("complete"));
    let description = format!("{FORMAT} {}\n", PACKAGES.join(" "));
    if fs::read_to_string(&stamp).is_ok_and(|text| text == description) {
        return Ok(root);
    }
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let archive = Archive::open()?;
    let packages = archive.fetch_system(&PACKAGES)?;
    let script = dir.join("make.sh");
    fs::write(&script, SCRIPT)?;
    let mut make = workspace::root_command("unshare")?;
    make.args(["--mount", "--propagation", "private", "sh"])
        .args([&script, &root, &packages]);
    progress::step(
        "making a machine to install packages in (once)",
        &apt::log_file("machine")?,
        &mut make,
    )?;
    archive.clean()?;
    // Last, since it marks the root as complete.
    fs::write(stamp, description)?;
    Ok(root)
}
