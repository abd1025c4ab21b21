//! Where things are, and how cargo and root are called from here.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

/// The checkout and its build directory.
pub(crate) struct Workspace {
    /// Top of the checkout.
    pub(crate) root: PathBuf,
    /// Cargo's build directory.
    pub(crate) target: PathBuf,
}

impl Workspace {
    /// Finds the checkout that this program was started from. The build directory is the one that contains this program
    /// (cargo marks it with `CACHEDIR.TAG`), so that `CARGO_TARGET_DIR` and `build.target-dir` need no special care.
    pub(crate) fn find() -> Result<Self> {
        let manifest_dir =
            env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&manifest_dir)
            .parent()
            .context("xtask has no parent directory")?
            .to_path_buf();
        let executable = env::current_exe().context("path of this program")?;
        let target = executable
            .ancestors()
            .find(|dir| dir.join("CACHEDIR.TAG").is_file())
            .map_or_else(|| root.join("target"), Path::to_path_buf);
        Ok(Self { root, target })
    }

    /// The finished XDP object, as `lb-userspace` embeds it.
    pub(crate) fn bpf_object(&self) -> PathBuf {
        self.target.join("bpf/lb-ebpf.o")
    }

    /// The `lb` binary of a profile's directory.
    pub(crate) fn lb(&self, profile_dir: &str) -> PathBuf {
        self.target.join(profile_dir).join("lb")
    }

    /// Cargo, called as if from a shell: `cargo run` has put variables about this package into the environment, and
    /// build scripts that watch them would be run again and again.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root);
        for (name, _) in env::vars_os() {
            if set_by_cargo_run(&name) {
                command.env_remove(name);
            }
        }
        command
    }

    /// The kind of machine that cargo builds for, as `--target` names it.
    ///
    /// # Errors
    /// When cargo does not say.
    pub(crate) fn host(&self) -> Result<String> {
        let version = output_of(self.cargo().arg("-vV")).context("cannot read cargo's version")?;
        let host = version.lines().find_map(|line| line.strip_prefix("host: "));
        Ok(host.context("cannot read cargo's host")?.to_owned())
    }

    /// The names of test programs or benchmarks in a directory of the checkout, sorted; none where there is no such
    /// directory.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub(crate) fn targets(&self, dir: &str) -> Result<Vec<String>> {
        let dir = self.root.join(dir);
        if !dir.is_dir() {
            return Ok(Vec::new());
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
            let path = entry?.path();
            if path.extension() == Some(OsStr::new("rs")) {
                names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
            }
        }
        names.sort();
        Ok(names)
    }
}

fn set_by_cargo_run(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    [
        &b"CARGO_PKG_"[..],
        b"CARGO_MANIFEST_",
        b"CARGO_BIN_",
        b"CARGO_CRATE_",
        b"CARGO_PRIMARY_",
    ]
    .iter()
    .any(|prefix| name.starts_with(prefix))
}

/// The directory in which set-up keeps its products, which take minutes to make. Outside the build directory, so that
/// `cargo clean` leaves it.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("XDG_CACHE_HOME").filter(|dir| Path::new(dir).is_absolute()) {
        return Ok(Path::new(&dir).join("lb"));
    }
    let home = env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(Path::new(&home).join(".cache/lb"))
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

/// The words to put before a command that must run as root with this `PATH`: none for root, else sudo. `PATH` is
/// handed on by hand, since sudo sets its own even with `-E`.
fn as_root(path: OsString) -> Vec<OsString> {
    if is_root() {
        return Vec::new();
    }
    let mut assignment = OsString::from("PATH=");
    assignment.push(path);
    vec!["sudo".into(), "-E".into(), "env".into(), assignment]
}

/// Has sudo ask for the password now, where this process is not root: later commands then need none for a while.
///
/// # Errors
/// When sudo is missing, or refuses.
pub(crate) fn ask_for_root() -> Result<()> {
    if is_root() {
        return Ok(());
    }
    run(Command::new("sudo").arg("-v"))
}

/// A command that runs as root, through sudo where this process is not root.
///
/// # Errors
/// When a directory's name cannot stand in `PATH`.
pub(crate) fn root_command(program: impl AsRef<OsStr>) -> Result<Command> {
    Ok(root_command_in(&env::join_paths(program_dirs())?, program))
}

/// As [`root_command`], with this `PATH`.
pub(crate) fn root_command_in(path: &OsStr, program: impl AsRef<OsStr>) -> Command {
    let mut words = as_root(path.to_owned());
    words.push(program.as_ref().to_owned());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env("PATH", path);
    command
}

/// Makes cargo run its products (tests, benchmarks, binaries) as root and with this `PATH`.
pub(crate) fn run_as_root(cargo: &mut Command, path: &OsStr) {
    let words = as_root(path.to_owned());
    if !words.is_empty() {
        let list: Vec<String> = words
            .iter()
            .map(|word| format!("{:?}", word.to_string_lossy()))
            .collect();
        cargo
            .arg("--config")
            .arg(format!("target.'cfg(unix)'.runner=[{}]", list.join(",")));
    }
}

/// The directories of `PATH`, and of system programs, which a user's `PATH` often lacks.
pub(crate) fn program_dirs() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(system).collect()
}

/// The first file of this name in [`program_dirs`].
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    program_dirs()
        .into_iter()
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// Runs a command with its output on the terminal.
///
/// # Errors
/// When it cannot be started or ends with another status than 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot start {name}"))?;
    if !status.success() {
        let words: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
        bail!("`{name} {}` failed: {status}", words.join(" "));
    }
    Ok(())
}

/// Runs a command and returns its standard output, or `None` if it could not be run or failed.
pub(crate) fn output_of(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
