//! What the checks and lanes of `cargo xtask test` do.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context, Result, ensure};

use crate::{
    build::{self, Profile},
    dist, packages, root,
    summary::Count,
    test_program::{self, HOST_CRATES},
    toolchain::{BPF_TARGET, Toolchain},
    vm::{self, Kernel, TestProgram},
    workspace::{Workspace, run},
};

/// The test programs of `lb-tests`, one a lane.
const PACKETS: &str = "packets";
const NETNS: &str = "netns";
const CHAOS: &str = "chaos";
const KERNELS: &str = "kernels";
const PACKAGES: &str = "packages";

/// Tests of the lane `netns` at a time, for each processor: they wait for checks, resolvers and idle flows most of their time.
const NETNS_TESTS_PER_CPU: usize = 4;

/// Tests of the lane `netns` that begin first, since they take longest: half a minute after all others would be lost at the end.
const LONG: [&str; 8] = [
    "doctor::probe::backends_that_do_not_end_tunnels_or_lack_the_address_are_recognised",
    "doctor::probe::backends_whose_answers_do_not_come_back_are_recognised",
    "openapi::generated_client_in_go_reads_and_changes_over_socket_and_tls",
    "proof::soak",
    "shown::failure_is_shown_as_text_and_reported_once_for_many_checks",
    "doctor::nothing_is_said_against_what_works",
    "alerts::each_alert_fires_for_its_cause",
    "support::a_support_bundle_has_everything_but_credentials_with_and_without_a_daemon",
];

/// Tests of the lane `chaos` at a time: each has clients that never pause.
const CHAOS_TESTS: usize = 2;

/// Tests of the packet tables that run in virtual machines in a run of all: each loads the program, which takes seconds there.
const SHORT_PACKETS: &[&str] = &[
    "packets_of_a_flow_are_translated_to_the_byte_in_both_directions",
    "decap::a_packet_leaves_its_tunnel_as_it_went_in",
    "--exact",
];
/// In the lane of virtual machines alone: those of each mode.
const LONG_PACKETS: &[&str] = &[
    "packets_of_a_flow_are_translated_to_the_byte_in_both_directions",
    "icmp_errors_reach_the_other_end_with_the_quoted_packet_translated",
    "hostile_and_foreign_packets_are_not_touched",
    "decap::",
    "dnat::",
    "fragments::",
    "modes::",
    "vlan::",
];

/// Machines of the lane `packages` at a time.
const MACHINES: usize = 2;

/// The toolchain that set-up has left.
pub(super) fn toolchain() -> Result<Toolchain> {
    Toolchain::find()?.context("no BPF toolchain")
}

/// Fetches the programs that root lanes call.
pub(super) fn programs() -> Result<()> {
    packages::ensure()?;
    packages::ensure_browser()?;
    packages::ensure_shells()?;
    packages::ensure_proxies()?;
    packages::ensure_openapi()
}

/// Fetches what the lanes of machines need beside them.
pub(super) fn machines() -> Result<()> {
    vm::ensure()?;
    packages::ensure_rpm()?;
    root::ensure().map(drop)
}

/// The `lb` that the lanes test.
fn lane_lb(workspace: &Workspace) -> PathBuf {
    workspace.lb(Profile::Release.dir())
}

/// Builds it.
pub(super) fn lb(workspace: &Workspace) -> Result<()> {
    build::lb(workspace, Profile::Release)
}

/// Builds all test programs at once: the last ones to be compiled are large, and one at a time would leave a processor idle.
pub(super) fn test_programs(workspace: &Workspace) -> Result<()> {
    run(workspace.cargo().args(["test", "--no-run"]).args(HOST_CRATES))
}

pub(super) fn clippy(workspace: &Workspace) -> Result<()> {
    run(workspace
        .cargo()
        .args(["clippy", "--quiet", "--all-targets"])
        .args(HOST_CRATES)
        .args(["--", "-D", "warnings"]))
}

/// Builds the documentation of the host's crates: links that lead nowhere fail. With the examples, whose dependencies turn on what those
/// of the tests do, so that nothing is compiled again that clippy has seen.
pub(super) fn rustdoc(workspace: &Workspace) -> Result<()> {
    run(workspace
        .cargo()
        .args(["doc", "--quiet", "--no-deps", "--lib", "--bins", "--examples"])
        .args(HOST_CRATES)
        .env("RUSTDOCFLAGS", "-D warnings"))
}

/// Lints the XDP program as BPF code, with the clippy of the compiler that builds it.
pub(super) fn clippy_bpf(workspace: &Workspace, toolchain: &Toolchain) -> Result<()> {
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
pub(super) fn examples(workspace: &Workspace) -> Result<()> {
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
        run(Command::new(lane_lb(workspace)).arg("check-config").arg(file))?;
    }
    Ok(())
}

/// Tests beside the code. Tests of the harness need no root either.
pub(super) fn unit(workspace: &Workspace, count: &mut Count) -> Result<()> {
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

/// Tests beside the code with the sanitizer of addresses, in a build directory of their own. The stable compiler has it.
pub(super) fn sanitizers(workspace: &Workspace, count: &mut Count) -> Result<()> {
    let host = workspace.host()?;
    let mut tests = workspace.cargo();
    tests
        .args(["test", "--no-fail-fast", "--lib", "--bins", "--tests"])
        .args(HOST_CRATES)
        // The last one links a C program, whose compiler has no such sanitizer.
        .args(["--exclude", "lb-tests", "--exclude", "lb-health"])
        // `--target` keeps the flags from build scripts.
        .args(["--target", &host, "--target-dir"])
        .arg(workspace.target.join("sanitizers/address"))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", "-Zsanitizer=address")
        // Some tests leak on purpose what has to live to their end.
        .env("ASAN_OPTIONS", "detect_leaks=0")
        .env("PROPTEST_RNG_SEED", "1");
    test_program::run(&mut tests, count)
}

/// Test programs in a virtual machine of each kernel.
pub(super) fn kernels(workspace: &Workspace, extent: Extent, count: &mut Count) -> Result<()> {
    let programs = match extent {
        Extent::Short => [(KERNELS, &["--skip", "whole::"][..]), (PACKETS, SHORT_PACKETS)],
        Extent::Whole => [(KERNELS, &[][..]), (PACKETS, LONG_PACKETS)],
    };
    let programs = programs.map(|(name, arguments)| TestProgram { name, arguments });
    // The other kernel is tried also where one fails.
    let of_each = Kernel::ALL.map(|kernel| {
        vm::run(workspace, kernel, &programs, &lane_lb(workspace), count).with_context(|| kernel.to_string())
    });
    of_each.into_iter().collect()
}

/// Packets through the program: all tests in one process.
pub(super) fn packets(workspace: &Workspace, count: &mut Count) -> Result<()> {
    let program = test_program::build(workspace, &["--test", PACKETS], PACKETS)?;
    test_program::run(&mut as_root(workspace, &program)?, count)
}

/// Tests that wait most of their time: several for each processor.
pub(super) fn netns(workspace: &Workspace, count: &mut Count) -> Result<()> {
    let mut programs = workspace.targets("tests/tests")?;
    programs.retain(|name| ![PACKETS, KERNELS, PACKAGES, CHAOS].contains(&name.as_str()));
    ensure!(
        programs.is_empty(),
        "{programs:?} in tests/tests are in no lane: move them to tests/tests/netns"
    );
    let program = test_program::build(workspace, &["--test", NETNS], NETNS)?;
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    test_program::run_each(
        || as_root(workspace, &program),
        &LONG,
        cpus * NETNS_TESTS_PER_CPU,
        count,
    )
}

/// How much of a lane runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Extent {
    /// What a run of all has the time for: some faults of each kind, the same in every run; some packets.
    Short,
    /// The lane alone: the whole list, of faults in another order in every run.
    Whole,
}

/// Faults under traffic. `LB_CHAOS_SEED` repeats a run.
pub(super) fn chaos(workspace: &Workspace, extent: Extent, count: &mut Count) -> Result<()> {
    let program = test_program::build(workspace, &["--test", CHAOS], CHAOS)?;
    let command = || {
        let mut command = as_root(workspace, &program)?;
        // Selects the tests of a module.
        match extent {
            Extent::Short => command.arg("short::").env("LB_CHAOS_SEED", "1"),
            Extent::Whole => command.arg("whole::"),
        };
        Ok(command)
    };
    test_program::run_each(command, &[], CHAOS_TESTS, count)
}

/// Packages around the program of the other lanes, installed in machines of Debian's packages.
pub(super) fn packages_lane(workspace: &Workspace, count: &mut Count) -> Result<()> {
    let root = root::ensure()?;
    let made = dist::for_tests(workspace, &lane_lb(workspace))?;
    let program = test_program::build(workspace, &["--test", PACKAGES], PACKAGES)?;
    let command = || {
        let mut command = as_root(workspace, &program)?;
        command.env("LB_MACHINE_ROOT", &root).env("LB_PACKAGES", &made);
        Ok(command)
    };
    test_program::run_each(command, &[], MACHINES, count)
}

/// A test program of `lb-tests`, as root.
fn as_root(workspace: &Workspace, program: &Path) -> Result<Command> {
    let mut command = packages::root_command(program)?;
    command
        .current_dir(workspace.root.join("tests"))
        .env("LB_BIN", lane_lb(workspace));
    Ok(command)
}
