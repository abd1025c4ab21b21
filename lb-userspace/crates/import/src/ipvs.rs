//! Rules of IPVS, as `ipvsadm -Sn` writes and `ipvsadm -R` reads them (ipvsadm(8)).

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    rc::Rc,
};

use lb_common::service::Mode;
use lb_model::{
    config::DEFAULT_WEIGHT,
    number,
    state::{
        backend::{Admin, Backend},
        service::{Protocol, Service, ServiceKey},
    },
};

use crate::{
    draft::{Draft, Entry, ServiceDraft},
    error::ImportError,
    ipvs_words::{CHECKSUM, GRE, Method, Scheduling, gue_port, hash_flag, schedule},
    names::{self, Names},
    statement::{Size, Statement},
};

/// Longest line, in bytes.
const MAX_LINE: usize = 64 * 1024;

/// What rules of IPVS do not say.
const NO_CHECKS: &str = "IPVS checks nothing: add [service.health] to each service (kind = \"tcp\").";

/// Whether the words of a line add a service or a server.
pub(crate) fn is_rule(line: &str) -> bool {
    let first = line.split_whitespace().find(|word| *word != "ipvsadm");
    first.is_some_and(|word| {
        matches!(word, "--add-service" | "--add-server")
            || ["-A", "-a"].iter().any(|flag| word.starts_with(flag)) && !word.starts_with("--")
    })
}

/// Reads rules.
///
/// # Errors
/// A line or all of it is too long, or the text is a table of `ipvsadm -L`.
pub(crate) fn import(file: &Rc<str>, text: &str, draft: &mut Draft) -> Result<(), ImportError> {
    let mut services: Vec<Rules> = Vec::new();
    // The last service of each key.
    let mut places: HashMap<ServiceKey, usize> = HashMap::new();
    let mut ports = Vec::new();
    let mut size = Size::default();
    for (number, text) in (1..).zip(text.lines()) {
        if text.len() > MAX_LINE {
            return Err(ImportError::syntax(
                file,
                number,
                format!("the line is longer than {MAX_LINE} bytes"),
            ));
        }
        if text.starts_with("IP Virtual Server version") {
            return Err(ImportError::syntax(
                file,
                number,
                "this is a table for people: call ipvsadm -Sn instead of ipvsadm -L",
            ));
        }
        let code = text.split('#').next().unwrap_or_default();
        let words: Vec<String> = code.split_whitespace().map(str::to_owned).collect();
        size.add(file, number, words.len(), text.len())?;
        if words.is_empty() {
            continue;
        }
        let line = Statement::new(file, number, text, words);
        draft.statements.push(Rc::clone(&line));
        let rule = Rule::read(&line);
        match (rule.action, rule.key) {
            (Some(Action::AddService), Some(key)) => {
                places.insert(key, services.len());
                services.push(Rules {
                    key,
                    line,
                    scheduler: rule.scheduler,
                    is_persistent: rule.is_persistent,
                    by_port: rule.by_port,
                    servers: Vec::new(),
                });
            }
            (Some(Action::AddServer), Some(key)) => {
                let Some(server) = rule.server else {
                    line.lose_all("not imported: the server has no IP address; call ipvsadm with -n");
                    continue;
                };
                match places.get(&key).and_then(|place| services.get_mut(*place)) {
                    Some(service) => {
                        ports.extend(rule.method.gue_port);
                        service.servers.push((line, server, rule.weight, rule.method));
                    }
                    None => line.lose_all("not imported: no rule before it adds the service"),
                }
            }
            (Some(_), None) => line.lose_all(rule.why),
            (None, _) => {}
        }
    }
    draft.notes.push(NO_CHECKS.to_owned());
    for rules in services {
        service(rules, draft);
    }
    let (port, differs) = gue_port(ports.into_iter());
    draft.settings.gue_port = port;
    if differs && let Some(service) = draft.services.first_mut() {
        service
            .notes
            .push(format!("gue_port in [lb] is one for all backends: {port}"));
    }
    Ok(())
}

/// A service with its servers.
struct Rules {
    key: ServiceKey,
    line: Rc<Statement>,
    scheduler: Option<String>,
    is_persistent: bool,
    by_port: bool,
    servers: Vec<(Rc<Statement>, SocketAddr, u16, Method)>,
}

fn service(rules: Rules, draft: &mut Draft) {
    let key = rules.key;
    let suffix = match key.protocol {
        Protocol::Tcp => "",
        Protocol::Udp => "-udp",
    };
    let wanted = format!("{}{suffix}", names::of_endpoint(key.address, key.port));
    let Some(name) = draft.names.unique(&wanted) else {
        return;
    };
    let mut service = Service::new(name, key);
    // The mode of the first server is the service's; others have their own.
    service.mode = rules
        .servers
        .first()
        .map_or(Mode::L2dsr, |(.., method)| method.mode);
    let modes: Vec<Mode> = rules.servers.iter().map(|(.., method)| method.mode).collect();
    let scheduling = Scheduling {
        scheduler: rules.scheduler,
        is_persistent: rules.is_persistent,
        by_port: rules.by_port,
    };
    scheduling.set(&mut service, &modes);
    let mut new = ServiceDraft::new(service);
    new.statements.push(rules.line);
    let weighted = rules.servers.iter().any(|(_, _, weight, _)| *weight != 1);
    let mut names = Names::default();
    for (line, server, weight, method) in rules.servers {
        let mut address = server;
        if key.port == 0 && method.mode == Mode::Dnat {
            address.set_port(0);
        } else if address.port() == 0 {
            address.set_port(key.port);
        }
        if new.has_backend_at(address) {
            line.note("not imported: another server of the service has this address");
            new.statements.push(line);
            continue;
        }
        let Some(name) = names.unique(&names::of_address(address.ip())) else {
            continue;
        };
        let entry = Entry::Backend(Backend {
            name,
            address,
            weight: if weighted { weight } else { DEFAULT_WEIGHT },
            mode: (method.mode != new.service.mode).then_some(method.mode),
            server_ids: Vec::new(),
            agent_port: None,
            backup: false,
            group: None,
            admin: Admin::Enabled,
            drain_until: None,
            discovered_by: None,
        });
        new.push(entry, vec![line]);
    }
    draft.push(new);
}

/// What a line does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    AddService,
    AddServer,
}

/// A line as it is read.
struct Rule {
    action: Option<Action>,
    key: Option<ServiceKey>,
    /// Why it has no key.
    why: &'static str,
    server: Option<SocketAddr>,
    scheduler: Option<String>,
    is_persistent: bool,
    by_port: bool,
    weight: u16,
    method: Method,
}

impl Rule {
    fn read(line: &Statement) -> Self {
        let mut rule = Self {
            action: None,
            key: None,
            why: "not imported: it has no IP address and port; call ipvsadm with -n",
            server: None,
            scheduler: None,
            is_persistent: false,
            by_port: false,
            weight: 1,
            method: Method::default(),
        };
        let mut at = usize::from(line.word(0) == "ipvsadm");
        line.map(0..at);
        while at < line.words.len() {
            at += rule.option(line, at);
        }
        rule
    }

    /// Reads an option. Gives its number of words.
    fn option(&mut self, line: &Statement, at: usize) -> usize {
        let (word, value) = (line.word(at), line.word(at + 1));
        // `-At` is `-A -t`.
        let word = match (self.action, word) {
            (None, "-At" | "-Au" | "-Af") => {
                self.action = Some(Action::AddService);
                word.replacen('A', "", 1)
            }
            (None, "-at" | "-au" | "-af") => {
                self.action = Some(Action::AddServer);
                word.replacen('a', "", 1)
            }
            _ => word.to_owned(),
        };
        let used = match word.as_str() {
            "-A" | "--add-service" => {
                self.action = Some(Action::AddService);
                1
            }
            "-a" | "--add-server" => {
                self.action = Some(Action::AddServer);
                1
            }
            "-t" | "--tcp-service" => self.key(value, Protocol::Tcp),
            "-u" | "--udp-service" => self.key(value, Protocol::Udp),
            "-f" | "--fwmark-service" => {
                self.why = "not imported: a firewall mark does not say which packets are meant; write address and port of each \
                    service (ports takes several ports, address takes a prefix)";
                2
            }
            "--sctp-service" => {
                self.why = "not imported: lb forwards TCP and UDP, no other protocol";
                2
            }
            "-s" | "--scheduler" => {
                self.scheduler = Some(value.to_owned());
                if let Some(why) = schedule(value).1 {
                    line.lose(at..at + 2, why);
                }
                2
            }
            // The time is optional.
            "-p" | "--persistent" => {
                self.is_persistent = true;
                if number::decimal::<u32>(value).is_some() {
                    2
                } else {
                    1
                }
            }
            "-r" | "--real-server" => {
                self.server = endpoint(value);
                2
            }
            "-m" | "--masquerading" => self.mode(Mode::Dnat),
            "-g" | "--gatewaying" => self.mode(Mode::L2dsr),
            "-i" | "--ipip" => self.mode(Mode::Ipip),
            "--tun-type" => match value {
                "ipip" => 2,
                "gue" => {
                    self.method.mode = Mode::Gue;
                    2
                }
                "gre" => {
                    line.lose(at..at + 2, GRE);
                    2
                }
                _ => return 2,
            },
            "--tun-port" => match number::decimal(value) {
                Some(port) => {
                    self.method.gue_port = Some(port);
                    2
                }
                None => return 2,
            },
            "--tun-nocsum" => 1,
            "--tun-csum" | "--tun-remcsum" => {
                line.lose(at..at + 1, CHECKSUM);
                1
            }
            "-w" | "--weight" => match number::decimal(value) {
                Some(weight) => {
                    self.weight = weight;
                    2
                }
                None => return 2,
            },
            // 0 is no limit.
            "-x" | "--u-threshold" | "-y" | "--l-threshold" if value == "0" => 2,
            "-x" | "--u-threshold" | "-y" | "--l-threshold" => {
                let why = "lb counts no connections against a limit; new_flows of [service.guard] limits new flows a second";
                line.lose(at..at + 2, why);
                2
            }
            "-M" | "--netmask" => {
                let is_whole = matches!(value, "255.255.255.255" | "128");
                if !is_whole {
                    let why = "affinity = \"source\" goes by the whole address of a client: clients of one network go to several \
                        backends";
                    line.lose(at..at + 2, why);
                }
                2
            }
            "-o" | "--ops" => {
                line.lose(
                    at..at + 1,
                    "each flow of UDP keeps its backend; to spread single datagrams is not possible",
                );
                1
            }
            "-b" | "--sched-flags" => {
                for flag in value.split(',') {
                    match hash_flag(flag) {
                        Some(by_port) => self.by_port |= by_port,
                        None => line.lose(at..at + 2, "unknown to lb import"),
                    }
                }
                2
            }
            "--pe" => {
                line.lose(
                    at..at + 2,
                    "affinity = \"source\" goes by the client's address alone",
                );
                2
            }
            "-6" | "--ipv6" | "-n" | "--numeric" => 1,
            _ => return 1,
        };
        line.map(at..at + used);
        used
    }

    fn key(&mut self, text: &str, protocol: Protocol) -> usize {
        self.key = endpoint(text).map(|endpoint| ServiceKey::new(endpoint.ip(), endpoint.port(), protocol));
        2
    }

    const fn mode(&mut self, mode: Mode) -> usize {
        self.method.mode = mode;
        1
    }
}

/// `192.0.2.10:80`, `[2001:db8::10]:80`, or an address alone, which has every port.
fn endpoint(text: &str) -> Option<SocketAddr> {
    text.parse().ok().or_else(|| {
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(text);
        Some(SocketAddr::new(bare.parse::<IpAddr>().ok()?, 0))
    })
}
