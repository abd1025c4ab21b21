//! `cargo xtask dist`: a release in all forms that users install: archive, packages for Debian and for RPM, container image; with
//! checksums and a bill of materials. The same sources, toolchain and `SOURCE_DATE_EPOCH` give the same bytes.

mod again;
mod arch;
mod cross;
mod deb;
mod epoch;
mod files;
mod oci;
mod other_program;
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
use clap::ValueEnum as _;

use self::{
    arch::Arch,
    cross::Machine,
    epoch::Epoch,
    files::Files,
    release::{Release, SUMS, empty, sha256},
};
use crate::{build, packages, setup, workspace::Workspace};

/// Options of `cargo xtask dist`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// What to make; the archive without this
    forms: Vec<Form>,
    /// Make all forms, for all processors
    #[arg(long, conflicts_with = "forms")]
    all: bool,
    /// For which processors; this machine's without this and --all
    #[arg(long, value_name = "ARCH")]
    arch: Option<Processors>,
    /// Pack this program instead of building one
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Make it a second time, from a fresh clone in other surroundings, and fail if a byte differs
    #[arg(long)]
    check: bool,
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

/// Processors to make a release for.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Processors {
    /// 64-bit x86
    #[value(name = "x86_64")]
    X86_64,
    /// 64-bit ARM
    Aarch64,
    /// Both
    All,
}

impl Options {
    /// What to make of what and for which processors, as the command line says it.
    fn words(&self) -> Result<Vec<String>> {
        let word =
            |value: Option<clap::builder::PossibleValue>| value.map(|value| value.get_name().to_owned());
        let mut words: Vec<String> = self
            .forms
            .iter()
            .filter_map(|form| word(form.to_possible_value()))
            .collect();
        if self.all {
            words.push("--all".to_owned());
        }
        if let Some(arch) = self.arch.and_then(|arch| word(arch.to_possible_value())) {
            words.extend(["--arch".to_owned(), arch]);
        }
        if let Some(binary) = &self.binary {
            let binary = fs::canonicalize(binary).with_context(|| format!("no {}", binary.display()))?;
            words.extend(["--binary".to_owned(), binary.display().to_string()]);
        }
        Ok(words)
    }

    fn archs(&self) -> Result<Vec<Arch>> {
        let archs = match self.arch {
            Some(Processors::X86_64) => vec![Arch::X86_64],
            Some(Processors::Aarch64) => vec![Arch::Aarch64],
            Some(Processors::All) => Arch::ALL.to_vec(),
            None if self.all && self.binary.is_none() => Arch::ALL.to_vec(),
            None => vec![Arch::native()?],
        };
        ensure!(
            self.binary.is_none() || archs.len() == 1,
            "--binary names one program: say for which processor, --arch x86_64 or --arch aarch64"
        );
        Ok(archs)
    }
}

/// Runs `cargo xtask dist`.
///
/// # Errors
/// When the release does not build, or a form cannot be made.
pub(crate) fn command(workspace: &Workspace, options: &Options) -> Result<()> {
    let archs = options.archs()?;
    let commit = options.check.then(|| again::commit(workspace)).transpose()?;
    let forms = match options.forms.as_slice() {
        _ if options.all => Form::value_variants(),
        [] => &[Form::Tar],
        forms => forms,
    };
    // Before anything is built: it says what is missing.
    let machines: Vec<(Arch, Machine)> = archs
        .into_iter()
        .map(|arch| Ok((arch, Machine::of(arch, workspace)?)))
        .collect::<Result<_>>()?;
    if options.binary.is_none() {
        // The same object for all of them: its instructions and layouts are those of every 64-bit machine of one byte order.
        let toolchain = setup::ensure(options.yes)?;
        build::bpf(workspace, &toolchain)?;
    }
    let (out, work) = (workspace.target.join("dist"), workspace.target.join("dist/work"));
    empty(&out)?;
    empty(&work)?;
    let epoch = Epoch::find(workspace)?;
    let mut made = Vec::new();
    for (arch, machine) in &machines {
        let binary = match &options.binary {
            Some(binary) => binary.clone(),
            None => static_build::lb(workspace, *arch, machine)?,
        };
        let release = Release {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            arch: *arch,
            emulator: machine.emulator().map(Path::to_owned),
            binary,
            out: out.clone(),
            work: work.clone(),
            quick: false,
        };
        for form in forms {
            made.push(match form {
                Form::Tar => {
                    let library = static_build::health_library(workspace, *arch, machine)?;
                    tarball::make(workspace, &release, &library, &epoch)?
                }
                Form::Deb => deb(workspace, &release, &epoch)?,
                Form::Rpm => rpm(workspace, &release, &epoch)?,
                Form::Oci => oci::make(workspace, &release, &epoch)?,
                Form::Sbom => sbom::make(workspace, &release, &epoch)?,
            });
        }
    }
    made.push(checksums(&out, &made)?);
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    for file in made {
        println!("{}", file.display());
    }
    if let Some(commit) = commit {
        again::check(workspace, &commit, &out, &options.words()?)?;
    }
    Ok(())
}

/// Makes what the lane of packages tests, around a binary that is there already: the package of this version and of the next one, which
/// has another XDP program, and those of other systems. All of it twice, since the same input must give the same bytes.
///
/// # Errors
/// When a package cannot be made, or differs the second time.
pub(crate) fn for_tests(workspace: &Workspace, binary: &Path) -> Result<PathBuf> {
    let out = workspace.target.join("packages");
    let epoch = Epoch::find(workspace)?;
    let make = |out: &Path| -> Result<Vec<PathBuf>> {
        empty(out)?;
        let arch = Arch::native()?;
        let release = |version: &str, binary: &Path| Release {
            version: version.to_owned(),
            arch,
            emulator: None,
            binary: binary.to_owned(),
            out: out.to_owned(),
            work: out.join("work"),
            quick: true,
        };
        let version = env!("CARGO_PKG_VERSION");
        let other = out.join("work/next/lb");
        other_program::write(binary, &workspace.bpf_object(), &other)?;
        let (this, next) = (release(version, binary), release(&format!("{version}.1"), &other));
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
    let sums = out.join(SUMS);
    fs::write(&sums, text).with_context(|| format!("cannot write {}", sums.display()))?;
    Ok(sums)
}
