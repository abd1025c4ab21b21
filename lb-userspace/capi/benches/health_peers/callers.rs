//! Programs in C and Go that call `lb_health.h`, and Go's own checker, built here.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{Cost, servers::Servers};

/// The programs that were built.
pub(crate) struct Callers {
    dir: TempDir,
}

/// A call's name, its nanoseconds from C, and from Go where that was measured.
pub(crate) type Call = (String, String, Option<String>);

impl Callers {
    /// Builds them against the library that cargo has put beside this program.
    pub(crate) fn build() -> Result<Self> {
        let program = env::current_exe()?;
        let libraries = program.parent().context("a program without a directory")?;
        let target = program
            .ancestors()
            .find(|dir| dir.join("CACHEDIR.TAG").is_file())
            .context("no target directory")?;
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let dir = tempfile::tempdir()?;
        let mut rpath = OsString::from("-Wl,-rpath,");
        rpath.push(libraries);
        output(
            Command::new("cc")
                .args(["-O2", "-std=c11", "-D_POSIX_C_SOURCE=200809L"])
                .args(["-pedantic", "-Wall", "-Wextra", "-Werror"])
                .arg("-I")
                .arg(here.join("include"))
                .arg(here.join("benches/calls.c"))
                .arg("-L")
                .arg(libraries)
                .arg("-llb_health")
                .arg(&rpath)
                .arg("-o")
                .arg(dir.path().join("calls")),
        )?;
        let mut flags = OsString::from("-L");
        flags.push(libraries);
        flags.push(" ");
        flags.push(&rpath);
        // The module is no part of a repository that `go` could stamp with a version.
        output(
            Command::new("go")
                .args(["build", "-buildvcs=false", "-o"])
                .arg(dir.path())
                .args(["./example", "./peers"])
                .current_dir(here.join("go"))
                .env("CGO_LDFLAGS", flags)
                .env("GOCACHE", target.join("go-cache"))
                .env("GOFLAGS", "-mod=readonly"),
        )?;
        Ok(Self { dir })
    }

    fn program(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs the Go example on a working and a failing server.
    pub(crate) fn try_example(&self, servers: &Servers) -> Result<()> {
        let (good, bad) = (servers.web.to_string(), servers.refused.to_string());
        let text = output(
            Command::new(self.program("example"))
                .args(["-for", "2s", "-settings", "kind = \"http\""])
                .args([&good, &bad]),
        )?;
        ensure!(
            text.contains(&format!("{good} up")),
            "the Go example says:\n{text}"
        );
        let down = format!("{bad} down: connection refused by {bad}");
        ensure!(text.contains(&down), "the Go example says:\n{text}");
        Ok(())
    }

    /// Cost of checks by Go's standard library.
    pub(crate) fn go_checks(
        &self,
        kind: &str,
        address: SocketAddr,
        count: u32,
        concurrent: u32,
    ) -> Result<Cost> {
        let text = output(
            Command::new(self.program("peers"))
                .args(["check", kind, &address.to_string()])
                .args([count.to_string(), concurrent.to_string()]),
        )?;
        let figures = text.split_whitespace().map(str::parse::<f64>);
        match figures.collect::<Result<Vec<_>, _>>()?.as_slice() {
            [clock, cpu, failed] => Ok(Cost {
                clock: *clock,
                cpu: *cpu,
                failed: *failed,
            }),
            other => anyhow::bail!("three figures were expected of Go: {other:?}"),
        }
    }

    /// Cost of calls of the library.
    pub(crate) fn calls(&self, refused: SocketAddr) -> Result<Vec<Call>> {
        let read = |command: &mut Command| -> Result<BTreeMap<String, String>> {
            let text = output(command)?;
            let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
            Ok(lines
                .map(|(name, figure)| (name.to_owned(), figure.to_owned()))
                .collect())
        };
        let c = read(Command::new(self.program("calls")).arg(refused.to_string()))?;
        let mut go = read(Command::new(self.program("peers")).args(["calls", &refused.to_string()]))?;
        Ok(c.into_iter()
            .map(|(name, figure)| {
                let go = go.remove(&name);
                (name, figure, go)
            })
            .collect())
    }
}

/// Output of a program.
fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot start {name}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name}: {}: {errors}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}
