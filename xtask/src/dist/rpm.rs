//! The package for RPM, by `rpmbuild`.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};

use super::{
    epoch::{self, Epoch},
    files::{self, Files},
    release::{Release, copy},
};
use crate::{apt, packages, progress};

/// What `rpmbuild` would otherwise take from the machine or the time, or do to a program that is finished.
const DEFINITIONS: [&str; 9] = [
    "_buildhost reproducible",
    "use_source_date_epoch_as_buildtime 1",
    "clamp_mtime_to_source_date_epoch 1",
    "source_date_epoch_from_changelog 0",
    "__os_install_post %{nil}",
    "_build_id_links none",
    "debug_package %{nil}",
    "_enable_debug_packages 0",
    "__spec_install_pre %{nil}",
];

/// Makes it.
///
/// # Errors
/// When `rpmbuild` fails.
pub(super) fn make(files: &Files, release: &Release, epoch: &Epoch) -> Result<PathBuf> {
    for licence in files::LICENCES {
        copy(
            &files.root.join(licence),
            &files.dir.join("usr/share/licenses/lb").join(licence),
        )?;
    }
    epoch.stamp(&files.dir)?;
    let arch = release.arch.word();
    let top = release.work.join("rpm");
    let spec = top.join("lb.spec");
    let text = files.template(
        "dist/lb.spec",
        &[
            ("@VERSION@", &release.version),
            ("@FILES@", &files.dir.display().to_string()),
        ],
    )?;
    std::fs::create_dir_all(&top)?;
    std::fs::write(&spec, text)?;
    let compression = if release.quick { "w1.gzdio" } else { "w9.xzdio" };
    let mut build = Command::new("rpmbuild");
    build.args(["-bb", "--target", arch]);
    let own = [
        format!("_topdir {}", top.display()),
        format!("_dbpath {}", top.join("db").display()),
        format!("_rpmdir {}", release.out.display()),
        "_rpmfilename %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm".to_owned(),
        format!("_binary_payload {compression}"),
    ];
    for definition in DEFINITIONS.into_iter().chain(own.iter().map(String::as_str)) {
        build.args(["--define", definition]);
    }
    build.env(epoch::VARIABLE, epoch.seconds()).arg(&spec);
    packages::in_path(&mut build)?;
    progress::step("building the package for RPM", &apt::log_file("rpm")?, &mut build).context("rpmbuild")?;
    Ok(release.out.join(format!("lb-{}-1.{arch}.rpm", release.version)))
}
