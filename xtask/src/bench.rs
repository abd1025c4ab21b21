//! `cargo xtask bench`: the benchmarks that there are, or those named.

use anyhow::{Result, bail};

use crate::{
    build::{self, Profile},
    packages, setup,
    workspace::{Workspace, run},
};

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Benchmarks to run, such as `dataplane`; all without this
    names: Vec<String>,
    /// Install packages without asking
    #[arg(long)]
    yes: bool,
}

/// Packages with benchmarks, their directories, and whether these need root.
const SUITES: [(&str, &str, bool); 2] = [
    ("lb-userspace", "lb-userspace/benches", false),
    ("lb-tests", "tests/benches", true),
];

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
    for name in &options.names {
        if !found.iter().any(|(_, known, _)| known == name) {
            let names: Vec<_> = found.iter().map(|(_, name, _)| name.as_str()).collect();
            bail!("no benchmark {name}; there are: {}", names.join(", "));
        }
    }
    let toolchain = setup::ensure(options.yes)?;
    packages::ensure(&toolchain, options.yes)?;
    build::bpf(workspace, &toolchain)?;
    build::lb(workspace, Profile::Release)?;
    for (package, name, root) in found {
        if !options.names.is_empty() && !options.names.contains(&name) {
            continue;
        }
        let mut command = workspace.cargo();
        if root {
            packages::run_as_root(&mut command)?;
        }
        run(command.args(["bench", "--package", package, "--bench", &name]))?;
    }
    Ok(())
}
