//! `cargo xtask tidy`: rules of the code that no compiler checks. ARCHITECTURE.md says why each is there.

mod alerts;
mod finding;
mod links;
mod maps;
mod reasons;
mod rules;
mod unsafety;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use self::finding::{Finding, Source};
use crate::{graph, workspace::Workspace};

/// Options of `cargo xtask tidy`.
#[derive(clap::Args)]
pub(crate) struct Options {}

/// Runs `cargo xtask tidy`.
pub(crate) fn command(workspace: &Workspace, Options {}: &Options) -> Result<()> {
    check(workspace)
}

/// Writes the files that rules compare with the code.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn write(workspace: &Workspace) -> Result<()> {
    let path = workspace.root.join(reasons::PATH);
    fs::write(&path, reasons::document()).with_context(|| format!("cannot write {}", path.display()))
}

/// Checks every rule.
///
/// # Errors
/// With every broken rule.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let sources = sources(&workspace.root)?;
    let mut findings: Vec<Finding> = sources.iter().flat_map(rules::check).collect();
    findings.extend(links::check(&workspace.root, &sources));
    findings.extend(maps::check(&sources));
    findings.extend(reasons::check(&sources));
    findings.extend(alerts::check(&sources));
    findings.extend(unsafety::check(&sources));
    let crates = sources
        .iter()
        .filter_map(|source| source.path.strip_suffix("/Cargo.toml"));
    graph::check(workspace, crates)?;
    if findings.is_empty() {
        println!("{} files, no rule broken", sources.len());
        println!("{}", unsafety::report(&sources));
        return Ok(());
    }
    let list: Vec<String> = findings.iter().map(ToString::to_string).collect();
    bail!("{} broken rules\n{}", findings.len(), list.join("\n"));
}

/// Every text of the checkout that people write, sorted by path.
fn sources(root: &Path) -> Result<Vec<Source>> {
    let mut files = Vec::new();
    walk(root, &mut files)?;
    files.sort();
    let mut sources = Vec::new();
    for file in files {
        let path = file.strip_prefix(root)?.to_string_lossy().into_owned();
        // Licences and the lock file are not ours; files that are not UTF-8 are no text.
        if path.starts_with("LICENSE") || path == "Cargo.lock" {
            continue;
        }
        let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        if let Ok(text) = String::from_utf8(bytes) {
            sources.push(Source { path, text });
        }
    }
    Ok(sources)
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        let kind = entry.file_type()?;
        if name == "target" || name == ".git" {
            continue;
        }
        if kind.is_dir() {
            walk(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}
