//! The page about all runs: each figure that is to be reached in a table, with what the last runs measured of it.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    runs::RUNS,
    targets::{BESIDE_OTHERS, PROMISED, Target},
};

/// Results by the names of their runs.
type Results = BTreeMap<&'static str, Value>;

/// Writes `index.md` into a directory with the files of runs.
///
/// # Errors
/// When a file there is no result, or the page cannot be written.
pub(crate) fn write(dir: &Path) -> Result<()> {
    let mut results = Results::new();
    for run in RUNS {
        let path = dir.join(format!("{}.json", run.name));
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let result = serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?;
        results.insert(run.name, result);
    }
    let path = dir.join("index.md");
    fs::write(&path, page(&results)).with_context(|| format!("write {}", path.display()))
}

fn page(results: &Results) -> String {
    let mut text = String::from(
        "# Benchmarks by name: `cargo xtask bench all`\n\nEach command runs one of them and writes its page, its plots and its figures as \
         JSON. `cargo xtask bench all` runs all of them and writes this page. Peers come from Debian's packages.\n\n| command | shows |\n\
         |---|---|\n",
    );
    // Writing to a string cannot fail.
    for run in RUNS {
        let about = results.get(run.name).map_or("", |_| run.shows);
        if about.is_empty() {
            let _ = writeln!(
                text,
                "| `cargo xtask bench {}` | {} (not run yet) |",
                run.name, run.shows
            );
        } else {
            let _ = writeln!(
                text,
                "| [`cargo xtask bench {}`]({}.md) | {about} |",
                run.name, run.name
            );
        }
    }
    let machines = results.values().filter_map(|result| machine(&result["machine"]));
    let machines: std::collections::BTreeSet<String> = machines.collect();
    if !machines.is_empty() {
        let machines: Vec<_> = machines.into_iter().collect();
        let _ = writeln!(text, "\nMeasured on {}.", machines.join("; on "));
    }
    text.push_str(
        "\nIn the tables, the ratio of a mode is that to plain forwarding over the same machines, or to the best of the peers, in the same \
         turn; what misses is named.\n",
    );
    for (title, targets) in [
        ("Beside other ways to forward", BESIDE_OTHERS),
        ("What other documents promise of balancers", PROMISED),
    ] {
        let _ = writeln!(
            text,
            "\n## {title}\n\n| what | theirs | peers here | ours | to reach | reached | by |\n|---|---|---|---|---|---|---|"
        );
        for target in targets {
            text.push_str(&row(target, results));
        }
    }
    text
}

fn machine(machine: &Value) -> Option<String> {
    Some(format!(
        "{} x {}, Linux {}, {}",
        machine["cpus"],
        machine["cpu"].as_str()?,
        machine["kernel"].as_str()?,
        machine["system"].as_str()?
    ))
}

fn row(target: &Target, results: &Results) -> String {
    let Target {
        name,
        what,
        theirs,
        goal,
        of_health,
    } = target;
    if let Some((ours, reached)) = of_health {
        return format!(
            "| {what} | {theirs} |  | {ours} | {goal} | {reached} | `cargo xtask bench health`, [figures](../benchmarks-health.md) |\n"
        );
    }
    let of_run = |(run, result): (&&'static str, &Value)| {
        let figures = result["figures"].as_array()?;
        let figure = figures.iter().find(|figure| figure["target"] == *name)?;
        Some((*run, figure.clone()))
    };
    let Some((run, figure)) = results.iter().find_map(of_run) else {
        return format!("| {what} | {theirs} |  | not measured | {goal} |  |  |\n");
    };
    let text = |key: &str| figure[key].as_str().unwrap_or_default().to_owned();
    let reached = match figure["met"].as_bool() {
        Some(true) => "yes",
        Some(false) => "no",
        None => "",
    };
    let note = text("note");
    let reached = [reached, &note].into_iter().filter(|part| !part.is_empty());
    format!(
        "| {what} | {theirs} | {} | {} | {goal} | {} | [{run}]({run}.md) |\n",
        text("peers"),
        text("ours"),
        reached.collect::<Vec<_>>().join(": ")
    )
}
