//! `lb completions`, and its candidates: words of the configuration, and live names of services, backends and
//! interfaces. The script of a shell calls `lb` with [`VARIABLE`] set, and the command line behind `--`. The name of an
//! option decides its candidates, so that one table serves all commands.

use std::{env, ffi::OsString, fs, path::PathBuf, time::Duration};

use clap::{Arg, Args, Command};
use clap_complete::{
    Shell,
    engine::{ArgValueCandidates, CompletionCandidate},
    env::{CompleteEnv, Shells},
};
use lb_common::reason::Reason;
use serde::de::DeserializeOwned;

use super::{
    client::{Client, DEFAULT_SOCKET},
    error::{CliError, Exit},
    filter::field_names,
    output::print,
};
use crate::{
    api::{
        history::PastRevision,
        types::{FlowGroups, FlowOrder, Service},
    },
    config::{
        daemon::OnExit,
        keys::{Key, Shape},
    },
    datapath::FlowState,
    state::{service::Protocol, words::Word, xdp_mode::XdpModeChoice},
};

/// Set by the script of a shell to the shell's name.
const VARIABLE: &str = "COMPLETE";
/// Time that the daemon has to name services and backends, also on a busy machine: a user waits at the keyboard.
const PATIENCE: Duration = Duration::from_millis(500);
/// Revisions that are offered.
const REVISIONS: usize = 50;
/// Interfaces of this process's network namespace (proc(5)): a mounted /sys may show those of another one.
const INTERFACES: &str = "/proc/self/net/dev";

#[derive(Args, Debug)]
pub(super) struct Completions {
    /// Which shell
    shell: Shell,
}

impl Completions {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let failed = |why: String| CliError::new(Exit::Failed, format!("completions: {why}"));
        let name = self.shell.to_string();
        let shells = Shells::builtins();
        let completer = shells
            .completer(&name)
            .ok_or_else(|| failed(format!("{name} is not supported")))?;
        let mut script = Vec::new();
        completer
            .write_registration(VARIABLE, "lb", "lb", "lb", &mut script)
            .map_err(|error| failed(error.to_string()))?;
        // The name under which completion functions of bash and zsh are looked for.
        print(&String::from_utf8_lossy(&script).replace("_clap_complete_lb", "_lb"))
    }
}

/// Answers a shell and ends the process, where a shell's script has called; `commands` is the whole command line.
pub(super) fn answer_shell(commands: fn() -> Command) {
    CompleteEnv::with_factory(|| with_candidates(commands(), ""))
        .var(VARIABLE)
        .complete();
}

/// `command` and its subcommands; `group` is the name of its parent.
fn with_candidates(command: Command, group: &str) -> Command {
    let name = command.get_name().to_owned();
    let group = group.to_owned();
    let below = name.clone();
    command
        .mut_args(move |arg| match candidates(&arg, &group, &name) {
            Some(candidates) => arg.add(candidates),
            None => arg,
        })
        .mut_subcommands(move |command| with_candidates(command, &below))
}

/// Candidates for the values of an argument; `None` if there are none.
fn candidates(arg: &Arg, group: &str, command: &str) -> Option<ArgValueCandidates> {
    let candidates = match arg.get_id().as_str() {
        "xdp_mode" => words::<XdpModeChoice>(),
        "on_exit" => words::<OnExit>(),
        "interfaces" | "interface" | "iface" => ArgValueCandidates::new(interfaces),
        "what" if command == "explain" => words::<Protocol>(),
        "state" if group == "flows" => words::<FlowState>(),
        "sort" if group == "flows" => words::<FlowOrder>(),
        "by" if group == "flows" => words::<FlowGroups>(),
        "sort" => fields_of(group, |name| name.to_owned())?,
        "selector" => fields_of(group, |name| format!("{name}="))?,
        "revision" | "to" => ArgValueCandidates::new(revisions),
        "service" => ArgValueCandidates::new(services),
        "backend" => ArgValueCandidates::new(backends),
        "reason" => ArgValueCandidates::new(reasons),
        // A new name has no candidates.
        "name" if group == "service" && command != "add" => ArgValueCandidates::new(services),
        "name" if group == "backend" && command != "add" => ArgValueCandidates::new(backends),
        _ => return None,
    };
    Some(candidates)
}

/// Fields of the rows that a command of this group lists: those of services for a command without a group.
fn fields_of(group: &str, word: fn(&str) -> String) -> Option<ArgValueCandidates> {
    let [service, backend] = field_names();
    let names = match group {
        "backend" => backend,
        "service" | "lb" => service,
        _ => return None,
    };
    Some(ArgValueCandidates::new(move || {
        let words = names.iter().map(|name| word(name));
        words.map(CompletionCandidate::new).collect()
    }))
}

/// Candidates for the values of a key; `None` if there are none.
pub(super) fn of_key(key: &Key) -> Option<ArgValueCandidates> {
    let candidate = |word: &&'static str| CompletionCandidate::new(*word);
    match key.value.shape {
        Shape::Word(words) => Some(ArgValueCandidates::new(move || {
            words().iter().map(candidate).collect()
        })),
        Shape::Bool => Some(ArgValueCandidates::new(move || {
            ["true", "false"].iter().map(candidate).collect()
        })),
        Shape::NumberOr(word) => Some(ArgValueCandidates::new(move || vec![candidate(&word)])),
        Shape::Text
        | Shape::Number(..)
        | Shape::Share
        | Shape::Texts(_)
        | Shape::Numbers
        | Shape::OneOrMore
        | Shape::Map
        | Shape::Table(_) => None,
    }
}

fn words<W: Word + Send + Sync>() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let words = W::WORDS.iter();
        words.map(|(_, word)| CompletionCandidate::new(word)).collect()
    })
}

fn reasons() -> Vec<CompletionCandidate> {
    Reason::ALL
        .iter()
        .map(|reason| CompletionCandidate::new(reason.name()))
        .collect()
}

fn interfaces() -> Vec<CompletionCandidate> {
    let text = fs::read_to_string(INTERFACES).unwrap_or_default();
    // Two lines of heads, then `  eth0: 1 2 3`.
    let names = text.lines().skip(2).filter_map(|line| line.split(':').next());
    let mut names: Vec<&str> = names.map(str::trim).collect();
    names.sort_unstable();
    names.into_iter().map(CompletionCandidate::new).collect()
}

fn services() -> Vec<CompletionCandidate> {
    live()
        .iter()
        .map(|service| CompletionCandidate::new(&service.name))
        .collect()
}

/// The latest revisions, each with its first change.
fn revisions() -> Vec<CompletionCandidate> {
    let revisions: Vec<PastRevision> = fetch(&format!("/v1/history?limit={REVISIONS}")).unwrap_or_default();
    let candidate = |revision: &PastRevision| {
        let change = revision.diff.as_ref().and_then(|diff| diff.first());
        let help = format!("{} {}", revision.at, change.map_or("", String::as_str));
        CompletionCandidate::new(revision.revision.to_string()).help(Some(help.into()))
    };
    revisions.iter().map(candidate).collect()
}

/// The backends of the service that the line names; of all services where it names none.
fn backends() -> Vec<CompletionCandidate> {
    let all = live();
    let names: Vec<&str> = all.iter().map(|service| service.name.as_str()).collect();
    let service = service_of(line(), &names);
    let meant = |service_of_all: &&Service| service.as_ref().is_none_or(|name| *name == service_of_all.name);
    let backends = all.iter().filter(meant).flat_map(|service| &service.backends);
    backends
        .filter(|backend| !backend.removed)
        .map(|backend| CompletionCandidate::new(&backend.name))
        .collect()
}

/// The service that a line means: the value of `--service`, or the first of `names` behind the verb of a group.
fn service_of(line: impl Iterator<Item = String>, names: &[&str]) -> Option<String> {
    let words: Vec<String> = line.collect();
    if let Some(named) = option(words.iter().cloned(), "--service") {
        return Some(named);
    }
    let is_group = |word: &String| ["backend", "flows"].contains(&word.as_str());
    let mut behind = words.iter().skip_while(|word| !is_group(word)).skip(2);
    behind.find(|word| names.contains(&word.as_str())).cloned()
}

/// The words on the line that is completed.
fn line() -> impl Iterator<Item = String> {
    let words = env::args_os().skip_while(|word| word != "--").skip(1);
    words.filter_map(|word| word.into_string().ok())
}

/// The value of an option on a line.
fn option(mut line: impl Iterator<Item = String>, name: &str) -> Option<String> {
    while let Some(word) = line.next() {
        match word.strip_prefix(name) {
            Some("") => return line.next(),
            Some(value) if value.starts_with('=') => return Some(value[1..].to_owned()),
            Some(_) | None => {}
        }
    }
    None
}

/// The daemon's services; empty if it does not answer soon.
fn live() -> Vec<Service> {
    fetch("/v1/services").unwrap_or_default()
}

/// What the daemon answers; `None` if it does not answer soon, or is elsewhere.
fn fetch<T: DeserializeOwned>(path: &str) -> Option<T> {
    let is_elsewhere = option(line(), "--api").is_some() || env::var_os("LB_API").is_some();
    if is_elsewhere {
        return None;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    let client = Client::new(socket());
    let answer = async { tokio::time::timeout(PATIENCE, client.get(path)).await };
    runtime.block_on(answer).ok()?.ok()
}

/// The socket of the command line, else of the environment.
fn socket() -> PathBuf {
    let named = option(line(), "--socket").map(OsString::from);
    let named = named.or_else(|| env::var_os("LB_SOCKET"));
    named.unwrap_or_else(|| DEFAULT_SOCKET.into()).into()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    fn offered(line: &str) -> Vec<String> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let last = words.len() - 1;
        let mut command = with_candidates(Cli::command(), "");
        let offered = clap_complete::engine::complete(&mut command, words, last, None).unwrap();
        let values = offered.iter().map(CompletionCandidate::get_value);
        values.map(|value| value.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_shell_is_offered_the_words_that_a_value_may_have() {
        for (line, expected) in [
            ("lb run --xdp-mode ", &["auto", "native", "generic"][..]),
            ("lb run --on-exit ", &["detach", "keep"]),
            (
                "lb service set web --mode ",
                &["nat", "dnat", "l2dsr", "ipip", "gue"],
            ),
            ("lb service add x --on-empty r", &["reject"]),
            ("lb service add x --check t", &["tcp", "tls"]),
            ("lb service add x --check-verify ", &["true", "false"]),
            ("lb monitor --reason no_b", &["no_backend"]),
            ("lb decap --iface l", &["lo"]),
            (
                "lb flows list --state ",
                &["opening", "established", "closing", "closed"],
            ),
            ("lb flows list --sort ", &["age", "idle", "client"]),
            ("lb flows count --by ", &["service", "backend", "client"]),
            ("lb completions b", &["bash"]),
            ("lb -o ", &["table", "wide", "json", "yaml", "name"]),
            ("lb status --color ", &["auto", "always", "never"]),
            ("lb status --sort ", &["name", "packets"]),
            ("lb service list --selector st", &["state="]),
            ("lb backend list --selector heal", &["health="]),
        ] {
            let offered = offered(line);
            for word in expected {
                assert!(offered.iter().any(|value| value == word), "{line}: {offered:?}");
            }
            assert!(
                offered.iter().all(|value| !value.contains('.')),
                "no files: {line}: {offered:?}"
            );
        }
    }

    #[test]
    fn backends_are_those_of_the_service_before() {
        for (line, service) in [
            ("lb backend drain web ", Some("web")),
            ("lb backend drain --deadline 5m dns ", Some("dns")),
            ("lb backend web dns web", Some("dns")),
            ("lb flows list --service=dns --backend ", Some("dns")),
            ("lb monitor --service web --backend ", Some("web")),
            ("lb monitor --backend ", None),
        ] {
            let words = line.split(' ').map(str::to_owned);
            assert_eq!(service_of(words, &["web", "dns"]).as_deref(), service, "{line}");
        }
    }

    #[test]
    fn every_shell_gets_a_script() {
        for shell in <Shell as clap::ValueEnum>::value_variants() {
            Completions { shell: *shell }.execute().unwrap();
        }
    }
}
