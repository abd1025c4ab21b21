//! A real agent of a backend, as operators write them: socat, and a file with its answer.

use std::{
    fs,
    net::SocketAddr,
    process::{Child, Stdio},
};

use anyhow::{Context, Result};

use crate::{netns::Netns, scratch::Scratch};

/// A running agent. Dropping it kills it.
pub struct Agent {
    ns: Netns,
    address: SocketAddr,
    scratch: Scratch,
    child: Child,
}

impl Agent {
    /// Starts an agent that answers `line`. It may not listen yet when this returns.
    ///
    /// # Errors
    /// When socat is not installed.
    pub fn start(ns: &Netns, address: SocketAddr, line: &str) -> Result<Self> {
        let scratch = Scratch::new()?;
        scratch.write("line", line)?;
        let child = spawn(ns, address, &scratch)?;
        Ok(Self {
            ns: ns.clone(),
            address,
            scratch,
            child,
        })
    }

    /// Changes its answer, from the next poll on.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn say(&self, line: &str) -> Result<()> {
        let new = self.scratch.write("new", line)?;
        fs::rename(new, self.scratch.join("line"))?;
        Ok(())
    }

    /// Kills it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.child = spawn(&self.ns, self.address, &self.scratch)?;
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn spawn(ns: &Netns, address: SocketAddr, scratch: &Scratch) -> Result<Child> {
    let (ip, port) = (address.ip(), address.port());
    let listen = match address {
        SocketAddr::V4(_) => format!("TCP4-LISTEN:{port},bind={ip},reuseaddr,fork"),
        SocketAddr::V6(_) => format!("TCP6-LISTEN:{port},bind=[{ip}],reuseaddr,fork"),
    };
    ns.command("socat")
        .arg(listen)
        .arg(format!("SYSTEM:cat {}", scratch.join("line").display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("start socat")
}
