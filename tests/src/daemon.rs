//! The real `lb run`, in the balancer's namespace, with everything it writes in a private directory.

use std::{
    fs::{self, File},
    io,
    net::SocketAddr,
    os::unix::{net::UnixDatagram, process::CommandExt},
    path::PathBuf,
    process::{Child, ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use lb_common::limits::LAYOUT_VERSION;

use crate::{
    http,
    lb_cli::{LbCli, Outcome, lb_binary},
    metrics::Metrics,
    netns::Netns,
    scratch::Scratch,
    trap::Trap,
    wait,
};

/// Longest wait for READY=1, and for the end of a stopped daemon: an emulated machine is slow.
const PATIENCE: Duration = Duration::from_secs(100);
/// Where the daemon serves its metrics, inside its namespace.
pub const METRICS: &str = "127.0.0.1:9900";

/// A daemon, started or not, with its private files. Dropping it kills it and frees its pins; after a failed test it
/// shows the daemon's log.
pub struct Daemon {
    ns: Netns,
    scratch: Scratch,
    args: Vec<String>,
    wrapper: Vec<String>,
    binary: Option<PathBuf>,
    trap: Option<Arc<Trap>>,
    socket: PathBuf,
    state_dir: PathBuf,
    pin_dir: PathBuf,
    metrics: SocketAddr,
    notify: UnixDatagram,
    child: Option<Child>,
}

impl Daemon {
    /// Prepares a daemon for these interfaces; [`Daemon::start`] starts it.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub fn new(ns: &Netns, interfaces: &[&str]) -> Result<Self> {
        let scratch = Scratch::new()?;
        let notify = UnixDatagram::bind(scratch.join("notify.sock")).context("bind notify socket")?;
        let args = interfaces
            .iter()
            .flat_map(|name| ["--iface".to_owned(), (*name).to_owned()])
            .collect();
        Ok(Self {
            ns: ns.clone(),
            args,
            wrapper: Vec::new(),
            binary: None,
            trap: None,
            socket: scratch.join("lb.sock"),
            state_dir: scratch.join("state"),
            pin_dir: scratch.join("pins"),
            metrics: METRICS.parse()?,
            scratch,
            notify,
            child: None,
        })
    }

    /// Adds arguments to `lb run`, separated by spaces.
    #[must_use]
    pub fn args(mut self, args: &str) -> Self {
        self.args.extend(args.split_whitespace().map(str::to_owned));
        self
    }

    /// Gives it a configuration file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn config(self, text: &str) -> Result<Self> {
        let path = self.write_config(text)?;
        Ok(self.args(&format!("--config {}", path.display())))
    }

    /// Runs it through another program, for example `setpriv`.
    #[must_use]
    pub fn through(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Runs another binary.
    #[must_use]
    pub fn binary(mut self, binary: PathBuf) -> Self {
        self.binary = Some(binary);
        self
    }

    /// Runs another binary from the next start on, or the one under test again.
    pub fn run_binary(&mut self, binary: Option<PathBuf>) {
        self.binary = binary;
    }

    /// Sets a trap for it at each start.
    #[must_use]
    pub fn with_trap(mut self, trap: &Arc<Trap>) -> Self {
        self.trap = Some(Arc::clone(trap));
        self
    }

    /// Puts its pins elsewhere, for example where another daemon's are.
    #[must_use]
    pub fn pins_in(mut self, pin_dir: PathBuf) -> Self {
        self.pin_dir = pin_dir;
        self
    }

    /// Puts its admin socket elsewhere.
    #[must_use]
    pub fn socket_at(mut self, socket: PathBuf) -> Self {
        self.socket = socket;
        self
    }

    /// Keeps its state elsewhere.
    #[must_use]
    pub fn state_in(mut self, state_dir: PathBuf) -> Self {
        self.state_dir = state_dir;
        self
    }

    /// Serves its metrics elsewhere.
    #[must_use]
    pub fn metrics_at(mut self, metrics: SocketAddr) -> Self {
        self.metrics = metrics;
        self
    }

    /// Replaces the content of its configuration file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_config(&self, text: &str) -> Result<PathBuf> {
        self.scratch.write("lb.toml", text)
    }

    /// Its private directory: `lb.sock`, `state/`, `pins/`, `lb.toml`, `log`.
    pub fn dir(&self) -> &Scratch {
        &self.scratch
    }

    /// The directory of its pins.
    pub fn pin_dir(&self) -> PathBuf {
        self.pin_dir.clone()
    }

    /// The directory of its state file.
    pub fn state_dir(&self) -> PathBuf {
        self.state_dir.clone()
    }

    /// Its admin socket.
    pub fn socket(&self) -> PathBuf {
        self.socket.clone()
    }

    /// Starts it and waits for READY=1. Returns the duration.
    ///
    /// # Errors
    /// When it ends before, or is silent for too long; with its log.
    pub fn start(&mut self) -> Result<Duration> {
        let begin = Instant::now();
        self.begin()?;
        self.wait_for("READY=1")?;
        Ok(begin.elapsed())
    }

    /// Starts it and waits for its end.
    ///
    /// # Errors
    /// When it does not end.
    pub fn run_to_end(&mut self) -> Result<Outcome> {
        let log_before = self.log().len();
        self.begin()?;
        let status = self.wait_exit()?;
        let stderr = self.log().split_off(log_before);
        Ok(Outcome {
            code: status.code(),
            stdout: String::new(),
            stderr,
        })
    }

    /// Starts it, and waits for nothing.
    ///
    /// # Errors
    /// When it runs already, or cannot be started.
    pub fn begin(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "the daemon runs already");
        let binary = match &self.binary {
            Some(binary) => binary.clone(),
            None => lb_binary()?,
        };
        let mut words = self.wrapper.iter();
        let mut command = match words.next() {
            Some(program) => {
                let mut command = self.ns.command(program);
                command.args(words).arg(binary);
                command
            }
            None => self.ns.command(binary),
        };
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.scratch.join("log"))?;
        command
            .arg("--socket")
            .arg(&self.socket)
            .args(["run", "--metrics", &self.metrics.to_string()])
            .arg("--state-dir")
            .arg(&self.state_dir)
            .arg("--pin-dir")
            .arg(&self.pin_dir)
            .args(&self.args)
            .env("NOTIFY_SOCKET", self.scratch.join("notify.sock"))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        let set = self
            .trap
            .as_ref()
            .map(|trap| trap.set(&mut command))
            .transpose()?;
        let child = command.spawn().context("start lb run")?;
        let pid = child.id();
        self.child = Some(child);
        match (&self.trap, set) {
            (Some(trap), Some(set)) => set.watch(trap, pid),
            _ => Ok(()),
        }
    }

    /// Waits for a notification that has `word` among its lines.
    ///
    /// # Errors
    /// When the daemon ends before, or after `PATIENCE`; with its log.
    pub fn wait_for(&mut self, word: &str) -> Result<()> {
        self.notify.set_read_timeout(Some(Duration::from_millis(20)))?;
        let end = Instant::now() + PATIENCE;
        let mut buffer = [0; 4096];
        loop {
            match wait::uninterrupted(|| self.notify.recv(&mut buffer)) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    if text.lines().any(|line| line == word) {
                        return Ok(());
                    }
                }
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(e) => return Err(e).context("receive notification"),
            }
            let child = self.child.as_mut().context("the daemon was not started")?;
            if let Some(status) = child.try_wait()? {
                self.child = None;
                bail!("lb run ended ({status}) before {word}:\n{}", self.log());
            }
            ensure!(
                Instant::now() < end,
                "lb run did not print {word}:\n{}",
                self.log()
            );
        }
    }

    /// Its process id.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.child.as_ref().context("the daemon does not run")?.id())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: libc::c_int) -> Result<()> {
        let pid = self.pid()?.cast_signed();
        // SAFETY: kill takes numbers; the child is ours and not yet waited for, so the id cannot be another's.
        let result = unsafe { libc::kill(pid, signal) };
        ensure!(result == 0, "kill: {}", io::Error::last_os_error());
        Ok(())
    }

    /// Kills it as a crash would, and waits for its end.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the daemon does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Stops it and waits for its end.
    ///
    /// # Errors
    /// When it does not leave, or fails.
    pub fn stop(&mut self) -> Result<()> {
        self.signal(libc::SIGTERM)?;
        let status = self.wait_exit()?;
        ensure!(status.success(), "lb run ended with {status}:\n{}", self.log());
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// After `PATIENCE`.
    pub fn wait_exit(&mut self) -> Result<ExitStatus> {
        let child = self.child.as_mut().context("the daemon does not run")?;
        let status = wait::until("lb run ends", PATIENCE, || Ok(child.try_wait()?));
        let status = status.with_context(|| format!("{}it logged:\n{}", self.threads(), self.log()))?;
        self.child = None;
        Ok(status)
    }

    /// Its threads, and what each of them waits for in the kernel; one a line.
    fn threads(&self) -> String {
        let tasks = format!("/proc/{}/task", self.pid().unwrap_or_default());
        let threads = fs::read_dir(tasks).into_iter().flatten().flatten();
        let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
        let line = |thread: fs::DirEntry| {
            let [name, place] = ["comm", "wchan"].map(|file| read(thread.path().join(file)));
            format!("thread {} waits in {}\n", name.trim(), place.trim())
        };
        threads.map(line).collect()
    }

    /// Its output so far, of all runs of this guard.
    pub fn log(&self) -> String {
        fs::read_to_string(self.scratch.join("log")).unwrap_or_default()
    }

    /// Whether the whole program runs, and not the first one of a cold start, whose pins are called `-first`.
    ///
    /// # Errors
    /// When there are no pins.
    pub fn runs_whole_program(&self) -> Result<bool> {
        let programs = self.pin_dir.join(format!("v{LAYOUT_VERSION}/programs"));
        let names = fs::read_dir(programs)?.flatten().map(|entry| entry.file_name());
        let names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        Ok(!names.is_empty() && !names.iter().any(|name| name.contains("-first")))
    }

    /// Waits until the whole program runs: interfaces have another program until then.
    ///
    /// # Errors
    /// After `PATIENCE`.
    pub fn wait_for_whole_program(&self) -> Result<()> {
        wait::until_true("the whole program runs", PATIENCE, || self.runs_whole_program())
    }

    /// Commands for it.
    pub fn cli(&self) -> LbCli {
        LbCli::new(&self.ns, &self.socket())
    }

    /// Scrapes its metrics.
    ///
    /// # Errors
    /// When they are not served, or are no metrics.
    pub fn metrics(&self) -> Result<Metrics> {
        let answer = http::get(&self.ns, self.metrics, "/metrics")?;
        ensure!(answer.status == 200, "status {} for /metrics", answer.status);
        Metrics::parse(&answer.body)
    }

    /// Status of one of its HTTP paths.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn http_status(&self, path: &str) -> Result<u16> {
        Ok(http::get(&self.ns, self.metrics, path)?.status)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- lb run logged:\n{}---", self.log());
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
