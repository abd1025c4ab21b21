//! Tables of clients, and groups of backends.

use super::*;
use crate::config::diff::diff;

fn text(clients: &str) -> String {
    format!(
        "[[service]]\nname = \"web\"\naddress = \"192.0.2.1\"\nport = 80\n{clients}\n\
         [[service.backend]]\nname = \"a\"\naddress = \"10.0.0.1:80\"\ngroup = \"near\"\n\
         [[service.backend]]\nname = \"b\"\naddress = \"10.0.0.2:80\"\ngroup = \"canary\"\n\
         [[service.backend]]\nname = \"c\"\naddress = \"10.0.0.3:80\"\n\
         [[service.backend]]\nname = \"d\"\naddress = \"d.example:80\"\ngroup = \"far\"\n"
    )
}

fn table(group: &str, from: &str) -> String {
    format!("[[service.clients]]\ngroup = \"{group}\"\nfrom = [{from}]\n")
}

#[test]
fn the_longest_prefix_of_any_table_decides_about_a_client() {
    let tables = [
        table("near", "\"10.0.0.0/8\", \"2001:db8::/32\""),
        table("canary", "\"10.1.0.0/16\""),
        table("far", "\"10.1.2.3\""),
    ];
    let config = parse(&text(&tables.concat()), "lb.toml").unwrap();
    let service = config.desired.services.values().next().unwrap();
    for (client, expected) in [
        ("10.9.9.9", Some("near")),
        ("10.1.9.9", Some("canary")),
        ("10.1.2.3", Some("far")),
        ("11.0.0.1", None),
        ("2001:db8::1", Some("near")),
        ("2001:db9::1", None),
    ] {
        let group = service.group_of(client.parse().unwrap());
        assert_eq!(group.map(|(group, _)| group.as_str()), expected, "{client}");
    }
    // Exported and read again, it is the same.
    let again = export(&config.desired, Keys::Whole);
    assert_eq!(
        parse(&again, "lb.toml").unwrap().desired,
        config.desired,
        "{again}"
    );
}

#[test]
fn a_difference_names_the_group_and_its_prefixes() {
    let of = |tables: &str| parse(&text(tables), "lb.toml").unwrap().desired;
    let (none, near) = (of(""), of(&table("near", "\"10.0.0.0/8\"")));
    let wider = of(&table("near", "\"10.0.0.0/7\""));
    for (old, new, expected) in [
        (
            &none,
            &near,
            "+ clients web/near: group \"near\", from [\"10.0.0.0/8\"]\n",
        ),
        (
            &near,
            &wider,
            "~ clients web/near: from [\"10.0.0.0/8\"] -> [\"10.0.0.0/7\"]\n",
        ),
        (&near, &none, "- clients web/near\n"),
    ] {
        assert_eq!(diff(old, new).to_string(), expected);
    }
}

#[test]
fn tables_of_clients_that_cannot_work_are_refused_with_their_place() {
    let near = table("near", "\"10.0.0.0/8\"");
    for (tables, line, expected) in [
        (
            near.clone() + &table("near", "\"11.0.0.0/8\""),
            9,
            "two tables of clients for group near",
        ),
        (
            table("near", ""),
            7,
            "no client of service web goes to group near",
        ),
        (
            near.clone() + &table("canary", "\"10.0.0.0/8\""),
            10,
            "clients 10.0.0.0/8 of service web go to near and to canary",
        ),
        (
            table("near", "\"10.0.0.0/8\", \"11.0.0.1/8\""),
            7,
            "bits beyond its length",
        ),
        (table("a b", "\"10.0.0.0/8\""), 6, "contains ' '"),
        (
            "[[service.clients]]\ngroup = \"near\"\n".to_owned(),
            5,
            "has no from",
        ),
        (
            "[[service.clients]]\nfrom = [\"10.0.0.0/8\"]\n".to_owned(),
            5,
            "has no group",
        ),
        (near + "to = \"near\"\n", 8, "unknown key"),
    ] {
        let errors = parse(&text(&tables), "lb.toml").unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:#?}");
        let error = errors[0].to_string();
        assert!(error.contains(expected), "{expected:?} is not in {error}");
        assert!(
            error.contains(&format!("lb.toml:{line}:")),
            "not in line {line}: {error}"
        );
    }
}
