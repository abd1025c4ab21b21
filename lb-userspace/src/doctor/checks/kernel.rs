//! The machine: kernel, rights, limits.

use super::{super::facts::Machine, certificates::SET_CLOCK};
use crate::{
    descriptors,
    doctor::{facts::Facts, finding::Finding, setup::Setup},
    health::MAX_IN_FLIGHT,
    state::service::Service,
};

/// Subject of these findings.
const MACHINE: &str = "machine";
/// Where the kernel wants its BPF file system.
const BPF_MOUNT: &str = "/sys/fs/bpf";
/// The oldest kernel that is supported.
const OLDEST: (u32, u32) = (6, 1);

pub(in super::super) fn all(setup: &Setup, facts: &Facts) -> Vec<Finding> {
    let machine = &facts.machine;
    let findings = [
        Some(kernel(machine)),
        compiler(machine),
        capabilities(setup, machine),
        pins(setup, machine),
        other_pins(setup, machine),
        open_files(setup, machine),
        clock(setup, machine),
    ];
    findings.into_iter().flatten().collect()
}

fn kernel(machine: &Machine) -> Finding {
    let release = &machine.release;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let version = match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
        _ => None,
    };
    let btf = if machine.has_btf { ", BTF" } else { "" };
    match version {
        Some(version) if version < OLDEST => Finding::fail(
            "kernel",
            MACHINE,
            format!("Linux {release} is too old: the program needs Linux 6.1 or newer"),
        )
        .remedy("boot Linux 6.1 or newer"),
        Some(_) | None => Finding::ok("kernel", MACHINE, format!("Linux {release}{btf}")),
    }
}

fn compiler(machine: &Machine) -> Option<Finding> {
    let message =
        "net.core.bpf_jit_enable = 0: the program is interpreted, which takes many times as long a packet";
    (machine.compiles_bpf == Some(false))
        .then(|| Finding::warn("jit", MACHINE, message).remedy("sysctl -w net.core.bpf_jit_enable=1"))
}

fn capabilities(setup: &Setup, machine: &Machine) -> Option<Finding> {
    let missing = machine.missing_capabilities.join(", ");
    let finding = if missing.is_empty() {
        return None;
    } else if setup.has_daemon {
        let message = format!("without {missing} `lb doctor` cannot see everything");
        Finding::warn("capabilities", MACHINE, message)
    } else {
        let message =
            format!("without {missing} `lb run` refuses to start, and `lb doctor` cannot see everything");
        Finding::fail("capabilities", MACHINE, message)
    };
    Some(finding.remedy("run it as root, for example with sudo"))
}

fn pins(setup: &Setup, machine: &Machine) -> Option<Finding> {
    let dir = setup.pin_dir.display();
    // Of a user without rights, that is all there is to say.
    let may_run = !setup.has_daemon && machine.missing_capabilities.is_empty();
    let obstacle = machine.pin_obstacle.as_ref().filter(|_| may_run)?;
    // The mount point of the usual one is there always.
    let place = if setup.pin_dir.starts_with(BPF_MOUNT) {
        BPF_MOUNT.to_owned()
    } else {
        dir.to_string()
    };
    Some(
        Finding::fail(
            "pin_dir",
            MACHINE,
            format!("{dir} is not in a BPF file system, and {obstacle}: `lb run` refuses to start"),
        )
        .remedy(format!("mkdir -p {place} && mount -t bpf bpf {place} # as root; in a container, on its host: -v {place}:{place}")),
    )
}

fn other_pins(setup: &Setup, machine: &Machine) -> Option<Finding> {
    let other = machine.other_pins.as_ref().filter(|_| !setup.has_daemon)?;
    let message = format!(
        "{} holds the data plane of another version of lb: `lb run` refuses to start",
        other.display()
    );
    let detach = format!(
        "lb detach --pin-dir {} # ends what it forwards",
        setup.pin_dir.display()
    );
    Some(
        Finding::fail("pins", MACHINE, message)
            .remedy(detach)
            .remedy("lb run --reset"),
    )
}

fn open_files(setup: &Setup, machine: &Machine) -> Option<Finding> {
    let checked = |service: &Service| {
        if service.is_checked() {
            service.backends.len()
        } else {
            0
        }
    };
    let checks: usize = setup.services().map(checked).sum();
    let at_once = descriptors::checks_allowed(machine.open_files);
    (at_once < checks.min(MAX_IN_FLIGHT)).then(|| {
        let limit = machine.open_files;
        let message =
            format!("{limit} open files allow {at_once} checks at once, and {checks} backends are checked: checks wait");
        Finding::warn("open_files", MACHINE, message)
            .remedy("LimitNOFILE=65536 in the unit")
            .remedy("ulimit -Hn 65536")
    })
}

fn clock(setup: &Setup, machine: &Machine) -> Option<Finding> {
    let verifies = |service: &Service| service.tls_checks().any(|tls| tls.verify);
    let needs_time = setup.services().any(verifies) || setup.api_files.is_some();
    (!machine.has_time && needs_time).then(|| {
        let message =
            "nothing keeps the clock right: certificates are called expired, or not valid yet, by it";
        Finding::warn("clock", MACHINE, message).remedy(SET_CLOCK)
    })
}
