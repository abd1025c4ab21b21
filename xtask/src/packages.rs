//! Programs that the root lanes call, and the packages they come from.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    apt,
    toolchain::Toolchain,
    vm, workspace,
    workspace::{cache_dir, find_program, program_dirs},
};

/// A program that the tests call, and Debian's package of it.
struct Program {
    name: &'static str,
    package: &'static str,
}

impl Program {
    const fn new(name: &'static str, package: &'static str) -> Self {
        Self { name, package }
    }
}

/// The clippy of Debian's compiler, by its full name: rustup's own comes first in `PATH`.
pub(crate) const CLIPPY_DRIVER: &str = "/usr/bin/clippy-driver";
/// Its package; rustup's nightly has a clippy of its own.
const CLIPPY: Program = Program::new(CLIPPY_DRIVER, "rust-web-clippy");

/// gRPC's own server, as a module of Python.
const GRPC: &str = "/usr/lib/python3/dist-packages/grpc/__init__.py";

/// Plain tools, installed like any other package.
const TOOLS: [Program; 8] = [
    Program::new("ip", "iproute2"),
    Program::new("ethtool", "ethtool"),
    Program::new("nft", "nftables"),
    Program::new("bpftool", "bpftool"),
    Program::new("wrk", "wrk"),
    Program::new("socat", "socat"),
    // The program without the service that the package dnsmasq would start.
    Program::new("dnsmasq", "dnsmasq-base"),
    // A module of Debian's Python, which comes with it.
    Program::new(GRPC, "python3-grpcio"),
];

/// Servers. Installing them would start and enable services of this machine, so they are unpacked into the cache.
const SERVERS: [Program; 2] = [
    Program::new("nginx", "nginx"),
    Program::new("prometheus", "prometheus"),
];

/// Libraries that the unpacked servers load.
const SERVER_LIBRARIES: [&str; 4] = ["libcrypt1", "libpcre2-8-0", "libssl3", "zlib1g"];

/// What health checks are compared with, and what builds the programs that call them. Only that benchmark needs these:
/// Go is 300 MB.
const PEER_TOOLS: [Program; 2] = [Program::new("go", "golang-go"), Program::new("cc", "gcc")];
/// The one of them that is a server.
const PEER_SERVERS: [Program; 1] = [Program::new("haproxy", "haproxy")];
/// Libraries that it loads.
const PEER_LIBRARIES: [&str; 7] = [
    "libcrypt1",
    "liblua5.3-0",
    "libopentracing-c-wrapper0",
    "libopentracing1",
    "libpcre2-8-0",
    "libssl3",
    "libsystemd0",
];

/// What virtual machines are made of.
const VM_TOOLS: [Program; 2] = [
    Program::new("qemu-system-x86_64", "qemu-system-x86"),
    Program::new("busybox", "busybox-static"),
];

/// Sees to it that every program the root lanes call is there, installing what is missing.
///
/// # Errors
/// With the missing programs, where they cannot be installed.
pub(crate) fn ensure(toolchain: &Toolchain, yes: bool) -> Result<()> {
    let clippy = matches!(toolchain, Toolchain::Debian { .. }).then_some(&CLIPPY);
    install(TOOLS.iter().chain(clippy), &SERVERS, &SERVER_LIBRARIES, yes)
}

/// Sees to it that what health checks are compared with is there.
///
/// # Errors
/// As [`ensure`].
pub(crate) fn ensure_peers(yes: bool) -> Result<()> {
    install(PEER_TOOLS.iter(), &PEER_SERVERS, &PEER_LIBRARIES, yes)
}

/// Sees to it that virtual machines can run, with a kernel for them.
///
/// # Errors
/// As [`ensure`].
pub(crate) fn ensure_vm(yes: bool) -> Result<()> {
    install(VM_TOOLS.iter(), &[], &[], yes)?;
    vm::ensure_kernel()
}

/// Installs those of `tools`, and unpacks those of `servers`, that are not there.
fn install<'a>(
    tools: impl Iterator<Item = &'a Program>,
    servers: &[Program],
    libraries: &[&'static str],
    yes: bool,
) -> Result<()> {
    let tools: Vec<&Program> = tools
        .filter(|program| find_program(program.name).is_none())
        .collect();
    let servers: Vec<&Program> = servers
        .iter()
        .filter(|program| find_server(program.name).is_none())
        .collect();
    if tools.is_empty() && servers.is_empty() {
        return Ok(());
    }
    if !apt::is_debian() {
        let names: Vec<_> = tools.iter().chain(&servers).map(|program| program.name).collect();
        bail!(
            "{} are called: install what is missing and call this command again",
            names.join(", ")
        );
    }
    let mut packages: Vec<&str> = tools.iter().map(|program| program.package).collect();
    if !servers.is_empty() {
        packages.extend(apt::missing(libraries));
    }
    if !packages.is_empty() {
        apt::ask(&packages, yes)?;
    }
    apt::update()?;
    if !packages.is_empty() {
        apt::install(&packages)?;
    }
    if !servers.is_empty() {
        let packages: Vec<&str> = servers.iter().map(|program| program.package).collect();
        apt::unpack(&packages, &server_dir()?).context("fetching servers")?;
    }
    Ok(())
}

/// Puts the programs of the tests into the `PATH` of a command.
///
/// # Errors
/// As [`run_as_root`].
pub(crate) fn in_path(command: &mut Command) -> Result<()> {
    command.env("PATH", path()?);
    Ok(())
}

/// Makes cargo run what it built as root, with every program of the tests in `PATH`.
///
/// # Errors
/// When the place of the cache is unknown, or its name cannot stand in `PATH`.
pub(crate) fn run_as_root(cargo: &mut Command) -> Result<()> {
    let path = path()?;
    workspace::run_as_root(cargo, &path);
    cargo.env("PATH", path);
    Ok(())
}

/// `PATH` with the unpacked servers.
fn path() -> Result<OsString> {
    let mut dirs = program_dirs();
    dirs.extend(server_dirs()?);
    Ok(env::join_paths(dirs)?)
}

fn find_server(name: &str) -> Option<PathBuf> {
    find_program(name).or_else(|| {
        server_dirs()
            .ok()?
            .map(|dir| dir.join(name))
            .into_iter()
            .find(|file| file.is_file())
    })
}

fn server_dir() -> Result<PathBuf> {
    Ok(cache_dir()?.join("servers"))
}

fn server_dirs() -> Result<[PathBuf; 2]> {
    let root = server_dir()?;
    Ok(["usr/sbin", "usr/bin"].map(|dir: &str| root.join(Path::new(dir))))
}
