//! The output of `lb run` when it forwards: the state in short, and what to type next.

use std::{collections::BTreeMap, fmt::Write};

use crate::{
    config::{DaemonSettings, daemon::OnExit},
    control::ControlView,
    datapath::Interface,
    parts::{MissingPart, NAME_AN_INTERFACE, Part},
};

/// The text for a daemon that has just become ready. `notes` list parts of file and stored state that are not in force.
pub(super) fn text(
    settings: &DaemonSettings,
    interfaces: &[Interface],
    missing: &BTreeMap<Part, MissingPart>,
    view: &ControlView,
    notes: &[String],
) -> String {
    let state = if interfaces.is_empty() {
        format!("runs, but forwards nothing: no interface is configured\n  {NAME_AN_INTERFACE}")
    } else {
        "forwards".to_owned()
    };
    let mut text = format!("lb {} {state}\n", env!("CARGO_PKG_VERSION"));
    // Writing to a `String` cannot fail.
    for interface in interfaces {
        let name = &interface.name;
        if let Some(attached) = &interface.attached {
            let took_over = if attached.took_over {
                ", taken over from the last daemon"
            } else {
                ""
            };
            let _ = writeln!(text, "  {name:<10} XDP {}{took_over}", attached.xdp_mode.name());
            if let Some(note) = &attached.note {
                let _ = writeln!(text, "  {:<10} {note}", "");
            }
        }
        if let Some(problem) = interface.problem() {
            let _ = writeln!(text, "  {name:<10} {}", problem.message);
        }
    }
    let services = view.desired.services.len();
    let backends: usize = view
        .desired
        .services
        .values()
        .map(|service| service.backends.len())
        .sum();
    let _ = writeln!(
        text,
        "  {:<10} revision {}: {}, {}, in {}",
        "state",
        view.desired.revision.0,
        count(services, "service"),
        count(backends, "backend"),
        settings.state_dir.display()
    );
    for note in notes {
        let _ = writeln!(text, "  {:<10} {note}", "config");
    }
    if !missing.contains_key(&Part::Metrics) {
        let _ = writeln!(text, "  {:<10} http://{}/metrics", "metrics", settings.metrics);
        let _ = writeln!(text, "  {:<10} http://{}/", "page", settings.metrics);
    }
    for MissingPart { message, .. } in missing.values() {
        let _ = writeln!(text, "  {:<10} {message}", "missing");
    }
    if services == 0 {
        text.push_str("\nNo services yet. In another terminal:\n");
        if settings.socket != DaemonSettings::default().socket {
            let _ = writeln!(text, "  export LB_SOCKET={}", settings.socket.display());
        }
        text.push_str(
            "  lb service add web --address 192.0.2.10 --port 80\n  \
             lb backend add web web-1 --address 10.0.0.11:8080\n  \
             lb status\n",
        );
    } else {
        text.push_str("\n`lb status` shows more.\n");
    }
    text.push_str(match settings.on_exit {
        OnExit::Detach => "Ctrl-C stops forwarding and detaches.\n",
        OnExit::Keep => "Ctrl-C stops the daemon; forwarding goes on until `lb detach`.\n",
    });
    text
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        datapath::{Attachment, InterfaceProblem, LinkOperation, XdpMode},
        plan::Target,
        state::{
            desired::Desired,
            effective::{self, HealthView, RemovedBackends},
            testing,
        },
    };

    fn view(desired: Desired) -> ControlView {
        let target: Target = effective::target(&desired, &HealthView::new(), &RemovedBackends::new());
        ControlView {
            desired: Arc::new(desired),
            wanted: Arc::new(target),
            programmed: None,
            failure: None,
            lingering: Vec::new(),
            drain_deadlines: BTreeMap::new(),
            whole_at: BTreeMap::new(),
            last_apply_ok: true,
            applied: None,
            refused: None,
        }
    }

    #[test]
    fn banner_shows_the_state_and_the_next_commands() {
        let interface = |name: &str, attached| Interface {
            configured: name.to_owned(),
            name: name.to_owned(),
            altnames: Vec::new(),
            slot: 0,
            operation: LinkOperation::Up,
            attached,
            absence: None,
            repairs: 0,
        };
        let attached = Attachment {
            ifindex: 2,
            xdp_mode: XdpMode::Generic,
            program_id: 7,
            program_tag: String::new(),
            link_id: 8,
            took_over: false,
            note: Some("the driver has no native XDP".into()),
        };
        let late = Interface {
            absence: Some(InterfaceProblem {
                message: "is missing".to_owned(),
                hint: None,
            }),
            ..interface("late0", None)
        };
        let interfaces = [interface("eth0", Some(attached)), late];
        let text_of = |settings: &DaemonSettings, desired| {
            text(settings, &interfaces, &BTreeMap::new(), &view(desired), &[])
        };
        let empty = text_of(&DaemonSettings::default(), Desired::default());
        for part in [
            "eth0       XDP generic",
            "no native XDP",
            "late0      is missing",
            "http://127.0.0.1:9900/metrics",
            "  lb service add ",
            "  lb backend add ",
        ] {
            assert!(empty.contains(part), "{part} is missing in:\n{empty}");
        }
        assert!(
            empty.lines().count() <= 16 && !empty.contains("LB_SOCKET"),
            "{empty}"
        );

        let elsewhere = DaemonSettings {
            socket: "/tmp/lb.sock".into(),
            ..DaemonSettings::default()
        };
        assert!(text_of(&elsewhere, Desired::default()).contains("export LB_SOCKET=/tmp/lb.sock"));
        let none = text(
            &DaemonSettings::default(),
            &[],
            &BTreeMap::new(),
            &view(Desired::default()),
            &[],
        );
        assert!(
            none.contains("forwards nothing") && none.contains("`interfaces` in [lb]"),
            "{none}"
        );
        let full = text_of(
            &elsewhere,
            testing::desired([testing::service("web", 1, &[("a", 1)])]),
        );
        assert!(
            full.contains("1 service, 1 backend") && !full.contains("service add"),
            "{full}"
        );
    }
}
