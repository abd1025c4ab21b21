//! Files and what they become.

use proptest::prelude::*;

use super::*;
use crate::{datapath::XdpModeChoice, state::testing};

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

proptest! {
    #[test]
    fn export_and_parse_lose_nothing(desired in testing::any_desired()) {
        let text = export(&desired);
        let back = parse(&text, "export").unwrap_or_else(|errors| panic!("{errors:#?} in\n{text}"));
        prop_assert_eq!(Desired { revision: desired.revision, ..back.desired }, desired);
    }
}

/// A valid file, with a marker where a case puts its lines.
fn file(lb: &str, service: &str, health: &str, backend: &str, more: &str) -> String {
    format!(
        "[lb]\n{lb}\n[[service]]\nname = \"web\"\naddress = \"192.0.2.10\"\nport = 80\n{service}\n\
         [service.health]\nkind = \"http\"\n{health}\n\
         [[service.backend]]\nname = \"a\"\naddress = \"10.0.0.1:80\"\n{backend}\n{more}"
    )
}

/// Where a case's line stands in [`file`].
#[derive(Clone, Copy, Debug)]
enum At {
    Lb,
    Service,
    Health,
    Backend,
    More,
}

/// Every class of error, one at a time: where, the lines, and what must be in message and hint.
/// The place is one of the lines, and the column that is given.
#[test]
fn every_class_of_error_has_its_place_its_reason_and_its_remedy() {
    use At::{Backend, Health, Lb, More, Service};
    // One case a line, so that the table reads as one.
    #[rustfmt::skip]
    let cases: &[(At, &str, usize, &str, &str)] = &[
        // Unknown keys and wrong types.
        (Lb, "metrix = 1", 1, "unknown key metrix in [lb]", "did you mean metrics?"),
        (Service, "colour = 1", 1, "unknown key colour in [[service]]", "has: name, address"),
        (Health, "Interval = '1s'", 1, "unknown key Interval in [service.health]", "did you mean interval?"),
        (Backend, "wieght = 1", 1, "unknown key wieght", "did you mean weight?"),
        (More, "[[service.backends]]\nname = 'b'", 11, "unknown key backends", "did you mean backend?"),
        (More, "[other]", 2, "unknown key other in the file", "lb, service"),
        (Lb, "interfaces = 'eth0'", 14, "expected an array, found a string", ""),
        (Lb, "snat_addresses = [1]", 19, "expected a string, found an integer", ""),
        (Lb, "socket = true", 10, "expected a string, found a boolean", ""),
        (Service, "ring_size = 2.5", 13, "expected an integer, found a float", ""),
        (Service, "mode = 1", 8, "expected a string, found an integer", ""),
        (Health, "timeout = 1", 11, "expected a duration, found the number 1", "\"1s\""),
        (Health, "jitter = '0.1'", 10, "expected a number, found a string", ""),
        (Health, "headers = ['a']", 11, "expected a table of strings", ""),
        (Health, "rise = '2'", 8, "expected an integer, found a string", "2 without quotes"),
        (Backend, "weight = '1'", 10, "expected an integer, found a string", "1 without quotes"),
        // Single values.
        (Lb, "interfaces = ['eth 0']", 15, "\"eth 0\" is no name of an interface", "ip link"),
        (Lb, "interfaces = ['a', 'a']", 14, "interface a is listed twice", ""),
        (Lb, "xdp_mode = 'offload'", 12, "\"offload\" is no xdp_mode", "auto, native, generic"),
        (Lb, "state_dir = 'var'", 13, "no absolute path", "begin it with /"),
        (Lb, "metrics = ':9900'", 11, "no address with a port", "10.0.0.11:8080"),
        (Lb, "snat_addresses = ['10.0.0.0/24']", 19, "no IP address", "without a prefix length"),
        (Lb, "snat_addresses = ['0.0.0.0']", 18, "is the unspecified address", ""),
        (Lb, "snat_addresses = ['10.1.1.1', '10.1.1.1']", 18, "listed twice", ""),
        (Lb, "snat_ports = '0-99'", 14, "no range of ports", "1024-32767"),
        (Lb, "snat_ports = '9-1'", 14, "no range of ports", "1024-32767"),
        (Lb, "transition = '10 min'", 14, "no duration", "\"10m\""),
        (Lb, "transition = '0s'", 14, "transition 0s is not between 1s and 1d", ""),
        (Service, "protocol = 'sctp'", 12, "\"sctp\" is no protocol", "tcp, udp"),
        (Service, "ring_size = 1000", 13, "ring_size 1000 is not a prime", "997 and 1009 are"),
        (Service, "ring_size = 131072", 13, "not a prime from 251 to 131071", "131071 is"),
        (Service, "ring_size = 'large'", 13, "\"large\" is no ring_size", "\"auto\""),
        (Service, "on_empty = 'drip'", 12, "\"drip\" is no on_empty", "did you mean \"drop\"?"),
        (Health, "interval = '0s'\nfast_interval = '0s'", 12, "interval 0s is not between", ""),
        (Health, "timeout = '0s'", 11, "timeout 0s is not between", ""),
        (Health, "timeout = '2d'", 11, "timeout 2d is not between", ""),
        (Health, "fast_interval = '3s'", 17, "fast_interval 3s is longer than interval 2s", "shorter"),
        (Health, "down_interval_max = '1s'", 21, "down_interval_max 1s is shorter than interval 2s", "longer"),
        (Health, "rise = 0", 8, "rise 0", "1 or more"),
        (Health, "fall = 0", 8, "fall 0", "1 or more"),
        (Health, "fall = -1", 8, "-1 is no whole number in range", ""),
        (Health, "jitter = 1.1", 10, "jitter 1.1 is not between 0 and 1", ""),
        (Health, "jitter = nan", 10, "no number", ""),
        (Health, "port = 0", 8, "port 0 cannot be checked", "leave it out"),
        (Health, "method = 'GET IT'", 10, "no HTTP method", ""),
        (Health, "path = 'health'", 8, "no HTTP path", "begins with /"),
        (Health, "host = ''", 8, "the host is empty", ""),
        (Health, "headers = { 'a b' = '' }", 11, "no HTTP header", ""),
        (Health, "headers = { Host = 'x' }", 11, "header Host is set by the check itself", "key host"),
        (Health, "headers = { X-A = '', x-a = '' }", 11, "listed twice", ""),
        (Health, "expect_status = []", 17, "no check can succeed", "[200]"),
        (Health, "expect_status = [20]", 17, "20 is no HTTP status", "100 to 599"),
        (Health, "expect_body = '('", 15, "no regular expression", ""),
        (Health, "max_body = 1048577", 12, "max_body 1048577 is not between", ""),
        (Backend, "weight = 65536", 10, "65536 is no weight", "1 to 65535"),
        (Backend, "weight = -1", 10, "-1 is no weight", "1 to 65535"),
        (Backend, "admin = 'drained'", 9, "\"drained\" is no admin", "one of: enabled, draining, disabled"),
        // What is known, but not in this version.
        (Service, "mode = 'ipip'", 8, "mode \"ipip\" is not available in this version yet", "use nat"),
        (Service, "algorithm = 'round-robin'", 13, "is not available in this version yet", "use maglev"),
        (Service, "affinity = 'source'", 12, "is not available in this version yet", "use none"),
        (Service, "on_empty = 'reject'", 12, "is not available in this version yet", "use drop, all"),
        (Service, "slow_start = '1s'", 14, "is not available in this version yet", "0s"),
        (Health, "through = 'vip'", 11, "is not available in this version yet", "use backend"),
        (Backend, "mode = 'gue'", 8, "mode \"gue\" is not available in this version yet", "use nat"),
        // Between values.
        (Lb, "snat_addresses = ['192.0.2.10']\nsnat_ports = '80-90'", 18, "is that of service web", "out of snat_ports"),
        (More, "[[service.backend]]\nname = 'a'\naddress = '10.0.0.2:80'", 8, "backend web/a is defined twice", "rename"),
        (More, "[[service.backend]]\nname = 'b'\naddress = '10.0.0.1:80'", 11, "has the address of backend web/a", "remove one"),
        (More, "[[service.backend]]\nname = 'b'\naddress = '[2001:db8::1]:80'", 11, "mode nat cannot carry IPv4 packets", "family"),
        (More, "[[service.backend]]\nname = 'b'\naddress = '10.0.0.2:0'", 11, "backend web/b has no port", "service on port 0"),
        (More, "[[service.backend]]\nname = 'b'\naddress = '192.0.2.10:80'", 11, "round in circles", "server itself"),
        (More, "[[service.backend]]\nname = 'b'\naddress = '127.0.0.1:80'", 11, "is a loopback address", ""),
        (More, "[[service.backend]]\nname = 'b'\naddress = '[::ffff:10.0.0.2]:80'", 11, "IPv4 address written as IPv6", ""),
        (More, "[[service.backend]]\nname = 'b'\naddress = '10.0.0.2'", 11, "no address with a port", "10.0.0.2:8080"),
        (More, "[[service.backend]]\nname = 'b'\naddress = '2001:db8::1'", 11, "no address with a port", "[2001:db8::1]:8080"),
        (More, "[[service.backend]]\nname = 'b'\naddress = '[fe80::1%3]:80'", 11, "has a scope", "routable"),
        (More, "[[service.backend]]\nname = 'b/c'\naddress = '10.0.0.2:80'", 8, "contains '/'", ""),
        (More, "[[service.backend]]\naddress = '10.0.0.2:80'", 1, "[[service.backend]] has no name", "add name = \"web-1\""),
        (More, "[[service]]\nname = 'web'\naddress = '192.0.2.11'\nport = 80", 8, "service web is defined twice", "line 4"),
        (More, "[[service]]\nname = 'b'\naddress = '192.0.2.10'\nport = 80", 11, "service b overlaps service web", "another address"),
        (More, "[[service]]\nname = 'b'\nport = 80", 1, "[[service]] has no address", "add address"),
        (More, "[[service]]\nname = 'b'\naddress = '192.0.2.11:80'\nport = 80", 11, "no IP address", "without a port"),
        (More, "[[service]]\nname = 'b'\naddress = '224.0.0.1'\nport = 80", 11, "is a multicast address", ""),
        (More, "[[service]]\nname = 'b'\naddress = '::'\nport = 80", 11, "is the unspecified address", ""),
        (More, "[[service]]\nname = 'b'\naddress = '192.0.2.11'\nport = 65536", 8, "65536 is no port", "0 to 65535"),
        (More, "[[service]]\nname = 'b'\naddress = '192.0.2.11'\nport = 8\nhealth = 'tcp'", 10, "expected a table, found a string", ""),
        (More, "[[service]]\nname = 'b'\naddress = '192.0.2.11'\nport = 8\nhealth = { rise = 1 }", 10, "has no kind", "add kind = \"tcp\""),
        (More, "[[service]]\nname = 'b'\naddress = '192.0.2.11'\nport = 8\nhealth = { kind = 'grpc' }", 19, "\"grpc\" is not available in this version yet", "none, tcp, http"),
        (More, "[[service]]\nname = 'b'\naddress = '192.0.2.11'\nport = 8\nhealth = { kind = 'tpc' }", 19, "\"tpc\" is no kind", "did you mean \"tcp\"?"),
        (More, "[[service]]\nname = 'b'\naddress = '192.0.2.11'\nport = 8\nhealth = { kind = 'tcp', path = '/' }", 33, "path means nothing", "kind = \"http\""),
        (More, "[[service]]\nname = 'b'\naddress = '192.0.2.11'\nport = 0\nhealth = { kind = 'tcp' }\nbackend = [{ name = 'x', address = '10.0.0.1:0' }]", 36, "no port that a tcp check could go to", "set port"),
        // Syntax.
        (Lb, "socket = ", 10, "string values must be quoted", ""),
        (Lb, "socket = '/a'\nsocket = '/b'", 1, "duplicate key", ""),
    ];
    assert_eq!(
        parse(&file("", "", "", "", ""), "f").map(|_| ()),
        Ok(()),
        "the frame itself is valid"
    );
    for (at, lines, column, message, hint) in cases {
        let text = match at {
            Lb => file(lines, "", "", "", ""),
            Service => file("", lines, "", "", ""),
            Health => file("", "", lines, "", ""),
            Backend => file("", "", "", lines, ""),
            More => file("", "", "", "", lines),
        };
        let errors = parse(&text, "f").expect_err(lines);
        let found = errors.iter().find(|error| error.message.contains(message));
        let found = found.unwrap_or_else(|| panic!("{at:?} {lines}: no {message:?} in {errors:#?}"));
        assert!(
            found.hint.as_deref().unwrap_or("").contains(hint),
            "{lines}: {found:?}"
        );
        let line = text.lines().nth(found.line - 1).unwrap();
        assert!(
            lines.lines().any(|own| own == line),
            "{lines}: placed at {}: {line}",
            found.line
        );
        assert_eq!(found.column, *column, "{lines}: {found:?}");
    }
}

/// Each kind of value that the file knows and this version lacks is refused by name, so that no line of the table is
/// without effect.
#[test]
fn what_is_not_there_yet_is_refused_by_name() {
    for (key, value) in crate::state::available::NOT_YET {
        let value = if *value == crate::state::available::MORE_THAN_ZERO {
            "1s"
        } else {
            value
        };
        let line = format!("{key} = '{value}'");
        let text = match *key {
            "kind" => file("", "", "", "", "").replace("kind = \"http\"", &line),
            "through" => file("", "", &line, "", ""),
            _ => file("", &line, "", "", ""),
        };
        let errors = parse(&text, "f").expect_err(&line);
        let [error] = errors.as_slice() else {
            panic!("{line}: {errors:#?}")
        };
        assert!(
            error.message.contains("is not available in this version yet"),
            "{line}: {error}"
        );
    }
}

#[test]
fn all_errors_come_at_once_in_the_order_of_the_file() {
    let text = "[lb]\nmetrix = 1\ntransition = 5\n[[service]]\nport = '80'\n[service.health]\nkind = 'tcp'\nrise = 0\n\
                [[service.backend]]\nname = 'a'\naddress = '10.0.0.1:80'\nweight = 70000\n\
                [[service.backend]]\nname = 'a'\naddress = '10.0.0.2:80'\n";
    let errors = parse(text, "lb.toml").unwrap_err();
    let places: Vec<_> = errors.iter().map(|error| (error.line, error.column)).collect();
    assert_eq!(
        places,
        [(2, 1), (3, 14), (4, 1), (4, 1), (5, 8), (8, 8), (12, 10), (14, 8)],
        "{errors:#?}"
    );
    assert_eq!(
        errors[0].to_string(),
        "lb.toml:2:1: error: unknown key metrix in [lb]\n  hint: did you mean metrics?"
    );
}

#[test]
fn columns_count_characters_not_bytes() {
    let error = &parse("lb = { \"ä\" = 1 }", "f").unwrap_err()[0];
    assert_eq!((error.line, error.column), (1, 8));
    let error = &parse("lb = { socket = \"/ä\", x = 1 }", "f").unwrap_err()[0];
    assert_eq!((error.line, error.column), (1, 23));
}

proptest! {
    /// A file that was cut or hit by a slip of the keyboard is an error or a configuration, never a panic.
    #[test]
    fn no_text_makes_the_parser_panic(cut in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), slip in any::<char>()) {
        let example = include_str!("../../../docs/example.toml");
        let place = |index: prop::sample::Index| {
            let mut place = index.index(example.len());
            while !example.is_char_boundary(place) { place -= 1; }
            place
        };
        let _ = parse(&example[..place(cut)], "f");
        let mut slipped = example.to_owned();
        slipped.insert(place(at), slip);
        let _ = parse(&slipped, "f");
    }
}

/// What modes and algorithms that are not there yet will need, beside the error that says so.
#[test]
fn combinations_of_later_modes_are_checked_already() {
    let shared = "[[service]]\nname = 'b'\naddress = '192.0.2.11'\nport = 80\nmode = 'dnat'\n\
                  [[service.backend]]\nname = 'a'\naddress = '10.0.0.1:80'";
    for (text, message) in [
        (
            file("", "mode = 'dnat'", "", "", shared),
            "backend b/a shares 10.0.0.1:80 with service web",
        ),
        (
            file("", "mode = 'ipip'\nalgorithm = 'round-robin'", "", "", ""),
            "round-robin chooses anew",
        ),
    ] {
        let errors = parse(&text, "f").unwrap_err();
        assert!(
            errors.iter().any(|error| error.message.contains(message)),
            "{message}: {errors:#?}"
        );
    }
    let across = file("", "mode = 'ipip'", "", "", "").replace("10.0.0.1:80", "[2001:db8::1]:80");
    let errors = parse(&across, "f").unwrap_err();
    assert!(
        !errors.iter().any(|error| error.message.contains("cannot carry")),
        "{errors:#?}"
    );
}
