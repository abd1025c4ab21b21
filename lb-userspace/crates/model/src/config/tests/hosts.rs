//! Backends by host name.

use super::*;
use crate::state::hosts::HostBackend;

/// A service with these lines in its first `[[service.backend]]` table, and others behind it.
fn config(backend: &str, others: &str) -> Result<Desired, Vec<String>> {
    let text = format!(
        "[[service]]\nname = \"web\"\naddress = \"192.0.2.1\"\nport = 80\n[[service.backend]]\n{backend}\n{others}"
    );
    let config = parse(&text, "lb.toml").map(|config| config.desired);
    config.map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn web(desired: &Desired) -> &crate::state::service::Service {
    &desired.services[&"web".parse().unwrap()]
}

#[test]
fn a_backend_by_name_and_what_was_found_survive_an_export() {
    let desired = config(
        "name = \"app\"\naddress = \"App.example.org:8080\"\nweight = 7\nbackup = true\nmode = \"nat\"\nagent_port = 9",
        "[[service.backend]]\nname = \"app-10.0.0.1\"\naddress = \"10.0.0.1:8080\"\ndiscovered_by = \"app\"\n",
    )
    .unwrap();
    let HostBackend {
        name,
        host,
        port,
        weight,
        backup,
        ..
    } = &web(&desired).hosts[0];
    assert_eq!(
        (name.as_str(), host.as_str(), *port),
        ("app", "app.example.org", 8080)
    );
    assert_eq!((*weight, *backup), (7, true));
    assert_eq!(web(&desired).backends[0].discovered_by.as_ref(), Some(name));
    let text = export(&desired, Keys::Whole);
    assert!(text.contains("address = \"app.example.org:8080\""), "{text}");
    assert_eq!(parse(&text, "lb.toml").unwrap().desired, desired, "{text}");
}

#[test]
fn a_wrong_address_is_named_with_its_place_and_a_remedy() {
    for (address, expected, hint) in [
        (
            "app.example.org",
            "is a host name without a port",
            "\"app.example.org:8080\"",
        ),
        (
            "app.example.org:http",
            "has no port that can be used",
            "\"app.example.org:8080\"",
        ),
        (
            "app.example.org:70000",
            "has no port that can be used",
            "from 0 to 65535",
        ),
        ("app.example.org:0", "backend web/app has no port", "set it"),
        (
            "10.0.0.256:80",
            "\"10.0.0.256:80\" is no address with a port",
            "10.0.0.11:8080",
        ),
        ("10.0.0:80", "is no address with a port", "10.0.0.11:8080"),
        ("bücher.example:80", "a host name is written in ASCII", "xn--"),
        (
            "my_app:80",
            "neither an address nor a host name with a port",
            "app.example.org:8080",
        ),
        (
            "2001:db8::1:80:90:zz",
            "is no address with a port",
            "[2001:db8::11]:8080",
        ),
        ("http://app:80", "is no address with a port", "10.0.0.11:8080"),
        (
            ":80",
            "neither an address nor a host name",
            "app.example.org:8080",
        ),
    ] {
        let errors = config(&format!("name = \"app\"\naddress = \"{address}\""), "").unwrap_err();
        let [error] = &errors[..] else {
            panic!("{address}: {errors:#?}")
        };
        assert!(error.starts_with("lb.toml:7:"), "{error}");
        assert!(
            error.contains(expected) && error.contains(hint),
            "{address}: {error}"
        );
    }
}

#[test]
fn keys_that_do_not_go_with_a_host_name_are_refused() {
    let host = "name = \"app\"\naddress = \"app.example.org:80\"";
    let at = "address = \"10.0.0.1:80\"";
    for (backend, others, expected) in [
        (
            format!("{host}\nserver_ids = []"),
            String::new(),
            "server_ids does not go with a host name",
        ),
        (
            format!("{host}\ndiscovered_by = \"b\""),
            String::new(),
            "discovered_by does not go with a host name",
        ),
        (
            format!("{host}\ndrain_until = \"2030-01-31T12:00:00Z\""),
            String::new(),
            "has an end of its drain, but does not drain",
        ),
        (
            host.to_owned(),
            format!("[[service.backend]]\nname = \"app\"\n{at}"),
            "web/app is defined twice",
        ),
        (
            host.to_owned(),
            format!("[[service.backend]]\n{host}"),
            "web/app is defined twice",
        ),
        (
            format!("name = \"a\"\n{at}\ndiscovered_by = \"b\""),
            String::new(),
            "service web has no backend b with a host name",
        ),
    ] {
        let errors = config(&backend, &others).unwrap_err();
        assert!(
            errors.len() == 1 && errors[0].contains(expected),
            "{backend}: {errors:#?}"
        );
    }
}
