//! Services with several ports.

use super::*;

/// A service with these lines and a backend at this address, and another service on port 25.
fn config(service: &str, address: &str) -> Result<Config, Vec<String>> {
    let text = format!(
        "[[service]]\nname = \"a\"\naddress = \"192.0.2.1\"\n{service}\n\
         [[service.backend]]\nname = \"b\"\naddress = \"{address}\"\n\
         [[service]]\nname = \"mail\"\naddress = \"192.0.2.1\"\nport = 25\n"
    );
    parse(&text, "lb.toml").map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

#[test]
fn several_ports_and_ranges_are_one_service_and_survive_an_export() {
    for (service, ports, written) in [
        ("ports = [443, 80]", vec![443, 80], "ports = [443, 80]"),
        (
            "ports = [80, \"8000-8003\"]",
            vec![80, 8000, 8001, 8002, 8003],
            "ports = [80, \"8000-8003\"]",
        ),
        (
            "ports = [\"443\", \"21-22\"]",
            vec![443, 21, 22],
            "ports = [443, \"21-22\"]",
        ),
        ("ports = [80]", vec![80], "port = 80"),
        ("ports = [\"80-80\"]", vec![80], "port = 80"),
        ("ports = 80", vec![80], "port = 80"),
        ("ports = \"80-81\"", vec![80, 81], "ports = [\"80-81\"]"),
        ("port = 80", vec![80], "port = 80"),
    ] {
        let desired = config(service, "10.0.0.1:8080").unwrap().desired;
        let read = &desired.services[&"a".parse().unwrap()];
        assert_eq!(read.all_ports().collect::<Vec<_>>(), ports, "{service}");
        assert_eq!((read.key.port, read.port_count()), (ports[0], ports.len()));
        let text = export(&desired, Keys::Whole);
        assert!(text.contains(written), "{service}: {text}");
        assert_eq!(parse(&text, "lb.toml").unwrap().desired, desired, "{text}");
    }
}

/// With several ports of a service, a backend may have none: packets keep theirs.
#[test]
fn a_backend_needs_a_port_only_where_its_service_has_one() {
    for (service, address, works) in [
        ("ports = [80, 443]", "10.0.0.1", true),
        ("ports = [80, 443]", "10.0.0.1:0", true),
        ("ports = [80, 443]", "10.0.0.1:8080", true),
        ("port = 0", "10.0.0.1", true),
        ("port = 80", "10.0.0.1", false),
        ("ports = [80]", "10.0.0.1", false),
    ] {
        match config(service, address) {
            Ok(config) => {
                assert!(works, "{service} {address}");
                let service = &config.desired.services[&"a".parse().unwrap()];
                let port = if address.ends_with("8080") { 8080 } else { 0 };
                assert_eq!(service.backends[0].address.port(), port);
            }
            Err(errors) => assert!(
                !works && errors.len() == 1 && errors[0].contains("has no port"),
                "{service} {address}: {errors:#?}"
            ),
        }
    }
}

#[test]
fn ports_that_make_no_sense_are_refused_with_their_reason() {
    for (service, expected) in [
        ("ports = []", "ports names no port"),
        ("ports = [80, 0]", "port 0 is every port"),
        ("ports = [80, \"90-85\"]", "ends before it begins"),
        ("ports = [80, \"http\"]", "neither a port nor a range"),
        ("ports = [80, 65536]", "neither a port nor a range"),
        ("port = 80\nports = [443]", "port or ports, not both"),
        ("ports = [80, 443, 80]", "ports of service a has 80 twice"),
        ("ports = [80, \"79-81\"]", "ports of service a has 80 twice"),
        ("ports = [\"20-30\"]", "overlaps service"),
        (
            "ports = [\"1000-9000\"]",
            "8001 ports, more than the 1024 that fit",
        ),
        ("ports = [80, 443]\nmode = \"dnat\"", "replies would not tell"),
        ("", "has no port"),
    ] {
        let errors = config(service, "10.0.0.1:8080").unwrap_err();
        assert!(
            errors.len() == 1 && errors[0].contains(expected),
            "{service}: {errors:#?}"
        );
    }
}

#[test]
fn each_of_several_ports_has_the_constraints_of_a_single_port() {
    let own = config("ports = [80, \"8000-8100\"]", "192.0.2.1:8050").unwrap_err();
    assert!(own[0].contains("round in circles"), "{own:#?}");
    let through = "ports = [80, 443]\n[service.health]\nkind = \"tcp\"\nthrough = \"vip\"\nport =";
    assert!(config(&format!("{through} 443"), "10.0.0.1:80").is_ok());
    let other = config(&format!("{through} 444"), "10.0.0.1:80").unwrap_err();
    assert!(
        other[0].contains("port 444 cannot be checked through the VIP"),
        "{other:#?}"
    );
}

#[test]
fn affinity_by_port_needs_ports_to_spread_over() {
    for (service, expected) in [
        ("port = 0\naffinity = \"port\"", None),
        ("ports = [\"3478-3481\"]\naffinity = \"port\"", None),
        (
            "port = 80\naffinity = \"port\"",
            Some("which has one port, to one backend"),
        ),
        (
            "port = 0\naffinity = \"port\"\nalgorithm = \"round-robin\"",
            Some("each flow to a port another backend"),
        ),
    ] {
        match (config(service, "10.0.0.1:8080"), expected) {
            (Ok(config), None) => {
                let text = export(&config.desired, Keys::Whole);
                assert!(text.contains("affinity = \"port\""), "{text}");
                assert_eq!(parse(&text, "lb.toml").unwrap().desired, config.desired);
            }
            (Err(errors), Some(expected)) => assert!(
                errors.len() == 1 && errors[0].contains(expected),
                "{service}: {errors:#?}"
            ),
            (outcome, _) => panic!("{service}: {outcome:?}"),
        }
    }
}

/// A text with a sign would be read by one version, and refused by the next or by another tool.
#[test]
fn numbers_in_texts_have_digits_alone() {
    assert!(values::port_range("80-90").is_ok() && values::ports("80 - 90").is_ok());
    assert!(values::weight("007").is_ok_and(|weight| weight == 7));
    let refused = |sign: &str| {
        [
            values::port_range(&format!("{sign}80")).is_err(),
            values::port_range(&format!("80-{sign}90")).is_err(),
            values::ports(&format!("{sign}80-90")).is_err(),
            values::backend_address(&format!("app.example.org:{sign}80")).is_err(),
            values::backend_address(&format!("10.0.0.1:{sign}80")).is_err(),
            values::prefix(&format!("10.0.0.0/{sign}8")).is_err(),
            values::weight(&format!("{sign}7")).is_err(),
            values::statuses(&format!("{sign}200")).is_err(),
            values::statuses(&format!("{sign}2xx")).is_err(),
            values::ring_size(&format!("{sign}251")).is_err(),
            values::count::<u32>(&format!("{sign}7")).is_err(),
            values::share(&format!("{sign}0.1")).is_err(),
            file_version::file_version(&format!("{sign}1")).is_err(),
        ]
    };
    for sign in ["+", "-", "１"] {
        assert_eq!(refused(sign), [true; 13], "{sign:?}");
    }
    // Octal for some tools, decimal for others.
    assert!(values::backend_address("010.0.0.1:80").is_err() && values::prefix("010.0.0.0/8").is_err());
}
