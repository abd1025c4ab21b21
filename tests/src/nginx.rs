//! A real nginx that answers with its name.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{http, netns::Netns, scratch::Scratch, wait};

/// A running nginx, one process. Dropping it kills it.
pub struct Nginx {
    ns: Netns,
    address: SocketAddr,
    scratch: Scratch,
    child: Child,
}

impl Nginx {
    /// Starts nginx in a namespace and waits until it answers.
    ///
    /// # Errors
    /// When nginx is not installed or does not come up.
    pub fn start(ns: &Netns, name: &str, address: SocketAddr) -> Result<Self> {
        Self::start_on(ns, name, address, &[], "")
    }

    /// As [`Nginx::start`], also on `others`, and with further `locations`.
    ///
    /// # Errors
    /// As [`Nginx::start`].
    pub fn start_on(
        ns: &Netns,
        name: &str,
        address: SocketAddr,
        others: &[SocketAddr],
        locations: &str,
    ) -> Result<Self> {
        let scratch = Scratch::new()?;
        let listen: String = [address]
            .iter()
            .chain(others)
            .map(|address| format!("listen {address} backlog=4096;"))
            .collect();
        let server = format!(
            "keepalive_requests 100000000; keepalive_timeout 600s;
             server {{ {listen} {locations} location / {{ return 200 \"{name}\"; }} }}"
        );
        configure(&scratch, &server)?;
        let child = spawn(ns, &scratch)?;
        let nginx = Self {
            ns: ns.clone(),
            address,
            scratch,
            child,
        };
        nginx
            .wait()
            .with_context(|| format!("nginx in {}", nginx.scratch.path().display()))?;
        Ok(nginx)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Kills it at once; the kernel resets its connections.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again on its address.
    ///
    /// # Errors
    /// As [`Nginx::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.child = spawn(&self.ns, &self.scratch)?;
        self.wait()
    }

    fn wait(&self) -> Result<()> {
        wait::until_true("nginx answers", Duration::from_secs(10), || {
            Ok(http::get(&self.ns, self.address, "/").is_ok())
        })
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Writes a configuration of nginx, as one process that keeps all its files in `scratch`; `http` is its `http` block.
///
/// # Errors
/// When the file cannot be written.
pub fn configure(scratch: &Scratch, http: &str) -> Result<()> {
    let dir = scratch.path().display();
    let config = format!(
        "daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/error.log;
         events {{ worker_connections 16384; }}
         http {{
            access_log off;
            client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
            uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
            {http}
         }}"
    );
    scratch.write("nginx.conf", config).map(drop)
}

/// nginx with the configuration by [`configure`], not started yet.
pub fn command(ns: &Netns, scratch: &Scratch) -> Command {
    let mut command = ns.command("nginx");
    command.arg("-p").arg(scratch.path());
    command.arg("-c").arg(scratch.join("nginx.conf"));
    command
}

/// Starts nginx with the configuration by [`configure`].
///
/// # Errors
/// When it is not installed.
pub fn spawn(ns: &Netns, scratch: &Scratch) -> Result<Child> {
    command(ns, scratch)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("start nginx")
}
