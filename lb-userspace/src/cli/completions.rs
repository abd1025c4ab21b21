//! `lb completions`, and its candidates: words of the configuration, and live names of services, backends and
//! interfaces. The script of a shell calls `lb` with [`VARIABLE`] set, and the command line behind `--`. The name of an
//! option decides its candidates, so that one table serves all commands.

use std::{env, ffi::OsString, fs, io, path::PathBuf, time::Duration};

use clap::{Arg, Args, Command};
use clap_complete::{
    Shell,
    engine::{ArgValueCandidates, CompletionCandidate},
    env::{CompleteEnv, Shells},
};
use lb_common::reason::Reason;

use super::{
    client::{Client, DEFAULT_SOCKET},
    error::{CliError, Exit},
    output::print,
};
use crate::{
    api::types::{FlowGroups, FlowOrder, Service},
    config::{
        daemon::OnExit,
        keys::{Key, Shape},
    },
    datapath::FlowState,
    state::{service::Protocol, words::Word, xdp_mode::XdpModeChoice},
};

/// Set by the script of a shell to the shell's name.
const VARIABLE: &str = "COMPLETE";
/// Time that the daemon has to name services and backends: a user waits at the keyboard.
const PATIENCE: Duration = Duration::from_millis(500);
/// Interfaces of this network namespace (sysfs).
const INTERFACES: &str = "/sys/class/net";

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
    let entries = fs::read_dir(INTERFACES).into_iter().flatten();
    let mut names: Vec<OsString> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .collect();
    names.sort_unstable();
    names.into_iter().map(CompletionCandidate::new).collect()
}

fn services() -> Vec<CompletionCandidate> {
    live()
        .iter()
        .map(|service| CompletionCandidate::new(&service.name))
        .collect()
}

/// The backends of the service that the line names; of all services where it names none.
fn backends() -> Vec<CompletionCandidate> {
    let line: Vec<String> = line().collect();
    let all = live();
    let named = |service: &&Service| line.contains(&service.name);
    let of_line: Vec<_> = all.iter().filter(named).collect();
    let services = if of_line.is_empty() {
        all.iter().collect()
    } else {
        of_line
    };
    let backends = services.into_iter().flat_map(|service| &service.backends);
    backends
        .filter(|backend| !backend.removed)
        .map(|backend| CompletionCandidate::new(&backend.name))
        .collect()
}

/// The words on the line that is completed.
fn line() -> impl Iterator<Item = String> {
    let words = env::args_os().skip_while(|word| word != "--").skip(1);
    words.filter_map(|word| word.into_string().ok())
}

/// The daemon's services; empty if it does not answer soon.
fn live() -> Vec<Service> {
    let fetch = || -> io::Result<Vec<Service>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let client = Client::new(socket());
        runtime.block_on(async {
            let fetched = tokio::time::timeout(PATIENCE, client.get("/v1/services")).await?;
            fetched.map_err(io::Error::other)
        })
    };
    fetch().unwrap_or_default()
}

/// The socket of the command line, else of the environment.
fn socket() -> PathBuf {
    let mut words = line();
    while let Some(word) = words.next() {
        match word.strip_prefix("--socket") {
            Some("") => return words.next().unwrap_or_default().into(),
            Some(path) if path.starts_with('=') => return path.trim_start_matches('=').into(),
            Some(_) | None => {}
        }
    }
    env::var_os("LB_SOCKET")
        .unwrap_or_else(|| DEFAULT_SOCKET.into())
        .into()
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
    fn every_shell_gets_a_script() {
        for shell in <Shell as clap::ValueEnum>::value_variants() {
            Completions { shell: *shell }.execute().unwrap();
        }
    }
}
