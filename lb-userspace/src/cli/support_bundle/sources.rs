//! What a bundle is made of: output of `lb` itself and of commands of the machine, and files of the kernel.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
    time,
};

/// Longest wait for a command, or for the metrics.
const LIMIT: Duration = Duration::from_secs(20);
/// Bytes of one file of the bundle: of more, the last ones.
const MAX_FILE: usize = 8 << 20;

/// Files of the kernel and the system, one below the other in one file of the bundle.
pub(super) const FILES: [(&str, &[&str]); 4] = [
    (
        "kernel.txt",
        &[
            "/proc/version",
            "/etc/os-release",
            "/proc/uptime",
            "/proc/loadavg",
        ],
    ),
    (
        "memory.txt",
        &["/proc/meminfo", "/proc/self/cgroup", "/proc/self/limits"],
    ),
    (
        "network.txt",
        &[
            "/proc/net/dev",
            "/proc/net/softnet_stat",
            "/proc/net/snmp",
            "/proc/net/netstat",
            "/proc/net/sockstat",
        ],
    ),
    ("interrupts.txt", &["/proc/interrupts", "/proc/softirqs"]),
];

/// Settings of the kernel that decide how packets fare; `*` is each entry of a directory.
pub(super) const SYSCTLS: [&str; 22] = [
    "kernel/unprivileged_bpf_disabled",
    "net/core/bpf_jit_enable",
    "net/core/bpf_jit_harden",
    "net/core/netdev_budget",
    "net/core/netdev_max_backlog",
    "net/core/rps_sock_flow_entries",
    "net/ipv4/ip_forward",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/ip_local_reserved_ports",
    "net/ipv4/ip_nonlocal_bind",
    "net/ipv4/ping_group_range",
    "net/ipv4/tcp_timestamps",
    "net/ipv4/tcp_tw_reuse",
    "net/ipv4/conf/*/rp_filter",
    "net/ipv4/conf/*/arp_ignore",
    "net/ipv4/conf/*/arp_announce",
    "net/ipv4/conf/*/forwarding",
    "net/ipv4/conf/*/accept_local",
    "net/ipv4/neigh/default/gc_thresh3",
    "net/ipv6/conf/*/forwarding",
    "net/ipv6/conf/*/disable_ipv6",
    "net/ipv6/neigh/default/gc_thresh3",
];

/// Commands of the machine.
pub(super) const COMMANDS: [(&str, &[&str]); 9] = [
    ("links.txt", &["ip", "-d", "-s", "link"]),
    ("addresses.txt", &["ip", "addr"]),
    ("routes4.txt", &["ip", "-4", "route", "show", "table", "all"]),
    ("routes6.txt", &["ip", "-6", "route", "show", "table", "all"]),
    ("rules4.txt", &["ip", "-4", "rule"]),
    ("rules6.txt", &["ip", "-6", "rule"]),
    ("neighbours.txt", &["ip", "-s", "neigh"]),
    ("sockets.txt", &["ss", "-s"]),
    (
        "journal.txt",
        &["journalctl", "--no-pager", "-u", "lb", "-n", "5000"],
    ),
];

/// Commands of `lb` itself, for each the file of its output. Exit codes of findings are no failure.
pub(super) const OWN: [(&str, &[&str]); 5] = [
    ("status.json", &["-o", "json", "status"]),
    ("status.txt", &["-o", "wide", "status"]),
    ("doctor.txt", &["doctor"]),
    ("history.txt", &["history", "--limit", "100"]),
    ("events.jsonl", &["-o", "json", "events", "--since", "7d"]),
];

/// A part of the bundle, or why it is missing.
pub(super) type Part = Result<String, String>;

/// What a command prints to stdout and stderr.
pub(super) async fn command(program: &Path, args: &[&str], env: Option<(&str, &Path)>) -> Part {
    let shown = || format!("{} {}", program.display(), args.join(" "));
    let mut command = Command::new(program);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command.env("NO_COLOR", "1").envs(env);
    let output = match time::timeout(LIMIT, command.output()).await {
        Ok(output) => output.map_err(|error| format!("{}: {error}", shown()))?,
        Err(_) => return Err(format!("{}: not done within {} s", shown(), LIMIT.as_secs())),
    };
    let text = last(&String::from_utf8_lossy(&output.stdout));
    let errors = String::from_utf8_lossy(&output.stderr);
    if text.is_empty() && !output.status.success() {
        return Err(format!("{}: {}: {}", shown(), output.status, errors.trim()));
    }
    Ok(text + &errors)
}

/// These files of the kernel, each below its name.
pub(super) fn files(paths: &[&str]) -> String {
    let file = |path: &&str| {
        let text = fs::read_to_string(path).unwrap_or_else(|error| format!("{error}\n"));
        format!("== {path}\n{}\n", text.trim_end())
    };
    paths.iter().map(file).collect()
}

/// The settings of [`SYSCTLS`] as `sysctl` prints them.
pub(super) fn sysctls() -> String {
    let mut lines = String::new();
    for setting in SYSCTLS {
        let paths = match setting.split_once("/*/") {
            None => vec![PathBuf::from("/proc/sys").join(setting)],
            Some((dir, name)) => {
                let entries = fs::read_dir(Path::new("/proc/sys").join(dir))
                    .into_iter()
                    .flatten()
                    .flatten();
                let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path().join(name)).collect();
                paths.sort();
                paths
            }
        };
        for path in paths {
            let value = fs::read_to_string(&path).unwrap_or_else(|error| error.to_string());
            let name = path
                .strip_prefix("/proc/sys")
                .unwrap_or(&path)
                .display()
                .to_string();
            lines.push_str(&format!(
                "{} = {}\n",
                name.replace('.', "\0").replace('/', ".").replace('\0', "/"),
                value.trim()
            ));
        }
    }
    lines
}

/// The metrics that a daemon serves at this address.
pub(super) async fn metrics(address: &str) -> Part {
    let ask = async {
        let address = address
            .replace("0.0.0.0:", "127.0.0.1:")
            .replace("[::]:", "[::1]:");
        let mut stream = TcpStream::connect(&address).await?;
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    match time::timeout(LIMIT, ask).await {
        Ok(Ok(answer)) => match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
            _ => Err(format!(
                "http://{address}/metrics: {:.100}",
                answer.lines().next().unwrap_or_default()
            )),
        },
        Ok(Err(error)) => Err(format!("http://{address}/metrics: {error}")),
        Err(_) => Err(format!(
            "http://{address}/metrics: no answer within {} s",
            LIMIT.as_secs()
        )),
    }
}

/// The last lines of a text that fit.
pub(super) fn last(text: &str) -> String {
    let Some(surplus) = text.len().checked_sub(MAX_FILE).filter(|surplus| *surplus > 0) else {
        return text.to_owned();
    };
    let start = (surplus..text.len()).find(|at| text.as_bytes()[*at - 1] == b'\n');
    text.get(start.unwrap_or(text.len())..)
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_keeps_its_last_lines() {
        let text = "x\n".repeat(MAX_FILE);
        let kept = last(&text);
        assert!(kept.len() <= MAX_FILE && kept.starts_with("x\n") && kept.len() > MAX_FILE - 10);
        assert_eq!(last("short"), "short");
    }

    #[tokio::test]
    async fn a_missing_or_failing_command_says_so() {
        let missing = command(Path::new("/no/such"), &["a"], None).await.unwrap_err();
        assert!(missing.starts_with("/no/such a: "), "{missing}");
        let failing = command(Path::new("sh"), &["-c", "echo why >&2; exit 3"], None)
            .await
            .unwrap_err();
        assert!(failing.ends_with("exit status: 3: why"), "{failing}");
        assert_eq!(
            command(Path::new("sh"), &["-c", "echo a; exit 10"], None)
                .await
                .unwrap(),
            "a\n"
        );
    }
}
