//! The `lb` command line as a user runs it.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::netns::{Netns, checked};

/// The binary under test: `LB_BIN`, else `release/lb` of the target directory this test was built in.
///
/// # Errors
/// When it is not there.
pub fn lb_binary() -> Result<PathBuf> {
    let path = match std::env::var_os("LB_BIN") {
        Some(path) => PathBuf::from(path),
        None => target_dir()?.join("release/lb"),
    };
    ensure!(
        path.exists(),
        "no lb binary at {}: build it with `cargo xtask build`, or set LB_BIN",
        path.display()
    );
    Ok(path)
}

/// Writes [`lb_binary`] with another version to `path`: it loads a program of its own, for the names of pins are derived from the version.
///
/// # Errors
/// When it cannot be made.
pub fn binary_of_other_version(path: &Path) -> Result<PathBuf> {
    const VERSION: &[u8] = env!("CARGO_PKG_VERSION").as_bytes();
    let other: Vec<u8> = [&VERSION[..VERSION.len() - 1], b"9"].concat();
    let mut binary = fs::read(lb_binary()?)?;
    let mut at = 0;
    while let Some(found) = binary[at..]
        .windows(VERSION.len())
        .position(|bytes| bytes == VERSION)
    {
        at += found;
        binary[at..at + VERSION.len()].copy_from_slice(&other);
    }
    fs::write(path, binary)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))?;
    let version = checked(Command::new(path).arg("--version"))?;
    ensure!(
        version
            .as_bytes()
            .windows(other.len())
            .any(|bytes| bytes == other),
        "{version}"
    );
    Ok(path.to_owned())
}

/// The target directory that this program lies in.
///
/// # Errors
/// When it lies in none.
pub fn target_dir() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    // Cargo marks its target directories.
    let target = program.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists());
    Ok(target
        .context("this program is in no cargo target directory")?
        .to_owned())
}

/// Output and exit of a command.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs commands against one daemon.
pub struct LbCli {
    ns: Netns,
    socket: PathBuf,
    wrapper: Vec<String>,
}

impl LbCli {
    /// For the daemon behind `socket`.
    pub fn new(ns: &Netns, socket: &Path) -> Self {
        Self {
            ns: ns.clone(),
            socket: socket.to_owned(),
            wrapper: Vec::new(),
        }
    }

    /// Runs commands as this user with these groups, the first of which is the primary one.
    #[must_use]
    pub fn run_by(mut self, user: u32, groups: &[u32]) -> Self {
        let group = groups.first().copied().unwrap_or(user);
        let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
        self.wrapper = vec![
            "setpriv".to_owned(),
            format!("--reuid={user}"),
            format!("--regid={group}"),
            format!("--groups={}", groups.join(",")),
        ];
        self
    }

    /// Runs `lb` with these arguments, with any result.
    ///
    /// # Errors
    /// When it cannot start.
    pub fn run(&self, args: &[&str]) -> Result<Outcome> {
        let mut command = match self.wrapper.split_first() {
            Some((program, words)) => {
                let mut command = self.ns.command(program);
                command.args(words).arg(lb_binary()?);
                command
            }
            None => self.ns.command(lb_binary()?),
        };
        command
            .env("LB_SOCKET", &self.socket)
            .env("NO_COLOR", "1")
            .args(args);
        let output = command.output().with_context(|| format!("run lb {args:?}"))?;
        Ok(Outcome {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs a command line that must succeed, words separated by spaces.
    ///
    /// # Errors
    /// When it does not.
    pub fn ok(&self, line: &str) -> Result<String> {
        let outcome = self.run(&line.split_whitespace().collect::<Vec<_>>())?;
        ensure!(outcome.code == Some(0), "lb {line}: {outcome:?}");
        Ok(outcome.stdout)
    }

    /// Runs a command line that must succeed and gives its JSON.
    ///
    /// # Errors
    /// When it does not, or prints something else.
    pub fn json(&self, line: &str) -> Result<Value> {
        let text = self.ok(&format!("-o json {line}"))?;
        serde_json::from_str(&text).with_context(|| format!("lb {line} printed {text}"))
    }

    /// A backend of a service as `service show` has it.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn backend(&self, service: &str, name: &str) -> Result<Value> {
        let shown = self.json(&format!("service show {service}"))?;
        let backends = shown["backends"].as_array().context("no backends")?;
        let found = backends.iter().find(|backend| backend["name"] == name);
        found
            .cloned()
            .with_context(|| format!("{service} has no backend {name}"))
    }

    /// Runs a command line that must end with `code` and gives its standard error.
    ///
    /// # Errors
    /// When it ends otherwise.
    pub fn fails(&self, code: i32, line: &str) -> Result<String> {
        let outcome = self.run(&line.split_whitespace().collect::<Vec<_>>())?;
        ensure!(
            outcome.code == Some(code),
            "lb {line} instead of exit code {code}: {outcome:?}"
        );
        Ok(outcome.stderr)
    }
}
