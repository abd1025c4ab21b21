//! `lb support-bundle`

mod archive;
mod sources;

use std::{
    env,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, IsTerminal as _, Write},
    ops::ControlFlow,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use clap::Args;
use flate2::{Compression, write::GzEncoder};

use self::{
    archive::Archive,
    sources::{COMMANDS, FILES, OWN, Part, command, files, last, metrics, sysctls},
};
use super::{
    error::{CliError, Exit},
    output::{Context, print},
};
use crate::{
    api::types::Status,
    chain::chain,
    config::{DaemonSettings, redact::redact},
    config_file::{Text, texts},
    datapath::{DEFAULT_PIN_DIR, kernel_objects},
    events::{journal::Journal, rfc3339},
    state::secrets::{HIDDEN, Secrets},
    version,
};

/// The configuration file of the package.
const CONFIG: &str = "/etc/lb/lb.toml";
/// The directory within the archive.
const ROOT: &str = "lb-support";
/// Earlier states whose credentials are looked for.
const MAX_STATES: usize = 100;

#[derive(Args, Debug)]
#[command(
    after_help = "The file is for its owner alone (mode 0600). It holds names, addresses and errors of services and backends, events,
metrics, and what the kernel says about network, programs and maps. Credentials are left out: values of check
headers and queries, texts that checks and agents send, arguments of check commands, keys.

Examples:
  lb support-bundle /tmp/lb.tar.gz
  lb support-bundle - | ssh host 'cat > lb.tar.gz'"
)]
pub(super) struct SupportBundle {
    /// File to write: *.tar, else compressed; - is standard output
    file: PathBuf,
    /// Overwrite the file
    #[arg(long)]
    force: bool,
    /// State directory of a daemon that does not run [default: the running daemon's, else /var/lib/lb]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Configuration file or directory of a daemon that does not run; may be given several times [default: the running
    /// daemon's, else /etc/lb/lb.toml]
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Directory in which programs and maps are pinned
    #[arg(long, value_name = "DIR", default_value = DEFAULT_PIN_DIR)]
    pin_dir: PathBuf,
}

/// The parts so far.
#[derive(Default)]
struct Parts {
    files: Vec<(String, String)>,
    missing: Vec<String>,
}

impl Parts {
    fn add(&mut self, name: &str, part: Part) {
        match part {
            Ok(text) => self.files.push((name.to_owned(), text)),
            Err(why) => self.missing.push(format!("{name}: {why}")),
        }
    }
}

impl SupportBundle {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let to_stdout = self.file.as_os_str() == "-";
        if to_stdout && io::stdout().is_terminal() {
            return Err(CliError::new(Exit::Usage, "output: a terminal")
                .hint("name a file, or lead the output elsewhere"));
        }
        // Before the work, which takes a while.
        let file = (!to_stdout).then(|| self.create()).transpose()?;
        let (parts, secrets) = self.collect(context).await;
        let bytes = self.pack(&parts, &secrets).map_err(|error| self.failed(&error))?;
        match file {
            None => io::stdout()
                .lock()
                .write_all(&bytes)
                .map_err(|error| self.failed(&error)),
            Some(mut file) => {
                let written = file.write_all(&bytes).and_then(|()| file.sync_all());
                written.map_err(|error| self.failed(&error))?;
                let (count, missing) = (parts.files.len(), parts.missing.len());
                let mut text = format!(
                    "{}: {count} files, {} KB\n",
                    self.file.display(),
                    bytes.len().div_ceil(1024)
                );
                if missing > 0 {
                    text.push_str(&format!(
                        "{missing} parts are missing: missing.txt in it says why\n"
                    ));
                }
                print(&text)
            }
        }
    }

    fn failed(&self, error: &io::Error) -> CliError {
        CliError::new(
            Exit::Failed,
            format!("cannot write {}: {error}", self.file.display()),
        )
    }

    /// The file, for its owner alone from the start.
    fn create(&self) -> Result<File, CliError> {
        let mut options = OpenOptions::new();
        options.write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let options = if self.force {
            options.create(true).truncate(true)
        } else {
            options.create_new(true)
        };
        let file = options.open(&self.file).map_err(|error| {
            if error.kind() != io::ErrorKind::AlreadyExists {
                return self.failed(&error);
            }
            let exists = CliError::new(Exit::Conflict, format!("{} exists", self.file.display()));
            exists.hint("--force overwrites it")
        })?;
        // One that was there may have had another mode.
        let changed = file.set_permissions(Permissions::from_mode(0o600));
        changed.map_err(|error| self.failed(&error))?;
        Ok(file)
    }

    /// All parts, and the credentials that may be in them.
    async fn collect(&self, context: &Context) -> (Parts, Secrets) {
        let (mut parts, mut secrets) = (Parts::default(), Secrets::default());
        let client = context.client();
        let status = client.get::<Status>("/v1/status").await;
        let own = env::current_exe().unwrap_or_else(|_| "lb".into());
        let socket = context.named_socket().map(|socket| ("LB_SOCKET", socket));
        match &status {
            Ok(status) => {
                for (name, args) in OWN {
                    parts.add(name, command(&own, args, socket).await);
                }
                parts.add(
                    "metrics.txt",
                    match &status.metrics {
                        Some(address) => metrics(address).await,
                        None => Err("the daemon serves none".to_owned()),
                    },
                );
                match client.text("/v1/export").await {
                    Ok(text) => secrets = secrets.and(add_file(&mut parts, "state.toml", Ok(text))),
                    Err(error) => parts.add("state.toml", Err(error.message)),
                }
            }
            Err(error) => {
                parts
                    .missing
                    .push(format!("everything that the daemon knows: {}", error.message));
                // It says what forwards on.
                parts.add("status.txt", command(&own, &["status"], socket).await.or_else(Ok));
                parts.add("doctor.txt", command(&own, &["doctor"], socket).await);
            }
        }
        let running = status.ok().and_then(|status| status.config.file);
        // The daemon names several files with commas between them.
        let running = running.map(|files| files.split(", ").map(PathBuf::from).collect());
        let paths = match self.config.as_slice() {
            [] => running.unwrap_or_else(|| vec![CONFIG.into()]),
            named => named.to_vec(),
        };
        let mut in_file = None;
        match texts(&paths) {
            Ok(texts) => {
                for (number, Text { file: _, text }) in (1..).zip(texts) {
                    in_file = in_file.or_else(|| state_dir_of(&text));
                    let name = format!("lb-{number}.toml");
                    secrets = secrets.and(add_file(&mut parts, &name, Ok(text)));
                }
            }
            Err(error) => parts.add("lb-1.toml", Err(chain(&error))),
        }
        let state_dir = self.state_dir.clone().or(in_file);
        let state_dir = state_dir.unwrap_or_else(|| DaemonSettings::default().state_dir);
        secrets = secrets.and(self.stored(&state_dir, &mut parts));
        self.machine(&mut parts).await;
        (parts, secrets)
    }

    /// What the state directory holds: events if no daemon gave them, and credentials of earlier states, which events may repeat.
    fn stored(&self, dir: &Path, parts: &mut Parts) -> Secrets {
        let mut secrets = Secrets::default();
        let has = |parts: &Parts, name: &str| parts.files.iter().any(|(known, _)| known == name);
        let state = fs::read_to_string(dir.join("state.toml"));
        let state = state.map_err(|error| format!("{}: {error}", dir.join("state.toml").display()));
        if has(parts, "state.toml") {
            secrets = secrets.and(state.map(|text| redact(body(&text)).1).unwrap_or_default());
        } else {
            secrets = secrets.and(add_file(
                parts,
                "state.toml",
                state.map(|text| body(&text).to_owned()),
            ));
        }
        let kept = fs::read_dir(dir.join("history")).into_iter().flatten().flatten();
        let mut list = String::new();
        for entry in kept.take(MAX_STATES) {
            if let Ok(text) = fs::read_to_string(entry.path()) {
                secrets = secrets.and(redact(body(&text)).1);
                list.push_str(&format!(
                    "{} {}\n",
                    entry.file_name().display(),
                    text.lines().next().unwrap_or_default()
                ));
            }
        }
        if !has(parts, "history.txt") && !list.is_empty() {
            parts.add("history.txt", Ok(list));
        }
        if !has(parts, "events.jsonl") {
            let mut lines = String::new();
            let read = Journal::new(dir).read(|event| {
                lines.push_str(&serde_json::to_string(&event).unwrap_or_default());
                lines.push('\n');
                ControlFlow::Continue(())
            });
            parts.add(
                "events.jsonl",
                read.map(|()| last(&lines)).map_err(|error| error.to_string()),
            );
        }
        secrets
    }

    /// What the machine says.
    async fn machine(&self, parts: &mut Parts) {
        for (name, paths) in FILES {
            parts.add(name, Ok(files(paths)));
        }
        parts.add("sysctls.txt", Ok(sysctls()));
        for (name, words) in COMMANDS {
            if let Some((program, args)) = words.split_first() {
                parts.add(name, command(Path::new(program), args, None).await);
            }
        }
        let objects = kernel_objects().map(|lines| lines.join("\n") + "\n");
        parts.add(
            "bpf.txt",
            objects.map_err(|error| format!("programs and maps: {error}")),
        );
        let pins = pins(&self.pin_dir).map(|lines| lines.join("\n") + "\n");
        parts.add(
            "pins.txt",
            pins.map_err(|error| format!("{}: {error}", self.pin_dir.display())),
        );
    }

    /// The archive, without the credentials.
    fn pack(&self, parts: &Parts, secrets: &Secrets) -> io::Result<Vec<u8>> {
        let now = SystemTime::now();
        let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let mut archive = Archive::new(Vec::new(), seconds);
        let about = format!(
            "lb {} (commit {}) at {}\ncredentials are replaced by {HIDDEN}\n",
            version::VERSION,
            version::COMMIT,
            rfc3339(now)
        );
        let missing = parts.missing.join("\n") + "\n";
        let own = [("about.txt", &about), ("missing.txt", &missing)];
        let all = parts.files.iter().map(|(name, text)| (name.as_str(), text));
        for (name, text) in own.into_iter().chain(all) {
            archive.add(&format!("{ROOT}/{name}"), secrets.hide(text).as_bytes())?;
        }
        let bytes = archive.finish()?;
        if self.file.extension().is_some_and(|extension| extension == "tar") {
            return Ok(bytes);
        }
        let mut packed = GzEncoder::new(Vec::new(), Compression::default());
        packed.write_all(&bytes)?;
        packed.finish()
    }
}

/// Adds a file of the configuration without its credentials, which it gives.
fn add_file(parts: &mut Parts, name: &str, text: Part) -> Secrets {
    match text.map(|text| redact(&text)) {
        Ok((Some(text), secrets)) => {
            parts.add(name, Ok(text));
            secrets
        }
        Ok((None, secrets)) => {
            parts.add(
                name,
                Err("it is no TOML, so credentials in it cannot be recognised".to_owned()),
            );
            secrets
        }
        Err(why) => {
            parts.add(name, Err(why));
            Secrets::default()
        }
    }
}

/// A stored state without its first line, which is no TOML.
fn body(text: &str) -> &str {
    text.split_once('\n').map_or("", |(_, body)| body)
}

/// The state directory that a configuration file names.
fn state_dir_of(text: &str) -> Option<PathBuf> {
    crate::config::parse_daemon(text).map(|daemon| daemon.state_dir)
}

/// The paths below a directory.
fn pins(dir: &Path) -> io::Result<Vec<String>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        paths.push(path.display().to_string());
        if path.is_dir() {
            paths.extend(pins(&path)?);
        }
    }
    paths.sort();
    Ok(paths)
}
