//! `cargo xtask setup`: finds a BPF toolchain, or makes one from Debian's packages.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{
    apt, progress,
    toolchain::{DebianCompiler, LINKER_VERSION, Toolchain, cargo_program, linker_works, nightly_has_source},
    workspace::find_program,
};

/// Compiler, and `core` for BPF.
const COMPILER_PACKAGES: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];
/// Packages for linking bpf-linker, and any other Rust program, besides LLVM.
const LINKING_PACKAGES: [&str; 4] = ["gcc", "g++", "libc6-dev", "libzstd-dev"];

/// Options of `cargo xtask setup`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Install packages without asking
    #[arg(long)]
    yes: bool,
}

/// Runs `cargo xtask setup`.
pub(crate) fn command(options: &Options) -> Result<()> {
    let toolchain = ensure(options.yes)?;
    println!("BPF toolchain: {}", toolchain.describe());
    Ok(())
}

/// The BPF toolchain, after installing and building missing parts.
///
/// # Errors
/// With the packages to install, if this machine is not a Debian or the user refuses an installation.
pub(crate) fn ensure(yes: bool) -> Result<Toolchain> {
    if let Some(toolchain) = Toolchain::find()? {
        return Ok(toolchain);
    }
    if !apt::is_debian() {
        bail!("{}", by_hand());
    }
    let compiler = install_debian(yes)?;
    if !linker_works(&compiler.linker()?) {
        build_linker(&compiler)?;
    }
    Toolchain::find()?
        .context("the BPF toolchain is installed, yet does not work; see the logs in the cache directory")
}

/// Installs the packages of a BPF toolchain where it is missing. Asks before that: `ensure` then needs no terminal.
///
/// # Errors
/// If the user refuses, or the installation fails.
pub(crate) fn ensure_packages(yes: bool) -> Result<()> {
    if Toolchain::find()?.is_none() && apt::is_debian() {
        install_debian(yes)?;
    }
    Ok(())
}

/// Installs Debian's compiler, and the LLVM of the same version unless bpf-linker is built already.
fn install_debian(yes: bool) -> Result<DebianCompiler> {
    let mut updated = false;
    if DebianCompiler::find().is_none() {
        let packages = apt::missing(&COMPILER_PACKAGES);
        if !packages.is_empty() {
            apt::ask(&packages, yes)?;
            apt::update()?;
            updated = true;
            apt::install(&packages).with_context(by_hand)?;
        }
    }
    let compiler = DebianCompiler::find().with_context(|| {
        format!(
            "{} do not give a compiler for BPF on this release of Debian\n{}",
            COMPILER_PACKAGES.join(", "),
            by_hand()
        )
    })?;
    if linker_works(&compiler.linker()?) {
        return Ok(compiler);
    }
    let llvm = format!("llvm-{}-dev", compiler.llvm);
    let mut needed = vec![llvm.as_str()];
    needed.extend(LINKING_PACKAGES);
    let packages = apt::missing(&needed);
    if !packages.is_empty() {
        apt::ask(&packages, yes)?;
        if !updated {
            apt::update()?;
        }
        apt::install(&packages).with_context(by_hand)?;
    }
    Ok(compiler)
}

/// Builds bpf-linker into the cache.
fn build_linker(compiler: &DebianCompiler) -> Result<()> {
    let root = compiler.linker_root()?;
    let mut command = Command::new(cargo_program()?);
    command
        .args([
            "install",
            "bpf-linker",
            "--version",
            LINKER_VERSION,
            "--locked",
            "--force",
            "--no-default-features",
        ])
        .args(["--features", &format!("llvm-{}", compiler.llvm), "--root"])
        .arg(&root)
        // Its work is done by LLVM, which is built already: half the time to build it, and no slower links.
        .envs([
            ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
            ("CARGO_PROFILE_RELEASE_DEBUG", "0"),
        ])
        .env("LLVM_PREFIX", format!("/usr/lib/llvm-{}", compiler.llvm))
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTC");
    progress::step(
        "building bpf-linker (once, about a minute)",
        &apt::log_file("bpf-linker")?,
        &mut command,
    )
}

/// Instructions for an installation by hand.
fn by_hand() -> String {
    let mut lines = vec!["no BPF toolchain on this machine; install".to_owned()];
    if find_program("rustup").is_none() {
        lines.push("  rustup, as https://rustup.rs describes".to_owned());
    }
    if !nightly_has_source() {
        lines.push("  rustup toolchain install nightly --component rust-src".to_owned());
    }
    if find_program("bpf-linker").is_none() {
        lines.push("  cargo install bpf-linker".to_owned());
    }
    lines.push("and call this command again".to_owned());
    lines.join("\n")
}
