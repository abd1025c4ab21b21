//! The load tool, measured. Requests for each CPU second beside wrk and h2load (and oha, if `PATH` has it) against nginx, in turn;
//! its memory after 10 s and after 60 s of load; and the p99 that it measures of a server which stalls one second in ten, beside the
//! computed one. With `quick`, short turns, and memory after 1 s and 3 s; `peers`, `memory` and `stalls` select a part.

use std::{
    env,
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use lb_tests::{
    lane::Lane,
    load_tool::{self, Ended, load_tool},
    netns::Netns,
    nginx,
    scratch::Scratch,
    topology, wait,
};

/// Parts of this benchmark.
const PEERS: &str = "peers";
const MEMORY: &str = "memory";
const STALLS: &str = "stalls";
const PARTS: [&str; 3] = [PEERS, MEMORY, STALLS];
/// Turns of each tool.
const TURNS: usize = 5;
/// Connections of a load.
const CONNECTIONS: usize = 64;
/// Ports of nginx.
const HTTP1: u16 = 80;
const HTTP2: u16 = 81;
/// Port of the server that stalls.
const STALLING: u16 = 82;
/// When it stalls: for the last second of each ten.
const PERIOD: Duration = Duration::from_secs(10);
const STALL: Duration = Duration::from_secs(1);

/// A client and a server on a pair of interfaces.
struct Pair {
    client: Netns,
    server: Netns,
    seconds: u64,
}

fn main() -> Result<()> {
    let words: Vec<String> = env::args().collect();
    let has = |word: &str| words.iter().any(|other| other == word);
    let selects = |part| has(part) || !PARTS.iter().any(|part| has(part));
    let is_quick = has("quick");
    let pair = Pair::new(if is_quick { 1 } else { 3 })?;
    let scratch = Scratch::new()?;
    nginx::configure(
        &scratch,
        &format!(
            "keepalive_requests 100000000; keepalive_timeout 600s;
             server {{ listen {HTTP1} backlog=4096; location / {{ return 200 \"hello\"; }} }}
             server {{ listen {HTTP2} http2 backlog=4096; http2_max_requests 100000000; location / {{ return 200 \"hello\"; }} }}"
        ),
    )?;
    let mut server = nginx::spawn(&pair.server, &scratch)?;
    let result = wait_for(&pair).and_then(|()| {
        if selects(PEERS) {
            let _alone = Lane::alone()?;
            efficiency(&pair, "HTTP/1.1", &mut pair.http1_tools()?)?;
            efficiency(&pair, "HTTP/2, 10 streams", &mut pair.http2_tools()?)?;
        }
        // Neither size nor stall depends on what else runs.
        let _shared = Lane::shared()?;
        if selects(MEMORY) {
            memory(&pair, if is_quick { [1, 3] } else { [10, 60] })?;
        }
        Ok(())
    });
    server.kill()?;
    server.wait()?;
    result?;
    if selects(STALLS) {
        stalls(&pair, if is_quick { 1 } else { 3 })?;
    }
    Ok(())
}

fn wait_for(pair: &Pair) -> Result<()> {
    wait::until_true("nginx answers", Duration::from_secs(10), || {
        Ok(lb_tests::http::get(&pair.client, pair.address(HTTP1), "/").is_ok())
    })
}

impl Pair {
    fn new(seconds: u64) -> Result<Self> {
        let (client, server) = (Netns::new("client")?, Netns::new("server")?);
        topology::veth(&client, "eth0", &server, "eth0")?;
        client.ip("addr add 10.9.0.1/24 dev eth0")?;
        server.ip("addr add 10.9.0.2/24 dev eth0")?;
        Ok(Self {
            client,
            server,
            seconds,
        })
    }

    fn address(&self, port: u16) -> SocketAddr {
        ([10, 9, 0, 2], port).into()
    }

    fn url(&self, port: u16) -> String {
        format!("http://{}/", self.address(port))
    }

    fn http1_tools(&self) -> Result<Vec<Tool>> {
        let (url, seconds) = (self.url(HTTP1), self.seconds);
        let connections = CONNECTIONS.to_string();
        let mut tools = vec![
            self.ours(&[&url])?,
            Tool {
                name: "wrk",
                command: self.peer(
                    "wrk",
                    &["-t1", "-c", &connections, "-d", &format!("{seconds}s"), &url],
                ),
                requests: |output| before(output, " requests in "),
            },
            Tool {
                name: "h2load",
                command: self.peer(
                    "h2load",
                    &[
                        "--h1",
                        "-t1",
                        "-c",
                        &connections,
                        "-D",
                        &seconds.to_string(),
                        &url,
                    ],
                ),
                requests: |output| before(output, " succeeded,"),
            },
        ];
        if Command::new("oha")
            .arg("--version")
            .stdout(Stdio::null())
            .status()
            .is_ok()
        {
            let time = format!("{seconds}s");
            let words = [
                "--no-tui",
                "-c",
                &connections,
                "-z",
                &time,
                "--output-format",
                "json",
                &url,
            ];
            tools.push(Tool {
                name: "oha",
                command: self.peer("oha", &words),
                requests: |output| {
                    let result: serde_json::Value = serde_json::from_str(output)?;
                    result["statusCodeDistribution"]["200"]
                        .as_f64()
                        .context("no requests")
                },
            });
        }
        Ok(tools)
    }

    fn http2_tools(&self) -> Result<Vec<Tool>> {
        let url = self.url(HTTP2);
        let (connections, seconds) = (CONNECTIONS.to_string(), self.seconds.to_string());
        Ok(vec![
            self.ours(&["--http", "2", "--streams", "10", &url])?,
            Tool {
                name: "h2load",
                command: self.peer(
                    "h2load",
                    &["-t1", "-m10", "-c", &connections, "-D", &seconds, &url],
                ),
                requests: |output| before(output, " succeeded,"),
            },
        ])
    }

    fn ours(&self, arguments: &[&str]) -> Result<Tool> {
        let mut command = load_tool(&self.client)?;
        let seconds = format!("{}s", self.seconds);
        command.args([
            "-t",
            "1",
            "-c",
            &CONNECTIONS.to_string(),
            "-w",
            "0s",
            "-d",
            &seconds,
            "--json",
        ]);
        command.args(arguments);
        Ok(Tool {
            name: "lb-bench",
            command,
            requests: |output| {
                let result: serde_json::Value = serde_json::from_str(output)?;
                result["requests"].as_f64().context("no requests")
            },
        })
    }

    fn peer(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = self.client.command(name);
        command.args(arguments);
        command
    }
}

/// A load tool, with one thread.
struct Tool {
    name: &'static str,
    command: Command,
    /// The number of requests that its output tells.
    requests: fn(&str) -> Result<f64>,
}

/// The number before some words.
fn before(output: &str, words: &str) -> Result<f64> {
    let (text, _) = output
        .split_once(words)
        .with_context(|| format!("no {words:?} in {output}"))?;
    let number = text.rsplit([' ', '\n']).next().unwrap_or_default();
    number
        .parse()
        .with_context(|| format!("no number before {words:?} in {output}"))
}

/// What a request costs, in microseconds, and how many there are.
struct Cost {
    user: f64,
    system: f64,
    rate: f64,
}

impl Cost {
    fn per_cpu_second(&self) -> f64 {
        1e6 / (self.user + self.system)
    }
}

fn efficiency(pair: &Pair, what: &str, tools: &mut [Tool]) -> Result<()> {
    let mut costs: Vec<Vec<Cost>> = tools.iter().map(|_| Vec::new()).collect();
    for _ in 0..TURNS {
        for (tool, costs) in tools.iter_mut().zip(&mut costs) {
            let Ended { output, user, system } = load_tool::run(&mut tool.command)?;
            let requests = (tool.requests)(&output)?;
            costs.push(Cost {
                user: user.as_secs_f64() * 1e6 / requests,
                system: system.as_secs_f64() * 1e6 / requests,
                rate: requests / pair.seconds as f64,
            });
        }
    }
    println!(
        "\n{what}: one thread, {CONNECTIONS} connections, nginx, medians of {TURNS} turns of {} s\n",
        pair.seconds
    );
    println!(
        "| tool | requests a CPU second (least to most) | of the best peer | user, µs | kernel, µs | requests/s |"
    );
    println!("|---|---|---|---|---|---|");
    let medians: Vec<f64> = costs
        .iter()
        .map(|costs| median(costs, Cost::per_cpu_second).1)
        .collect();
    let best = medians.iter().skip(1).copied().fold(0.0, f64::max);
    for (tool, costs) in tools.iter().zip(&costs) {
        let (least, middle, most) = median(costs, Cost::per_cpu_second);
        println!(
            "| {} | {middle:.0} ({least:.0} to {most:.0}) | {:.2} | {:.2} | {:.2} | {:.0} |",
            tool.name,
            middle / best,
            median(costs, |cost| cost.user).1,
            median(costs, |cost| cost.system).1,
            median(costs, |cost| cost.rate).1,
        );
    }
    Ok(())
}

/// The least, the middle and the greatest of a figure.
fn median(costs: &[Cost], figure: impl Fn(&Cost) -> f64) -> (f64, f64, f64) {
    let mut figures: Vec<f64> = costs.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    let at = |place: usize| figures.get(place).copied().unwrap_or(f64::NAN);
    (at(0), at(figures.len() / 2), at(figures.len() - 1))
}

/// The tool's memory at two times of one load.
fn memory(pair: &Pair, times: [u64; 2]) -> Result<()> {
    let mut command = load_tool(&pair.client)?;
    let duration = format!("{}s", times[1] + 1);
    command.args(["-w", "0s", "-d", &duration, "--json"]);
    let mut child = command.arg(pair.url(HTTP1)).stdout(Stdio::piped()).spawn()?;
    let begin = Instant::now();
    let mut sizes = Vec::new();
    for time in times {
        wait::pace(Duration::from_secs(time).saturating_sub(begin.elapsed()));
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        sizes.push(line.context("no VmRSS")?.trim().to_owned());
    }
    let mut output = String::new();
    child
        .stdout
        .take()
        .context("no output")?
        .read_to_string(&mut output)?;
    child.wait()?;
    let result: serde_json::Value = serde_json::from_str(&output)?;
    println!(
        "\nResident memory of lb-bench: {} after {} s, {} after {} s, with {} requests",
        sizes[0], times[0], sizes[1], times[1], result["requests"]
    );
    Ok(())
}

/// The p99 of a server that stalls for the last second of each ten, at a fixed rate and in a closed loop. Of all requests at a fixed
/// rate, the tenth that is due in a stall waits for its end, evenly from 0 to 1 s: its slowest tenth waits for more than 0.9 s.
fn stalls(pair: &Pair, periods: u32) -> Result<()> {
    let address = pair.address(STALLING);
    let listener = pair.server.enter(|| TcpListener::bind(address))??;
    let begin = Instant::now();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream, begin));
        }
    });
    let computed = 0.9;
    let duration = format!("{}s", PERIOD.as_secs() * u64::from(periods));
    println!("\np99 of a server that stalls 1 s in every 10, over {duration}\n");
    for rate in [&["--rate", "1000"][..], &[]] {
        let mut command = load_tool(&pair.client)?;
        command
            .args(["-c", "16", "-w", "0s", "-d", &duration, "--json"])
            .args(rate);
        let result = load_tool::run(command.arg(pair.url(STALLING)))?.json()?;
        let p99 = result["latency"]["p99"].as_f64().context("no p99")?;
        match rate {
            [] => println!("closed loop: {:.3} ms", p99 * 1e3),
            _ => println!(
                "1,000 requests/s: {p99:.3} s, computed {computed} s, {:+.1} %",
                (p99 / computed - 1.0) * 100.0
            ),
        }
    }
    Ok(())
}

/// Answers the requests of a connection, each of which comes in one piece.
fn answer(mut stream: std::net::TcpStream, begin: Instant) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; 1024];
    while stream.read(&mut buffer)? > 0 {
        let into = Duration::from_secs_f64(begin.elapsed().as_secs_f64() % PERIOD.as_secs_f64());
        if into >= PERIOD - STALL {
            wait::pace(PERIOD - into);
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
    }
    Ok(())
}
