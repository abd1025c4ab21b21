//! Parameters of `server`, `default-server` and `server-template` lines.

use std::{path::Path, rc::Rc, time::Duration};

use lb_model::{health::settings::ProxyVersion, number};

use super::address::time;
use crate::statement::Statement;

/// Parameters of a server that have a counterpart. Texts are shared: each server has those of `default-server`.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Params {
    /// Whether it is checked.
    pub(super) check: bool,
    /// Time between checks.
    pub(super) inter: Option<Duration>,
    /// The same while its state changes.
    pub(super) fast: Option<Duration>,
    /// The same while it is down.
    pub(super) down: Option<Duration>,
    /// Successes that make it up.
    pub(super) rise: Option<u32>,
    /// Failures that make it down.
    pub(super) fall: Option<u32>,
    /// Port to check.
    pub(super) port: Option<u16>,
    /// Whether checks go to another address, which also turns TLS of the traffic off for them.
    pub(super) other_address: bool,
    /// Its weight.
    pub(super) weight: Option<u16>,
    /// Whether it is a backup.
    pub(super) backup: bool,
    /// Whether it takes no traffic.
    pub(super) disabled: bool,
    /// Whether traffic to it is TLS of HAProxy's own.
    pub(super) ssl: bool,
    /// Whether checks are, where a line says so.
    pub(super) check_ssl: Option<bool>,
    /// Whether its certificate is verified, where a line says so.
    pub(super) verify: Option<bool>,
    /// CAs to trust.
    pub(super) ca_file: Option<Rc<str>>,
    /// Certificate and key of HAProxy.
    pub(super) cert_file: Option<Rc<str>>,
    /// Name that its certificate must have.
    pub(super) server_name: Option<Rc<str>>,
    /// Protocols offered in checks.
    pub(super) alpn: Rc<[String]>,
    /// Whether checks speak HTTP/2.
    pub(super) http2: bool,
    /// PROXY header of checks.
    pub(super) check_proxy: bool,
    /// PROXY header of traffic.
    pub(super) proxy: Option<ProxyVersion>,
    /// Time over which its weight rises.
    pub(super) slow_start: Option<Duration>,
    /// Whether its connections are cut when it goes down.
    pub(super) cut: bool,
    /// Whether its agent is asked.
    pub(super) agent: bool,
    /// Port of its agent.
    pub(super) agent_port: Option<u16>,
    /// Time between questions to it.
    pub(super) agent_inter: Option<Duration>,
    /// Text sent to it.
    pub(super) agent_send: Option<Rc<str>>,
}

impl Params {
    /// Whether checks use TLS: as the line says, else as the traffic does, unless they go elsewhere.
    pub(super) fn checked_by_tls(&self) -> bool {
        self.check_ssl
            .unwrap_or(self.ssl && self.port.is_none() && !self.other_address)
    }

    /// Reads the words from `at` on over what is set.
    pub(super) fn read(&mut self, line: &Statement, mut at: usize) {
        while at < line.words.len() {
            let word = line.word(at);
            at += if self.flag(line, at, word) {
                1
            } else if self.value(line, at, word) {
                2
            } else {
                lost(line, at, word)
            };
        }
    }

    /// Words without a value; false for other words.
    fn flag(&mut self, line: &Statement, at: usize, word: &str) -> bool {
        match word {
            "check" => self.check = true,
            "no-check" => self.check = false,
            "backup" => self.backup = true,
            "no-backup" => self.backup = false,
            "disabled" => self.disabled = true,
            "enabled" => self.disabled = false,
            "ssl" => self.ssl = true,
            "no-ssl" => self.ssl = false,
            "check-ssl" => self.check_ssl = Some(true),
            "no-check-ssl" => self.check_ssl = Some(false),
            "check-send-proxy" => self.check_proxy = true,
            "no-check-send-proxy" => self.check_proxy = false,
            "agent-check" => self.agent = true,
            "no-agent-check" => self.agent = false,
            "send-proxy" => self.proxy = Some(ProxyVersion::V1),
            "send-proxy-v2" | "send-proxy-v2-ssl" | "send-proxy-v2-ssl-cn" => {
                self.proxy = Some(ProxyVersion::V2);
            }
            "no-send-proxy" | "no-send-proxy-v2" | "no-send-proxy-v2-ssl" | "no-send-proxy-v2-ssl-cn" => {
                self.proxy = None;
            }
            // Options of TLS and others that are off already.
            "no-tfo" | "no-verifyhost" | "stick" => {}
            _ => return false,
        }
        if word == "ssl" {
            line.lose(
                at..at + 1,
                "lb forwards bytes and adds no TLS: clients speak TLS with the server itself",
            );
        } else if word.starts_with("send-proxy") {
            line.lose(
                at..at + 1,
                "lb adds no PROXY header to traffic, so the server must not expect one; mode = \"dnat\", \"l2dsr\" or tunnels \
                 show it the client's address",
            );
        } else {
            line.map(at..at + 1);
        }
        true
    }

    /// Words with a value; false for other words, and for values that make no sense.
    fn value(&mut self, line: &Statement, at: usize, word: &str) -> bool {
        let value = line.word(at + 1);
        let count = || number::decimal::<u32>(value);
        let port = || number::decimal::<u16>(value).filter(|port| *port != 0);
        let file = || {
            Some(value)
                .filter(|value| Path::new(value).is_absolute())
                .map(Rc::from)
        };
        /// Sets a value that could be read.
        fn set<T>(to: &mut Option<T>, value: Option<T>) -> bool {
            let is_known = value.is_some();
            if is_known {
                *to = value;
            }
            is_known
        }
        let known = match word {
            "inter" => set(&mut self.inter, time(value)),
            "fastinter" => set(&mut self.fast, time(value)),
            "downinter" => set(&mut self.down, time(value)),
            "rise" => set(&mut self.rise, count()),
            "fall" => set(&mut self.fall, count()),
            "port" => set(&mut self.port, port()),
            "weight" => set(&mut self.weight, number::decimal(value)),
            "slowstart" => set(&mut self.slow_start, time(value)),
            "ca-file" => set(&mut self.ca_file, file()),
            "crt" => set(&mut self.cert_file, file()),
            "check-sni" => set(&mut self.server_name, Some(value.into())),
            "agent-port" => set(&mut self.agent_port, port()),
            "agent-inter" => set(&mut self.agent_inter, time(value)),
            "agent-send" => set(&mut self.agent_send, Some(value.into())),
            "verify" => set(
                &mut self.verify,
                match value {
                    "none" => Some(false),
                    "required" => Some(true),
                    _ => None,
                },
            ),
            "sni" => {
                let fixed = value.strip_prefix("str(").and_then(|rest| rest.strip_suffix(')'));
                set(&mut self.server_name, fixed.map(Rc::from))
            }
            "check-alpn" => {
                self.alpn = value.split(',').map(str::to_owned).collect();
                true
            }
            "check-proto" if value == "h2" => {
                self.http2 = true;
                true
            }
            "on-marked-down" if value == "shutdown-sessions" => {
                self.cut = true;
                true
            }
            _ => return false,
        };
        if known {
            line.map(at..at + 2);
        }
        known
    }
}

/// A word without a counterpart, with its value if it has one. Gives the number of words.
fn lost(line: &Statement, at: usize, word: &str) -> usize {
    let (values, reason) = match word {
        "maxconn" | "minconn" | "maxqueue" | "max-reuse" | "pool-max-conn" | "pool-low-conn"
        | "pool-purge-delay" => (
            1,
            "lb holds no connections, so it limits none; new_flows of [service.guard] limits new flows a second",
        ),
        "cookie" => (
            1,
            "HTTP cookies are not read; affinity = \"source\" keeps a client at one backend",
        ),
        "addr" => (1, "checks go to the backend's address; port sets another port"),
        "track" => (
            1,
            "servers with the same address and check are checked once anyway",
        ),
        "observe" | "on-error" | "error-limit" => (
            1,
            "mode nat counts flows that fail; breaker_failures of [service.health] takes a backend out by them",
        ),
        "on-marked-up" => (1, "connections to backups end by themselves when others are back"),
        "resolvers" | "resolve-prefer" | "resolve-net" | "resolve-opts" | "init-addr" => (
            1,
            "host names are looked up by the resolver of this machine, again and again; every address is a backend",
        ),
        "agent-addr" => (
            1,
            "agents are asked at the backend's address; agent_port sets the port",
        ),
        "source" => (1, "snat_addresses of [lb] are the source addresses of mode nat"),
        "usesrc" => (
            1,
            "mode = \"dnat\" keeps the client's address; servers then route replies through the balancer",
        ),
        "interface" | "namespace" | "socks4" => (1, "the route of this machine leads to the backend"),
        "redir" => (1, "a redirection is HTTP, which lb does not read"),
        "sni" | "verifyhost" => (
            1,
            "checks by TLS take a fixed name: server_name of [service.health]",
        ),
        "ca-file" | "crt" => (
            1,
            "write an absolute path: ca_file, cert_file and key_file of [service.health]",
        ),
        "ws" | "proto" | "alpn" | "npn" | "check-proto" => (1, "lb forwards bytes and chooses no protocol"),
        "crl-file" | "ciphers" | "ciphersuites" | "curves" | "sigalgs" | "client-sigalgs" | "ssl-min-ver"
        | "ssl-max-ver" => (1, "checks by TLS use TLS 1.2 and 1.3 with current ciphers"),
        "proxy-v2-options" | "set-proxy-v2-tlv-fmt" => (1, "lb adds no PROXY header to traffic"),
        "id" | "guid" | "hash-key" | "shard" | "log-proto" | "log-bufsize" | "tcp-ut" | "ktls"
        | "tcp-md5sig" | "cc" => (1, "it has no meaning for a layer 4 balancer"),
        "on-marked-down" => (
            1,
            "on_down and on_down_after of the service say what happens to flows of a backend that is down",
        ),
        "tfo" | "allow-0rtt" | "check-via-socks4" | "no-tls-tickets" | "no-ssl-reuse" | "ssl-reuse"
        | "tls-tickets" | "non-stick" | "strict-maxconn" | "no-sslv3" | "no-tlsv10" | "no-tlsv11"
        | "no-tlsv12" | "no-tlsv13" | "force-sslv3" | "force-tlsv10" | "force-tlsv11" | "force-tlsv12"
        | "force-tlsv13" => (0, "lb forwards bytes and holds no connections"),
        // Unknown words stay open, and are named as such. So do values that make no sense, after their word.
        _ => return 1,
    };
    line.lose(at..at + 1 + values, reason);
    1 + values
}
