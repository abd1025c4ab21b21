//! The part of the README with the figures that matter most: one table and three plots, from the files of the last runs.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};
use lb_tests::report::samples::Unit;
use serde_json::Value;

/// Between these lines.
const BEGIN: &str = "<!-- figures: cargo xtask bench all -->\n";
const END: &str = "<!-- end of figures -->\n";
/// The run with the figures.
const RUN: &str = "throughput";
/// Runs whose first plots are shown.
const PLOTS: [(&str, &str); 3] = [
    (RUN, "Small requests a second"),
    ("latency", "p99 latency by connections"),
    ("percentiles", "Latency at a fixed rate"),
];
/// Columns of its tables, by their names there, and how they are shown.
const COLUMNS: [(&str, Unit); 6] = [
    ("requests/s", Unit::Count),
    ("of direct", Unit::Ratio),
    ("p99", Unit::Seconds),
    ("connections/s", Unit::Count),
    ("bits/s", Unit::BitsPerSecond),
    ("of direct (bits/s)", Unit::Ratio),
];

/// Writes the part into a file, from the results in a directory.
///
/// # Errors
/// When the file has no place for it, or a result cannot be read.
pub(crate) fn write(readme: &Path, results: &Path) -> Result<()> {
    let read = |path: &Path| fs::read_to_string(path).with_context(|| format!("read {}", path.display()));
    let text = read(readme)?;
    let path = results.join(format!("{RUN}.json"));
    let result = serde_json::from_str(&read(&path)?).with_context(|| format!("read {}", path.display()))?;
    let root = readme.parent().unwrap_or(Path::new(""));
    let link = results
        .strip_prefix(root)
        .unwrap_or(results)
        .display()
        .to_string();
    let (before, rest) = text
        .split_once(BEGIN)
        .with_context(|| format!("no line {:?} in {}", BEGIN.trim(), readme.display()))?;
    let (_, after) = rest
        .split_once(END)
        .with_context(|| format!("no line {:?} in {}", END.trim(), readme.display()))?;
    let text = format!("{before}{BEGIN}{}{END}{after}", part(&result, &link));
    fs::write(readme, text).with_context(|| format!("write {}", readme.display()))
}

fn part(result: &Value, link: &str) -> String {
    let machine = &result["machine"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut part = format!(
        "\n## How fast it is\n\nA client, the balancer and two nginx in namespaces of one machine ({} x {}, Linux {}), by `cargo xtask bench {RUN}`: medians of {} \
         turns, in which all ways alternate. `cargo xtask bench all` measures this and [more]({link}/index.md) on your machine.\n\n| way |",
        machine["cpus"],
        text(&machine["cpu"]),
        text(&machine["kernel"]),
        result["turns"]
    );
    // Writing to a string cannot fail.
    for (column, _) in COLUMNS {
        let _ = write!(part, " {column} |");
    }
    let _ = write!(part, "\n|---|{}\n", "---|".repeat(COLUMNS.len()));
    let tables = result["tables"].as_array().cloned().unwrap_or_default();
    let rows = |table: &Value| table["rows"].as_array().cloned().unwrap_or_default();
    for row in tables.first().map(rows).unwrap_or_default() {
        let name = text(&row["name"]);
        let _ = write!(part, "| {name} |");
        // Later tables have columns of the same names about other things: the first one counts.
        let same = tables
            .iter()
            .flat_map(rows)
            .filter(|row| row["name"] == name.as_str());
        let same: Vec<Value> = same.collect();
        for (column, unit) in COLUMNS {
            let median = same
                .iter()
                .find_map(|row| row["cells"][column]["median"].as_f64());
            let _ = write!(
                part,
                " {} |",
                median.map_or_else(String::new, |median| unit.show(median))
            );
        }
        part.push('\n');
    }
    // On lines of one paragraph, for the page stays short.
    part.push('\n');
    for (run, title) in PLOTS {
        let _ = writeln!(part, "![{title}]({link}/{run}.svg)");
    }
    part.push('\n');
    part
}
