//! The package for Debian and Ubuntu, by `dpkg-deb`, which every Debian has.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{
    epoch::{self, Epoch},
    files::{self, Files},
    release::{Release, copy},
};
use crate::workspace::run;

/// Scripts of the package, which run as root.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];
/// Files that an upgrade asks about where they were changed.
const CONFIGURATION: &str = "/etc/lb/lb.toml\n";
/// Who answers for the package.
const MAINTAINER: &str = "The lb authors <lb@example.org>";

/// Makes it.
///
/// # Errors
/// When there is no `dpkg-deb`, or it fails.
pub(super) fn make(files: &Files, release: &Release, epoch: &Epoch) -> Result<PathBuf> {
    let version = format!("{}-1", release.version);
    let arch = release.arch.debian();
    let doc = "usr/share/doc/lb";
    let licence = files.template("LICENSE-MIT", &[])?;
    let licence: Vec<String> = licence.lines().map(indented).collect();
    let copyright = files.template("dist/debian/copyright", &[("@MIT@", &licence.join("\n"))])?;
    files.write(&format!("{doc}/copyright"), &copyright)?;
    let changes = format!(
        "lb ({version}) stable; urgency=medium\n\n  * What changed is in changelog.gz.\n\n -- {MAINTAINER}  {}\n",
        epoch.formatted("+%a, %d %b %Y %H:%M:%S +0000")?
    );
    files::compress(&files.write(&format!("{doc}/changelog.Debian"), &changes)?)?;
    copy(
        &files.root.join("dist/debian/lintian-overrides"),
        &files.dir.join("usr/share/lintian/overrides/lb"),
    )?;
    epoch.stamp(&files.dir)?;

    let (sums, bytes) = sums(&files.dir)?;
    let size = bytes.div_ceil(1024).to_string();
    let words = [
        ("@VERSION@", version.as_str()),
        ("@ARCH@", arch),
        ("@SIZE@", &size),
        ("@MAINTAINER@", MAINTAINER),
    ];
    files.write("DEBIAN/control", &files.template("dist/debian/control", &words)?)?;
    files.write("DEBIAN/md5sums", &sums)?;
    files.write("DEBIAN/conffiles", CONFIGURATION)?;
    for script in SCRIPTS {
        copy(
            &files.root.join("dist/debian").join(script),
            &files.dir.join("DEBIAN").join(script),
        )?;
    }
    epoch.stamp(&files.dir)?;
    let package = release.out.join(format!("lb_{version}_{arch}.deb"));
    let compression: &[&str] = if release.quick {
        &["-Zgzip", "-z1"]
    } else {
        &["-Zxz"]
    };
    run(Command::new("dpkg-deb")
        .env(epoch::VARIABLE, epoch.seconds())
        // With several threads, xz compresses in blocks: other bytes than with one.
        .env("DPKG_DEB_THREADS_MAX", "1")
        .args(["--root-owner-group", "--build"])
        .args(compression)
        .arg(&files.dir)
        .arg(&package)
        .stdout(std::process::Stdio::null()))
    .context("building the package for Debian; on other systems install their package of dpkg")?;
    Ok(package)
}

/// A line of a licence as the format of `copyright` wants it.
fn indented(line: &str) -> String {
    if line.trim().is_empty() {
        " .".to_owned()
    } else {
        format!(" {line}")
    }
}

/// `md5sums`, which `dpkg --verify` reads, and the bytes of all files.
fn sums(dir: &Path) -> Result<(String, u64)> {
    let mut paths = Vec::new();
    collect(dir, &mut paths)?;
    paths.sort();
    let (mut names, mut bytes) = (Vec::new(), 0);
    for path in paths {
        bytes += fs::metadata(&path)?.len();
        let name = path.strip_prefix(dir)?.to_path_buf();
        if !name.starts_with("etc") {
            names.push(name);
        }
    }
    let output = Command::new("md5sum").args(names).current_dir(dir).output()?;
    ensure!(output.status.success(), "md5sum: {}", output.status);
    Ok((String::from_utf8(output.stdout)?, bytes))
}

fn collect(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}
