//! Compilers that can build the XDP program: the user's nightly with `rust-src`, or Debian's compiler with its prebuilt
//! `core` for BPF. Either needs bpf-linker.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    rust_flags,
    workspace::{Workspace, cache_dir, find_program, output_of},
};

/// The target of the XDP program: BPF in the byte order of this machine.
pub(crate) const BPF_TARGET: &str = if cfg!(target_endian = "little") {
    "bpfel-unknown-none"
} else {
    "bpfeb-unknown-none"
};

/// Version of bpf-linker that set-up builds.
pub(crate) const LINKER_VERSION: &str = "0.13.0";

/// Debian's compiler. rustup's own comes first in `PATH` nearly everywhere, so this one is called by its full name.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// Flags of the XDP program's build: BTF for the maps and line info, and the instructions of kernels since 5.1.
const BPF_RUSTFLAGS: [&str; 2] = ["-Clink-arg=--btf", "-Ctarget-cpu=v3"];

/// A compiler and a linker that go together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// rustup's nightly, which builds `core` itself.
    Nightly { linker: PathBuf },
    /// Debian's compiler with its prebuilt `core`.
    Debian { rustc: PathBuf, linker: PathBuf },
}

impl Toolchain {
    /// The toolchain that is ready to use, if there is one. The user's nightly goes first.
    ///
    /// # Errors
    /// When the place of the cache is unknown.
    pub(crate) fn find() -> Result<Option<Self>> {
        if nightly_has_source()
            && let Some(linker) = find_program("bpf-linker")
        {
            return Ok(Some(Self::Nightly { linker }));
        }
        let Some(compiler) = DebianCompiler::find() else {
            return Ok(None);
        };
        let linker = compiler.linker()?;
        Ok(linker_works(&linker).then_some(Self::Debian {
            rustc: compiler.rustc,
            linker,
        }))
    }

    /// A line that names it.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Nightly { linker } => format!("rustup's nightly with rust-src, {}", linker.display()),
            Self::Debian { rustc, linker } => format!("{}, {}", rustc.display(), linker.display()),
        }
    }

    /// A cargo command, `build` or `check`, for the XDP program.
    pub(crate) fn cargo(&self, workspace: &Workspace, subcommand: &str) -> Command {
        let mut command = workspace.cargo();
        // The host's flags and wrappers are not for the XDP program, and rustup's library path is not for Debian's
        // compiler.
        for name in [
            "RUSTFLAGS",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "LD_LIBRARY_PATH",
        ] {
            command.env_remove(name);
        }
        let linker = match self {
            Self::Nightly { linker } => {
                command.env("RUSTUP_TOOLCHAIN", "nightly").env_remove("RUSTC");
                command.args([subcommand, "-Z", "build-std=core"]);
                linker
            }
            Self::Debian { rustc, linker } => {
                // The prebuilt `core` is a stable compiler's; aya-ebpf needs `asm_experimental_arch`.
                command
                    .env("RUSTC", rustc)
                    .env("RUSTC_BOOTSTRAP", "1")
                    .arg(subcommand);
                linker
            }
        };
        let variable = format!("CARGO_TARGET_{}", BPF_TARGET.to_uppercase().replace('-', "_"));
        command
            .env(format!("{variable}_LINKER"), linker)
            // Source lines are part of the object.
            .env(
                rust_flags::VARIABLE,
                rust_flags::with_hidden_paths(workspace, &BPF_RUSTFLAGS),
            )
            .args([
                "--package",
                "lb-ebpf",
                "--target",
                BPF_TARGET,
                "--profile",
                "bpf",
                "--target-dir",
            ])
            // A build directory of its own: another compiler in the common one would have cargo rebuild the world
            // at each change between the two.
            .arg(workspace.target.join("bpf-build"));
        command
    }
}

/// Whether rustup has a nightly compiler with the source of the standard library.
pub(crate) fn nightly_has_source() -> bool {
    let mut command = Command::new("rustup");
    command
        .args(["run", "nightly", "rustc", "--print", "sysroot"])
        .env("RUSTUP_AUTO_INSTALL", "0");
    output_of(&mut command)
        .is_some_and(|sysroot| Path::new(&sysroot).join("lib/rustlib/src/rust/library").is_dir())
}

/// Debian's compiler and the version of LLVM it was built with.
pub(crate) struct DebianCompiler {
    /// The compiler.
    pub(crate) rustc: PathBuf,
    /// Major version of its LLVM: bpf-linker reads the compiler's bitcode and must be of the same version or newer.
    pub(crate) llvm: u32,
}

impl DebianCompiler {
    /// Finds it, with a `core` for BPF beside it.
    pub(crate) fn find() -> Option<Self> {
        let ask = |argument: &str| {
            output_of(
                Command::new(DEBIAN_RUSTC)
                    .args(argument.split(' '))
                    .env_remove("LD_LIBRARY_PATH"),
            )
        };
        let sysroot = ask("--print sysroot")?;
        if !Path::new(&sysroot)
            .join("lib/rustlib")
            .join(BPF_TARGET)
            .join("lib")
            .is_dir()
        {
            return None;
        }
        Some(Self {
            rustc: DEBIAN_RUSTC.into(),
            llvm: llvm_version(&ask("-vV")?)?,
        })
    }

    /// Where bpf-linker for this compiler is, once it is built.
    ///
    /// # Errors
    /// When the place of the cache is unknown.
    pub(crate) fn linker(&self) -> Result<PathBuf> {
        Ok(self.linker_root()?.join("bin/bpf-linker"))
    }

    /// The directory that bpf-linker is installed into. Versions have directories of their own, so that a newer
    /// compiler never meets a linker that cannot read its output.
    ///
    /// # Errors
    /// When the place of the cache is unknown.
    pub(crate) fn linker_root(&self) -> Result<PathBuf> {
        Ok(cache_dir()?.join(format!("bpf-linker-{LINKER_VERSION}-llvm-{}", self.llvm)))
    }
}

/// The major version of LLVM in the output of `rustc -vV`.
fn llvm_version(text: &str) -> Option<u32> {
    text.lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?
        .split('.')
        .next()?
        .parse()
        .ok()
}

/// Whether the linker starts: its shared libLLVM may have been removed since it was built.
pub(crate) fn linker_works(linker: &Path) -> bool {
    output_of(Command::new(linker).arg("--version")).is_some()
}

/// Cargo of the toolchain that this program was started with.
///
/// # Errors
/// When there is none.
pub(crate) fn cargo_program() -> Result<PathBuf> {
    env::var_os("CARGO")
        .map(PathBuf::from)
        .or_else(|| find_program("cargo"))
        .context("cargo is not in PATH")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llvm_version_is_read_from_rustc() {
        assert_eq!(
            llvm_version("rustc 1.96.0\nrelease: 1.96.0\nLLVM version: 22.1.8\n"),
            Some(22)
        );
        assert_eq!(llvm_version("rustc 1.96.0\n"), None);
    }
}
