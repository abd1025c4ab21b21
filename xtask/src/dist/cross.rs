//! Compilers for another kind of processor than this machine's, and an emulator that runs what they build.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::arch::Arch;
use crate::{
    packages::{self, CrossPrograms},
    workspace::{Workspace, output_of},
};

/// Below the build directory: products of builds for other processors. Another compiler in the common directory would have cargo build
/// everything again at each change between the two.
const DIR: &str = "cross";

/// How programs for a kind of processor are built and run here.
pub(super) enum Machine {
    /// It is this machine's kind.
    Native,
    /// It is another.
    Other(Cross),
}

/// Compilers for another kind of processor.
pub(super) struct Cross {
    programs: CrossPrograms,
    /// Debian's compiler, with the directory of its standard library for that kind; `None`: rustup's has one.
    debian: Option<(PathBuf, PathBuf)>,
}

impl Machine {
    /// Finds or fetches what is needed.
    ///
    /// # Errors
    /// With what is missing and how to install it.
    pub(super) fn of(arch: Arch, workspace: &Workspace) -> Result<Self> {
        let native = Arch::native()?;
        if arch == native {
            return Ok(Self::Native);
        }
        if native != Arch::X86_64 {
            bail!(
                "cannot build for {} on {}: programs for both are built on x86_64; --arch {} builds for this machine alone",
                arch.word(),
                native.word(),
                native.word()
            );
        }
        let programs = packages::cross()?;
        let debian = if has_standard_library(workspace, arch) {
            None
        } else {
            let found = packages::standard_library(arch.debian());
            Some(found.with_context(|| {
                format!(
                    "no standard library of Rust for {target}: `rustup target add {target}` installs it",
                    target = arch.target()
                )
            })?)
        };
        Ok(Self::Other(Cross { programs, debian }))
    }

    /// Directory of products of a profile.
    pub(super) fn products(&self, workspace: &Workspace, arch: Arch, profile: &str) -> PathBuf {
        let dir = match self {
            Self::Native => workspace.target.clone(),
            Self::Other(_) => workspace.target.join(DIR),
        };
        dir.join(arch.target()).join(profile)
    }

    /// Flags of the compiler for programs of this kind.
    pub(super) fn flags(&self) -> Vec<String> {
        match self {
            Self::Native => Vec::new(),
            Self::Other(cross) => cross.flags(),
        }
    }

    /// Has a command of cargo build for this kind.
    pub(super) fn build_for(&self, cargo: &mut Command, arch: Arch, workspace: &Workspace) {
        // With a target of their own name, flags are not for build scripts and macros, which run here.
        cargo.args(["--target", &arch.target()]);
        match self {
            Self::Native => {}
            Self::Other(cross) => {
                cargo.arg("--target-dir").arg(workspace.target.join(DIR));
                cross.set(cargo, arch);
            }
        }
    }

    /// What runs programs of this kind, if this machine cannot.
    pub(super) fn emulator(&self) -> Option<&Path> {
        match self {
            Self::Native => None,
            Self::Other(cross) => Some(&cross.programs.emulator),
        }
    }
}

impl Cross {
    fn flags(&self) -> Vec<String> {
        let sysroot = self.programs.root.iter();
        // For scripts of the linker beside libraries, which name files by their place in an installed system.
        let mut flags: Vec<String> = sysroot
            .map(|root| format!("-Clink-arg=-Wl,--sysroot={}", root.display()))
            .collect();
        if let Some((_, sysroot)) = &self.debian {
            flags.push(format!("--sysroot={}", sysroot.display()));
        }
        flags
    }

    fn set(&self, cargo: &mut Command, arch: Arch) {
        let target = arch.target().replace('-', "_");
        let linker = format!("CARGO_TARGET_{}_LINKER", target.to_uppercase());
        let set: [(String, OsString); 3] = [
            (linker, self.programs.compiler.clone().into()),
            (format!("CC_{target}"), self.programs.compiler.clone().into()),
            (format!("AR_{target}"), self.programs.archiver.clone().into()),
        ];
        cargo.envs(set);
        if let Some((rustc, _)) = &self.debian {
            // The library path is rustup's compiler's.
            for name in ["RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "LD_LIBRARY_PATH"] {
                cargo.env_remove(name);
            }
            cargo.env("RUSTC", rustc);
        }
    }
}

/// Whether the compiler of this checkout has a standard library for that kind.
fn has_standard_library(workspace: &Workspace, arch: Arch) -> bool {
    let mut rustc = Command::new("rustc");
    rustc
        .args(["--print", "target-libdir", "--target", &arch.target()])
        .current_dir(&workspace.root);
    output_of(&mut rustc).is_some_and(|dir| Path::new(&dir).is_dir())
}
