//! Why lines of keepalived's configuration have no counterpart, and what is nearest.

const MAIL: &str =
    "no mail is sent: alerts come by Prometheus (contrib/prometheus/lb.rules.yml, docs/runbook.md)";
const SCRIPT: &str = "no script is run: lb events --follow -o json reports each change";

/// The reason of a block, or line, outside of virtual servers.
pub(super) fn top(keyword: &str) -> &'static str {
    match keyword {
        "vrrp_instance"
        | "vrrp_sync_group"
        | "vrrp_script"
        | "vrrp_track_process"
        | "vrrp_track_file"
        | "track_file"
        | "static_ipaddress"
        | "static_routes"
        | "static_rules"
        | "garp_group"
        | "interface_up_down_delays"
        | "bfd_instance"
        | "vrrp"
        | "linkbeat_interfaces"
        | "linkbeat_use_polling" => {
            "lb moves no addresses: keep keepalived for this block, with a vrrp_script that asks lb's /readyz (curl -fs \
             http://127.0.0.1:9900/readyz)"
        }
        "global_defs" | "notification_email" | "static_track_group" => {
            "lb has no such settings; alerts come by Prometheus (contrib/prometheus/lb.rules.yml, docs/runbook.md)"
        }
        "SSL" => "checks by TLS have ca_file, cert_file and key_file of [service.health]",
        _ => "unknown to lb import",
    }
}

/// The reason of a line in a virtual server, a real server or a check; `None` for unknown ones.
pub(super) fn within(keyword: &str) -> Option<&'static str> {
    Some(match keyword {
        "quorum_up" | "quorum_down" | "notify_up" | "notify_down" => SCRIPT,
        "smtp_alert" | "no_smtp_alert" => MAIL,
        "alpha" => "a backend takes flows before its first check",
        "omega" => "when the daemon ends, on_exit in [lb] says whether forwarding goes on",
        "ha_suspend" => "checks go on without the address, too",
        "hysteresis" => "backup_below has no hysteresis; rise and fall of [service.health] damp changes",
        "sorry_server_inhibit" => "backups take flows while too few of the others can",
        "sorry_server_lvs_method" => "it is not a method that lb import knows",
        "persistence_engine" => "affinity = \"source\" goes by the client's address alone",
        "persistence_granularity" => {
            "affinity = \"source\" goes by the whole address of a client: clients of one network go to several backends"
        }
        "ops" => "each flow of UDP keeps its backend; to spread single datagrams is not possible",
        "flag-3" => "the scheduler has no such flag",
        "lthreshold" | "uthreshold" => {
            "lb counts no connections against a limit; new_flows of [service.guard] limits new flows a second"
        }
        "connect_ip" => "checks go to the backend's address; port sets another port",
        "bind_port" => "checks leave from a port that the kernel chooses",
        "warmup" => "checks are spread by jitter",
        "ip_family" => "an address says its family",
        "bind_if" => "the route of this machine leads to the backend; source sets the address of checks",
        "log_all_failures" | "log_misc" => "lb events shows each change of health",
        "digest" => {
            "expect_body of [service.health] is an expression that the body must match, not its digest"
        }
        "misc_dynamic" => "exit codes set no weights: agents ([service.agent]) do",
        "user" => "programs run as the user of the daemon",
        "http_protocol" => "checks speak HTTP/1.1",
        "enable_sni" => "checks by TLS always name the server: server_name of [service.health]",
        "fast_recovery" => "one success makes a backend up with rise = 1",
        "tls_compliant" | "ssl_version" => "checks by TLS use TLS 1.2 and 1.3",
        "min_reply_length" | "max_reply_length" => {
            "expect_reply of [service.health] is an expression that the reply matches"
        }
        "nat_mask" | "net_mask" | "inhibit_on_failure_mode" | "virtualhost_default" => {
            "it has no meaning for lb"
        }
        "lvs_sync_daemon" => {
            "flows are not synchronized: each balancer selects the same backend for a flow by its hash"
        }
        "snmp_name" => "it has no meaning for lb",
        "regex_no_match" | "regex_options" | "regex_stack" | "regex_min_offset" | "regex_max_offset" => {
            "expect_body is an expression that the body must have, with options inside, such as (?i)"
        }
        _ => return None,
    })
}
