//! The programs that tests, the demo and benchmarks call, and the Debian packages they come from.

mod bundles;

use std::{
    env,
    ffi::{OsStr, OsString},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use self::bundles::{
    ALL, BROWSER, CROSS, CROSS_ARCHIVER, CROSS_COMPILER, DEMO, EMULATORS, GO, LOAD_TOOLS, PROXIES, RPM,
    SHELLS, TESTS, VM,
};
use crate::{
    apt,
    archive::Archive,
    bundle::Bundle,
    modules,
    toolchain::DebianCompiler,
    workspace,
    workspace::{cache_dir, find_program, output_of, program_dirs},
};

/// Programs that build for 64-bit ARM, and one that runs what they build.
pub(crate) struct CrossPrograms {
    /// A C compiler, which links, too.
    pub(crate) compiler: PathBuf,
    /// `ar`
    pub(crate) archiver: PathBuf,
    /// Runs a static program for Linux.
    pub(crate) emulator: PathBuf,
    /// Where they are unpacked, if they are not installed.
    pub(crate) root: Option<PathBuf>,
}

/// The lints of Debian's compiler, a package apart from it.
const CLIPPY: &str = "rust-web-clippy";
/// The compiler's package.
const COMPILER: &str = "rustc-web";
/// Its standard library, for linking.
const STANDARD_LIBRARY: &str = "libstd-rust-web-dev";

/// Sees to it that every program of the root lanes is there.
///
/// # Errors
/// With the missing programs, where they cannot be fetched.
pub(crate) fn ensure() -> Result<()> {
    ensure_bundle(&TESTS)
}

/// Sees to it that the programs of the demo are there.
///
/// # Errors
/// As [`ensure()`].
pub(crate) fn ensure_demo() -> Result<()> {
    if apt::is_debian() && TESTS.is_complete()? {
        return Ok(());
    }
    ensure_bundle(&DEMO)
}

/// Provides the browser.
///
/// # Errors
/// As [`ensure()`].
pub(crate) fn ensure_browser() -> Result<()> {
    ensure_bundle(&BROWSER)
}

/// Provides what the tests of the API's document call: Python packages, Go and Java.
///
/// # Errors
/// When one cannot be had.
pub(crate) fn ensure_openapi() -> Result<()> {
    ensure_bundle(&GO)?;
    let mut python = Command::new("python3");
    in_path(&mut python)?;
    modules::ensure(python)
}

/// Provides the shells.
///
/// # Errors
/// As [`ensure()`].
pub(crate) fn ensure_shells() -> Result<()> {
    ensure_bundle(&SHELLS)
}

/// Provides the peers of health checks.
///
/// # Errors
/// As [`ensure()`].
pub(crate) fn ensure_peers() -> Result<()> {
    ensure_bundle(&GO)?;
    ensure_proxies()
}

/// Provides the proxies that benchmarks compare with.
///
/// # Errors
/// As [`ensure()`].
pub(crate) fn ensure_proxies() -> Result<()> {
    ensure_bundle(&PROXIES)
}

/// Provides the load tools that ours is compared with.
///
/// # Errors
/// As [`ensure()`].
pub(crate) fn ensure_load_tools() -> Result<()> {
    ensure_bundle(&LOAD_TOOLS)
}

/// Provides the tools of RPM.
///
/// # Errors
/// As [`ensure()`].
pub(crate) fn ensure_rpm() -> Result<()> {
    ensure_bundle(&RPM)
}

/// Sees to it that virtual machines can run.
///
/// # Errors
/// As [`ensure()`].
pub(crate) fn ensure_vm() -> Result<()> {
    ensure_bundle(&TESTS)?;
    ensure_bundle(&VM)
}

/// Provides compiler and emulator for 64-bit ARM: Debian's, unpacked; elsewhere those in `PATH`.
///
/// # Errors
/// With the missing programs, where they cannot be fetched.
pub(crate) fn cross() -> Result<CrossPrograms> {
    if apt::is_debian() {
        ensure_bundle(&CROSS)?;
        let scripts = CROSS.scripts()?;
        return Ok(CrossPrograms {
            compiler: scripts.join(CROSS_COMPILER),
            archiver: scripts.join(CROSS_ARCHIVER),
            emulator: scripts.join(EMULATORS[0]),
            root: Some(CROSS.root()?),
        });
    }
    let find = |names: &[&str], what: &str| {
        let found = names.iter().find_map(|name| find_program(name));
        found.with_context(|| {
            format!(
                "no {} in PATH: install {what}, or leave this processor out with --arch",
                names.join(" or ")
            )
        })
    };
    Ok(CrossPrograms {
        compiler: find(
            &[CROSS_COMPILER],
            "a C compiler for 64-bit ARM with the GNU C library",
        )?,
        archiver: find(&[CROSS_ARCHIVER], "binutils for 64-bit ARM")?,
        emulator: find(&EMULATORS, "qemu's user-mode emulation")?,
        root: None,
    })
}

/// Debian's Rust compiler, and a directory with its standard library for another kind of processor (`arm64`), for `--sysroot`.
///
/// # Errors
/// When this machine has no such compiler, or the archive no such library of its version.
pub(crate) fn standard_library(arch: &'static str) -> Result<(PathBuf, PathBuf)> {
    let compiler = DebianCompiler::find().context("no Rust compiler of Debian is installed, either")?;
    let version = output_of(Command::new("dpkg-query").args(["-W", "-f", "${Version}", COMPILER]))
        .with_context(|| format!("{COMPILER} is not installed"))?;
    let root = cache_dir()?
        .join("programs")
        .join(format!("std-{arch}-{}", version.replace(['/', ':'], "-")));
    let sysroot = root.join("usr");
    if !sysroot.join("lib/rustlib").is_dir() {
        let package = format!("{STANDARD_LIBRARY}:{arch}={version}");
        Archive::open_with(Some(arch))?
            .unpack_alone(&package, &root)
            .with_context(|| {
                format!(
                    "no {package} to go with {COMPILER}; `apt-get install --only-upgrade {COMPILER}` may bring a newer one"
                )
            })?;
    }
    Ok((compiler.rustc, sysroot))
}

/// The files of a program for a virtual machine, each with its place there.
///
/// # Errors
/// When the program is in no bundle, or misses a library.
pub(crate) fn files(name: &str) -> Result<Vec<(PathBuf, PathBuf)>> {
    let bundle = ALL
        .iter()
        .find(|bundle| bundle.programs.iter().any(|program| program.name == name));
    bundle
        .with_context(|| format!("{name} is in no bundle"))?
        .files(name)
}

/// The linting driver for the compiler of the toolchain, which is Debian's: installed beside the compiler, or unpacked.
///
/// # Errors
/// When the archive has none for this very compiler.
pub(crate) fn clippy_driver() -> Result<PathBuf> {
    const FILE: &str = "usr/bin/clippy-driver";
    let installed = PathBuf::from("/").join(FILE);
    if installed.is_file() {
        return Ok(installed);
    }
    let version = output_of(Command::new("dpkg-query").args(["-W", "-f", "${Version}", COMPILER]))
        .with_context(|| format!("{COMPILER} is not installed"))?;
    // It loads the compiler's own library, so the two must be of one version.
    let root = cache_dir()?
        .join("programs")
        .join(format!("clippy-{}", version.replace(['/', ':'], "-")));
    let driver = root.join(FILE);
    if !driver.is_file() {
        Archive::open()?
            .unpack_alone(&format!("{CLIPPY}={version}"), &root)
            .with_context(|| {
                format!(
                    "no {CLIPPY} for {COMPILER} {version}; `apt-get install --only-upgrade {COMPILER}` may bring a newer one"
                )
            })?;
        ensure!(driver.is_file(), "{CLIPPY} has no {FILE}");
    }
    Ok(driver)
}

/// Makes sure of a bundle; on a machine that is not Debian the same programs are looked for in `PATH`.
fn ensure_bundle(bundle: &Bundle) -> Result<()> {
    if apt::is_debian() {
        if bundle.is_complete()? {
            return Ok(());
        }
        let archive = Archive::open()?;
        // Another set-up may have made it meanwhile.
        if bundle.is_complete()? {
            return Ok(());
        }
        return bundle.make(&archive);
    }
    let missing: Vec<_> = bundle
        .programs
        .iter()
        .map(|program| program.name)
        .filter(|name| find_program(name).is_none())
        .collect();
    if !missing.is_empty() {
        bail!(
            "{} are called: install the missing ones and call this command again",
            missing.join(", ")
        );
    }
    Ok(())
}

/// Puts the programs of the bundles into the `PATH` of a command.
///
/// # Errors
/// When the place of the cache is unknown, or its name cannot stand in `PATH`.
pub(crate) fn in_path(command: &mut Command) -> Result<()> {
    command.env("PATH", path()?);
    Ok(())
}

/// A command that runs as root with the programs of the bundles in `PATH`.
///
/// # Errors
/// As [`in_path`].
pub(crate) fn root_command(program: impl AsRef<OsStr>) -> Result<Command> {
    Ok(workspace::root_command_in(&path()?, program))
}

/// Makes cargo run its products as root, with the programs of the bundles in `PATH`.
///
/// # Errors
/// As [`in_path`].
pub(crate) fn run_as_root(cargo: &mut Command) -> Result<()> {
    let path = path()?;
    workspace::run_as_root(cargo, &path);
    cargo.env("PATH", path);
    Ok(())
}

/// `PATH` with the bundles first: the tests expect their versions.
fn path() -> Result<OsString> {
    let mut dirs = Vec::new();
    for bundle in ALL {
        dirs.push(bundle.scripts()?);
    }
    dirs.push(modules::scripts()?);
    dirs.extend(program_dirs());
    Ok(env::join_paths(dirs)?)
}
