//! The runs of the program `proof`: benchmarks that users know by name, beside what they would use instead.

use std::{env, path::PathBuf};

use anyhow::{Context, Result, bail};

use crate::{
    build::{self, Profile},
    packages,
    workspace::{Workspace, run},
};

/// Runs, a file each.
const RUNS: &str = "tests/src/bin/proof/runs";
/// Where results go, below the checkout.
const RESULTS: &str = "docs/benchmarks";
/// The result that the README shows.
const README_NEEDS: &str = "throughput.json";
/// Where those go that are none to publish, below the build directory.
const TRIALS: &str = "proof";
/// Names what is tried in runs, whose results are not those to publish.
const TRY: &str = "LB_TRY";
/// Runs by the names that other documents have for them.
const ALIASES: [(&str, &str); 4] = [
    ("connection-pooling", "pooling"),
    ("lat-conn", "latency"),
    ("latency-percentiles", "percentiles"),
    ("memory-profile", "memory"),
];

/// How much of the runs.
#[derive(clap::Args)]
pub(crate) struct Scope {
    /// Of runs by name: one turn with tiny counts, in seconds, to see that they work
    #[arg(long)]
    quick: bool,
    /// Of runs by name: only this, such as a mode; can be repeated
    #[arg(long, value_name = "WHAT")]
    only: Vec<String>,
    /// Of runs by name: of the peers only this one, such as haproxy; can be repeated
    #[arg(long, value_name = "PEER")]
    with: Vec<String>,
}

impl Scope {
    /// Whether anything less than whole runs is asked for.
    pub(crate) fn is_part(&self) -> bool {
        self.quick || !self.only.is_empty() || !self.with.is_empty()
    }

    fn arguments(&self) -> Vec<&str> {
        let mut arguments = Vec::new();
        if self.quick {
            arguments.push("--quick");
        }
        arguments.extend(self.only.iter().flat_map(|only| ["--only", only]));
        arguments.extend(self.with.iter().flat_map(|with| ["--with", with]));
        arguments
    }
}

/// The names of all runs.
///
/// # Errors
/// When their directory cannot be read.
pub(crate) fn names(workspace: &Workspace) -> Result<Vec<String>> {
    let mut names = workspace.targets(RUNS)?;
    names.retain(|name| name != "mod");
    names.iter_mut().for_each(|name| *name = name.replace('_', "-"));
    Ok(names)
}

/// The run that a word of the command line names.
pub(crate) fn find<'a>(names: &'a [String], word: &str) -> Option<&'a String> {
    let word = word.replace('_', "-");
    let alias = ALIASES.iter().find(|(alias, _)| *alias == word);
    let word = alias.map_or(word.as_str(), |(_, name)| name);
    names.iter().find(|name| *name == word)
}

/// Measures these runs, one after the other, whatever becomes of each. `lb` is there as shipped.
///
/// # Errors
/// When one could not be built, or some failed, with their names.
pub(crate) fn measure(workspace: &Workspace, names: &[&String], scope: &Scope) -> Result<()> {
    packages::ensure_proxies()?;
    let load_tool = build::load_tool(workspace)?;
    let program = build(workspace)?;
    let out = if scope.is_part() || env::var_os(TRY).is_some() {
        workspace.target.join(TRIALS)
    } else {
        workspace.root.join(RESULTS)
    };
    let mut failed = Vec::new();
    for name in names {
        let arguments = scope.arguments();
        let words: Vec<&str> = [&["cargo xtask bench", name.as_str()], &arguments[..]].concat();
        let mut command = packages::root_command(&program)?;
        command
            .env("LB_BIN", workspace.lb(Profile::Shipped.dir()))
            .env("LB_BENCH_BIN", &load_tool)
            .args(["run", name.as_str(), "--command", &words.join(" "), "--out"])
            .arg(&out)
            .args(arguments);
        if let Err(error) = run(&mut command) {
            eprintln!("{name}: {error:#}");
            failed.push(name.as_str());
        }
    }
    // By the same user as the results.
    let mut index = packages::root_command(&program)?;
    index.arg("index").arg(&out);
    if out.ends_with(RESULTS) && out.join(README_NEEDS).is_file() {
        index.arg("--readme").arg(workspace.root.join("README.md"));
    }
    run(&mut index).context("writing the page about all runs")?;
    println!("results are in {}", out.display());
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Builds the program.
fn build(workspace: &Workspace) -> Result<PathBuf> {
    let profile = Profile::Release.dir();
    run(workspace
        .cargo()
        .args(["build", "--release", "--package", "lb-tests", "--bin", "proof"]))
    .context("building the benchmarks")?;
    Ok(workspace.target.join(profile).join("proof"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_by_their_names_and_by_those_of_other_documents() {
        let names = ["cold-start", "latency"].map(str::to_owned);
        for (word, name) in [
            ("latency", Some("latency")),
            ("lat_conn", Some("latency")),
            ("cold_start", Some("cold-start")),
            ("late", None),
        ] {
            assert_eq!(find(&names, word).map(String::as_str), name, "{word}");
        }
    }
}
