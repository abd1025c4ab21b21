use std::time::{Duration, Instant};

use super::*;
use crate::api::testing::{backend, later, service, status};

fn model(services: &[&str], backends: usize) -> Model {
    let backends = || {
        (0..backends)
            .map(|number| backend(&format!("b{number:03}")))
            .collect()
    };
    let services = services.iter().map(|name| service(name, backends()));
    let mut model = Model::new(Sample::since(None, status(services.collect()), Instant::now()));
    model.height = 10;
    model
}

/// The next look, a second later.
fn tick(model: &mut Model) {
    let now = later(&model.sample.status);
    let at = model.sample.at + Duration::from_secs(1);
    model.answered(now, at);
}

fn press(model: &mut Model, keys: &str) -> Option<Command> {
    let keys = keys.chars().map(Key::Char);
    keys.fold(None, |_, key| model.key(key))
}

fn names(model: &Model) -> Vec<String> {
    model.names()
}

#[test]
fn each_column_orders_and_its_key_again_reverses() {
    let mut model = model(&["api", "dns", "web"], 0);
    tick(&mut model);
    assert_eq!(names(&model), ["web", "dns", "api"], "the most packets first");
    press(&mut model, "n");
    assert_eq!(names(&model), ["api", "dns", "web"]);
    press(&mut model, "n");
    assert_eq!(names(&model), ["web", "dns", "api"]);
    for order in Order::ALL {
        press(&mut model, &order.key().to_string());
        let sort = |by, is_reversed| Sort { by, is_reversed };
        let reversed = order == Order::Name;
        assert_eq!(
            model.list().sort,
            sort(order, reversed && model.list().sort.is_reversed)
        );
    }
    press(&mut model, "n>");
    assert_eq!(model.list().sort.by, Order::State);
    press(&mut model, "<<");
    assert_eq!(model.list().sort.by, Order::Latency, "it goes round");
}

#[test]
fn values_order_rows_and_names_break_ties() {
    let mut services = vec![
        service("a", vec![]),
        service("b", vec![backend("b0")]),
        service("c", vec![]),
    ];
    services[2].active_flows = 9;
    let mut model = Model::new(Sample::since(None, status(services), Instant::now()));
    for (keys, order) in [
        ("f", ["c", "a", "b"]),
        ("r", ["a", "b", "c"]),
        ("h", ["a", "c", "b"]),
        ("c", ["b", "a", "c"]),
        ("w", ["a", "b", "c"]),
    ] {
        press(&mut model, keys);
        assert_eq!(names(&model), order, "{keys}");
    }
}

#[test]
fn the_selection_follows_its_row_and_not_the_place() {
    let mut model = model(&["api", "dns", "web"], 0);
    model.key(Key::Down);
    assert_eq!(model.selected().as_deref(), Some("dns"));
    model.key(Key::Up);
    assert_eq!(model.selected().as_deref(), Some("api"));
    tick(&mut model);
    assert_eq!(names(&model), ["web", "dns", "api"]);
    assert_eq!(model.selected().as_deref(), Some("api"), "now the last one");
    model.key(Key::Down);
    assert_eq!(model.selected().as_deref(), Some("api"));
    let mut fewer = model.sample.status.clone();
    fewer.services.retain(|service| service.name == "web");
    model.answered(fewer, Instant::now());
    assert_eq!(model.selected().as_deref(), Some("web"));
}

#[test]
fn a_filter_finds_names_and_addresses_and_escape_takes_it_back() {
    let mut model = model(&["api", "dns", "web"], 0);
    press(&mut model, "/WEq");
    model.key(Key::Backspace);
    assert_eq!(names(&model), ["web"]);
    assert_eq!(model.key(Key::Enter), None);
    assert_eq!(model.mode, Mode::Browse);
    assert_eq!(model.selected().as_deref(), Some("web"));
    model.key(Key::Escape);
    assert_eq!(names(&model).len(), 3);
    press(&mut model, "/192.0.2");
    assert_eq!(names(&model).len(), 3);
    press(&mut model, "x");
    assert_eq!(names(&model), Vec::<String>::new());
    assert_eq!(model.selected(), None);
    model.key(Key::Down);
    model.key(Key::Enter);
    model.key(Key::Enter);
    assert_eq!(model.page, Page::Services, "there is nothing to open");
    assert_eq!(press(&mut model, "q"), Some(Command::Quit));
}

#[test]
fn nothing_changes_without_a_yes_and_the_question_keeps_its_backend() {
    let mut model = model(&["web"], 3);
    assert_eq!(press(&mut model, "d"), None);
    assert_eq!(model.mode, Mode::Browse, "services are not drained");
    model.key(Key::Enter);
    model.key(Key::Down);
    for answer in ["n", "q", " "] {
        press(&mut model, "d");
        assert_eq!(press(&mut model, answer), None);
        assert_eq!(model.mode, Mode::Browse);
    }
    press(&mut model, "d");
    let mut fewer = later(&model.sample.status);
    fewer.services[0].backends.remove(0);
    model.answered(fewer, Instant::now());
    let change = |admin| {
        Some(Command::Change(Change {
            service: "web".into(),
            backend: "b001".into(),
            admin,
        }))
    };
    assert_eq!(press(&mut model, "y"), change(Admin::Draining));
    assert_eq!(press(&mut model, "ey"), change(Admin::Enabled));
    model.left(SystemTime::now());
    assert_eq!(press(&mut model, "dy"), None, "the daemon is away");
}

#[test]
fn pages_open_close_and_end_with_their_service() {
    let mut model = model(&["api", "web"], 25);
    press(&mut model, "G");
    model.key(Key::Enter);
    assert_eq!(model.page, Page::Backends("web".into()));
    assert_eq!(model.selected().as_deref(), Some("b000"));
    model.key(Key::PageDown);
    assert_eq!(model.selected().as_deref(), Some("b010"));
    model.key(Key::End);
    assert_eq!(model.selected().as_deref(), Some("b024"));
    model.key(Key::PageUp);
    assert_eq!(model.selected().as_deref(), Some("b014"));
    model.key(Key::Home);
    assert_eq!(model.selected().as_deref(), Some("b000"));
    model.key(Key::Escape);
    assert_eq!(model.page, Page::Services);
    assert_eq!(model.selected().as_deref(), Some("web"), "where it was");
    model.key(Key::Enter);
    let mut fewer = model.sample.status.clone();
    fewer.services.pop();
    model.answered(fewer, Instant::now());
    assert_eq!(model.page, Page::Services);
    assert_eq!(model.message.as_deref(), Some("service web was removed"));
}

#[test]
fn help_and_interrupt_work_everywhere() {
    let mut model = model(&["web"], 1);
    press(&mut model, "?");
    assert_eq!(model.mode, Mode::Help);
    assert_eq!(press(&mut model, "q"), None, "it closes the help only");
    assert_eq!(model.mode, Mode::Browse);
    for keys in ["", "/", "?"] {
        press(&mut model, keys);
        assert_eq!(model.key(Key::Interrupt), Some(Command::Quit), "{keys}");
    }
}

#[test]
fn trends_keep_the_newest_rates_of_what_is_there() {
    let mut model = model(&["web"], 2);
    for _ in 0..TREND + 5 {
        tick(&mut model);
    }
    let trend = model.trend("web", Some("b001")).unwrap();
    let packets: Vec<f64> = trend.newest(3, |rates| rates.packets).collect();
    assert_eq!(packets, [20.0; 3]);
    assert_eq!(trend.newest(usize::MAX, |rates| rates.bits).count(), TREND);
    let mut fewer = later(&model.sample.status);
    fewer.services[0].backends.pop();
    model.answered(fewer, Instant::now());
    assert!(model.trend("web", Some("b001")).is_none());
    assert!(model.trend("web", None).is_some());
}
