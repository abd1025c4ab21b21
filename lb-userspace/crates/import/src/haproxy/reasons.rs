//! Why lines of HAProxy's configuration have no counterpart, and what is nearest.

use crate::statement::Statement;

const HTTP: &str = "lb forwards packets and reads no HTTP; keep HAProxy behind lb for what needs it";
const LOG: &str =
    "no connection is logged: lb monitor shows packets, lb flows shows flows, lb events shows changes";
const PROCESS: &str = "lb is one process without tuning of threads and buffers";
const CONNECTIONS: &str =
    "lb holds no connections, so it limits none; new_flows of [service.guard] limits new flows a second";
const SOCKET: &str = "lb forwards packets and ends no connection, so it has no such option of sockets";

/// Gives a line that has no counterpart its reason.
pub(super) fn explain(line: &Statement) {
    let reason = match (line.word(0), line.word(1)) {
        ("option" | "no" | "default", _) => option(line),
        ("timeout", what) => timeout(what),
        ("external-check", "path") => Some("programs get the PATH of the daemon's own"),
        (first, second) => line_of(first, second),
    };
    if let Some(reason) = reason {
        line.lose_all(reason);
    }
}

/// The reason of a section of which nothing has a counterpart.
pub(super) fn section(kind: &str) -> Option<&'static str> {
    match kind {
        "peers" => Some("balancers share no tables: each selects the same backend for a flow by its hash"),
        "resolvers" => Some("host names are looked up by the resolver of this machine (/etc/resolv.conf)"),
        "mailers" | "email-alert" => {
            Some("alerts come by Prometheus: contrib/prometheus/lb.rules.yml, docs/runbook.md")
        }
        "userlist" | "cache" | "http-errors" | "fcgi-app" | "acme" => Some(HTTP),
        "program" => Some("lb starts no other programs; systemd does"),
        "ring" | "log-forward" | "log-profile" | "traces" => Some(LOG),
        "crt-store" => Some("lb forwards bytes: TLS ends at the backends"),
        _ => None,
    }
}

fn option(line: &Statement) -> Option<&'static str> {
    let name = if line.word(0) == "option" {
        line.word(1)
    } else {
        line.word(2)
    };
    Some(match name {
        "httplog"
        | "tcplog"
        | "dontlognull"
        | "dontlog-normal"
        | "log-health-checks"
        | "log-separate-errors"
        | "logasap"
        | "httpslog"
        | "error-log-format" => LOG,
        "forwardfor" | "originalto" | "forwarded" => {
            "no header is added: with mode = \"dnat\", \"l2dsr\" or tunnels backends see the client's address itself"
        }
        "redispatch" => {
            "connections are not made again: a client's SYN that is repeated goes to a backend that is up"
        }
        "persist" | "prefer-last-server" => "affinity = \"source\" keeps a client at one backend",
        "transparent" => "mode = \"dnat\" keeps the client's address",
        "http-server-close"
        | "httpclose"
        | "forceclose"
        | "http-keep-alive"
        | "http-pretend-keepalive"
        | "http-tunnel"
        | "http-no-delay"
        | "http-use-htx"
        | "http-use-proxy-header"
        | "http-ignore-probes"
        | "http-buffer-request"
        | "http-restrict-req-hdr-names"
        | "h1-case-adjust-bogus-client"
        | "h1-case-adjust-bogus-server"
        | "accept-invalid-http-request"
        | "accept-invalid-http-response"
        | "accept-unsafe-violations-in-http-request"
        | "accept-unsafe-violations-in-http-response"
        | "abortonclose"
        | "checkcache"
        | "disable-h2-upgrade"
        | "http_proxy"
        | "use-small-buffers" => HTTP,
        "tcpka"
        | "clitcpka"
        | "srvtcpka"
        | "nolinger"
        | "splice-auto"
        | "splice-request"
        | "splice-response"
        | "tcp-smart-accept"
        | "tcp-smart-connect"
        | "independent-streams"
        | "socket-stats"
        | "contstats"
        | "idle-close-on-response" => SOCKET,
        "spop-check" => "a connection alone is checked",
        "dontlog" | "srvtcpka-cnt" => SOCKET,
        _ => return None,
    })
}

fn timeout(what: &str) -> Option<&'static str> {
    Some(match what {
        "client" | "server" | "tunnel" => {
            "idle flows are forgotten after idle_timeout, 2h4m by default; connections of clients end as these and the \
             backends want"
        }
        "connect" | "check" => "not a time that lb import can read",
        "client-fin" | "server-fin" => "closed flows are forgotten after closed_timeout, 10s by default",
        "queue" => "flows do not wait for a backend: on_empty says what happens while none takes any",
        "http-request" | "http-keep-alive" | "tarpit" => HTTP,
        "client-hs" => "lb forwards bytes: TLS ends at the backends",
        _ => return None,
    })
}

fn line_of(first: &str, second: &str) -> Option<&'static str> {
    Some(match first {
        "log" | "log-format" | "log-format-sd" | "log-tag" | "log-send-hostname" | "error-log-format"
        | "unique-id-format" | "unique-id-header" | "log-steps" => LOG,
        "maxconn" | "fullconn" | "maxconnrate" | "maxsessrate" | "maxsslconn" | "maxsslrate" | "backlog"
        | "minconn" => CONNECTIONS,
        "stats" => "lb top, lb status and /metrics show the figures; lb's socket is set by socket in [lb]",
        "chroot"
        | "user"
        | "group"
        | "uid"
        | "gid"
        | "daemon"
        | "pidfile"
        | "nbproc"
        | "nbthread"
        | "cpu-map"
        | "cpu-policy"
        | "thread-groups"
        | "thread-group"
        | "master-worker"
        | "mworker-max-reloads"
        | "ulimit-n"
        | "node"
        | "hard-stop-after"
        | "grace"
        | "maxpipes"
        | "spread-checks"
        | "max-spread-checks"
        | "noepoll"
        | "nosplice"
        | "nogetaddrinfo"
        | "busy-polling"
        | "profiling.tasks"
        | "quiet"
        | "debug"
        | "set-dumpable"
        | "setcap"
        | "insecure-fork-wanted"
        | "insecure-setuid-wanted"
        | "external-check"
        | "presetenv"
        | "setenv"
        | "unsetenv"
        | "resetenv"
        | "localpeer"
        | "numa-cpu-mapping"
        | "strict-limits"
        | "unix-bind"
        | "harden.reject-privileged-ports.tcp"
        | "close-spread-time"
        | "stress-level"
        | "limited-quic"
        | "expose-experimental-directives"
        | "expose-deprecated-directives"
        | "server-state-base"
        | "server-state-file"
        | "load-server-state-from-file"
        | "shm-stats-file"
        | "zero-warning" => PROCESS,
        first if first.starts_with('.') => "conditions are not evaluated: the lines of each branch are read",
        first if first.starts_with("tune.") => PROCESS,
        first if first.starts_with("lua-") => HTTP,
        first
            if first.starts_with("ssl-")
                || first.starts_with("ca-base")
                || first == "crt-base"
                || first == "key-base" =>
        {
            "lb forwards bytes: TLS ends at the backends"
        }
        "issuers-chain-path" => "lb forwards bytes: TLS ends at the backends",
        "retries" | "retry-on" => {
            "lb makes no connections: clients repeat their SYN, and it goes to a backend that is up"
        }
        "cookie" | "appsession" | "dynamic-cookie-key" => {
            "HTTP cookies are not read; affinity = \"source\" keeps a client at one backend"
        }
        "stick-table" => {
            "no table of clients: affinity = \"source\" selects by a hash, and source_new_flows of [service.guard] limits each \
             client"
        }
        "stick" => "affinity = \"source\" keeps a client at one backend; other keys are not read",
        "hash-type" | "hash-balance-factor" | "hash-preserve-affinity" => {
            "Maglev hashing is consistent: a change of backends moves few flows"
        }
        "source" => {
            "snat_addresses of [lb] are the source addresses of mode nat; mode = \"dnat\" keeps the client's address"
        }
        "acl" => {
            "conditions on requests are not read; allow and deny of [service.guard] are prefixes of clients"
        }
        "use_backend" => {
            "lb reads no requests, so what this line would send elsewhere goes where the rest goes"
        }
        "use-server" | "force-persist" | "ignore-persist" => {
            "lb reads no requests: the hash of a flow selects its backend"
        }
        "tcp-request" | "tcp-response" => {
            "lb reads no connections; allow, deny, new_flows and source_new_flows of [service.guard] limit clients"
        }
        "http-request" if matches!(second, "deny" | "reject" | "tarpit") => {
            "lb reads no HTTP, so NOTHING is refused for this; allow and deny of [service.guard] are prefixes of clients"
        }
        "http-request"
        | "http-response"
        | "http-after-response"
        | "http-error"
        | "http-reuse"
        | "http-send-name-header"
        | "redirect"
        | "errorfile"
        | "errorfiles"
        | "errorloc"
        | "errorloc302"
        | "errorloc303"
        | "errorloc307"
        | "compression"
        | "capture"
        | "declare"
        | "filter"
        | "reqadd"
        | "rspadd"
        | "reqrep"
        | "rsprep"
        | "reqirep"
        | "rspirep"
        | "reqdel"
        | "rspdel"
        | "reqidel"
        | "rspidel"
        | "reqdeny"
        | "reqideny"
        | "reqallow"
        | "rspdeny"
        | "block"
        | "h1-case-adjust"
        | "h1-case-adjust-file"
        | "h1-accept-payload-with-any-method"
        | "h2-workaround-bogus-websocket-clients"
        | "httpclient.resolvers.id"
        | "httpclient.ssl.verify"
        | "httpclient.retries"
        | "httpclient.timeout.connect" => HTTP,
        "monitor-uri" | "monitor" | "monitor-net" | "monitor-fail" => {
            "lb serves /healthz and /readyz at the address of metrics in [lb]"
        }
        "email-alert" => "alerts come by Prometheus: contrib/prometheus/lb.rules.yml, docs/runbook.md",
        "id" | "guid" | "description" | "bind-process" | "force-be-switch" => "it has no meaning for lb",
        "dispatch" => "write a server line: lb needs the backend's name",
        "contimeout" | "clitimeout" | "srvtimeout" => {
            "idle flows are forgotten after idle_timeout, 2h4m by default; see timeout"
        }
        "mode" => "lb forwards TCP and UDP; other modes have no counterpart",
        "option" => return None,
        _ => return None,
    })
}
