//! `cargo xtask dist`: a release in all forms that users install: archive, packages for Debian and for RPM, container image; with
//! checksums and a bill of materials. The same sources, toolchain and `SOURCE_DATE_EPOCH` give the same bytes.

mod deb;
mod epoch;
mod files;
mod oci;
mod release;
mod rpm;
mod sbom;
mod static_build;
mod tarball;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use self::{
    epoch::Epoch,
    files::Files,
    release::{Release, empty, sha256},
};
use crate::{build, packages, setup, workspace::Workspace};

/// Options of `cargo xtask dist`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// What to make; the archive without this
    forms: Vec<Form>,
    /// Make all forms
    #[arg(long, conflicts_with = "forms")]
    all: bool,
    /// Pack this program instead of building one
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Install packages without asking
    #[arg(long)]
    yes: bool,
}

/// A form of a release.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// An archive with the binary, units and documents
    Tar,
    /// A package for Debian and Ubuntu
    Deb,
    /// A package for Fedora, RHEL, openSUSE
    Rpm,
    /// A container image, as an archive of the OCI layout
    Oci,
    /// A bill of materials, CycloneDX
    Sbom,
}

/// Runs `cargo xtask dist`.
///
/// # Errors
/// When the release does not build, or a form cannot be made.
pub(crate) fn command(workspace: &Workspace, options: &Options) -> Result<()> {
    let forms = match options.forms.as_slice() {
        _ if options.all => <Form as clap::ValueEnum>::value_variants(),
        [] => &[Form::Tar],
        forms => forms,
    };
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => {
            let toolchain = setup::ensure(options.yes)?;
            build::bpf(workspace, &toolchain)?;
            static_build::lb(workspace)?
        }
    };
    let release = Release {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        binary,
        out: workspace.target.join("dist"),
        work: workspace.target.join("dist/work"),
        quick: false,
    };
    empty(&release.out)?;
    empty(&release.work)?;
    let epoch = Epoch::find(workspace)?;
    let mut made = Vec::new();
    for form in forms {
        made.push(match form {
            Form::Tar => tarball::make(workspace, &release, &build::health_library(workspace)?, &epoch)?,
            Form::Deb => deb(workspace, &release, &epoch)?,
            Form::Rpm => rpm(workspace, &release, &epoch)?,
            Form::Oci => oci::make(workspace, &release, &epoch)?,
            Form::Sbom => sbom::make(workspace, &release, &epoch)?,
        });
    }
    made.push(checksums(&release.out, &made)?);
    fs::remove_dir_all(&release.work).with_context(|| format!("cannot remove {}", release.work.display()))?;
    for file in made {
        println!("{}", file.display());
    }
    Ok(())
}

/// Makes what the lane of packages tests, around a binary that is there already: the package of this version and of the next one, and
/// those of other systems. All of it twice, since the same input must give the same bytes.
///
/// # Errors
/// When a package cannot be made, or differs the second time.
pub(crate) fn for_tests(workspace: &Workspace, binary: &Path) -> Result<PathBuf> {
    let out = workspace.target.join("packages");
    let epoch = Epoch::find(workspace)?;
    let make = |out: &Path| -> Result<Vec<PathBuf>> {
        empty(out)?;
        let release = |version: &str| Release {
            version: version.to_owned(),
            binary: binary.to_owned(),
            out: out.to_owned(),
            work: out.join("work"),
            quick: true,
        };
        let version = env!("CARGO_PKG_VERSION");
        let (this, next) = (release(version), release(&format!("{version}.1")));
        Ok(vec![
            deb(workspace, &this, &epoch)?,
            rpm(workspace, &this, &epoch)?,
            oci::make(workspace, &this, &epoch)?,
            sbom::make(workspace, &this, &epoch)?,
            deb(workspace, &next, &epoch)?,
        ])
    };
    let again = make(&out.join("again"))?;
    let again: Vec<String> = again.iter().map(|file| sha256(file)).collect::<Result<_>>()?;
    for (file, sum) in make(&out)?.iter().zip(again) {
        ensure!(
            sha256(file)? == sum,
            "{} has other bytes than when it was made before",
            file.display()
        );
    }
    Ok(out)
}

fn deb(workspace: &Workspace, release: &Release, epoch: &Epoch) -> Result<PathBuf> {
    deb::make(
        &Files::of(workspace, release, "vendor-completions", epoch)?,
        release,
        epoch,
    )
}

fn rpm(workspace: &Workspace, release: &Release, epoch: &Epoch) -> Result<PathBuf> {
    packages::ensure_rpm()?;
    rpm::make(
        &Files::of(workspace, release, "site-functions", epoch)?,
        release,
        epoch,
    )
}

/// Writes `SHA256SUMS`, which `sha256sum --check` reads.
fn checksums(out: &Path, files: &[PathBuf]) -> Result<PathBuf> {
    let mut text = String::new();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        text.push_str(&format!("{}  {name}\n", sha256(file)?));
    }
    let sums = out.join("SHA256SUMS");
    fs::write(&sums, text).with_context(|| format!("cannot write {}", sums.display()))?;
    Ok(sums)
}
