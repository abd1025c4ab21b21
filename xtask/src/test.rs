//! `cargo xtask test`: every check and every test lane. A lane that cannot run fails, with the reason.

use std::{fs, path::Path, process::Command, thread};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    build::{self, Profile},
    dist, packages, root, setup,
    summary::{Count, Summary},
    test_program::{self, HOST_CRATES},
    tidy,
    toolchain::{BPF_TARGET, Toolchain},
    verifier, vm,
    workspace::{Workspace, run},
};

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run this lane alone, without the checks
    #[arg(long)]
    lane: Option<Lane>,
    /// Install packages without asking
    #[arg(long)]
    yes: bool,
}

/// A lane of tests.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Lane {
    /// Tests beside the code; neither root nor BPF
    Unit,
    /// Packet tables through BPF_PROG_TEST_RUN; root
    Packets,
    /// Real sockets in network namespaces; root
    Netns,
    /// The same on the oldest kernel, in a virtual machine
    Kernels,
    /// Packages under systemd, in a machine of namespaces; root
    Packages,
}

/// The test programs of `lb-tests`, one a lane.
const PACKETS: &str = "packets";
const NETNS: &str = "netns";
const KERNELS: &str = "kernels";
const PACKAGES: &str = "packages";

/// Tests of the lane `netns` at a time, for each processor: they wait for checks, resolvers and idle flows most of their time.
const NETNS_TESTS_PER_CPU: usize = 3;

/// Machines of the lane `packages` at a time.
const MACHINES: usize = 2;

/// Runs `cargo xtask test`.
///
/// # Errors
/// When a check or a lane failed or could not run.
pub(crate) fn command(workspace: &Workspace, options: &Options) -> Result<()> {
    let wanted = |lane| options.lane.is_none_or(|only| only == lane);
    let all = options.lane.is_none();
    let mut summary = Summary::default();
    let mut toolchain = None;
    if options.lane != Some(Lane::Unit) {
        summary.check("setup", || {
            toolchain = Some(setup::ensure(options.yes)?);
            packages::ensure()?;
            packages::ensure_browser()?;
            packages::ensure_modules()
        });
        summary.check("build", || build(workspace, toolchain.as_ref()));
    }
    if all {
        summary.check("tidy", || tidy::check(workspace));
        summary.check("fmt", || run(workspace.cargo().args(["fmt", "--all", "--check"])));
        summary.check("clippy", || clippy(workspace));
        summary.check("clippy-bpf", || clippy_bpf(workspace, toolchain.as_ref()));
        summary.check("rustdoc", || rustdoc(workspace));
        summary.check("verifier", || verifier::check(workspace));
        summary.check("examples", || examples(workspace));
    }
    if wanted(Lane::Unit) {
        summary.lane("unit", |count| unit(workspace, count));
    }
    if wanted(Lane::Packets) {
        summary.lane("packets", |count| packets(workspace, count));
    }
    if wanted(Lane::Netns) {
        summary.lane("netns", |count| netns(workspace, count));
    }
    if wanted(Lane::Kernels) {
        summary.lane("kernels", |count| {
            test_program::run(&mut vm::command(workspace, KERNELS)?, count)
        });
    }
    if wanted(Lane::Packages) {
        summary.lane("packages", |count| packages_lane(workspace, count));
    }
    println!("{}", summary.table());
    if !summary.passed() {
        bail!("tests failed");
    }
    Ok(())
}

/// Builds the programs for the root lanes.
fn build(workspace: &Workspace, toolchain: Option<&Toolchain>) -> Result<()> {
    build::bpf(workspace, toolchain.context("no BPF toolchain")?)?;
    build::lb(workspace, Profile::Release)
}

fn clippy(workspace: &Workspace) -> Result<()> {
    run(workspace
        .cargo()
        .args(["clippy", "--quiet", "--all-targets"])
        .args(HOST_CRATES)
        .args(["--", "-D", "warnings"]))
}

/// Builds the documentation of the host's crates: links that lead nowhere fail. With the examples, whose dependencies turn on what those
/// of the tests do, so that nothing is compiled again that clippy has seen.
fn rustdoc(workspace: &Workspace) -> Result<()> {
    run(workspace
        .cargo()
        .args(["doc", "--quiet", "--no-deps", "--lib", "--bins", "--examples"])
        .args(HOST_CRATES)
        .env("RUSTDOCFLAGS", "-D warnings"))
}

/// Lints the XDP program as BPF code, with the clippy of the compiler that builds it.
fn clippy_bpf(workspace: &Workspace, toolchain: Option<&Toolchain>) -> Result<()> {
    let toolchain = toolchain.context("no BPF toolchain")?;
    for features in ["", "monitor"] {
        match toolchain {
            Toolchain::Nightly { .. } => run(toolchain.cargo(workspace, "clippy").args([
                "--quiet",
                "--features",
                features,
                "--",
                "-D",
                "warnings",
            ])),
            // clippy-driver is the compiler with lints; cargo puts it before the compiler's name.
            Toolchain::Debian { .. } => run(toolchain
                .cargo(workspace, "check")
                .args(["--quiet", "--features", features])
                .env("RUSTC_WORKSPACE_WRAPPER", packages::clippy_driver()?)
                .env("CLIPPY_ARGS", "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__")),
        }
        .with_context(|| format!("clippy for {BPF_TARGET}, features {features:?}"))?;
    }
    Ok(())
}

/// Has `lb` check the configurations that users copy: from the release, the README and the other documents.
fn examples(workspace: &Workspace) -> Result<()> {
    let mut files = vec![
        workspace.root.join("dist/lb.toml"),
        workspace.root.join("docs/example.toml"),
    ];
    let mut pages = vec![workspace.root.join("README.md")];
    for entry in fs::read_dir(workspace.root.join("docs")).context("cannot read docs")? {
        pages.push(entry?.path());
    }
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages.sort();
    for page in pages {
        let text = fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
        let name = page
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        for (number, block) in (1..).zip(text.split("```toml\n").skip(1)) {
            let file = workspace.target.join(format!("{name}-{number}.toml"));
            fs::write(&file, block.split("```").next().unwrap_or_default())?;
            files.push(file);
        }
    }
    for file in files {
        run(Command::new(workspace.lb(Profile::Release.dir()))
            .arg("check-config")
            .arg(file))?;
    }
    Ok(())
}

/// Tests beside the code. Tests of the harness need no root either.
fn unit(workspace: &Workspace, count: &mut Count) -> Result<()> {
    let mut product = workspace.cargo();
    product
        .args(["test", "--no-fail-fast"])
        .args(HOST_CRATES)
        .args(["--exclude", "lb-tests"]);
    // The same random cases in every run, so that a failure is the change's own; plain `cargo test` draws new ones.
    product.env("PROPTEST_RNG_SEED", "1");
    let of_product = test_program::run(&mut product, count);
    let harness = test_program::build(workspace, &["--lib"], "lb_tests")?;
    test_program::run(&mut Command::new(harness), count).and(of_product)
}

/// Packets through the program: all tests in one process.
fn packets(workspace: &Workspace, count: &mut Count) -> Result<()> {
    let program = test_program::build(workspace, &["--test", PACKETS], PACKETS)?;
    test_program::run(&mut as_root(workspace, &program)?, count)
}

/// Tests that wait most of their time: several for each processor.
fn netns(workspace: &Workspace, count: &mut Count) -> Result<()> {
    let mut programs = workspace.targets("tests/tests")?;
    programs.retain(|name| ![PACKETS, KERNELS, PACKAGES].contains(&name.as_str()));
    ensure!(
        programs.is_empty(),
        "{programs:?} in tests/tests are in no lane: move them to tests/tests/netns"
    );
    let program = test_program::build(workspace, &["--test", NETNS], NETNS)?;
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    test_program::run_each(|| as_root(workspace, &program), cpus * NETNS_TESTS_PER_CPU, count)
}

/// Packages around the program of the other lanes, installed in machines of Debian's packages.
fn packages_lane(workspace: &Workspace, count: &mut Count) -> Result<()> {
    let root = root::ensure()?;
    let made = dist::for_tests(workspace, &workspace.lb(Profile::Release.dir()))?;
    let program = test_program::build(workspace, &["--test", PACKAGES], PACKAGES)?;
    let command = || {
        let mut command = as_root(workspace, &program)?;
        command.env("LB_MACHINE_ROOT", &root).env("LB_PACKAGES", &made);
        Ok(command)
    };
    test_program::run_each(command, MACHINES, count)
}

/// A test program of `lb-tests`, as root.
fn as_root(workspace: &Workspace, program: &Path) -> Result<Command> {
    let mut command = packages::root_command(program)?;
    command.current_dir(workspace.root.join("tests"));
    Ok(command)
}
