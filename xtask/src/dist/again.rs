//! `cargo xtask dist --check`: the release once more, from a fresh clone of its commit and in other surroundings, has the same bytes.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use super::release::{SUMS, empty};
use crate::workspace::{Workspace, cache_dir, output_of, run};

/// What must not get into a release: who builds it, where on earth, in which language.
const SURROUNDINGS: [(&str, &str); 5] = [
    ("USER", "somebody-else"),
    ("LOGNAME", "somebody-else"),
    ("TZ", "Pacific/Chatham"),
    ("LANG", "C.UTF-8"),
    ("LC_ALL", "C.UTF-8"),
];
/// Variables that would make the second build write where the first one did.
const PLACES: [&str; 3] = ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR", "GIT_DIR"];
/// Runs a command with files that others may not read.
const UMASK: &str = "umask 077 && exec \"$@\"";
/// Runs a command as another user, whose files are still ours.
const OTHER_USER: [&str; 4] = ["unshare", "--user", "--map-user=4711", "--map-group=4711"];

/// The commit of the checkout, which a clone can have.
///
/// # Errors
/// When files differ from it.
pub(super) fn commit(workspace: &Workspace) -> Result<String> {
    let changed = output_of(git(workspace).args(["status", "--porcelain"]))
        .context("--check clones the checkout, which must be one of git")?;
    ensure!(
        changed.is_empty(),
        "--check builds the commit again, and these files differ from it: commit them first\n{changed}"
    );
    output_of(git(workspace).args(["rev-parse", "HEAD"])).context("the checkout has no commit")
}

/// Makes the release in `first`, which is that of a commit, again with the same arguments, and compares.
///
/// # Errors
/// When it does not build, or a file differs; both are kept then.
pub(super) fn check(workspace: &Workspace, commit: &str, first: &Path, arguments: &[String]) -> Result<()> {
    let dir = workspace.target.join("dist-again");
    empty(&dir)?;
    let (clone, home) = (dir.join("somewhere-else"), dir.join("another-home"));
    run(Command::new("git")
        .args(["clone", "--quiet", "--no-checkout"])
        .args([&workspace.root, &clone]))?;
    run(Command::new("git")
        .args(["checkout", "--quiet", "--detach", commit])
        .current_dir(&clone))?;
    println!("once more, in {}", clone.display());
    run(&mut build(workspace, &clone, &home, arguments)?)?;
    let second = clone.join("target/dist");
    let differing = compare(&sums(first)?, &sums(&second)?);
    if !differing.is_empty() {
        bail!(
            "these files differ between {} and {}:\n{}",
            first.display(),
            second.display(),
            differing.join("\n")
        );
    }
    fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    println!("the same bytes: another directory, home, user, time zone and umask change nothing");
    Ok(())
}

fn git(workspace: &Workspace) -> Command {
    let mut git = Command::new("git");
    git.current_dir(&workspace.root);
    git
}

/// The command that makes the release in the clone.
fn build(workspace: &Workspace, clone: &Path, home: &Path, arguments: &[String]) -> Result<Command> {
    let cargo = workspace.cargo();
    let mut words: Vec<&OsStr> = Vec::new();
    if output_of(Command::new(OTHER_USER[0]).args(&OTHER_USER[1..]).arg("true")).is_some() {
        words.extend(OTHER_USER.map(OsStr::new));
    }
    words.extend(["sh", "-c", UMASK, "sh"].map(OsStr::new));
    words.push(cargo.get_program());
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .args(["xtask", "dist"])
        .args(arguments)
        .current_dir(clone)
        .envs(SURROUNDINGS)
        .env("HOME", home)
        // Tools that set-up has fetched are the same for both.
        .env("XDG_CACHE_HOME", cache_dir()?.parent().context("no cache")?);
    for (variable, set) in cargo.get_envs() {
        if set.is_none() {
            command.env_remove(variable);
        }
    }
    for variable in PLACES {
        command.env_remove(variable);
    }
    // Crates and compilers are the same, too, by another path.
    fs::create_dir_all(home).with_context(|| format!("cannot create {}", home.display()))?;
    for (variable, usual) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
        let own = env::var_os(variable).map(PathBuf::from);
        let own = own.or_else(|| Some(Path::new(&env::var_os("HOME")?).join(usual)));
        if let Some(own) = own.filter(|own| own.is_dir()) {
            let link = home.join(usual);
            symlink(&own, &link).with_context(|| format!("cannot create {}", link.display()))?;
            command.env(variable, link);
        }
    }
    Ok(command)
}

/// Checksums by file.
fn sums(dir: &Path) -> Result<BTreeMap<String, String>> {
    let path = dir.join(SUMS);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines = text.lines().filter_map(|line| line.split_once("  "));
    Ok(lines
        .map(|(sum, name)| (name.to_owned(), sum.to_owned()))
        .collect())
}

/// Files that are not the same, or not in both.
fn compare(first: &BTreeMap<String, String>, second: &BTreeMap<String, String>) -> Vec<String> {
    let names = first
        .keys()
        .chain(second.keys().filter(|name| !first.contains_key(*name)));
    names
        .filter(|name| first.get(*name) != second.get(*name))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_differ_or_are_missing_are_named() {
        let release = |files: &[(&str, &str)]| {
            let pairs = files
                .iter()
                .map(|(name, sum)| ((*name).to_owned(), (*sum).to_owned()));
            pairs.collect::<BTreeMap<_, _>>()
        };
        let first = release(&[("lb.deb", "1"), ("lb.rpm", "2"), ("lb.tar", "3")]);
        assert!(compare(&first, &first).is_empty());
        let second = release(&[("lb.deb", "1"), ("lb.rpm", "4"), ("new", "5")]);
        assert_eq!(compare(&first, &second), ["lb.rpm", "lb.tar", "new"]);
    }
}
