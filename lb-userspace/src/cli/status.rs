//! `lb status`

use std::collections::BTreeSet;

use clap::Args;

use super::{
    client::Client,
    error::{CliError, Exit},
    filter::{Filter, FilterOptions},
    left::with_left_forwarding,
    local_time::with_age,
    output::{Context, Output, Watch},
    table::{self, Cell, Table, Tone, count, name, number, sentence},
    tables::{draining_lines, service_table},
};
use crate::api::{
    short_list::{self, Entry},
    types::{ConfigState, Problem, Service, Status, XdpMode},
};

#[derive(Args, Debug)]
pub(super) struct StatusCommand {
    #[command(flatten)]
    filter: FilterOptions,
    #[command(flatten)]
    watch: Watch,
}

impl StatusCommand {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let client = context.client();
        let filter = self.filter.services()?;
        let leaves_out = self.filter.leaves_out();
        let fetch = async || {
            let status = client.get::<Status>("/v1/status").await;
            status.map(|status| narrowed(status, &filter, leaves_out))
        };
        let table = |status: &Status| {
            let names = status.services.iter().map(|service| service.name.clone());
            context.names_or(names, || text(status, leaves_out, context))
        };
        let shown = context.show_watched(self.watch, fetch, table).await;
        shown.map_err(|error| {
            // The programs of this machine say nothing about a daemon elsewhere.
            let may_have_left = error.exit == Exit::Unreachable && matches!(client, Client::Socket(_));
            if may_have_left {
                with_left_forwarding(error, context)
            } else {
                error
            }
        })
    }
}

/// The status with the services that a filter shows, and the problems of these and of the daemon.
fn narrowed(mut status: Status, filter: &Filter<Service>, leaves_out: bool) -> Status {
    filter.apply(&mut status.services);
    if leaves_out {
        let names: BTreeSet<&str> = status
            .services
            .iter()
            .map(|service| service.name.as_str())
            .collect();
        let is_shown = |problem: &Problem| {
            let service = problem.service.as_deref();
            service.is_none_or(|service| names.contains(service))
        };
        status.problems.retain(is_shown);
    }
    status
}

fn text(status: &Status, is_narrowed: bool, context: &Context) -> String {
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
    let Status {
        version,
        pid,
        revision,
        ..
    } = status;
    let extent = context.style.extent;
    let mut text = if extent.has_ages() {
        let started = with_age(&status.started, extent);
        format!("lb {version}  pid {pid}  revision {revision}  {ready}\nsince   {started}\n")
    } else {
        format!(
            "lb {version}  pid {pid}  since {}  revision {revision}  {ready}\n",
            status.started
        )
    };
    if let Some(metrics) = &status.metrics {
        text.push_str(&format!("metrics http://{metrics}/metrics\n"));
    }
    text.push_str(&extent.fold(&config(&status.config)));
    text.push('\n');
    text.push_str(&interfaces(status, context));
    text.push('\n');
    if status.services.is_empty() && is_narrowed {
        text.push_str("no service that is meant by --down or --selector\n");
    } else if status.services.is_empty() {
        text.push_str("no services; `lb service add NAME --address IP --port N` adds one\n");
    } else {
        text.push_str(&service_table(&status.services, context));
        let draining = draining_lines(&status.services);
        if !draining.is_empty() {
            text.push_str(&format!("\n{}", extent.fold(&draining)));
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
            extent.fold(&problems(&status.problems))
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
        name("INTERFACE", 15),
        table::text("XDP MODE"),
        number("PROGRAM").rank(4),
        number("PACKETS").rank(2),
        number("DROPPED").rank(1),
    ];
    columns.extend(ends_tunnels.then_some(number("FROM TUNNELS").rank(5)));
    columns.push(sentence("NOTE", 16).rank(3));
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
    let mut table = Table::new(&[table::text("MAP"), number("ENTRIES"), number("CAPACITY")]);
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
