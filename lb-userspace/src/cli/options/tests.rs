use clap::Parser;

use super::*;
use crate::cli::tests::option_names;

#[derive(Parser, Debug)]
struct Alone {
    #[command(flatten)]
    keys: ServiceKeys<false>,
}

fn given(args: &[&str]) -> Result<Request, clap::Error> {
    Alone::try_parse_from([&["lb"], args].concat()).map(|parsed| parsed.keys.0)
}

/// The command line can set every key of the tables.
#[test]
fn every_key_has_its_option() {
    for (command, groups) in [
        (["service", "add"], &SERVICE[..]),
        (["service", "set"], &SERVICE[..]),
        (["backend", "add"], &BACKEND[..]),
        (["backend", "set"], &BACKEND[..]),
    ] {
        let names = option_names(&command, "");
        let mut declared = 0;
        for group in groups {
            for key in group.keys.keys {
                let Some(name) = key.option_name(group.prefix) else {
                    continue;
                };
                declared += 1;
                assert!(names.contains(&name), "{command:?} has no --{name}");
            }
        }
        // Every other option is about the command.
        let own = names.len() - declared;
        assert_eq!(
            own, 3,
            "--revision, --wait and --timeout alone set no key: {names:?}"
        );
    }
    let without = |keys: &KeyTable| {
        let keys = keys.keys.iter().filter(|key| key.option.is_none());
        keys.map(|key| key.name).collect::<Vec<_>>()
    };
    assert_eq!(without(&keys::SERVICE), ["name", "quic", "backend"]);
    assert_eq!(
        without(&keys::BACKEND),
        ["name", "admin", "drain_until", "discovered_by"]
    );
    for all in [&keys::GUARD, &keys::AGENT, &keys::HEALTH] {
        assert_eq!(without(all), [""; 0], "{}", all.header);
    }
}

#[test]
fn a_number_with_a_plus_sign_is_refused_by_its_option() {
    let error = given(&["--new-flows", "+5"]).unwrap_err().to_string();
    assert!(
        error.contains("'+5' for '--new-flows") && error.contains("write 5"),
        "{error}"
    );
    assert!(given(&["--new-flows", "5"]).is_ok());
}

#[test]
fn values_are_read_as_the_file_has_them() {
    for (args, expected) in [
        (&[][..], ""),
        (
            &["--check", "http", "--check-path", "/a b", "--check-max-body", "7"],
            "health = { kind = \"http\", path = \"/a b\", max_body = 7 }",
        ),
        (
            &["--check-jitter", "1", "--check-passive", "false"],
            "health = { jitter = 1.0, passive = false }",
        ),
        (
            &[
                "--check-also",
                "{ kind = \"http\", path = \"/x,y\" }",
                "--check-also",
                "{ kind = \"icmp\" }",
            ],
            "health.also = [{ kind = \"http\", path = \"/x,y\" }, { kind = \"icmp\" }]",
        ),
        (&["--check-also", "none"], "health.also = []"),
        (
            &[
                "--check-headers",
                "X-A: b: c",
                "--check-expect-status",
                "200,300-399",
                "--check-alpn",
                "h2,http/1.1",
            ],
            "[health]\nheaders = { X-A = \"b: c\" }\nexpect_status = [200, \"300-399\"]\nalpn = [\"h2\", \"http/1.1\"]",
        ),
        (
            &[
                "--check-steps",
                "{ expect = \"220\" }",
                "--check-steps",
                "{ send_hex = \"0d 0a\" }",
            ],
            "health.steps = [{ expect = \"220\" }, { send_hex = \"0d 0a\" }]",
        ),
        (
            &["--check-command", "/bin/true", "--check-command", "-v"],
            "health.command = [\"/bin/true\", \"-v\"]",
        ),
        (
            &[
                "--allow",
                "none",
                "--deny",
                "10.0.0.0/8,192.0.2.7",
                "--source-bits",
                "24",
            ],
            "guard = { allow = [], deny = [\"10.0.0.0/8\", \"192.0.2.7\"], source_bits = 24 }",
        ),
        (&["--ports", "80,90-99"], "ports = [80, \"90-99\"]"),
        (
            &[
                "--clients",
                "near=10.0.0.0/8,192.0.2.7",
                "--clients",
                "far=10.1.0.0/16",
            ],
            "clients = [{ group = \"near\", from = [\"10.0.0.0/8\", \"192.0.2.7\"] }, \
             { group = \"far\", from = [\"10.1.0.0/16\"] }]",
        ),
        (&["--clients", ""], "clients = []"),
        (
            &["--ring-size", "auto", "--agent", "false"],
            "ring_size = \"auto\"\nagent.enabled = false",
        ),
        (&["--ring-size", "1021"], "ring_size = 1021"),
    ] {
        let expected = Request::from(expected.parse::<Table>().unwrap());
        let given = given(args).unwrap();
        assert!(
            given == expected,
            "{args:?}: {}",
            serde_json::to_string(&given).unwrap()
        );
    }
    for (args, words) in [
        (
            ["--check-also", "{ kynd = \"tcp\" }"],
            "unknown key kynd: did you mean kind?",
        ),
        (["--check-also", "tcp"], "--check-also"),
        (
            ["--check-also", "{ kind = \"tcp\" }\nmark = 1"],
            "mark is outside of the braces",
        ),
        (
            ["--check-also", "{ kind = \"tcp\" }\n[x]"],
            "x is outside of the braces",
        ),
        (["--check-headers", "X-A"], "write it as \"Name: value\""),
        (["--clients", "near"], "near=10.0.0.0/8"),
        (["--max-removed-percent", "101"], "101 is not in 0..=100"),
        (["--address", "example.com"], "names are not looked up"),
        (["--agent", "maybe"], "[possible values: true, false]"),
    ] {
        let error = given(&args).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let twice = ["X-A: 1", "X-B: 2", "X-A: 1"].map(|header| ["--check-headers", header]);
    let error = given(&twice.concat()).unwrap_err().to_string();
    assert!(
        error.contains("--check-headers has X-A twice: give it once"),
        "{error}"
    );
}
