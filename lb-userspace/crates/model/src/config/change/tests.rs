use proptest::prelude::*;

use super::*;
use crate::{
    config::keys::{Absent, Separated},
    state::{backend::Admin, testing},
};

fn request(text: &str) -> Request {
    Request::from(text.parse::<Toml>().unwrap())
}

fn health(text: &str) -> Request {
    request(&format!("[health]\n{text}"))
}

fn name<N: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> N {
    text.parse().unwrap()
}

fn web() -> Desired {
    testing::desired([testing::service("web", 1, &[("a", 10), ("b", 20)])])
}

/// The keys of a check, the new ones of a request, and those that follow.
#[test]
fn a_key_that_excludes_others_replaces_them() {
    for (before, new, after) in [
        (r#"send = "a""#, r#"send_hex = "62""#, r#"send_hex = "62""#),
        (r#"send_hex = "62""#, r#"send = "a""#, r#"send = "a""#),
        (
            "send = \"a\"\nexpect = \"x\"",
            r#"expect_regex = "^y""#,
            "send = \"a\"\nexpect_regex = \"^y\"",
        ),
        (
            r#"expect_regex = "^y""#,
            r#"expect_hex = "2b""#,
            r#"expect_hex = "2b""#,
        ),
        (
            "send = \"a\"\nexpect = \"x\"",
            r#"steps = [{ send = "a" }, { expect = "b" }]"#,
            r#"steps = [{ send = "a" }, { expect = "b" }]"#,
        ),
        (
            r#"steps = [{ send = "a" }, { expect = "b" }]"#,
            r#"send = "a""#,
            r#"send = "a""#,
        ),
        (
            "send = \"a\"\nsend_proxy = \"v2\"",
            "half_open = true",
            "half_open = true",
        ),
        ("half_open = true", r#"expect = "x""#, r#"expect = "x""#),
        ("half_open = true", r#"send_proxy = "v1""#, r#"send_proxy = "v1""#),
        ("half_open = true", "rise = 7", "half_open = true\nrise = 7"),
    ] {
        let check = |keys: &str| {
            let request = health(&format!("kind = \"tcp\"\n{keys}"));
            set_service(&web(), &name("web"), &request).unwrap()
        };
        let changed = set_service(&check(before), &name("web"), &health(new)).unwrap();
        let health = |desired: &Desired| desired.services[&name::<ServiceName>("web")].health.clone();
        assert_eq!(health(&changed), health(&check(after)), "{before} and then {new}");
    }
}

#[test]
fn a_check_that_gives_up_tls_gives_up_its_keys() {
    let secure = health("kind = \"http2\"\ntls = true\nverify = false\nserver_name = \"a.example\"");
    let secure = set_service(&web(), &name("web"), &secure).unwrap();
    let plain = set_service(&secure, &name("web"), &health("tls = false")).unwrap();
    let written = fields::health(&plain.services[&name::<ServiceName>("web")].health);
    assert!(written.iter().all(|field| field.name() != "health.server_name"));
}

#[test]
fn ports_replace_the_port_and_the_other_way_round() {
    let ports = |desired: &Desired| {
        let service = &desired.services[&name::<ServiceName>("web")];
        service.all_ports().collect::<Vec<_>>()
    };
    let several = set_service(&web(), &name("web"), &request("ports = [81, \"90-91\"]")).unwrap();
    assert_eq!(ports(&several), [81, 90, 91]);
    let one = set_service(&several, &name("web"), &request("port = 443")).unwrap();
    assert_eq!(ports(&one), [443]);
}

#[test]
fn a_backend_keeps_what_a_request_does_not_name() {
    let set = |desired: &Desired, text: &str| {
        set_backend(desired, &name("web"), &name("a"), &request(text)).unwrap()
    };
    let a = |desired: &Desired| desired.backend(&name("web"), &name("a")).unwrap().clone();
    let first = set(
        &web(),
        "group = \"near\"\nadmin = \"draining\"\ndrain_until = \"2030-01-31T12:00:00Z\"",
    );
    assert!(a(&first).drain_until.is_some() && a(&first).weight == 10);
    let weight = set(&first, "weight = 7");
    assert_eq!(
        a(&weight),
        Backend {
            weight: 7,
            ..a(&first)
        }
    );
    let again = set(&first, "admin = \"draining\"");
    assert_eq!(
        a(&again).drain_until,
        None,
        "the end of a drain belongs to that drain"
    );
    let enabled = set(&first, "admin = \"enabled\"\ngroup = \"\"");
    assert_eq!(
        (a(&enabled).admin, a(&enabled).drain_until, a(&enabled).group),
        (Admin::Enabled, None, None)
    );
}

#[test]
fn every_refusal_names_the_key_and_its_remedy() {
    let set = |text: &str| set_service(&web(), &name("web"), &request(text)).unwrap_err();
    let set_a = |text: &str| set_backend(&web(), &name("web"), &name("a"), &request(text)).unwrap_err();
    for (error, what, remedy) in [
        (set("moed = \"nat\""), "unknown key moed", "mode"),
        (
            set("port = \"80\""),
            "port: expected an integer",
            "without quotes",
        ),
        (set("mode = \"natt\""), "mode: \"natt\" is no mode", "\"nat\""),
        (
            set("[health]\nkind = \"tcp\"\nkynd = 1"),
            "unknown key kynd",
            "kind",
        ),
        (set("backend = []"), "backend is a key of", "leave it out"),
        (set("name = \"new\""), "keeps its name", "add a service"),
        (
            set("[health]\nkind = \"tcp\"\nsend = \"a\"\nsend_hex = \"62\""),
            "cannot be combined",
            "remove one",
        ),
        (set("port = 1\nports = [1, 2]"), "not both", "leave one"),
        (set_a("wieght = 1"), "unknown key wieght", "weight"),
        (set_a("weight = true"), "weight: expected an integer", ""),
        (
            set_a("discovered_by = \"b\""),
            "discovered_by is a key of",
            "leave it out",
        ),
        (set_a("name = \"new\""), "keeps its name", "add a backend"),
        (
            set_a("address = \"app.example.org:80\""),
            "is a host name",
            "[[service.backend]]",
        ),
    ] {
        let (message, hint) = match &error {
            RequestError::Values(errors) => (errors[0].message.clone(), errors[0].hint.clone()),
            RequestError::Change(error) => (error.to_string(), error.hint().map(str::to_owned)),
            RequestError::Internal(message) => (message.clone(), None),
        };
        assert!(message.contains(what), "{message}");
        assert!(hint.unwrap_or_default().contains(remedy), "{message}");
    }
}

/// Whether a value has the type that the table of keys gives it, which the API's schema and the command line use.
fn conforms(shape: Shape, value: &Value) -> bool {
    let of_list = |is: fn(&Value) -> bool| value.as_array().is_some_and(|items| items.iter().all(is));
    let is_either = |value: &Value| value.is_str() || value.is_integer();
    match shape {
        Shape::Text => value.is_str(),
        Shape::Word(words) => value.as_str().is_some_and(|word| words().contains(&word)),
        Shape::Bool => value.is_bool(),
        Shape::Number(least, most) => value
            .as_integer()
            .is_some_and(|number| (i64::from(least)..=i64::from(most)).contains(&number)),
        Shape::Share => value.as_float().is_some_and(|share| (0.0..=1.0).contains(&share)),
        Shape::NumberOr(word) => value.is_integer() || value.as_str() == Some(word),
        Shape::Texts(Separated::ByCommas | Separated::ByOptions | Separated::AsWords) => {
            of_list(Value::is_str)
        }
        Shape::Numbers => of_list(is_either),
        Shape::OneOrMore => is_either(value) || of_list(is_either),
        Shape::Map => value
            .as_table()
            .is_some_and(|table| table.values().all(Value::is_str)),
        Shape::Table(below) => {
            let list = value.as_array().filter(|_| below.is_list());
            let tables: Vec<&Value> = list.map_or_else(|| vec![value], |tables| tables.iter().collect());
            tables
                .iter()
                .all(|table| table.as_table().is_some_and(|table| table_conforms(below, table)))
        }
    }
}

fn table_conforms(keys: &KeyTable, table: &Toml) -> bool {
    table.iter().all(|(name, value)| {
        let conforms = keys.key(name).is_some_and(|key| conforms(key.value.shape, value));
        assert!(conforms, "{} {name} = {value}", keys.header);
        conforms
    })
}

#[test]
fn a_default_has_the_type_of_its_key() {
    for table in keys::TABLES {
        for key in table.keys {
            if let Absent::Default(text) | Absent::Required(text) | Absent::Otherwise(_, text) = key.absent
                && !text.is_empty()
            {
                let line: Toml = format!("{} = {text}", key.name).parse().unwrap();
                assert!(table_conforms(table, &line));
            }
        }
    }
}

proptest! {
    /// A request can set every key of a service, with the file's types.
    #[test]
    fn a_service_of_a_file_is_a_request(desired in testing::any_desired()) {
        for (name, service) in &desired.services {
            let text = export::service(service, Keys::Whole);
            let document: Toml = text.parse().unwrap();
            let mut table = document["service"][0].as_table().unwrap().clone();
            prop_assert!(table_conforms(&keys::SERVICE, &table));
            table.remove("backend");
            let same = set_service(&desired, name, &Request::from(table.clone())).unwrap();
            prop_assert_eq!(&same, &desired);
            if service.hosts.is_empty() && service.clients.is_empty() {
                let mut alone = desired.clone();
                alone.services.remove(name);
                let mut added = add_service(&alone, &Request::from(table)).unwrap();
                for backend in &service.backends {
                    added = added.add_backend(name, backend.clone()).unwrap();
                }
                prop_assert_eq!(&added.services[name], service);
            }
        }
    }
}
