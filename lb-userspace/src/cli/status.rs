//! `lb status`

use clap::Args;

use super::{
    error::{CliError, Exit},
    output::{Context, Output, Watch},
    table::{Align, Cell, Table, Tone, count},
    tables::{draining_lines, service_table},
};
use crate::{
    api::{
        short_list::{self, Entry},
        types::{ConfigState, Problem, Status, XdpMode},
    },
    datapath::left_forwarding,
};

#[derive(Args, Debug)]
pub(super) struct StatusCommand {
    #[command(flatten)]
    watch: Watch,
}

impl StatusCommand {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let client = context.client();
        let fetch = async || {
            let status = client.get::<Status>("/v1/status").await;
            status.map_err(|error| match error.exit {
                Exit::Unreachable => with_left_forwarding(error),
                Exit::Failed
                | Exit::Usage
                | Exit::NotFound
                | Exit::Conflict
                | Exit::TimedOut
                | Exit::Warnings => error,
            })
        };
        context
            .show_watched(self.watch, fetch, |status| text(status, context))
            .await
    }
}

/// Services that forward on which are named.
const LEFT_SERVICES: usize = 8;

/// A daemon that cannot be reached may have left its program forwarding.
fn with_left_forwarding(error: CliError) -> CliError {
    let left = left_forwarding();
    if left.interfaces.is_empty() {
        return error;
    }
    let interfaces = left.interfaces.iter();
    let interfaces: Vec<String> = interfaces
        .map(|(name, mode)| format!("{name} (XDP {})", mode.name()))
        .collect();
    let named = left.services.iter().take(LEFT_SERVICES);
    let mut services: Vec<String> = named.map(ToString::to_string).collect();
    if left.services.len() > LEFT_SERVICES {
        services.push(format!("{} more", left.services.len() - LEFT_SERVICES));
    }
    let services = match services.as_slice() {
        [] => String::new(),
        some => format!(", services {}", some.join(", ")),
    };
    let message = format!(
        "{}\nforwarding goes on without a daemon, as it was last programmed and without health checks: on {}{services}",
        error.message,
        interfaces.join(", ")
    );
    let hint = "`lb run` with the same --pin-dir takes it over; `lb detach` ends it; if a daemon does run, name its \
                socket with --socket or LB_SOCKET";
    CliError { message, ..error }.hint(hint)
}

fn text(status: &Status, context: &Context) -> String {
    let paint = |word: &str, tone: Tone| {
        if context.style.colour {
            tone.paint(word)
        } else {
            word.to_owned()
        }
    };
    let ready = if status.ready {
        paint("ready", Tone::Good)
    } else {
        paint("not ready", Tone::Bad)
    };
    let mut text = format!(
        "lb {}  pid {}  since {}  revision {}  {ready}\n",
        status.version, status.pid, status.started, status.revision
    );
    if let Some(metrics) = &status.metrics {
        text.push_str(&format!("metrics http://{metrics}/metrics\n"));
    }
    text.push_str(&config(&status.config));
    text.push('\n');
    text.push_str(&interfaces(status, context));
    text.push('\n');
    if status.services.is_empty() {
        text.push_str("no services; `lb service add NAME --address IP --port N` adds one\n");
    } else {
        text.push_str(&service_table(&status.services, context));
        let draining = draining_lines(&status.services);
        if !draining.is_empty() {
            text.push_str(&format!("\n{draining}"));
        }
    }
    if context.output == Output::Wide {
        text.push('\n');
        text.push_str(&maps(status, context));
    }
    if !status.problems.is_empty() {
        text.push_str(&format!(
            "\n{}\n{}",
            paint("problems", Tone::Bad),
            problems(&status.problems)
        ));
    }
    text
}

/// The problems, with those of a few backends for each service.
fn problems(problems: &[Problem]) -> String {
    let mut text = String::new();
    for entry in short_list::entries(problems) {
        let problem = match entry {
            Entry::Problem(problem) => problem,
            Entry::More { service, backends } => {
                text.push_str(&format!(
                    "  {service}: {}; `lb backend list {service}` shows all\n",
                    Entry::more(backends)
                ));
                continue;
            }
        };
        let subject = match (&problem.service, &problem.backend) {
            (Some(service), Some(backend)) => format!("{service}/{backend}: "),
            (Some(service), None) => format!("{service}: "),
            (None, _) => String::new(),
        };
        text.push_str(&format!("  {subject}{}\n", problem.message));
        if let Some(hint) = &problem.hint {
            text.push_str(&format!("    hint: {hint}\n"));
        }
    }
    text
}

/// Lines of a difference that are shown; more are counted.
const MAX_LINES: usize = 10;

/// How the running state stands to the configuration file; empty where there is neither file nor difference.
fn config(state: &ConfigState) -> String {
    let ConfigState {
        file,
        in_force,
        file_in_force,
        by_command,
        pending,
    } = state;
    let mut text = match file {
        Some(file) if *in_force || *file_in_force => format!("config  {file}, in force\n"),
        Some(file) => format!("config  {file}, not all of it is in force\n"),
        None => String::new(),
    };
    let mut list = |title: &str, lines: &[String]| {
        if lines.is_empty() {
            return;
        }
        text.push_str(&format!("  {title}:\n"));
        for line in lines.iter().take(MAX_LINES) {
            text.push_str(&format!("    {line}\n"));
        }
        if let Some(more) = lines.len().checked_sub(MAX_LINES).filter(|more| *more > 0) {
            text.push_str(&format!("    and {more} more\n"));
        }
    };
    // Of a file that lacks services, such as the one of the package, nothing is wrong.
    let title = if *file_in_force {
        "beside it, services made by command, which restarts keep; there is nothing to do"
    } else {
        "the running state differs from the file by changes made by command, which restarts keep"
    };
    list(title, by_command);
    list(
        "the file has changed since it was applied; a reload or restart would change",
        pending,
    );
    text
}

fn interfaces(status: &Status, context: &Context) -> String {
    let ends_tunnels = status
        .interfaces
        .iter()
        .any(|interface| interface.tunnels_ended > 0);
    let mut columns = vec![
        ("INTERFACE", Align::Left),
        ("XDP MODE", Align::Left),
        ("PROGRAM", Align::Right),
        ("PACKETS", Align::Right),
        ("DROPPED", Align::Right),
    ];
    columns.extend(ends_tunnels.then_some(("FROM TUNNELS", Align::Right)));
    columns.push(("NOTE", Align::Left));
    let mut table = Table::new(&columns);
    for interface in &status.interfaces {
        let mode = match interface.xdp_mode {
            XdpMode::Native => Cell::new("native", Tone::Good),
            XdpMode::Generic => Cell::new("generic", Tone::Notice),
            XdpMode::None => Cell::new("none", Tone::Bad),
        };
        let mut row = vec![
            interface.name.as_str().into(),
            mode,
            match interface.program_id {
                0 => "-".into(),
                id => id.to_string().into(),
            },
            count(interface.packets).into(),
            count(interface.dropped).into(),
        ];
        row.extend(ends_tunnels.then(|| count(interface.tunnels_ended).into()));
        row.push(interface.note.clone().unwrap_or_default().into());
        table.row(row);
    }
    table.render(context.style)
}

fn maps(status: &Status, context: &Context) -> String {
    let mut table = Table::new(&[
        ("MAP", Align::Left),
        ("ENTRIES", Align::Right),
        ("CAPACITY", Align::Right),
    ]);
    for map in &status.maps {
        table.row([
            Cell::from(map.name.as_str()),
            count(map.entries).into(),
            count(map.capacity).into(),
        ]);
    }
    table.render(context.style)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(service: &str, backend: Option<String>, message: &str) -> Problem {
        Problem {
            service: Some(service.to_owned()),
            backend,
            message: message.to_owned(),
            hint: None,
        }
    }

    /// Who installs the package never wrote its file, and makes services by command.
    #[test]
    fn services_made_by_command_are_no_fault_of_the_file_and_a_real_difference_is_named() {
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        let state = |file_in_force, by_command: &[&str], pending: &[&str]| {
            config(&ConfigState {
                file: Some("lb.toml".to_owned()),
                in_force: false,
                file_in_force,
                by_command: lines(by_command),
                pending: lines(pending),
            })
        };
        assert_eq!(
            state(true, &["+ service web: port 80"], &[]),
            "config  lb.toml, in force\n  beside it, services made by command, which restarts keep; there is nothing to do:\n    \
             + service web: port 80\n"
        );
        for (by_command, pending) in [
            (&["~ backend web/a: weight 1 -> 2"][..], &[][..]),
            (&[], &["+ service dns: port 53"]),
        ] {
            let text = state(false, by_command, pending);
            assert!(text.contains("lb.toml, not all of it is in force"), "{text}");
            assert!(!text.contains("nothing to do"), "{text}");
        }
    }

    /// With a rack down, the lines about other services must not scroll away.
    #[test]
    fn many_backends_that_are_down_are_a_few_lines() {
        let mut all = vec![problem("web", None, "no backend takes new flows")];
        let down = (0..500).map(|i| problem("web", Some(format!("b{i}")), "down: no answer"));
        all.extend(down);
        all.insert(
            2,
            problem("web", Some("b0".into()), "its certificate expires in 3 days"),
        );
        all.push(problem("dns", Some("a".into()), "down: refused"));
        assert_eq!(
            problems(&all).lines().collect::<Vec<_>>(),
            [
                "  web: no backend takes new flows",
                "  web/b0: down: no answer",
                "  web/b0: its certificate expires in 3 days",
                "  web/b1: down: no answer",
                "  web/b2: down: no answer",
                "  web: 497 more backends have problems; `lb backend list web` shows all",
                "  dns/a: down: refused",
            ]
        );
    }
}
