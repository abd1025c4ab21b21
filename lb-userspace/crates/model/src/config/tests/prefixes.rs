//! Services whose address is a prefix.

use super::*;

/// A service at this address with these lines, and others beside it.
fn config(address: &str, lines: &str, others: &str) -> Result<Config, Vec<String>> {
    let text = format!("[[service]]\nname = \"a\"\naddress = \"{address}\"\n{lines}\n{others}");
    parse(&text, "lb.toml").map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

#[test]
fn a_prefix_is_an_address_and_survives_an_export() {
    for (address, written) in [
        ("192.0.2.0/28", "192.0.2.0/28"),
        ("192.0.2.7/32", "192.0.2.7"),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::/64", "2001:db8::/64"),
        ("2001:db8::1/128", "2001:db8::1"),
    ] {
        let desired = config(address, "port = 80", "").unwrap().desired;
        let service = &desired.services[&"a".parse().unwrap()];
        assert_eq!(service.key.address_text(), written);
        assert_eq!(service.key.is_prefix(), written.contains('/'));
        let text = export(&desired, Keys::Whole);
        assert!(text.contains(&format!("address = \"{written}\"")), "{text}");
        assert_eq!(parse(&text, "lb.toml").unwrap().desired, desired);
    }
    let v6 = config("2001:db8::/64", "port = 80", "").unwrap().desired;
    let key = v6.services.values().next().unwrap().key;
    assert_eq!(key.to_string(), "[2001:db8::/64]:80/tcp");
}

#[test]
fn prefixes_and_addresses_overlap_only_where_nothing_says_which_goes_before() {
    let other = |address: &str, port: &str| {
        format!("[[service]]\nname = \"b\"\naddress = \"{address}\"\nport = {port}\n")
    };
    for (address, port) in [
        ("192.0.2.1", "80"),
        ("192.0.2.0", "80"),
        ("192.0.2.0/29", "80"),
        ("192.0.2.0/28", "0"),
        ("192.0.0.0/16", "80"),
    ] {
        let found = config("192.0.2.0/28", "port = 80", &other(address, port));
        assert!(found.is_ok(), "{address} port {port}: {found:?}");
    }
    let errors = config("192.0.2.0/28", "port = 80", &other("192.0.2.0/28", "80")).unwrap_err();
    assert!(
        errors.len() == 1 && errors[0].contains("both are tcp port 80 of 192.0.2.0/28"),
        "{errors:#?}"
    );
}

#[test]
fn prefixes_that_cannot_work_are_refused_with_their_reason() {
    let backend = |address: &str| format!("[[service.backend]]\nname = \"b\"\naddress = \"{address}\"\n");
    let snat = |ports: &str| format!("[lb]\nsnat_addresses = [\"192.0.2.5\"]\nsnat_ports = \"{ports}\"\n");
    let own = backend("10.0.0.1:80");
    for (address, lines, others, expected) in [
        ("192.0.2.1/28", "port = 80", own.clone(), "bits beyond its length"),
        ("192.0.2.0/33", "port = 80", own.clone(), "more than the 32 bits"),
        ("0.0.0.0/0", "port = 80", String::new(), "this network"),
        ("192.0.0.0/2", "port = 80", own.clone(), "multicast addresses"),
        ("64.0.0.0/2", "port = 80", own.clone(), "loopback addresses"),
        ("fe00::/7", "port = 80", String::new(), "multicast addresses"),
        ("::/64", "port = 80", String::new(), "unspecified address"),
        (
            "192.0.2.0/28",
            "port = 80\nmode = \"dnat\"",
            own.clone(),
            "would not tell to which one",
        ),
        (
            "192.0.2.0/28",
            "port = 80",
            format!("{own}mode = \"dnat\"\n"),
            "would not tell to which one",
        ),
        (
            "192.0.2.0/28",
            "port = 80\n[service.health]\nkind = \"tcp\"\nthrough = \"vip\"",
            own.clone(),
            "needs one address",
        ),
        (
            "192.0.2.0/28",
            "port = 80",
            backend("192.0.2.3:80"),
            "round in circles",
        ),
        (
            "192.0.2.0/28",
            "port = 5000",
            snat("4000-6000"),
            "taken for requests",
        ),
        (
            "192.0.2.0/28",
            "port = 80",
            "[lb]\ntunnel_sources = [\"192.0.2.8/29\"]\n".to_owned(),
            "192.0.2.0/28 of service a",
        ),
    ] {
        let errors = config(address, lines, &others).unwrap_err();
        assert!(
            errors.len() == 1 && errors[0].contains(expected),
            "{address} {lines}: {errors:#?}"
        );
    }
    for (others, port) in [(backend("192.0.2.3:81"), 80), (snat("4000-6000"), 80)] {
        let found = config("192.0.2.0/28", &format!("port = {port}"), &others);
        assert!(found.is_ok(), "{others}: {found:?}");
    }
}
