//! Debian packages for building: finds missing ones, asks before installing, installs. Programs for tests, demo and
//! benchmarks are never installed: see `archive.rs` and `bundle.rs`.

use std::{
    io::{self, IsTerminal, Write},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    progress, workspace,
    workspace::{cache_dir, is_root},
};

/// Tries of an apt command that fails, which mirrors and locks do now and then.
const TRIES: u32 = 4;
/// Pause before the second try; doubled for each one after it.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// Seconds apt waits for another apt or dpkg to end.
const LOCK_TIMEOUT_SECS: u32 = 300;

/// Whether this machine has Debian's package tools.
pub(crate) fn is_debian() -> bool {
    Path::new("/etc/debian_version").exists() && workspace::find_program("apt-get").is_some()
}

/// The packages that are not installed.
pub(crate) fn missing<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    let known = Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Abbrev} ${Package}\n"])
        .args(packages)
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    packages
        .iter()
        .copied()
        .filter(|package| !installed(&known, package))
        .collect()
}

/// Whether the package is installed by dpkg-query's list: `ii`, with a possible third letter for an error.
fn installed(list: &str, package: &str) -> bool {
    list.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some("ii") && words.next() == Some(package)
    })
}

/// Asks for consent to install `packages`. Root and `yes` need none; without a terminal the answer is no.
///
/// # Errors
/// When the answer is no.
pub(crate) fn ask(packages: &[&str], yes: bool) -> Result<()> {
    if yes || is_root() {
        return Ok(());
    }
    let list = packages.join(" ");
    let by_hand = format!("install them yourself (`sudo apt-get install {list}`) or call again with --yes");
    if !io::stdin().is_terminal() {
        bail!("missing packages: {list}: {by_hand}");
    }
    eprint!("Install with sudo apt-get: {list}? [Y/n] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    match answer.trim() {
        "" | "y" | "Y" | "yes" => Ok(()),
        _ => bail!("not installed: {list}: {by_hand}"),
    }
}

/// Fetches the lists of packages, since the mirrors may have replaced files. A failure is no error
/// yet: one broken third-party source must not stop an installation that does not need it.
pub(crate) fn update() -> Result<()> {
    if let Err(error) = apt("updating the package lists", "apt-update", &["update"]) {
        eprintln!("warning: {error:#}");
    }
    Ok(())
}

/// Installs packages with their dependencies, and removes none.
///
/// # Errors
/// When apt still fails after several tries.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let mut words = vec!["install", "-y", "--no-install-recommends", "--no-remove"];
    words.extend(packages);
    apt(
        &format!("installing {}", packages.join(" ")),
        "apt-install",
        &words,
    )
}

/// Runs apt-get as root and tries again when it fails.
fn apt(step: &str, log: &str, words: &[&str]) -> Result<()> {
    // Here, where the terminal is still sudo's.
    workspace::ask_for_root()?;
    let log = log_file(log)?;
    let mut pause = FIRST_PAUSE;
    let mut attempt = 1;
    loop {
        let mut command = workspace::root_command("env")?;
        command
            .args(["DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", "apt-get", "-q"])
            .args([
                "-o",
                "Acquire::Retries=3",
                "-o",
                &format!("DPkg::Lock::Timeout={LOCK_TIMEOUT_SECS}"),
            ])
            .args(words);
        match progress::step(step, &log, &mut command) {
            Ok(()) => return Ok(()),
            Err(error) if attempt == TRIES => return Err(error),
            Err(error) => {
                eprintln!(
                    "{error:#}\ntrying again in {} s ({attempt} of {TRIES} tries failed)",
                    pause.as_secs()
                );
            }
        }
        thread::sleep(pause);
        pause *= 2;
        attempt += 1;
    }
}

/// Where the output of a set-up step is kept.
pub(crate) fn log_file(name: &str) -> Result<std::path::PathBuf> {
    let dir = cache_dir()?.join("log");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fully_installed_packages_count() {
        let list = "ii  ethtool\nrc  nginx-light\niU  tcpdump\niiR curl\n";
        let cases = [
            ("ethtool", true),
            ("nginx-light", false),
            ("tcpdump", false),
            ("curl", false),
            ("ip", false),
        ];
        for (package, expected) in cases {
            assert_eq!(installed(list, package), expected, "{package}");
        }
    }
}
