//! Keys about tunnels.

use super::*;

fn errors(lb: &str) -> Vec<String> {
    let text = format!(
        "[lb]\n{lb}\n[[service]]\nname = \"a\"\naddress = \"192.0.2.1\"\nport = 80\nmode = \"ipip\"\n\
         [[service.backend]]\nname = \"b\"\naddress = \"10.0.0.9:80\"\n"
    );
    match parse(&text, "lb.toml") {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn more_balancers_than_fit_are_refused() {
    let list = |count: u32| {
        let prefixes = (0..count).map(|i| format!("\"10.1.{}.{}\"", i / 256, i % 256));
        format!("decap_from = [{}]", prefixes.collect::<Vec<_>>().join(", "))
    };
    assert_eq!(errors(&list(1024)), [""; 0]);
    let errors = errors(&list(1025));
    assert!(
        errors.len() == 1 && errors[0].contains("1025 prefixes in decap_from are more than the 1024"),
        "{errors:#?}"
    );
}

#[test]
fn prefixes_that_no_tunnel_can_come_from_are_refused_with_their_reason() {
    for (lb, expected) in [
        (
            "tunnel_sources = [\"10.1.0.0/24\", \"10.2.0.0/24\"]",
            "10.1.0.0/24 and 10.2.0.0/24, which are of one family",
        ),
        ("tunnel_sources = [\"127.0.0.0/8\"]", "loopback"),
        ("tunnel_sources = [\"ff00::/8\"]", "multicast"),
        ("tunnel_sources = [\"10.1.2.3/24\"]", "bits beyond its length"),
        (
            "tunnel_sources = [\"192.0.2.0/24\"]",
            "192.0.2.0/24 has the address 192.0.2.1 of service a",
        ),
        (
            "tunnel_sources = [\"10.0.0.0/24\"]",
            "10.0.0.0/24 has the address 10.0.0.9 of backend a/b",
        ),
        ("tunnel_sources = \"10.1.0.0/24\"", "expected an array"),
        (
            "decap_from = [\"127.0.0.1\"]",
            "127.0.0.1/32 in decap_from is a loopback address",
        ),
        ("decap_from = [\"224.0.0.0/3\"]", "has multicast addresses"),
        ("decap_from = [\"10.1.2.3/24\"]", "bits beyond its length"),
        (
            "decap_from = [\"10.1.0.0/24\", \"10.1.0.0/24\"]",
            "10.1.0.0/24 is listed twice in decap_from",
        ),
        ("decap_from = \"10.1.0.0/24\"", "expected an array"),
        ("gue_port = 0", "gue_port 0 is no port"),
        ("gue_port = 65536", "65536 is no port"),
    ] {
        let errors = errors(lb);
        assert!(
            errors.len() == 1 && errors[0].contains(expected),
            "{lb}: {errors:#?}"
        );
    }
    let fine = "tunnel_sources = [\"10.1.0.0/24\", \"fd00:1::/64\"]\ngue_port = 5555\n\
                decap_from = [\"10.0.0.2\", \"10.0.0.0/24\", \"2001:db8::/64\"]";
    assert_eq!(errors(fine), [""; 0]);
    // A backend that no tunnel leads to may be in the prefix.
    for (service, backend, found) in [
        ("nat", "", 0),
        ("nat", "mode = \"gue\"", 1),
        ("ipip", "mode = \"nat\"", 0),
    ] {
        let text = format!(
            "[lb]\ntunnel_sources = [\"10.0.0.0/24\"]\n[[service]]\nname = \"a\"\naddress = \"192.0.2.1\"\nport = 80\n\
             mode = \"{service}\"\n[[service.backend]]\nname = \"b\"\naddress = \"10.0.0.9:80\"\n{backend}\n"
        );
        let errors = parse(&text, "lb.toml").map_or_else(|errors| errors.len(), |_| 0);
        assert_eq!(errors, found, "{service}, {backend}");
    }
}
