use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use http_body_util::BodyExt as _;
use lb_common::counters::Traffic;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

use super::*;
use crate::{
    api::tests::plain_api,
    config::change::Request as Keys,
    control::{Change, Inherited, testing::Rig},
    events::{EventKind, NewEvent},
    state::{desired::Desired, testing},
};

const STREAMS: usize = 3;

struct Page {
    rig: Rig,
    feed: Arc<Feed>,
    cancel: CancellationToken,
    _directory: tempfile::TempDir,
}

impl Page {
    async fn start() -> Self {
        Self::of(testing::desired([
            testing::service("dns", 2, &[("a", 10)]),
            testing::service("web", 1, &[("a", 10), ("b", 20)]),
        ]))
        .await
    }

    async fn of(desired: Desired) -> Self {
        let rig = Rig::start(desired, Inherited::default()).await;
        let directory = tempfile::tempdir().unwrap();
        let cancel = CancellationToken::new();
        let feed = Arc::new(Feed::new(Arc::new(plain_api(&rig, &directory, &cancel)), STREAMS));
        tokio::spawn(Arc::clone(&feed).run());
        Self {
            rig,
            feed,
            cancel,
            _directory: directory,
        }
    }

    async fn ask(&self, path: &str) -> Response {
        let request = Request::get(path)
            .header("host", "localhost")
            .body(Body::empty())
            .unwrap();
        let mut routes = routes(Arc::clone(&self.feed), HostNames::new(&[]));
        routes.call(request).await.unwrap()
    }

    /// Lets the kernel count for the service `web`.
    fn count(&self, packets: u64) {
        let key = self.rig.control.view().desired.services[&"web".parse().unwrap()].key;
        let traffic = Traffic {
            packets,
            bytes: 100 * packets,
            new_flows: packets / 10,
            ..Traffic::default()
        };
        self.rig.world.lock().snapshot.services.insert(key, traffic);
    }
}

/// The events of a stream, as they come.
struct Events(Body, String);

impl Events {
    async fn next(&mut self) -> (String, Value) {
        loop {
            if let Some((event, rest)) = self.1.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.1 = rest;
                if let Some((name, data)) = event.split_once("\ndata: ") {
                    let name = name.strip_prefix("event: ").unwrap();
                    return (name.to_owned(), serde_json::from_str(data).unwrap());
                }
                continue;
            }
            let frame = self.0.frame().await.unwrap().unwrap();
            self.1 += std::str::from_utf8(&frame.into_data().unwrap()).unwrap();
        }
    }

    async fn of(page: &Page, path: &str) -> Self {
        let response = page.ask(path).await;
        assert_eq!(response.status(), StatusCode::OK);
        Self(response.into_body(), String::new())
    }
}

fn names(message: &Value) -> Vec<&str> {
    let rows = message["rows"].as_array().unwrap().iter();
    rows.map(|row| row["name"].as_str().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_stream_begins_with_everything_and_goes_on_with_what_is_new() {
    let page = Page::start().await;
    page.count(1_000);
    let mut events = Events::of(&page, "/live?open=web&open=no-such").await;
    let (name, first) = events.next().await;
    assert_eq!((name.as_str(), &first["whole"]), ("state", &true.into()));
    assert_eq!(names(&first), ["dns", "web"]);
    assert_eq!(first["rows"][1]["rates"], Value::Null, "one look has no rates");
    assert_eq!(first["node"]["ready"], true);
    let (name, backends) = events.next().await;
    assert_eq!((name.as_str(), names(&backends)), ("backends", vec!["a", "b"]));

    page.count(2_000);
    let (_, second) = events.next().await;
    assert_eq!(second["whole"], false);
    assert!(second.get("node").is_none(), "it has not changed");
    let (_, backends) = events.next().await;
    assert_eq!(
        (&backends["service"], &backends["whole"]),
        (&"web".into(), &false.into())
    );
    let change = Change::RemoveService("dns".parse().unwrap());
    page.rig.control.change(change, None, false).await.unwrap();
    let (mut gone, mut tries) = (Value::Null, 0);
    while gone.is_null() && tries < 5 {
        let (name, state) = events.next().await;
        tries += 1;
        if name == "state" {
            gone = state["gone"].clone();
        }
    }
    assert_eq!(gone, Value::from(vec!["dns"]));
    page.cancel.cancel();
    assert!(
        events.0.frame().await.is_none_or(|frame| frame.is_ok()),
        "the daemon ends"
    );
}

/// With a rack down, problems of other services must be on the page.
#[tokio::test(start_paused = true)]
async fn many_backends_with_problems_are_a_few_entries() {
    let names: Vec<String> = (0..200).map(|number| format!("b{number}")).collect();
    let backends: Vec<_> = names.iter().map(|name| (name.as_str(), 0)).collect();
    let page = Page::of(testing::desired([
        testing::service("many", 1, &backends),
        testing::service("web", 2, &[("a", 0), ("b", 10)]),
    ]))
    .await;
    let mut events = Events::of(&page, "/live").await;
    let (_, state) = events.next().await;
    let problems = &state["problems"];
    let listed = problems["listed"].as_array().unwrap().iter();
    let about: Vec<_> = listed
        .map(|problem| (problem["service"].as_str().unwrap(), problem["backend"].as_str()))
        .collect();
    let expected = [
        ("many", None),
        ("many", Some("b0")),
        ("many", Some("b1")),
        ("many", Some("b2")),
        ("many", None),
        ("web", Some("a")),
    ];
    assert_eq!(about, expected);
    let more = problems["listed"][4]["message"].as_str().unwrap();
    assert!(more.starts_with("197 more backends have problems"), "{more}");
    assert_eq!(
        (&problems["total"], &problems["left_out"]),
        (&202.into(), &0.into())
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_looked_at_while_no_page_is_open_and_places_are_given_back() {
    let page = Page::start().await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(page.feed.subscribe(BTreeSet::from(["web".to_owned()])).unwrap());
    }
    assert!(page.feed.subscribe(BTreeSet::new()).is_none());
    assert_eq!(page.ask("/live").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    let mut ticks = streams[0].ticks.clone();
    ticks.changed().await.unwrap();
    ticks.wait_for(Option::is_some).await.unwrap();
    drop((streams, ticks));
    // Then the last look is forgotten: it would be an old one for the next page.
    let mut later = page.feed.subscribe(BTreeSet::new()).unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let tick = later
        .ticks
        .wait_for(Option::is_some)
        .await
        .unwrap()
        .clone()
        .unwrap();
    assert!(tick.backends.is_empty(), "no page shows them any more");
}

#[tokio::test(start_paused = true)]
async fn credentials_are_in_no_stream() {
    let page = Page::start().await;
    let health = serde_json::json!({ "kind": "http", "path": "/h?key=xyzzy-query", "headers": { "X-Key": "xyzzy-header" } });
    let request: Keys = serde_json::from_value(serde_json::json!({ "health": health })).unwrap();
    let change = Change::SetService("web".parse().unwrap(), request);
    page.rig.control.change(change, None, false).await.unwrap();
    // What a change sets is left out of its event, which goes to log and disk as well.
    let logged = page.rig.events.list(0, None);
    let logged: String = logged.iter().map(|event| event.message.as_str()).collect();
    assert!(
        logged.contains("health.headers") && !logged.contains("xyzzy-header"),
        "{logged}"
    );
    page.rig.events.push(
        NewEvent {
            kind: EventKind::Health,
            service: Some("web".into()),
            backend: Some("a".into()),
            revision: 1,
            message: "down: status 500 from http://10.0.1.1/h?key=xyzzy-query, \"xyzzy-header\"".into(),
            by: None,
        },
        std::time::SystemTime::now(),
    );
    let mut events = Events::of(&page, "/live?open=web").await;
    let (state, backends) = (
        events.next().await.1.to_string(),
        events.next().await.1.to_string(),
    );
    assert!(
        state.contains("changed: health") && state.contains("(hidden)"),
        "{state}"
    );
    for text in [state, backends] {
        assert!(!text.contains("xyzzy"), "{text}");
    }
}

#[tokio::test]
async fn the_document_runs_its_own_script_alone() {
    let page = Page::start().await;
    let response = page.ask("/").await;
    let policy = response.headers()["content-security-policy"]
        .to_str()
        .unwrap()
        .to_owned();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = std::str::from_utf8(&body).unwrap();
    let nonce = policy
        .split("'nonce-")
        .nth(1)
        .unwrap()
        .split('\'')
        .next()
        .unwrap();
    assert_eq!(nonce.len(), 2 * NONCE_BYTES);
    assert_eq!(text.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
    assert!(!text.contains(NONCE) && !policy.contains("unsafe"));
    // What the policy would block, and what could make markup of a daemon's text.
    for forbidden in [
        " style=",
        " onclick",
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "http://",
        "https://",
    ] {
        let allowed = text.matches("http://www.w3.org/2000/svg").count();
        let expected = if forbidden == "http://" { allowed } else { 0 };
        assert_eq!(text.matches(forbidden).count(), expected, "{forbidden}");
    }
}
