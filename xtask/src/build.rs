//! `cargo xtask build`: the XDP program, then `lb` with the program inside.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    setup,
    toolchain::{BPF_TARGET, Toolchain},
    workspace::{Workspace, run},
};

/// Options of `cargo xtask build`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Build `lb` optimised (the default)
    #[arg(long, conflicts_with = "debug")]
    release: bool,
    /// Build `lb` for debugging; the XDP program is always optimised
    #[arg(long)]
    debug: bool,
    /// Install packages without asking
    #[arg(long)]
    yes: bool,
}

/// A BPF program, and the name of its object.
type BpfObject = (&'static str, &'static str);

/// The BPF programs, and the features they are built with: the balancer, the end of its tunnels, and the wrapper of the benchmark;
/// and the balancer once more, as it is while `lb monitor` runs.
const OBJECTS: [(&[&str], &[BpfObject]); 2] = [
    (
        &[],
        &[
            ("lb-ebpf", "lb-ebpf.o"),
            ("lb-ebpf-decap", "lb-ebpf-decap.o"),
            ("lb-ebpf-bench", "lb-ebpf-bench.o"),
        ],
    ),
    (
        &["--bin", "lb-ebpf", "--features", "monitor"],
        &[("lb-ebpf", "lb-ebpf-monitor.o")],
    ),
];

/// How `lb` is built. The XDP program always has the profile `bpf`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Optimised, for use from the checkout.
    Release,
    /// Optimised as a whole, which takes minutes, for a release.
    Shipped,
    /// Quick to build, for tests.
    Debug,
}

impl Profile {
    /// The profile by the flag `--debug`.
    pub(crate) fn from_debug_flag(debug: bool) -> Self {
        if debug { Self::Debug } else { Self::Release }
    }

    /// Its directory below the build directory.
    pub(crate) fn dir(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Shipped => "shipped",
            Self::Debug => "debug",
        }
    }
}

/// Runs `cargo xtask build`.
pub(crate) fn command(workspace: &Workspace, options: &Options) -> Result<()> {
    let toolchain = setup::ensure(options.yes)?;
    let profile = Profile::from_debug_flag(options.debug && !options.release);
    bpf(workspace, &toolchain)?;
    lb(workspace, profile)?;
    for file in [workspace.bpf_object(), workspace.lb(profile.dir())] {
        println!("{} ({})", file.display(), size(&file)?);
    }
    Ok(())
}

/// Builds the XDP program and puts it where `lb` embeds it from.
pub(crate) fn bpf(workspace: &Workspace, toolchain: &Toolchain) -> Result<()> {
    let built = workspace.target.join("bpf-build").join(BPF_TARGET).join("bpf");
    for (arguments, objects) in OBJECTS {
        run(toolchain.cargo(workspace, "build").args(arguments)).context("building the XDP program")?;
        for (name, object) in objects {
            let object = workspace.bpf_object().with_file_name(object);
            replace_if_changed(&built.join(name), &object)?;
        }
    }
    Ok(())
}

/// Builds the `lb` binary.
pub(crate) fn lb(workspace: &Workspace, profile: Profile) -> Result<()> {
    let mut command = workspace.cargo();
    command.args(["build", "--package", "lb-userspace", "--bin", "lb"]);
    match profile {
        Profile::Release => command.arg("--release"),
        Profile::Shipped => command
            .args(["--profile", Profile::Shipped.dir()])
            .env("LB_COMMIT", commit(workspace)),
        Profile::Debug => &mut command,
    };
    run(&mut command).context("building lb")
}

/// The commit of the checkout, with a mark where files differ from it; `unknown` outside of a checkout.
pub(crate) fn commit(workspace: &Workspace) -> String {
    let git = Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
        .current_dir(&workspace.root)
        .output();
    let commit = git.ok().filter(|output| output.status.success());
    let commit = commit.and_then(|output| String::from_utf8(output.stdout).ok());
    commit.map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// Builds the load tool, optimised as a whole, and gives its path.
pub(crate) fn load_tool(workspace: &Workspace) -> Result<PathBuf> {
    let profile = Profile::Shipped.dir();
    run(workspace
        .cargo()
        .args(["build", "--profile", profile, "--package", "lb-bench"]))
    .context("building lb-bench")?;
    Ok(workspace.target.join(profile).join("lb-bench"))
}

/// Copies a file unless the copy is there already, so that its time stamp, and with it all that is built from it,
/// changes only with its content. The new content appears whole or not at all.
fn replace_if_changed(from: &Path, to: &Path) -> Result<()> {
    let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == content) {
        return Ok(());
    }
    let dir = to.parent().context("a file without a directory")?;
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let new = to.with_extension("new");
    fs::write(&new, content).with_context(|| format!("cannot write {}", new.display()))?;
    fs::rename(&new, to).with_context(|| format!("cannot write {}", to.display()))
}

/// The size of a file in KiB, or MiB where that reads better.
fn size(file: &Path) -> Result<String> {
    let bytes = fs::metadata(file)
        .with_context(|| format!("cannot read {}", file.display()))?
        .len();
    Ok(if bytes < 1 << 20 {
        format!("{} KiB", bytes.div_ceil(1 << 10))
    } else {
        format!("{}.{} MiB", bytes >> 20, ((bytes & ((1 << 20) - 1)) * 10) >> 20)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_object_keeps_its_time_stamp() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a"), dir.path().join("bpf/b"));
        fs::write(&from, "one").unwrap();
        replace_if_changed(&from, &to).unwrap();
        let old = std::time::SystemTime::UNIX_EPOCH;
        fs::File::options()
            .write(true)
            .open(&to)
            .unwrap()
            .set_modified(old)
            .unwrap();
        replace_if_changed(&from, &to).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().modified().unwrap(), old);
        fs::write(&from, "two").unwrap();
        replace_if_changed(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "two");
    }
}
