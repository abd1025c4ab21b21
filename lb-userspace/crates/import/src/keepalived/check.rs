//! Checks of real servers as `[service.health]`.

use std::time::Duration;

use lb_model::{
    config::values,
    health::settings::{
        Bytes, CheckKind, CheckSettings, DialogueStep, DnsCheck, ExecCheck, Expected, FurtherCheck,
        HttpCheck, RecordType, TcpDialogue, TlsCheck, UdpCheck,
    },
    number,
    state::words::Word as _,
};

use super::{reasons, tree::Node};
use crate::statement::Statement;

/// Time that keepalived waits for an answer where nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The blocks that are checks.
const CHECKS: [&str; 11] = [
    "TCP_CHECK",
    "HTTP_GET",
    "SSL_GET",
    "MISC_CHECK",
    "SMTP_CHECK",
    "DNS_CHECK",
    "PING_CHECK",
    "UDP_CHECK",
    "BFD_CHECK",
    "FILE_CHECK",
    "FILE_TRACK",
];

/// Whether a block is a check.
pub(super) fn is_check(node: &Node) -> bool {
    CHECKS.contains(&node.keyword())
}

/// What a virtual server says for all checks.
#[derive(Clone, Default, Debug)]
pub(super) struct Common {
    /// `delay_loop`.
    pub(super) interval: Option<Duration>,
    /// `delay_before_retry`.
    pub(super) fast: Option<Duration>,
    /// `connect_timeout`.
    pub(super) timeout: Option<Duration>,
    /// `retry`.
    pub(super) retries: Option<u32>,
    /// `virtualhost`.
    pub(super) host: Option<String>,
}

impl Common {
    /// Reads a line of a virtual or real server; false for any other line.
    pub(super) fn read(&mut self, line: &Statement) -> bool {
        let value = line.word(1);
        fn set<T>(to: &mut Option<T>, value: Option<T>) -> bool {
            let is_known = value.is_some();
            if is_known {
                *to = value;
            }
            is_known
        }
        let known = match line.word(0) {
            "delay_loop" => set(&mut self.interval, seconds(value)),
            "delay_before_retry" => set(&mut self.fast, seconds(value)),
            "connect_timeout" => set(&mut self.timeout, seconds(value)),
            "retry" => set(&mut self.retries, number::decimal(value)),
            "virtualhost" => set(&mut self.host, Some(value.to_owned())),
            _ => false,
        };
        if known {
            line.map(0..2);
        }
        known
    }
}

/// Checks of a real server, as read so far.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Checks {
    all: Vec<FurtherCheck>,
    settings: CheckSettings,
    fast: Option<Duration>,
}

impl Checks {
    /// Checks without any yet.
    pub(super) fn new(common: &Common) -> Self {
        let defaults = CheckSettings::default();
        Self {
            all: Vec::new(),
            fast: common.fast,
            settings: CheckSettings {
                interval: common.interval.unwrap_or(defaults.interval),
                timeout: common.timeout.unwrap_or(TIMEOUT),
                fall: common
                    .retries
                    .map_or(defaults.fall, |retries| retries.saturating_add(1)),
                ..defaults
            },
        }
    }

    /// Whether there is any.
    pub(super) fn is_some(&self) -> bool {
        !self.all.is_empty()
    }

    /// The whole table.
    pub(super) fn settings(&self) -> CheckSettings {
        let mut settings = self.settings.clone();
        let Some((first, further)) = self.all.split_first() else {
            return CheckSettings::default();
        };
        settings.kind = first.kind.clone();
        settings.port = first.port;
        settings.also = further.to_vec();
        settings.fast_interval = self.fast.unwrap_or(settings.fast_interval).min(settings.interval);
        settings.down_interval_max = settings.down_interval_max.max(settings.interval);
        settings
    }

    /// Reads a check.
    pub(super) fn read(&mut self, node: &Node, common: &Common) {
        let mut port = None;
        let line = &node.line;
        line.map_all();
        let kinds = match line.word(0) {
            "TCP_CHECK" => vec![CheckKind::Tcp],
            "HTTP_GET" | "SSL_GET" => http(node, common),
            "MISC_CHECK" => misc(node),
            "SMTP_CHECK" => vec![smtp(node)],
            "DNS_CHECK" => vec![dns(node)],
            "PING_CHECK" => vec![CheckKind::Icmp],
            "UDP_CHECK" => vec![udp(node)],
            "BFD_CHECK" => {
                node.lose("lb speaks no BFD; kind icmp with a short interval is nearest");
                return;
            }
            _ => {
                node.lose("no file is watched; kind push takes reports: lb backend report SERVICE BACKEND up --ttl 30s");
                return;
            }
        };
        for child in &node.children {
            self.common(&child.line, &mut port);
            for host in child.children.iter().filter(|_| child.keyword() == "host") {
                self.common(&host.line, &mut port);
            }
            if child.keyword() == "host" {
                child.line.map_all();
            }
        }
        explain(node);
        self.all.extend(kinds.into_iter().map(|kind| FurtherCheck {
            kind,
            port,
            send_proxy: None,
        }));
    }

    /// A line that all kinds of checks have.
    fn common(&mut self, line: &Statement, port: &mut Option<u16>) {
        let value = line.word(1);
        let known = match line.word(0) {
            "connect_port" => number::decimal(value)
                .map(|number: u16| *port = (number != 0).then_some(number))
                .is_some(),
            "delay_loop" => seconds(value).map(|time| self.settings.interval = time).is_some(),
            "connect_timeout" | "misc_timeout" => {
                seconds(value).map(|time| self.settings.timeout = time).is_some()
            }
            "nb_get_retry" | "retry" => number::decimal(value)
                .map(|retries: u32| self.settings.fall = retries.saturating_add(1))
                .is_some(),
            "delay_before_retry" => {
                let time = seconds(value);
                self.fast = time.or(self.fast);
                time.is_some()
            }
            "bindto" => value.parse().map(|ip| self.settings.source = Some(ip)).is_ok(),
            "fwmark" => number::decimal(value)
                .map(|mark| self.settings.mark = Some(mark))
                .is_some(),
            _ => return,
        };
        if known {
            line.map(0..2);
        }
    }
}

/// A time in seconds, with decimals.
pub(super) fn seconds(text: &str) -> Option<Duration> {
    let time = Duration::try_from_secs_f64(number::fraction(text)?).ok()?;
    u64::try_from(time.as_millis()).ok().map(Duration::from_millis)
}

/// Remarks of lines that no parser has read.
pub(super) fn explain(node: &Node) {
    for child in &node.children {
        if child.line.is_untouched()
            && let Some(reason) = reasons::within(child.keyword())
        {
            child.line.lose_all(reason);
        }
        explain(child);
    }
}

/// The value of the first line with a keyword.
fn value<'a>(node: &'a Node, keyword: &str) -> Option<&'a str> {
    let child = node.children.iter().find(|child| child.keyword() == keyword)?;
    child.line.map(0..2);
    Some(child.line.word(1)).filter(|value| !value.is_empty())
}

fn http(node: &Node, common: &Common) -> Vec<CheckKind> {
    let tls = (node.keyword() == "SSL_GET").then(|| TlsCheck {
        // keepalived verifies no certificate.
        verify: false,
        ..TlsCheck::default()
    });
    let of_all = value(node, "virtualhost")
        .map(str::to_owned)
        .or_else(|| common.host.clone());
    let urls: Vec<&Node> = node
        .children
        .iter()
        .filter(|child| child.keyword() == "url")
        .collect();
    let check = |url: Option<&Node>| {
        let mut check = HttpCheck {
            host: of_all.clone(),
            expect_status: (200..=299).collect(),
            tls: tls.clone(),
            ..HttpCheck::default()
        };
        if let Some(url) = url {
            url.line.map_all();
            path_and_answer(url, &mut check);
        }
        CheckKind::Http(check)
    };
    if urls.is_empty() {
        vec![check(None)]
    } else {
        urls.into_iter().map(|url| check(Some(url))).collect()
    }
}

fn path_and_answer(url: &Node, check: &mut HttpCheck) {
    if let Some(path) = value(url, "path") {
        path.clone_into(&mut check.path);
    }
    if let Some(host) = value(url, "virtualhost") {
        check.host = Some(host.to_owned());
    }
    if let Some(pattern) = value(url, "regex") {
        check.expect_body = Some(pattern.to_owned());
    }
    let line = url
        .children
        .iter()
        .find(|child| child.keyword() == "status_code")
        .map(|child| &child.line);
    if let Some(line) = line
        && let Ok(ranges) = values::statuses(&line.rest(1).join(","))
        && line.words.len() > 1
    {
        let mut statuses: Vec<u16> = ranges.into_iter().flatten().collect();
        statuses.sort_unstable();
        statuses.dedup();
        check.expect_status = statuses;
        line.map_all();
    }
}

fn misc(node: &Node) -> Vec<CheckKind> {
    let path = node.children.iter().find(|child| child.keyword() == "misc_path");
    let Some(path) = path else {
        node.line.note("misc_path is missing");
        return Vec::new();
    };
    if path.line.rest(1).iter().any(|word| word.contains(['\'', '"'])) {
        path.line
            .lose_all("arguments in quotes are not read: write command of kind exec by hand");
        return Vec::new();
    }
    path.line.map_all();
    let words = path.line.rest(1).iter().flat_map(|word| word.split_whitespace());
    path.line
        .note("kind exec: the program also gets LB_ADDRESS and LB_PORT, and has no capabilities");
    vec![CheckKind::Exec(ExecCheck {
        command: words.map(str::to_owned).collect(),
    })]
}

fn smtp(node: &Node) -> CheckKind {
    let hello = value(node, "helo_name").unwrap_or("localhost").to_owned();
    let step = |send: Option<String>, expect: &str| DialogueStep {
        send: send.map(Bytes::Text),
        expect: Some(Expected::Bytes(Bytes::Text(expect.to_owned()))),
    };
    CheckKind::Dialogue(TcpDialogue {
        steps: vec![
            step(None, "220"),
            step(Some(format!("HELO {hello}\r\n")), "250"),
            step(Some("QUIT\r\n".to_owned()), "221"),
        ],
    })
}

fn dns(node: &Node) -> CheckKind {
    let mut check = DnsCheck {
        // keepalived's defaults.
        name: ".".to_owned(),
        record: RecordType::Soa,
        ..DnsCheck::default()
    };
    if let Some(name) = value(node, "name") {
        name.clone_into(&mut check.name);
    }
    if let Some(child) = node.children.iter().find(|child| child.keyword() == "type")
        && let Some(record) = RecordType::from_word(child.line.word(1))
    {
        child.line.map(0..2);
        check.record = record;
    }
    CheckKind::Dns(check)
}

fn udp(node: &Node) -> CheckKind {
    let mut check = UdpCheck {
        payload: "lb".to_owned(),
        expect_reply: None,
    };
    for child in &node.children {
        let line = &child.line;
        match line.word(0) {
            "payload" => {
                let digits: String = line.rest(1).concat();
                let pairs = digits.as_bytes().chunks(2);
                let bytes: Option<Vec<u8>> = pairs.map(number::hexadecimal_byte).collect();
                match bytes.map(String::from_utf8) {
                    Some(Ok(text)) if !text.is_empty() => {
                        check.payload = text;
                        line.map_all();
                    }
                    Some(_) | None => line.lose_all("payload of [service.health] is a text"),
                }
            }
            "require_reply" => {
                check.expect_reply = Some("^".to_owned());
                line.map(0..1);
                if line.words.len() > 1 {
                    line.lose(
                        1..line.words.len(),
                        "expect_reply is an expression, which matches any reply here",
                    );
                }
            }
            _ => {}
        }
    }
    CheckKind::Udp(check)
}
