//! What `lb run` prints when it forwards: short, and what to type next.

use std::fmt::Write;

use crate::{
    config::{DaemonSettings, daemon::OnExit},
    control::ControlView,
    datapath::AttachedInterface,
};

/// The text for a daemon that has just become ready.
pub(super) fn text(
    settings: &DaemonSettings,
    interfaces: &[AttachedInterface],
    view: &ControlView,
) -> String {
    let mut text = format!("lb {} forwards\n", env!("CARGO_PKG_VERSION"));
    // Writing to a `String` cannot fail.
    for interface in interfaces {
        let took_over = if interface.took_over {
            ", taken over from the last daemon"
        } else {
            ""
        };
        let _ = writeln!(
            text,
            "  {:<10} XDP {}{took_over}",
            interface.name,
            interface.xdp_mode.name()
        );
        if let Some(note) = &interface.note {
            let _ = writeln!(text, "  {:<10} {note}", "");
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
    let _ = writeln!(text, "  {:<10} http://{}/metrics", "metrics", settings.metrics);
    let lb = if settings.socket == DaemonSettings::default().socket {
        "lb".to_owned()
    } else {
        format!("lb --socket {}", settings.socket.display())
    };
    if services == 0 {
        let _ = write!(
            text,
            "\nNo services yet. In another terminal:\n  \
             {lb} service add web --address 192.0.2.10 --port 80\n  \
             {lb} backend add web web-1 --address 10.0.0.11:8080\n  \
             {lb} status\n"
        );
    } else {
        let _ = writeln!(text, "\n`{lb} status` shows more.");
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
