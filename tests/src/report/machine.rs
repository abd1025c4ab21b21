//! The machine and the programs that a benchmark ran with.

use std::{collections::BTreeMap, fs, process::Command, thread};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// The machine.
pub struct Machine {
    cpu: String,
    cpus: usize,
    memory_gb: f64,
    kernel: String,
    system: String,
}

impl Machine {
    /// This one.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn read() -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).with_context(|| format!("read {path}"));
        let cpuinfo = read("/proc/cpuinfo")?;
        let mut models = cpuinfo
            .lines()
            .filter_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let meminfo = read("/proc/meminfo")?;
        let memory = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let kilobytes: f64 = memory
            .and_then(|text| text.trim().strip_suffix(" kB"))
            .context("no MemTotal in /proc/meminfo")?
            .trim()
            .parse()?;
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let system = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        Ok(Self {
            cpu: models.next().map_or("unknown", |(_, name)| name).to_owned(),
            cpus: thread::available_parallelism()?.get(),
            memory_gb: (kilobytes / 1e6).round(),
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            system: system.unwrap_or("unknown").trim_matches('"').to_owned(),
        })
    }

    /// In one line.
    pub fn text(&self) -> String {
        let Self {
            cpu,
            cpus,
            memory_gb,
            kernel,
            system,
        } = self;
        format!("{cpus} x {cpu}, {memory_gb} GB, Linux {kernel}, {system}")
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let Self {
            cpu,
            cpus,
            memory_gb,
            kernel,
            system,
        } = self;
        json!({"cpu": cpu, "cpus": cpus, "memory_gb": memory_gb, "kernel": kernel, "system": system})
    }
}

/// Versions by program.
pub type Versions = BTreeMap<String, String>;

/// The first line that a program prints about its version, on either output.
///
/// # Errors
/// When it cannot be run, or prints nothing.
pub fn version(command: &mut Command) -> Result<String> {
    let name = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("run {name}"))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let first = text.lines().find(|line| !line.trim().is_empty());
    Ok(first
        .with_context(|| format!("{name} tells no version"))?
        .trim()
        .to_owned())
}
