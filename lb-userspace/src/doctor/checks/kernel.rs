//! The machine: kernel, rights, limits.

use super::super::facts::Machine;
use crate::{
    descriptors,
    doctor::{facts::Facts, finding::Finding, setup::Setup},
    health::{MAX_IN_FLIGHT, settings::CheckKind},
    state::service::Service,
};

/// Subject of these findings.
const MACHINE: &str = "machine";
/// The oldest kernel that is supported.
const OLDEST: (u32, u32) = (6, 1);

pub(in super::super) fn all(setup: &Setup, facts: &Facts) -> Vec<Finding> {
    let machine = &facts.machine;
    let findings = [
        Some(kernel(machine)),
        compiler(machine),
        capabilities(setup, machine),
        pins(setup, machine),
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
    let is_usual = setup.pin_dir.starts_with("/sys/fs/bpf");
    // The daemon mounts the usual one itself.
    (machine.pins_in_bpf_fs == Some(false) && !is_usual).then(|| {
        Finding::fail(
            "pin_dir",
            MACHINE,
            format!("{dir} is not in a BPF file system: nothing can be pinned there"),
        )
        .remedy(format!("mkdir -p {dir} && mount -t bpf bpf {dir}"))
    })
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
    let tls = |service: &Service| match &service.health.kind {
        CheckKind::Tls(tls) => Some(tls.clone()),
        CheckKind::Http(http) | CheckKind::Http2(http) => http.tls.clone(),
        CheckKind::Grpc(grpc) => grpc.tls.clone(),
        CheckKind::None
        | CheckKind::Tcp
        | CheckKind::Dialogue(_)
        | CheckKind::TcpHalfOpen
        | CheckKind::Dns(_)
        | CheckKind::Udp(_)
        | CheckKind::Icmp
        | CheckKind::Push(_)
        | CheckKind::Exec(_) => None,
    };
    let verifies = |service: &Service| tls(service).is_some_and(|tls| tls.verify);
    (!machine.has_time && setup.services().any(verifies)).then(|| {
        let message =
            "nothing keeps the clock right: checks call certificates expired, or not valid yet, by it";
        Finding::warn("clock", MACHINE, message).remedy("timedatectl set-ntp true")
    })
}
