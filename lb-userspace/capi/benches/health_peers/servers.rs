//! Real servers on loopback, as processes of their own.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

/// Longest time until a server answers.
const PATIENCE: Duration = Duration::from_secs(10);

/// A process that is killed when dropped.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Starts a program without output.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(
            command.spawn().with_context(|| format!("cannot start {name}"))?,
        ))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// nginx on all addresses, dnsmasq, and a port that refuses.
pub(crate) struct Servers {
    pub(crate) web: SocketAddr,
    pub(crate) dns: SocketAddr,
    /// Of TCP and UDP.
    pub(crate) refused: SocketAddr,
    _refusing: (Socket, TempDir, [Running; 2]),
}

impl Servers {
    /// Starts them and waits until they answer.
    pub(crate) fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let web: SocketAddr = (Ipv4Addr::LOCALHOST, free_port()?).into();
        let nginx = nginx(dir.path(), web.port())?;
        let dns: SocketAddr = (Ipv4Addr::LOCALHOST, free_port()?).into();
        let dnsmasq = Running::start(
            Command::new("dnsmasq")
                .args([
                    "--keep-in-foreground",
                    "--conf-file=/dev/null",
                    "--no-resolv",
                    "--no-hosts",
                ])
                .args(["--bind-interfaces", "--listen-address=127.0.0.1", "--pid-file="])
                .args(["--local=/example/", "--host-record=a.example,10.0.0.7"])
                .arg(format!("--port={}", dns.port())),
        )?;
        until_it_answers(web)?;
        until_it_answers(dns)?;
        // A bound socket that does not listen refuses connections and reserves the port. The UDP port is free for now,
        // or this fails.
        let refusing = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        refusing.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
        let port = refusing.local_addr()?.as_socket().context("no address")?.port();
        let refused = (Ipv4Addr::LOCALHOST, port).into();
        UdpSocket::bind(refused).context("the port that is to refuse is in use")?;
        Ok(Self {
            web,
            dns,
            refused,
            _refusing: (refusing, dir, [nginx, dnsmasq]),
        })
    }
}

fn nginx(dir: &std::path::Path, port: u16) -> Result<Running> {
    let place = dir.display();
    let config = format!(
        "daemon off; master_process off; pid {place}/pid; error_log {place}/error.log;
         worker_rlimit_nofile 65536; events {{ worker_connections 16384; }}
         http {{
            access_log off; keepalive_requests 100000000; keepalive_timeout 600s;
            client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fastcgi;
            uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;
            server {{ listen {port} backlog=4096; location / {{ return 200 \"ok\"; }} }}
         }}"
    );
    let file = dir.join("nginx.conf");
    fs::write(&file, config)?;
    Running::start(Command::new("nginx").arg("-p").arg(dir).arg("-c").arg(file))
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn until_it_answers(address: SocketAddr) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_err() {
        ensure!(Instant::now() < end, "no server answers on {address}");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
