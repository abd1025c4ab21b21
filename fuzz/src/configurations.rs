//! Configuration files, and requests about services and backends.

use lb_model::{
    config::{self, Config, change, change::Request, export, fields::Keys},
    state::desired::{Desired, Revision},
};

/// A file with many keys, whose services and backends requests change.
const EXAMPLE: &str = include_str!("../../docs/example.toml");

pub(crate) fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(config) = config::parse(&text, "fuzzed") {
        comes_back(&config);
    }
    if let Ok(request) = serde_json::from_slice::<Request>(bytes) {
        change_all(&request);
    }
}

/// What was accepted is written, and read again as the same.
fn comes_back(config: &Config) {
    let mut text = export::lb(&config.daemon, &config.desired.settings);
    for service in config.desired.services.values() {
        text.push_str(&export::service(service, Keys::Whole));
    }
    match config::parse(&text, "exported") {
        Ok(again) => assert!(again == *config, "it comes back as another one:\n{text}"),
        Err(errors) => panic!("it does not come back: {}\n{text}", listed(&errors)),
    }
}

/// Adds a service, and changes each service and each backend that is there.
fn change_all(request: &Request) {
    let Ok(example) = config::parse(EXAMPLE, "example.toml") else {
        panic!("docs/example.toml is refused");
    };
    let there = example.desired;
    let mut changed = vec![change::add_service(&there, request)];
    for service in there.services.values() {
        changed.push(change::set_service(&there, &service.name, request));
        for backend in &service.backends {
            changed.push(change::set_backend(&there, &service.name, &backend.name, request));
        }
    }
    for desired in changed.into_iter().flatten() {
        comes_back(&Config {
            desired: Desired {
                revision: Revision(0),
                ..desired
            },
            ..Config::default()
        });
    }
}

fn listed(errors: &[config::ConfigError]) -> String {
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}
