//! Parsing of whole files.

mod clients;
mod files;
mod hosts;
mod ports;
mod prefixes;
mod tunnel;

use proptest::prelude::*;

use super::{fields::Keys, *};
use crate::{
    health::settings::{CheckKind, CheckSettings},
    state::testing,
    state::xdp_mode::XdpModeChoice,
};

/// Kinds of checks that the example only mentions, each with its text.
#[test]
fn every_kind_of_check_works_as_the_example_says() {
    for health in [
        "kind = \"none\"",
        "kind = \"tcp\"\nhalf_open = true",
        "kind = \"tcp\"\nsend = \"PING\\r\\n\"\nexpect = \"+PONG\"",
        "kind = \"tcp\"\nsend_hex = \"50 49\"\nexpect_hex = \"2b\"",
        "kind = \"tcp\"\nexpect_regex = \"^SSH-2\"\nsend_proxy = \"v1\"",
        "kind = \"tcp\"\nsteps = [{ expect = \"220\" }, { send = \"QUIT\\r\\n\", expect = \"221\" }]",
        "kind = \"tcp\"\n[[service.health.steps]]\nexpect = \"220\"\n[[service.health.steps]]\nsend = \"QUIT\"",
        "kind = \"dns\"\nname = \".\"\ntransport = \"tcp\"\nsend_proxy = \"v2\"",
        "kind = \"tls\"\nalpn = [\"h2\"]\nserver_name = \"a.example\"\nwarn_before = \"14d\"",
        "kind = \"https\"\nverify = false\nca_file = \"/ca\"\ncert_file = \"/cert\"\nkey_file = \"/key\"",
        "kind = \"http2\"\ntls = true\npath = \"/health\"\nexpect_status = [200, \"300-399\"]",
        "kind = \"grpc\"\nservice = \"a.B\"\nhost = \"a.example\"\ntls = true",
        "kind = \"dns\"\nname = \"a.example\"\nrecord = \"AAAA\"\ntransport = \"tcp\"\nexpect_answer = \"::1\"",
        "kind = \"udp\"\npayload = \"ping\"\nexpect_reply = \"pong\"",
        "kind = \"icmp\"",
        "kind = \"push\"\nttl = \"30s\"",
        "kind = \"exec\"\ncommand = [\"/path\", \"argument\"]",
    ] {
        if let Err(errors) = with_health(health) {
            panic!("{health}: {errors:#?}");
        }
    }
}

#[test]
fn an_empty_file_has_the_documented_defaults() {
    let config = parse("", "lb.toml").unwrap();
    assert_eq!(config.desired, Desired::default());
    let DaemonSettings {
        interfaces,
        wait_for_interfaces,
        xdp_mode,
        socket,
        socket_group,
        socket_read,
        socket_read_group,
        api_address,
        api_cert_file,
        api_key_file,
        api_ca_file,
        api_crl_file,
        api_admin,
        api_operate,
        api_read,
        state_dir,
        metrics,
        metrics_access,
        metrics_names,
        pin_dir,
        on_exit,
        log_format,
    } = config.daemon;
    assert_eq!(interfaces, Vec::<String>::new());
    assert!(!wait_for_interfaces);
    assert_eq!(xdp_mode, XdpModeChoice::Auto);
    assert_eq!(socket.to_str(), Some("/run/lb/lb.sock"));
    assert_eq!((socket_group, socket_read, socket_read_group), (None, None, None));
    assert_eq!(
        (
            api_address,
            api_cert_file,
            api_key_file,
            api_ca_file,
            api_crl_file
        ),
        (None, None, None, None, None)
    );
    assert!(api_admin.is_empty() && api_operate.is_empty() && api_read.is_empty());
    assert_eq!(state_dir.to_str(), Some("/var/lib/lb"));
    assert_eq!(metrics.to_string(), "127.0.0.1:9900");
    assert!(metrics_access.is_empty() && metrics_names.is_empty());
    assert_eq!(pin_dir.to_str(), Some("/sys/fs/bpf/lb"));
    assert_eq!(on_exit, daemon::OnExit::Detach);
    assert_eq!(log_format, daemon::LogFormat::Text);
}

/// One service whose only check is `health`.
fn with_health(health: &str) -> Result<CheckSettings, Vec<String>> {
    let text = format!(
        "[[service]]\nname = \"a\"\naddress = \"192.0.2.1\"\nport = 80\n[service.health]\n{health}\n"
    );
    match parse(&text, "lb.toml") {
        Ok(config) => Ok(config.desired.services.values().next().unwrap().health.clone()),
        Err(errors) => Err(errors.iter().map(ToString::to_string).collect()),
    }
}

#[test]
fn settings_that_make_no_check_are_refused_with_their_reason() {
    let cases = [
        ("kind = \"http\"\nexpect_status = [101]", "from 200 to 599"),
        (
            "kind = \"http\"\nexpect_status = [200, \"299-200\"]",
            "299-200 is no HTTP status",
        ),
        ("kind = \"http\"\nexpect_status = 99", "from 200 to 599"),
        ("kind = \"http\"\nexpect_status = \"1xx\"", "from 200 to 599"),
        (
            "kind = \"http\"\nexpect_status = \"6xx\"",
            "6xx is no HTTP status",
        ),
        (
            "kind = \"http\"\nexpect_status = \"2xx-3xx\"",
            "2xx-3xx is no HTTP status",
        ),
        ("kind = \"http\"\nexpect_status = []", "one or more numbers"),
        ("kind = \"http\"\nexpect_status = \"\"", "is no HTTP status"),
        (
            "kind = \"http\"\nexpect_status = true",
            "expected an integer, found",
        ),
        ("kind = \"http\"\nmethod = \"CONNECT\"", "no method of a check"),
        ("kind = \"http\"\nexpect_body = \"(\"", "no regular expression"),
        (
            "kind = \"http\"\nhalf_open = true",
            "half_open means nothing to a check of kind http",
        ),
        (
            "kind = \"http2\"\nverify = false",
            "verify means nothing without TLS",
        ),
        (
            "kind = \"https\"\ntls = true",
            "tls means nothing to a check of kind https",
        ),
        (
            "kind = \"grpc\"\npath = \"/\"",
            "path means nothing to a check of kind grpc",
        ),
        (
            "kind = \"http2\"\nheaders = { te = \"trailers\" }",
            "header \"te\" cannot be set",
        ),
        (
            "kind = \"tcp\"\npath = \"/\"",
            "path means nothing to a check of kind tcp",
        ),
        (
            "kind = \"push\"\nfall = 3",
            "fall means nothing to a check of kind push",
        ),
        ("kind = \"push\"\nttl = \"0s\"", "ttl must be between 1ms and 1d"),
        (
            "kind = \"tcp\"\nrequire = \"any\"",
            "require means nothing to a single check",
        ),
        (
            "kind = \"tcp\"\nalso = [{ kind = \"push\" }]",
            "kind push cannot be a further check",
        ),
        (
            "kind = \"none\"\nalso = [{ kind = \"tcp\" }]",
            "a check of kind none cannot be combined with others",
        ),
        (
            "kind = \"tcp\"\n[[service.health.also]]\nkind = \"tcp\"\nport = 0",
            "port 0 cannot be checked",
        ),
        (
            "kind = \"tcp\"\n[[service.health.also]]\nkind = \"http\"\ninterval = \"1s\"",
            "interval",
        ),
        (
            "kind = \"tcp\"\n[[service.health.also]]\nkind = \"icmp\"\npath = \"/\"",
            "path means nothing to a check of kind icmp",
        ),
        ("kind = \"tcp\"\nsend_hex = \"5\"", "\"5\" is not hexadecimal"),
        ("kind = \"tcp\"\nsend = \"\"", "send must have from 1 to"),
        (
            "kind = \"tcp\"\nsend = \"a\"\nsend_hex = \"61\"",
            "send_hex cannot be combined with send",
        ),
        (
            "kind = \"tcp\"\nexpect = \"a\"\nexpect_regex = \"a\"",
            "expect_regex cannot be combined with expect",
        ),
        ("kind = \"tcp\"\nexpect_regex = \"(\"", "no regular expression"),
        (
            "kind = \"tcp\"\nsend = \"a\"\nsteps = [{ expect = \"b\" }]",
            "send cannot be combined with steps",
        ),
        (
            "kind = \"tcp\"\nsteps = [{ send = \"a\" }, {}]",
            "a step of a dialogue sends something",
        ),
        (
            "kind = \"tcp\"\nsteps = [{ say = \"a\", send = \"b\" }, { send = \"a\" }]",
            "unknown key say",
        ),
        (
            "kind = \"tcp\"\nhalf_open = true\nexpect = \"a\"",
            "expect means nothing with half_open",
        ),
        (
            "kind = \"tcp\"\nhalf_open = true\nsend_proxy = \"v2\"",
            "send_proxy means nothing with half_open",
        ),
        (
            "kind = \"http\"\nsend = \"a\"",
            "send means nothing to a check of kind http",
        ),
        (
            "kind = \"icmp\"\nsend_proxy = \"v2\"",
            "send_proxy means nothing to a check of kind icmp",
        ),
        ("kind = \"tcp\"\nsend_proxy = \"v3\"", "\"v3\" is no send_proxy"),
        (
            "kind = \"dns\"\nname = \".\"\nsend_proxy = \"v2\"",
            "send_proxy means nothing to a DNS check over UDP",
        ),
        (
            "kind = \"icmp\"\nport = 80",
            "port means nothing to a check of kind icmp",
        ),
    ];
    for (health, expected) in cases {
        let errors = with_health(health).unwrap_err();
        assert!(
            errors.len() == 1 && errors[0].contains(expected),
            "{health}: {errors:#?}"
        );
    }
}

/// Such a check would not test the path, or never succeed.
#[test]
fn checks_that_cannot_go_through_the_path_are_refused_with_their_reason() {
    let problems = |service: &str, health: &str| {
        let text = format!(
            "[[service]]\nname = \"a\"\naddress = \"192.0.2.1\"\n{service}\n\
             [service.health]\nthrough = \"vip\"\n{health}\n"
        );
        match parse(&text, "lb.toml") {
            Ok(_) => Vec::new(),
            Err(errors) => errors.iter().map(ToString::to_string).collect(),
        }
    };
    let (tcp, udp) = ("port = 53", "port = 53\nprotocol = \"udp\"");
    for (service, health, expected) in [
        (
            tcp,
            "kind = \"icmp\"",
            "the balancer answers pings to services itself",
        ),
        (tcp, "kind = \"none\"", "nothing is checked"),
        (tcp, "kind = \"push\"", "reports are sent to the balancer"),
        (
            tcp,
            "kind = \"exec\"\ncommand = [\"/bin/true\"]",
            "makes connections of its own",
        ),
        (udp, "kind = \"http\"", "it speaks tcp, the service is udp"),
        (
            tcp,
            "kind = \"dns\"\nname = \".\"",
            "it speaks udp, the service is tcp",
        ),
        (udp, "kind = \"udp\"", "without expect_reply silence is a success"),
        (
            tcp,
            "kind = \"tcp\"\nport = 54",
            "port 54 cannot be checked through the VIP: the service is port 53",
        ),
        (
            tcp,
            "kind = \"tcp\"\nmark = 1",
            "mark means nothing through the VIP",
        ),
        (
            tcp,
            "kind = \"tcp\"\nsource = \"fd00::1\"",
            "cannot have the source fd00::1",
        ),
        (
            tcp,
            "kind = \"tcp\"\nsource = \"127.0.0.1\"",
            "is a loopback address",
        ),
        (
            "port = 0",
            "kind = \"tcp\"",
            "needs a port where the service has every port",
        ),
        (
            tcp,
            "kind = \"tcp\"\n[[service.health.also]]\nkind = \"icmp\"",
            "a check of kind icmp cannot",
        ),
        (
            tcp,
            "kind = \"tcp\"\n[[service.health.also]]\nkind = \"tcp\"\nport = 54",
            "port 54 cannot",
        ),
    ] {
        let errors = problems(service, health);
        assert!(
            errors.len() == 1 && errors[0].contains(expected),
            "{service} {health}: {errors:#?}"
        );
    }
    for (service, health) in [
        (tcp, "kind = \"tcp\"\nport = 53\nsource = \"10.0.0.1\""),
        (tcp, "kind = \"dns\"\nname = \".\"\ntransport = \"tcp\""),
        (udp, "kind = \"dns\"\nname = \".\""),
        (udp, "kind = \"udp\"\nexpect_reply = \"x\""),
        (
            "port = 0",
            "kind = \"tcp\"\nport = 80\n[[service.health.also]]\nkind = \"tcp\"\nport = 81",
        ),
    ] {
        assert_eq!(
            problems(service, health),
            Vec::<String>::new(),
            "{service} {health}"
        );
    }
}

#[test]
fn agents_that_cannot_be_asked_are_refused_at_their_place() {
    let file = |agent: &str, backend: &str| {
        let text = format!(
            "[[service]]\nname = \"web\"\naddress = \"192.0.2.1\"\nport = 80\n{agent}\n\
             [[service.backend]]\nname = \"a\"\naddress = \"10.0.0.1:80\"\n{backend}\n"
        );
        let parsed = parse(&text, "lb.toml").map(|config| config.desired);
        parsed.map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    for (agent, backend, expected) in [
        (
            "",
            "agent_port = 9",
            "lb.toml:9:14: error: agent_port of backend web/a means nothing",
        ),
        (
            "[service.agent]",
            "",
            "backend web/a has no port at which its agent could be asked",
        ),
        (
            "[service.agent]\nport = 0",
            "",
            "lb.toml:6:8: error: port 0 cannot be asked",
        ),
        (
            "[service.agent]\nport = 9\ninterval = \"0s\"",
            "",
            "interval 0s is not between",
        ),
        (
            "[service.agent]\nport = 9\ntimeout = \"2d\"",
            "",
            "timeout 2d is not between",
        ),
        ("[service.agent]\nport = 9\nfall = 3", "", "fall"),
        (
            &format!("[service.agent]\nport = 9\nsend = \"{}\"", "x".repeat(1025)),
            "",
            "send is longer than 1024 bytes",
        ),
    ] {
        let errors = file(agent, backend).unwrap_err();
        assert!(
            errors.len() == 1 && errors[0].contains(expected),
            "{agent} {backend}: {errors:#?}"
        );
    }
    for (agent, backend, asked) in [
        ("[service.agent]\nport = 9", "", Some("10.0.0.1:9")),
        ("[service.agent]", "agent_port = 9", Some("10.0.0.1:9")),
        (
            "[service.agent]\nport = 9",
            "agent_port = 10",
            Some("10.0.0.1:10"),
        ),
        ("[service.agent]\nport = 9", "agent_port = 0", None),
        ("[service.agent]\nenabled = false", "agent_port = 9", None),
        ("", "", None),
    ] {
        let desired = file(agent, backend).unwrap();
        let agents = desired.services.values().flat_map(|service| {
            let backends = service.backends.iter();
            backends.filter_map(|backend| service.agent_of(backend))
        });
        let targets: Vec<String> = agents.map(|agent| agent.to_string()).collect();
        assert_eq!(targets, Vec::from_iter(asked), "{agent} {backend}");
        let again = parse(&export(&desired, Keys::Whole), "again").unwrap().desired;
        assert_eq!(again.services, desired.services);
    }
}

#[test]
fn guards_that_make_no_sense_are_refused_at_their_place() {
    for (guard, place, what, hint) in [
        (
            "allow = [\"10.0.0.1/8\"]",
            "6:",
            "bits beyond its length",
            "write \"10.0.0.0/8\"",
        ),
        (
            "allow = [\"10.0.0.0/8\",\n \"10.0.0.0/33\"]",
            "7:",
            "more than the 32 bits",
            "from 0 to 32",
        ),
        ("deny = [\"example.org\"]", "6:", "no prefix", "for example"),
        ("deny = \"10.0.0.0/8\"", "6:", "expected an array", ""),
        (
            "deny = [\"fd00::/8\"]",
            "6:",
            "is IPv6, and clients of service a",
            "remove it",
        ),
        (
            "deny = [\"10.0.0.0/8\", \"10.0.0.0/8\"]",
            "6:",
            "is listed twice",
            "remove one",
        ),
        (
            "allow = [\"192.0.2.1\", \"192.0.2.1/32\"]",
            "6:",
            "is listed twice",
            "remove one",
        ),
        ("alow = []", "6:", "unknown key alow", "did you mean allow?"),
        ("new_flows = -1", "6:", "no whole number", ""),
        ("new_flows = 10000001", "6:", "more than 10000000", "no limit"),
        (
            "new_flows_burst = 5",
            "6:",
            "means nothing without new_flows",
            "add new_flows",
        ),
        (
            "source_bits = 24",
            "6:",
            "means nothing without source_new_flows",
            "add source_new_flows",
        ),
        (
            "source_new_flows = 5\nsource_bits = 33",
            "7:",
            "more than the 32 bits",
            "from 1 to 32",
        ),
    ] {
        let text = format!(
            "[[service]]\nname = \"a\"\naddress = \"192.0.2.1\"\nport = 80\n[service.guard]\n{guard}\n"
        );
        let errors = parse(&text, "lb.toml").unwrap_err();
        let error = errors[0].to_string();
        let fine = errors.len() == 1
            && error.starts_with(&format!("lb.toml:{place}"))
            && error.contains(what)
            && error.contains(hint);
        assert!(fine, "{guard}: {errors:#?}");
    }
}

#[test]
fn a_rate_limit_is_refused_where_new_flows_cannot_be_recognized() {
    let file = |mode: &str, protocol: &str| {
        format!(
            "[[service]]\nname = \"a\"\naddress = \"192.0.2.1\"\nport = 80\nmode = \"{mode}\"\nprotocol = \"{protocol}\"\n\
             [service.guard]\nnew_flows = 100\n"
        )
    };
    for (mode, protocol, fine) in [
        ("nat", "tcp", true),
        ("nat", "udp", true),
        ("ipip", "tcp", true),
        ("ipip", "udp", false),
    ] {
        match parse(&file(mode, protocol), "lb.toml") {
            Ok(_) => assert!(fine, "{mode} {protocol}"),
            Err(errors) => assert!(
                !fine && errors[0].to_string().contains("mode ipip"),
                "{errors:#?}"
            ),
        }
    }
}

/// Each form that people know from other programs, alone and together.
#[test]
fn expected_statuses_may_be_numbers_classes_ranges_and_lists() {
    for (written, expected) in [
        ("204", vec![204]),
        ("\"204\"", vec![204]),
        ("\"2xx\"", (200..=299).collect()),
        ("\"5XX\"", (500..=599).collect()),
        ("\"200-203\"", vec![200, 201, 202, 203]),
        ("\"200, 300 - 302\"", vec![200, 300, 301, 302]),
        ("[204]", vec![204]),
        ("[204, \"300-302\"]", vec![204, 300, 301, 302]),
        ("[404, \"2xx\"]", (200..=299).chain([404]).collect()),
        (
            "[\"2xx\", \"200-201\", \"401,403\", 200]",
            (200..=299).chain([401, 403]).collect(),
        ),
    ] {
        for kind in ["http", "https", "http2"] {
            let health = with_health(&format!("kind = \"{kind}\"\nexpect_status = {written}")).unwrap();
            let (CheckKind::Http(http) | CheckKind::Http2(http)) = health.kind else {
                panic!("{health:?}");
            };
            assert_eq!(http.expect_status, expected, "{kind} {written}");
        }
    }
}

/// A service of UDP with `quic` and one backend with `server_ids`.
fn with_quic(quic: &str, server_ids: &str) -> Result<Desired, Vec<String>> {
    quic_file("udp", quic, server_ids)
}

fn quic_file(protocol: &str, quic: &str, server_ids: &str) -> Result<Desired, Vec<String>> {
    let text = format!(
        "[[service]]\nname = \"a\"\naddress = \"192.0.2.1\"\nport = 443\nprotocol = \"{protocol}\"\n{quic}\n\
         [[service.backend]]\nname = \"b\"\naddress = \"10.0.0.1:443\"\nserver_ids = {server_ids}\n\
         [[service.backend]]\nname = \"c\"\naddress = \"10.0.0.2:443\"\nserver_ids = [\"ff00ff\"]\n"
    );
    match parse(&text, "lb.toml") {
        Ok(config) => Ok(config.desired),
        Err(errors) => Err(errors.iter().map(ToString::to_string).collect()),
    }
}

const QUIC: &str = "[[service.quic]]\nconfig_id = 0\nserver_id_length = 3\n";
const SECRET: &str = "8f95f09245765f80256934e50c66207f";

#[test]
fn connection_ids_that_cannot_work_are_refused_with_their_reason() {
    let table = |text: &str| format!("[[service.quic]]\n{text}\n");
    let secret = |value: &str| format!("{QUIC}key = {value}\n");
    let cases = [
        ("tcp", QUIC.to_owned(), "[]", "but is not of UDP"),
        ("udp", table("config_id = 0"), "[]", "has no server_id_length"),
        ("udp", table("server_id_length = 3"), "[]", "has no config_id"),
        (
            "udp",
            table("config_id = 7\nserver_id_length = 3"),
            "[]",
            "config_id 7 is above 6",
        ),
        (
            "udp",
            table("config_id = 0\nserver_id_length = 0"),
            "[]",
            "make no connection id",
        ),
        (
            "udp",
            format!("{QUIC}nonce_length = 3"),
            "[]",
            "make no connection id",
        ),
        (
            "udp",
            format!("{QUIC}nonce_length = 17"),
            "[]",
            "make no connection id",
        ),
        (
            "udp",
            format!("{QUIC}{QUIC}"),
            "[]",
            "service a has config_id 0 twice",
        ),
        ("udp", String::new(), "[]", "add a [[service.quic]] table"),
        (
            "udp",
            QUIC.to_owned(),
            "[\"0102\"]",
            "has 2 bytes, server_id_length is 3",
        ),
        (
            "udp",
            QUIC.to_owned(),
            "[\"01020g\"]",
            "write two hexadecimal digits",
        ),
        (
            "udp",
            QUIC.to_owned(),
            "[\"ff00ff\"]",
            "has server id ff00ff, as backend a/b",
        ),
        (
            "udp",
            "[service.quic]\nconfig_id = 0".to_owned(),
            "[]",
            "write [[service.quic]] above each",
        ),
        (
            "udp",
            secret(&format!("\"{}\"", &SECRET[2..])),
            "[]",
            "no key of 16 bytes",
        ),
        (
            "udp",
            secret(&format!("\"{SECRET}00\"")),
            "[]",
            "no key of 16 bytes",
        ),
        (
            "udp",
            secret("12345678"),
            "[]",
            "expected a string, found an integer",
        ),
        (
            "udp",
            secret("\"hidden:01020304\""),
            "[]",
            "a key that is not known here",
        ),
    ];
    for (protocol, quic, server_ids, expected) in cases {
        let errors = quic_file(protocol, &quic, server_ids).unwrap_err().join("\n");
        assert!(errors.contains(expected), "{quic} {server_ids}: {errors}");
        for shown in [&SECRET[2..], "12345678"] {
            assert!(!errors.contains(shown), "a key is shown: {errors}");
        }
    }
}

#[test]
fn a_file_may_hold_keys_of_several_generations() {
    let next = "[[service.quic]]\nconfig_id = 1\nserver_id_length = 4\nnonce_length = 12\n";
    let desired = with_quic(
        &format!("{next}key = \"{SECRET}\"\n{QUIC}"),
        "[\"010203\", \"01020304\"]",
    );
    let service = desired.unwrap().services.into_values().next().unwrap();
    let ids: Vec<_> = service.quic.iter().map(|quic| quic.config_id).collect();
    assert_eq!(ids, [0, 1]);
    assert_eq!(service.quic[0].key, None);
    assert_eq!(
        service.quic[1].key.map(|key| key.reveal()).as_deref(),
        Some(SECRET)
    );
    assert_eq!(service.backends[0].server_ids.len(), 2);
}

proptest! {
    #[test]
    fn export_and_parse_lose_nothing(desired in testing::any_desired()) {
        let text = export(&desired, Keys::Whole);
        let back = parse(&text, "export").unwrap_or_else(|errors| panic!("{errors:#?} in\n{text}"));
        prop_assert_eq!(Desired { revision: desired.revision, ..back.desired }, desired);
    }

    #[test]
    fn what_people_see_holds_no_key_and_is_taken_back_where_the_keys_are_known(desired in testing::any_desired()) {
        let text = export(&desired, Keys::Hidden);
        let log = format!("{desired:?}");
        for key in desired.services.values().flat_map(|service| &service.quic).filter_map(|quic| quic.key) {
            let key = key.reveal();
            prop_assert!(!text.contains(&key) && !log.contains(&key));
        }
        let back = parse_beside(&text, "export", &desired);
        let back = back.unwrap_or_else(|errors| panic!("{errors:#?} in\n{text}"));
        prop_assert_eq!(Desired { revision: desired.revision, ..back.desired }, desired);
    }
}

/// A text that is wrong a million times over must not cost a daemon its memory, or an hour.
#[test]
fn of_many_errors_the_first_are_reported_and_the_rest_counted() {
    let text = "wrong = 1\n".repeat(3);
    let errors = parse(&text, "f").unwrap_err();
    assert!(
        errors.iter().all(|error| error.line > 1),
        "duplicate keys: {errors:?}"
    );
    let keys: String = (0..2 * MAX_ERRORS)
        .map(|n| format!("# é\n  wrong{n} = 1\n"))
        .collect();
    let errors = parse(&keys, "f").unwrap_err();
    assert_eq!(errors.len(), MAX_ERRORS);
    for (error, line) in errors.iter().zip((2..).step_by(2)) {
        assert_eq!((error.line, error.column), (line, 3));
    }
    let hint = errors.last().unwrap().hint.as_deref().unwrap();
    assert!(
        hint.ends_with(&format!("{MAX_ERRORS} more errors follow this one")),
        "{hint}"
    );
}

#[test]
fn services_that_do_not_fit_are_not_read() {
    let most = lb_common::limits::MAX_SERVICES as usize;
    let service = |n: usize| format!("[[service]]\nname = \"s{n}\"\naddress = \"192.0.2.1\"\nport = {n}\n");
    let text: String = (1..=most).map(service).collect();
    assert_eq!(parse(&text, "f").unwrap().desired.services.len(), most);
    let text = text + "[[service]]\nunknown = 1\n[[service]]\n";
    let errors = parse(&text, "f").unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0].line, 4 * most + 1);
    assert!(
        errors[0].message.starts_with(&format!("{} services", most + 2)),
        "{errors:?}"
    );
}
