//! Files and what they become.

use proptest::prelude::*;

use super::*;
use crate::{
    datapath::XdpModeChoice,
    health::settings::{CheckKind, CheckSettings},
    state::testing,
};

#[test]
fn the_example_is_valid_and_shows_every_key() {
    let text = include_str!("../../../docs/example.toml");
    let config = parse(text, "example.toml").unwrap_or_else(|errors| panic!("{errors:#?}"));
    assert_eq!(config.desired.services.len(), 2);
}

#[test]
fn an_empty_file_has_the_documented_defaults() {
    let config = parse("", "lb.toml").unwrap();
    assert_eq!(config.desired, Desired::default());
    let DaemonSettings {
        interfaces,
        xdp_mode,
        socket,
        state_dir,
        metrics,
        pin_dir,
        on_exit,
    } = config.daemon;
    assert_eq!(interfaces, Vec::<String>::new());
    assert_eq!(xdp_mode, XdpModeChoice::Auto);
    assert_eq!(socket.to_str(), Some("/run/lb/lb.sock"));
    assert_eq!(state_dir.to_str(), Some("/var/lib/lb"));
    assert_eq!(metrics.to_string(), "127.0.0.1:9900");
    assert_eq!(pin_dir.to_str(), Some("/sys/fs/bpf/lb"));
    assert_eq!(on_exit, daemon::OnExit::Detach);
}

/// One service whose only check is `health`.
fn with_health(health: &str) -> Result<CheckSettings, Vec<String>> {
    let text = format!(
        "[[service]]\nname = \"a\"\naddress = \"192.0.2.1\"\nport = 80\n[service.health]\n{health}\n"
    );
    match parse(&text, "lb.toml") {
        Ok(config) => Ok(config.desired.services.into_values().next().unwrap().health),
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
        ("kind = \"http\"\nmethod = \"CONNECT\"", "no method of a check"),
        ("kind = \"http\"\nexpect_body = \"(\"", "no regular expression"),
        (
            "kind = \"http\"\nhalf_open = true",
            "half_open means nothing to a check of kind http",
        ),
        (
            "kind = \"tcp\"\npath = \"/\"",
            "path means nothing to a check of kind tcp",
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
fn statuses_may_be_ranges() {
    let health = with_health("kind = \"http\"\nexpect_status = [204, \"300-302\"]").unwrap();
    let CheckKind::Http(http) = health.kind else {
        panic!("{health:?}");
    };
    assert_eq!(http.expect_status, [204, 300, 301, 302]);
}

proptest! {
    #[test]
    fn export_and_parse_lose_nothing(desired in testing::any_desired()) {
        let text = export(&desired);
        let back = parse(&text, "export").unwrap_or_else(|errors| panic!("{errors:#?} in\n{text}"));
        prop_assert_eq!(Desired { revision: desired.revision, ..back.desired }, desired);
    }
}
