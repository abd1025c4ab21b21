//! The benchmarks by name, each in its quick form: that they work and that their counts are right. How fast anything is decides nothing
//! here.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use lb_tests::{netns::checked, scratch::Scratch};
use serde_json::Value;

/// The runs that have a test here.
const TESTED: [&str; 11] = [
    "cold-start",
    "connections",
    "distribution",
    "endpoint",
    "failover",
    "latency",
    "memory",
    "percentiles",
    "pooling",
    "soak",
    "throughput",
];

#[test]
fn cold_start() -> Result<()> {
    quick("cold-start")
}

#[test]
fn connections() -> Result<()> {
    quick("connections")
}

#[test]
fn distribution() -> Result<()> {
    quick("distribution")
}

#[test]
fn endpoint() -> Result<()> {
    quick("endpoint")
}

#[test]
fn failover() -> Result<()> {
    quick("failover")
}

#[test]
fn soak() -> Result<()> {
    quick("soak")
}

#[test]
fn pooling() -> Result<()> {
    quick("pooling")
}

#[test]
fn memory() -> Result<()> {
    quick("memory")
}

#[test]
fn latency() -> Result<()> {
    quick("latency")
}

#[test]
fn percentiles() -> Result<()> {
    quick("percentiles")
}

#[test]
fn throughput() -> Result<()> {
    quick("throughput")
}

#[test]
fn each_run_has_a_test_here() -> Result<()> {
    let names = checked(proof().arg("list"))?;
    let names: BTreeSet<&str> = names.lines().collect();
    ensure!(
        names == TESTED.into(),
        "runs are {names:?}, those tested {TESTED:?}"
    );
    Ok(())
}

fn proof() -> Command {
    Command::new(env!("CARGO_BIN_EXE_proof"))
}

/// Runs one, and reads what it wrote.
fn quick(name: &str) -> Result<()> {
    let out = Scratch::new()?;
    let command = format!("cargo xtask bench {name} --quick");
    checked(
        proof()
            .args(["run", name, "--quick", "--command", &command, "--out"])
            .arg(out.path()),
    )?;
    check(&read(&out.join(&format!("{name}.json")))?, &out)?;
    checked(proof().arg("index").arg(out.path()))?;
    let index = fs::read_to_string(out.join("index.md"))?;
    ensure!(
        index.contains(&format!("({name}.md)")),
        "not in the index: {index}"
    );
    if name == "throughput" {
        readme_shows(&out)?;
    }
    Ok(())
}

/// The README has a place for these results, and gets them.
fn readme_shows(out: &Scratch) -> Result<()> {
    let readme = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"))?;
    let readme = out.write("README.md", readme)?;
    let mut index = proof();
    index.arg("index").arg(out.path());
    checked(index.arg("--readme").arg(&readme))?;
    let text = fs::read_to_string(&readme)?;
    ensure!(text.contains("\n| lb `nat` | "), "no figures: {text}");
    Ok(())
}

fn read(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Ok(serde_json::from_str(&text)?)
}

/// Every row has values, all of them numbers; every check held; every plot is there.
fn check(result: &Value, out: &Scratch) -> Result<()> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let tables = list(&result["tables"]);
    ensure!(!tables.is_empty(), "no table: {result}");
    for table in tables {
        let rows = list(&table["rows"]);
        ensure!(!rows.is_empty(), "no row: {table}");
        for row in rows {
            let cells = row["cells"].as_object().context("no cells")?;
            ensure!(!cells.is_empty(), "no value in the row {row}");
            for (column, cell) in cells {
                let turns = list(&cell["turns"]);
                let are_numbers = turns
                    .iter()
                    .all(|value| value.as_f64().is_some_and(f64::is_finite));
                ensure!(!turns.is_empty() && are_numbers, "{column} of {row}");
            }
        }
    }
    let checks = list(&result["checks"]);
    ensure!(!checks.is_empty(), "nothing was checked: {result}");
    ensure!(checks.iter().all(|check| check["error"].is_null()), "{checks:?}");
    for plot in list(&result["plots"]) {
        let path = out.join(plot.as_str().context("no name of a plot")?);
        let text = fs::read_to_string(&path)?;
        ensure!(text.starts_with("<svg"), "{}: {text}", path.display());
    }
    Ok(())
}
