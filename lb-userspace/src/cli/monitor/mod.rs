//! `lb monitor`

mod pcapng;

use std::{
    fs::File,
    io::{self, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::SystemTime,
};

use clap::Args;
use lb_common::reason::{Action, Reason};

use self::pcapng::{Pcapng, Side};
use super::{
    client::with_query,
    error::{CliError, Exit},
    local_time::local,
    output::{Context, Data, print_while_read, remark},
    whole_number::whole_number,
};
use crate::{
    api::types::{Lost, MonitorLine, Packet, Status},
    number,
};

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  lb monitor --drops                          what is dropped, and why
  lb monitor --service web --count 20         the next 20 packets of a service
  lb monitor --client 198.51.100.0/24         of some clients, and replies to them
  lb monitor --service web --pcap - | wireshark -k -i -

Only packets that pass all conditions are shown. While the command runs, a program that records
packets takes the place of the usual one; `docs/monitor.md` says what that costs.")]
pub(super) struct Monitor {
    /// Only packets that are dropped
    #[arg(long)]
    drops: bool,
    /// Only packets of this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only packets of this backend
    #[arg(long, value_name = "NAME|IP:PORT")]
    backend: Option<String>,
    /// Only packets of clients in this prefix, and replies to them
    #[arg(long, value_name = "PREFIX")]
    client: Option<String>,
    /// Only packets of this reason; may be given several times
    #[arg(long, value_name = "REASON")]
    reason: Vec<String>,
    /// Look at one of N packets
    #[arg(long, value_name = "1/N", value_parser = sample)]
    sample: Option<u32>,
    /// Show N packets a second at most, and count the others [default: 1000]
    #[arg(long, value_name = "N", value_parser = whole_number::<u32>(0..=u32::MAX.into()))]
    rate: Option<u32>,
    /// End after N packets
    #[arg(long, value_name = "N", value_parser = whole_number::<u64>(1..))]
    count: Option<u64>,
    /// Write pcapng to this file, or to stdout: each packet before and after
    #[arg(long, value_name = "FILE|-")]
    pcap: Option<PathBuf>,
}

/// Where packets go.
enum Sink {
    Text,
    Data(Data),
    Pcap(Pcapng, Box<dyn Write>),
}

impl Monitor {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let path = self.path();
        let mut sink = match (&self.pcap, context.output) {
            (Some(file), _) => {
                let Status { interfaces, .. } = context.client().get("/v1/status").await?;
                let attached = interfaces
                    .into_iter()
                    .filter(|interface| interface.program_id != 0);
                Sink::pcap(file, attached.map(|interface| interface.name).collect())?
            }
            (None, output) => output.data().map_or(Sink::Text, Sink::Data),
        };
        let (mut shown, mut lost) = (0, 0);
        let show = |line: &str| {
            match parsed(line)? {
                MonitorLine::Lost(now) => {
                    report_lost(&mut lost, &now);
                    // A file that has no packet yet is one all the same, and a reader that is gone is noticed.
                    return sink.begin();
                }
                MonitorLine::Ended(why) => return Err(CliError::answered(why)),
                MonitorLine::Packet(packet) => {
                    if sink.show(&packet, line)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
            shown += 1;
            Ok(match self.count {
                Some(count) if shown >= count => ControlFlow::Break(()),
                Some(_) | None => ControlFlow::Continue(()),
            })
        };
        match context.client().lines(&path, show).await? {
            ControlFlow::Break(()) => Ok(()),
            ControlFlow::Continue(()) => Err(CliError::new(
                Exit::Unreachable,
                "the daemon has ended the monitor",
            )
            .hint("see its log; begin again when it is back")),
        }
    }

    fn path(&self) -> String {
        let reasons = (!self.reason.is_empty()).then(|| self.reason.join(","));
        let values = [
            ("drops", Some(self.drops.to_string())),
            ("packets", Some(self.pcap.is_some().to_string())),
            ("service", self.service.clone()),
            ("backend", self.backend.clone()),
            ("client", self.client.clone()),
            ("reason", reasons),
            ("sample", self.sample.map(|sample| sample.to_string())),
            ("rate", self.rate.map(|rate| rate.to_string())),
        ];
        with_query("/v1/monitor", values)
    }
}

/// `1/N` or `N`.
fn sample(text: &str) -> Result<u32, String> {
    let number = text.strip_prefix("1/").unwrap_or(text);
    number::decimal::<u32>(number)
        .filter(|number| *number != 0)
        .ok_or_else(|| "use 1/N, such as 1/100".to_owned())
}

fn parsed(line: &str) -> Result<MonitorLine, CliError> {
    serde_json::from_str(line)
        .map_err(|error| CliError::new(Exit::Failed, format!("packet {line:?}: {error}")))
}

fn report_lost(lost: &mut u64, now: &Lost) {
    if now.lost > *lost {
        let more = now.lost - *lost;
        remark(&format!(
            "{more} packets are not shown: --rate allows more, --sample fewer"
        ));
        *lost = now.lost;
    }
}

/// A file that loses its old content with the first write: until then the daemon may refuse the monitor, for one since another
/// command monitors into this very file.
struct Replaced {
    file: File,
    is_emptied: bool,
}

impl Replaced {
    fn open(path: &Path) -> io::Result<Self> {
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(false).open(path)?;
        // Pipes and devices have no length.
        let is_emptied = !file.metadata()?.is_file();
        Ok(Self { file, is_emptied })
    }
}

impl Write for Replaced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_emptied {
            self.file.set_len(0)?;
            self.is_emptied = true;
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Sink {
    fn pcap(file: &Path, interfaces: Vec<String>) -> Result<Self, CliError> {
        let output: Box<dyn Write> = if file.as_os_str() == "-" {
            Box::new(io::stdout())
        } else {
            let replaced = Replaced::open(file).map_err(|error| {
                CliError::new(Exit::Failed, format!("cannot create {}: {error}", file.display()))
            })?;
            Box::new(replaced)
        };
        Ok(Self::Pcap(Pcapng::new(interfaces), output))
    }

    /// Begins a file.
    fn begin(&mut self) -> Result<ControlFlow<()>, CliError> {
        match self {
            Self::Text | Self::Data(_) => Ok(ControlFlow::Continue(())),
            Self::Pcap(file, output) => write(output, &file.begin()),
        }
    }

    fn show(&mut self, packet: &Packet, line: &str) -> Result<ControlFlow<()>, CliError> {
        match self {
            Self::Text => print_while_read(&text(packet)),
            Self::Data(data) => print_while_read(&data.line(line)?),
            Self::Pcap(file, output) => write(output, &blocks(file, packet)?),
        }
    }
}

/// Writes at once, so that a reader of a pipe sees it; breaks when the reader is gone.
fn write(output: &mut Box<dyn Write>, bytes: &[u8]) -> Result<ControlFlow<()>, CliError> {
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(CliError::new(Exit::Failed, format!("output: {error}"))),
    }
}

/// One line: time, interface, what happened, from where to where, why, bytes.
fn text(packet: &Packet) -> String {
    let Packet {
        at,
        interface,
        verdict,
        reason,
        direction,
        protocol,
        client,
        destination,
        service,
        backend,
        bytes,
        ..
    } = packet;
    let time = humantime::parse_rfc3339(at).map_or_else(|_| at.clone(), local);
    let what = match direction.as_deref() {
        Some(direction) if verdict == "tx" || verdict == "redirect" => direction,
        Some(_) | None => verdict,
    };
    let arrow = if direction.as_deref() == Some("reply") {
        "<-"
    } else {
        "->"
    };
    let mut way = match (protocol, client, destination) {
        (Some(protocol), Some(client), Some(destination)) => {
            format!("{protocol} {client} {arrow} {destination}")
        }
        (Some(protocol), ..) => protocol.clone(),
        (None, ..) => "no IP packet".to_owned(),
    };
    if let Some(service) = service {
        way.push_str(&format!(" ({service})"));
    }
    if let Some(backend) = backend {
        way.push_str(&format!(" {arrow} {backend}"));
    }
    format!("{time} {interface} {what:<8} {way}  {reason}, {bytes} bytes\n")
}

/// The blocks of a packet in a file: as it came, and as it left if it left, or changed.
fn blocks(file: &mut Pcapng, packet: &Packet) -> Result<Vec<u8>, CliError> {
    let nonsense = |what: &str| {
        CliError::new(
            Exit::Failed,
            format!("the daemon's answer makes no sense: {what}"),
        )
        .hint("see that the daemon and this program are of the same version")
    };
    let at = humantime::parse_rfc3339(&packet.at).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut reasons = Reason::ALL.iter();
    let reason = reasons.find(|reason| reason.name() == packet.reason);
    let action = reason.ok_or_else(|| nonsense("unknown reason"))?.action();
    let bytes = |hex: &Option<String>| hex.as_deref().and_then(unhex).ok_or_else(|| nonsense("no bytes"));
    let (before, after) = (bytes(&packet.before)?, bytes(&packet.after)?);
    let mut comment = format!("{}: {}", packet.verdict, packet.reason);
    for (name, value) in [("service", &packet.service), ("backend", &packet.backend)] {
        if let Some(value) = value {
            comment.push_str(&format!(", {name} {value}"));
        }
    }
    let of = |side, len, bytes| pcapng::Packet {
        at,
        interface: &packet.interface,
        side,
        action,
        comment: &comment,
        len,
        bytes,
    };
    let mut blocks = file.packet(&of(Side::Before, packet.bytes, &before));
    let leaves = match action {
        Action::Tx | Action::Redirect => true,
        Action::Pass | Action::Drop | Action::Aborted => {
            let common = before.len().min(after.len());
            packet.bytes != packet.sent_bytes || before.get(..common) != after.get(..common)
        }
    };
    if leaves {
        blocks.extend(file.packet(&of(Side::After, packet.sent_bytes, &after)));
    }
    Ok(blocks)
}

/// Bytes in hexadecimal.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let pairs = digits?;
    let byte = |pair: &[u32]| match pair {
        [high, low] => u8::try_from(high * 16 + low).ok(),
        _ => None,
    };
    pairs.chunks(2).map(byte).collect()
}

#[cfg(test)]
mod tests;
