//! Python packages that tests use: a validator of OpenAPI documents and generators of clients, which Debian does not have in a version for
//! OpenAPI 3.1; that for Go is a program in Java, packed as one. pip fetches them from the index that it is configured for, in these
//! versions with these hashes alone, into the cache; 36 MB. Dependencies that only their command lines use are left out.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{apt, archive::Archive, progress, workspace::cache_dir};

/// Versions and hashes: wheels for Python 3.11 and 3.13, x86_64 and aarch64.
const REQUIREMENTS: &str = include_str!("modules/requirements.txt");
/// The command that runs Python with the packages.
const PROGRAM: &str = "python3-openapi";
/// Where Debian's packages put pip.
const PIP: &str = "usr/lib/python3/dist-packages";

/// The directory of the command, for `PATH`.
///
/// # Errors
/// When the place of the cache is unknown.
pub(crate) fn scripts() -> Result<PathBuf> {
    Ok(root()?.join("start"))
}

/// Fetches the packages unless they are there. `python` runs Python.
///
/// # Errors
/// When one cannot be had, or is another than expected.
pub(crate) fn ensure(mut python: Command) -> Result<()> {
    let root = root()?;
    let stamp = root.join("complete");
    // It names the place, as the script does.
    let description = format!("{}\n{REQUIREMENTS}", root.display());
    let is_complete = || fs::read_to_string(&stamp).is_ok_and(|text| text == description);
    if is_complete() {
        return Ok(());
    }
    let archive = apt::is_debian().then(Archive::open).transpose()?;
    // Another set-up may have fetched them meanwhile.
    if is_complete() {
        return Ok(());
    }
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    let (scripts, modules) = (scripts()?, root.join("modules"));
    fs::create_dir_all(&scripts).with_context(|| format!("cannot create {}", scripts.display()))?;
    if let Some(archive) = &archive {
        archive.unpack_alone("python3-pip", &root)?;
        python.env("PYTHONPATH", root.join(PIP));
    }
    let requirements = root.join("requirements.txt");
    fs::write(&requirements, REQUIREMENTS)?;
    python
        .args([
            "-m",
            "pip",
            "install",
            "--no-input",
            "--no-deps",
            "--require-hashes",
        ])
        .args(["--only-binary", ":all:", "--target"])
        .arg(&modules)
        .arg("--requirement")
        .arg(&requirements);
    let step = "fetching Python packages for OpenAPI (once)";
    progress::step(step, &apt::log_file("python-packages")?, &mut python)?;
    write_script(&scripts.join(PROGRAM), &modules)?;
    // Last, since it marks the packages as complete.
    fs::write(&stamp, description)?;
    Ok(())
}

fn root() -> Result<PathBuf> {
    Ok(cache_dir()?.join("programs").join("python"))
}

fn write_script(script: &Path, modules: &Path) -> Result<()> {
    let modules = modules.display();
    let text = format!("#!/bin/sh\nPYTHONPATH='{modules}' PYTHONDONTWRITEBYTECODE=1 exec python3 \"$@\"\n");
    fs::write(script, text).with_context(|| format!("cannot write {}", script.display()))?;
    fs::set_permissions(script, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
