use std::time::{Duration, Instant, SystemTime};

use ratatui::{Terminal, backend::TestBackend, style::Modifier};

use super::*;
use crate::{
    api::{
        rates::Sample,
        testing::{backend, down, drops, later, service, status},
        types::{Service, Status},
    },
    cli::top::keys::Key,
};

/// A model after a few looks.
fn model(status: Status) -> Model {
    let mut model = Model::new(Sample::since(None, status, Instant::now()));
    for _ in 0..5 {
        let now = later(&model.sample.status);
        let at = model.sample.at + Duration::from_secs(1);
        model.answered(now, at);
    }
    model
}

fn screen(model: &mut Model, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model, true)).unwrap();
    let cells = terminal.backend().buffer().content();
    let lines = cells.chunks(usize::from(width)).map(|line| {
        let text: String = line.iter().map(|cell| cell.symbol()).collect();
        text.trim_end().to_owned()
    });
    lines.collect()
}

fn three() -> Vec<Service> {
    let mut web = service(
        "web-with-a-long-name",
        vec![backend("web-1"), backend("web-2"), down("web-3")],
    );
    web.drops = drops(&[("no_backend", 3), ("acl", 1)]);
    web.active_flows = 12_345;
    let mut broken = service("dns", vec![backend("d0")]);
    broken.broken = Some("ip_forward is off".into());
    vec![web, broken, service("empty", vec![])]
}

/// The line that begins with this.
fn line<'a>(screen: &'a [String], begin: &str) -> &'a str {
    let found = screen.iter().find(|line| line.starts_with(begin));
    found.unwrap_or_else(|| panic!("no line {begin:?}:\n{}", screen.join("\n")))
}

#[test]
fn eighty_columns_have_every_number_and_two_hundred_have_more() {
    let mut status = status(three());
    status.interfaces[0].drops = drops(&[("malformed", 7)]);
    let mut model = model(status);
    let narrow = screen(&mut model, 80, 24);
    assert!(line(&narrow, "packets/s").contains("6000"));
    assert!(line(&narrow, "drops").contains("malformed 0/s (7)"));
    assert!(line(&narrow, "maps").contains("FLOWS_V4 25% of 1000"));
    assert!(line(&narrow, "3 services, by packets/s").len() < 80);
    let heads = "SERVICE      STATE         UP  PKT/s  PACKETS  BIT/s  NEW/s  FLOWS DROP/s  CHECK";
    assert_eq!(line(&narrow, "SERVICE"), heads);
    let web = line(&narrow, "web-with-a-");
    assert_eq!(
        web,
        "web-with-a-… degraded     2/3   1000    █████   800k     10  12.3k      0  1.2ms"
    );
    assert!(line(&narrow, "dns ").contains("broken"));
    assert!(line(&narrow, "empty").contains("no back…"));

    let wide = screen(&mut model, 200, 50);
    let heads = line(&wide, "SERVICE");
    for head in [
        "ADDRESS",
        "MODE",
        "RPKT/s",
        "RBIT/s",
        "MAX",
        "MOST DROPS",
        "BITS",
        "NEW",
    ] {
        assert!(heads.contains(head), "{head}");
    }
    assert!(line(&wide, "web-with-a-long-name").contains("192.0.2.10:80/tcp"));
    assert!(line(&wide, "empty").contains("no backends"));
}

#[test]
fn the_line_of_the_selected_row_has_its_fault() {
    let mut model = model(status(three()));
    model.key(Key::Char('n'));
    let shown = screen(&mut model, 80, 24);
    assert_eq!(shown[22], "dns: ip_forward is off");
    assert!(shown[23].starts_with("ENTER backends"));
    model.key(Key::End);
    model.key(Key::Enter);
    model.key(Key::End);
    let shown = screen(&mut model, 80, 24);
    assert!(
        line(
            &shown,
            "web-with-a-long-name: degraded, 192.0.2.10:80/tcp; 3 backends"
        )
        .len()
            <= 80
    );
    assert!(line(&shown, "web-3").contains("down"));
    assert!(
        shown[22].ends_with("connection refused by 10.0.0.11:8…"),
        "{}",
        shown[22]
    );
    model.key(Key::Home);
    model.key(Key::Char('d'));
    let shown = screen(&mut model, 80, 24);
    assert_eq!(
        shown[23],
        "drain web-with-a-long-name/web-1: no new flows, 0 flows finish? [y/N]"
    );
}

/// A line that runs out of the window loses its last words without a sign.
#[test]
fn no_line_of_the_list_of_keys_is_cut_and_long_lists_say_that_they_go_on() {
    let mut status = status(three());
    status.interfaces[0].drops = drops(&[
        ("malformed", 7),
        ("no_backend", 6),
        ("acl", 5),
        ("rate_limited", 4),
    ]);
    status.maps = (0..9).map(|_| status.maps[0].clone()).collect();
    let mut model = model(status);
    let shown = screen(&mut model, 80, 24);
    for begin in ["drops", "maps"] {
        assert!(line(&shown, begin).ends_with('…'), "{}", line(&shown, begin));
    }
    model.key(Key::Char('?'));
    let (narrow, wide) = (screen(&mut model, 80, 24), screen(&mut model, 200, 24));
    assert_eq!(narrow[5..], wide[5..]);
}

#[test]
fn the_last_backend_is_not_drained_unawares() {
    let mut model = model(status(vec![service("web", vec![backend("b0")])]));
    model.key(Key::Enter);
    model.key(Key::Char('d'));
    let shown = screen(&mut model, 80, 24);
    assert!(
        shown[23].contains("it is the last that takes them"),
        "{}",
        shown[23]
    );
}

#[test]
fn a_thousand_backends_scroll_and_only_the_window_is_formatted() {
    let backends = (0..1_000).map(|number| backend(&format!("b{number:04}")));
    let mut model = model(status(vec![service("web", backends.collect())]));
    model.key(Key::Enter);
    let shown = screen(&mut model, 80, 24);
    let rows = |shown: &[String]| shown.iter().filter(|line| line.starts_with("b0")).count();
    // The line of the selected row begins with its name too.
    assert_eq!(rows(&shown), model.height + 1);
    assert!(shown[7].starts_with("b0000"));
    model.key(Key::End);
    let shown = screen(&mut model, 80, 24);
    assert!(shown[21].starts_with("b0999"), "{}", shown.join("\n"));
    model.key(Key::Up);
    let shown = screen(&mut model, 80, 24);
    assert!(
        shown[21].starts_with("b0999"),
        "the window moves no further than it has to"
    );
    let shown = screen(&mut model, 200, 50);
    assert!(shown[47].starts_with("b0999"), "a larger window is filled");
    for key in "/b0123".chars() {
        model.key(Key::Char(key));
    }
    let shown = screen(&mut model, 80, 24);
    assert!(line(&shown, "web: ok").contains("1 of 1000 backends with \"b0123\""));
    assert_eq!(shown[23], "/b0123_");
}

#[test]
fn an_absent_daemon_is_said_and_its_last_numbers_stay() {
    let mut model = model(status(three()));
    model.left(SystemTime::now());
    let shown = screen(&mut model, 80, 24);
    assert!(shown[0].contains("the daemon is away since "), "{}", shown[0]);
    assert!(shown[0].ends_with(", waiting"));
    assert!(line(&shown, "dns ").contains("broken"));
    let now = later(&model.sample.status);
    model.answered(now, Instant::now());
    assert!(screen(&mut model, 80, 24)[0].contains("ready"));
}

#[test]
fn every_size_is_drawn() {
    let mut model = model(status(three()));
    for page in 0..3 {
        for (width, height) in (0..90)
            .step_by(7)
            .flat_map(|width| (0..30).map(move |height| (width, height)))
        {
            let shown = screen(&mut model, width.max(1), height.max(1));
            assert!(shown.len() == usize::from(height.max(1)));
        }
        model.key(if page == 0 { Key::Enter } else { Key::Char('?') });
    }
}

#[test]
fn the_selected_row_stands_out_without_colours() {
    let mut model = model(status(three()));
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    terminal.draw(|frame| draw(frame, &mut model, false)).unwrap();
    let buffer = terminal.backend().buffer();
    let reversed = |y| buffer[(3, y)].modifier.contains(Modifier::REVERSED);
    assert!(reversed(7) && !reversed(8));
    assert!(buffer.content().iter().all(|cell| cell.fg == Color::Reset));
}
