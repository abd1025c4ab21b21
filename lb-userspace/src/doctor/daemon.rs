//! What a running daemon says of itself, and programs that run without one.

use crate::{
    api::types::{Problem, Status},
    datapath::DEFAULT_PIN_DIR,
    doctor::{facts::Facts, finding::Finding},
};

/// Version of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The daemon's own problems as findings; of a daemon that is away, what forwards on.
pub fn of_daemon(status: Option<&Status>, facts: &Facts) -> Vec<Finding> {
    let Some(status) = status else {
        return left_behind(facts).into_iter().collect();
    };
    let mut findings = Vec::new();
    if status.version != VERSION {
        let message = format!("version {} runs, and this is {VERSION}", status.version);
        findings.push(Finding::warn("version", "daemon", message).remedy("systemctl restart lb"));
    }
    findings.extend(status.interfaces.iter().filter_map(|interface| {
        let note = interface.note.as_ref().filter(|_| interface.program_id != 0)?;
        let finding = Finding::warn("xdp_mode", &interface.name, note);
        Some(finding.remedy(format!(
            "--xdp-mode generic, if that is enough; `ethtool -i {}` names the driver",
            interface.name
        )))
    }));
    findings.extend(status.problems.iter().map(problem));
    for (what, lines, remedy) in [
        (
            "config_by_command",
            &status.config.by_command,
            "lb export # writes a file that keeps them",
        ),
        ("config_pending", &status.config.pending, "lb apply FILE"),
    ] {
        // Services made by command beside a file without services are none.
        let Some(first) = lines.first().filter(|_| !status.config.file_in_force) else {
            continue;
        };
        let file = status.config.file.as_deref().unwrap_or("the file");
        let message = format!("{} differences from {file}, the first: {first}", lines.len());
        findings.push(Finding::warn(what, "daemon", message).remedy(remedy));
    }
    if findings.is_empty() {
        let message = format!(
            "lb {} runs, pid {}, revision {}",
            status.version, status.pid, status.revision
        );
        findings.push(Finding::ok("daemon", "daemon", message));
    }
    findings
}

/// The warning that no daemon answers, for this reason.
pub fn away(why: String) -> Finding {
    let is_denied = why.contains("permission denied");
    let finding = Finding::warn(
        "daemon",
        "daemon",
        format!("{why}; only the machine was looked at"),
    );
    let finding = if is_denied {
        finding.remedy("sudo lb doctor")
    } else {
        finding.remedy("systemctl start lb")
    };
    finding
        .remedy("lb doctor --iface IFACE")
        .remedy("lb doctor --config FILE")
}

/// The warning that a daemon of another version answers, which this program does not understand.
pub fn not_understood(why: String) -> Finding {
    let message = format!(
        "{why}; it is of another version than this program, {VERSION}, and only the machine was looked at"
    );
    Finding::warn("version", "daemon", message).remedy("systemctl restart lb")
}

/// A problem that the daemon lists. It works on for other packets, or may: what fails for certain is found by the checks.
fn problem(problem: &Problem) -> Finding {
    let subject = match (&problem.service, &problem.backend) {
        (Some(service), Some(backend)) => format!("{service}/{backend}"),
        (Some(service), None) => service.clone(),
        (None, _) => "daemon".to_owned(),
    };
    let finding = Finding::warn("status", subject, &problem.message);
    match (&problem.hint, &problem.service) {
        (Some(hint), _) => finding.remedy(hint),
        (None, Some(service)) => {
            finding.remedy(format!("lb service show {service} # and lb events tell more"))
        }
        (None, None) => finding.remedy("lb status # and the daemon's log tell more"),
    }
}

fn left_behind(facts: &Facts) -> Option<Finding> {
    let names: Vec<&str> = facts.ours.iter().map(String::as_str).collect();
    (!names.is_empty()).then(|| {
        let message = format!(
            "no daemon answers, and its program forwards on, on {}: without health checks, as it was last programmed",
            names.join(", ")
        );
        Finding::warn("daemon", "daemon", message)
            .remedy("systemctl start lb")
            .remedy(format!("lb detach # ends it, where pins are in {DEFAULT_PIN_DIR}"))
    })
}
