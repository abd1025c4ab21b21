//! HAProxy's checks, under the same load as the engine's.

use std::{fmt::Write, fs, net::SocketAddr, path::Path, process::Command, thread, time::Duration};

use anyhow::{Context, Result, ensure};

use crate::{
    engine::{INTERVAL, TARGETS, nanoseconds},
    servers::{Running, free_port},
};

const WARM_UP: Duration = Duration::from_secs(3);
const MEASURED: Duration = Duration::from_secs(5);

/// Nanoseconds of HAProxy's only thread for each check. Its checks each open a connection, which the kernel counts, with
/// the few that others open in this time.
pub(crate) fn measure(http: bool, web: SocketAddr) -> Result<f64> {
    let dir = tempfile::tempdir()?;
    let check = if http {
        "option httpchk GET / HTTP/1.1\\r\\nHost:\\ a"
    } else {
        ""
    };
    let mut config = format!(
        "global\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\n  \
         timeout check 5s\nfrontend f\n  bind 127.0.0.1:{}\n  default_backend b\nbackend b\n  {check}\n  \
         default-server check inter {}ms\n",
        free_port()?,
        INTERVAL.as_millis()
    );
    for n in 1..=TARGETS {
        let [_, _, high, low] = n.to_be_bytes();
        writeln!(config, "  server s{n} 127.9.{high}.{low}:{}", web.port())?;
    }
    let file = dir.path().join("haproxy.cfg");
    fs::write(&file, config)?;
    let mut haproxy = Running::start(Command::new("haproxy").arg("-db").arg("-f").arg(file))?;
    let schedstat = Path::new("/proc")
        .join(haproxy.0.id().to_string())
        .join("schedstat");
    thread::sleep(WARM_UP);
    ensure!(
        haproxy.0.try_wait()?.is_none(),
        "HAProxy refuses its configuration"
    );
    let (before, cpu) = (connections()?, nanoseconds(&schedstat)?);
    thread::sleep(MEASURED);
    let (after, cpu) = (connections()?, nanoseconds(&schedstat)? - cpu);
    Ok(cpu / (after - before))
}

/// Connections that this host opened so far: `Tcp: ActiveOpens` of RFC 4022.
fn connections() -> Result<f64> {
    let text = fs::read_to_string("/proc/net/snmp")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next(), lines.next());
    let (names, values) = names.zip(values).context("no counters of TCP")?;
    let place = names.split(' ').position(|name| name == "ActiveOpens");
    let value = place.and_then(|place| values.split(' ').nth(place));
    Ok(value.context("no count of connections")?.parse()?)
}
