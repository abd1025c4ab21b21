//! `cargo xtask bench`: the benchmarks that there are, or those named.

use anyhow::{Result, bail, ensure};

use crate::{
    build::{self, Profile},
    packages, proof, setup,
    workspace::{Workspace, run},
};

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Benchmarks to run, such as `dataplane`, or `health` for all that begin with it; `all` for those in docs/benchmarks; every one
    /// without this
    names: Vec<String>,
    #[command(flatten)]
    scope: proof::Scope,
    /// Arguments of the benchmarks, such as numbers of flows and beginnings of cases for `dataplane`
    #[arg(last = true)]
    arguments: Vec<String>,
    /// Install packages without asking
    #[arg(long)]
    yes: bool,
}

/// Packages with benchmarks, their directories, and whether these need root.
const SUITES: [(&str, &str, bool); 4] = [
    ("lb-userspace", "lb-userspace/benches", false),
    ("lb-health-core", "lb-userspace/crates/health/benches", false),
    ("lb-health", "lb-userspace/capi/benches", false),
    ("lb-tests", "tests/benches", true),
];

/// The benchmarks that measure others beside us, and need them: of health checks, and of the load tool.
const HEALTH_PEERS: &str = "health_peers";
const LOAD_TOOLS: &str = "load_tools";
/// Stands for all runs of the program `proof`.
const ALL_RUNS: &str = "all";

/// Whether a word of the command line selects a benchmark: by its name, or by the name's first word.
fn is_selected_by(word: &str, name: &str) -> bool {
    let rest = name.strip_prefix(word);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

/// Runs `cargo xtask bench`.
pub(crate) fn command(workspace: &Workspace, options: &Options) -> Result<()> {
    let mut found = Vec::new();
    for (package, dir, root) in SUITES {
        found.extend(
            workspace
                .targets(dir)?
                .into_iter()
                .map(|name| (package, name, root)),
        );
    }
    let runs = proof::names(workspace)?;
    let is_run = |word: &String| word == ALL_RUNS || proof::find(&runs, word).is_some();
    for word in &options.names {
        if !is_run(word) && !found.iter().any(|(_, name, _)| is_selected_by(word, name)) {
            let names = found.iter().map(|(_, name, _)| name).chain(&runs);
            let names: Vec<_> = names.map(String::as_str).collect();
            bail!("no benchmark {word}; there are: {}", names.join(", "));
        }
    }
    let mut wanted: Vec<&String> = runs.iter().collect();
    if !options.names.is_empty() {
        found.retain(|(_, name, _)| options.names.iter().any(|word| is_selected_by(word, name)));
        let is_wanted = |run: &&String| {
            let mut words = options.names.iter();
            words.any(|word| word == ALL_RUNS || proof::find(&runs, word) == Some(*run))
        };
        wanted.retain(is_wanted);
    }
    ensure!(
        found.is_empty() || !options.scope.is_part(),
        "--quick, --only and --with are for these benchmarks: {}",
        runs.join(", ")
    );
    let toolchain = setup::ensure(options.yes)?;
    packages::ensure()?;
    let is_selected = |benchmark| found.iter().any(|(_, name, _)| name == benchmark);
    if is_selected(HEALTH_PEERS) {
        packages::ensure_peers()?;
    }
    if is_selected(LOAD_TOOLS) {
        packages::ensure_load_tools()?;
    }
    build::bpf(workspace, &toolchain)?;
    build::lb(workspace, Profile::Shipped)?;
    let load_tool = is_selected(LOAD_TOOLS).then(|| build::load_tool(workspace));
    let load_tool = load_tool.transpose()?;
    for (package, name, root) in found {
        let mut command = workspace.cargo();
        if root {
            packages::run_as_root(&mut command)?;
        } else {
            packages::in_path(&mut command)?;
        }
        command.env("LB_BIN", workspace.lb(Profile::Shipped.dir()));
        if let Some(load_tool) = &load_tool {
            command.env("LB_BENCH_BIN", load_tool);
        }
        command.args(["bench", "--package", package, "--bench", &name, "--"]);
        run(command.args(&options.arguments))?;
    }
    if wanted.is_empty() {
        return Ok(());
    }
    proof::measure(workspace, &wanted, &options.scope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn word_selects_benchmarks_that_begin_with_it() {
        let cases = [
            ("health", "health", true),
            ("health", "health_peers", true),
            ("health_peers", "health", false),
            ("heal", "health", false),
            ("dataplane", "control", false),
        ];
        for (word, name, expected) in cases {
            assert_eq!(is_selected_by(word, name), expected, "{word} {name}");
        }
    }
}
