//! Who may, and who did.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::events::EventKind;

/// Without the author, an operator could not ask why a backend was drained.
#[tokio::test]
async fn events_of_a_change_name_its_author() {
    let server = Server::start().await;
    let weight = json!({ "weight": 7 });
    let path = "/v1/services/web/backends/b";
    server.ask(Method::PATCH, path, &weight).await.unwrap();
    server
        .client
        .change::<Value>(Method::DELETE, "/v1/flows?all=true", None::<&()>)
        .await
        .unwrap();
    let events = server.rig.events.list(0, None);
    for kind in [EventKind::Applied, EventKind::Backend, EventKind::FlowsFlushed] {
        let event = events.iter().find(|event| event.kind == kind).unwrap();
        let by = event.by.as_ref().unwrap();
        assert_eq!(by.pid, i32::try_from(std::process::id()).unwrap());
    }
    server
        .rig
        .control
        .change(Change::RemoveService("web".parse().unwrap()), None, false)
        .await
        .unwrap();
    let events = server.rig.events.list(0, None);
    assert_eq!(events.last().unwrap().by, None, "no command did that");
}

/// What a raw request is answered, up to the end of the connection.
async fn raw(path: &std::path::Path, request: &str) -> String {
    let mut stream = tokio::net::UnixStream::connect(path).await.unwrap();
    let request = format!("{request}host: lb\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_socket_for_reading_answers_get_alone() {
    let server = Server::start().await;
    let client = Client::new(server.read_path.clone());
    for path in ["/v1/status", "/v1/services/web", "/v1/flows/count", "/v1/health"] {
        client.get::<Value>(path).await.unwrap();
    }
    assert!(client.text("/v1/export").await.unwrap().contains("web"));
    let before = server.client.text("/v1/export").await.unwrap();
    let spec = json!({ "weight": 7 });
    for (method, path) in [
        (Method::PATCH, "/v1/services/web/backends/b"),
        (Method::POST, "/v1/services/web/backends/b/report"),
        (Method::DELETE, "/v1/services/web"),
        (Method::DELETE, "/v1/flows?all=true"),
        (Method::POST, "/v1/apply"),
        (Method::POST, "/v1/rollback"),
        (Method::PUT, "/v1/no/such/path"),
        (Method::GET, "/v1/monitor"),
    ] {
        let refused = client.change::<Value>(method.clone(), path, Some(&spec)).await;
        let error = refused.unwrap_err();
        assert!(
            error.message.contains("for reading alone"),
            "{method} {path}: {error}"
        );
        assert!(error.hint.unwrap().contains("--socket"));
    }
    // No word and no header makes a change of anything else.
    for request in [
        "HEAD /v1/status HTTP/1.1\r\n",
        "OPTIONS /v1/status HTTP/1.1\r\n",
        "get /v1/status HTTP/1.1\r\n",
        "BREW /v1/services/web HTTP/1.1\r\n",
        "POST /v1/rollback HTTP/1.1\r\nx-http-method-override: GET\r\n",
        "GET /v1/monitor?rate=1 HTTP/1.1\r\n",
    ] {
        let answer = raw(&server.read_path, request).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{request}: {answer}");
    }
    for request in [
        "GET /v1/services/web HTTP/1.1\r\nx-http-method-override: DELETE\r\n",
        "GET /v1/services/web?_method=DELETE HTTP/1.1\r\nx-method-override: DELETE\r\n",
    ] {
        let answer = raw(&server.read_path, request).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{request}: {answer}");
    }
    for request in ["GET //v1/monitor HTTP/1.1\r\n", "GET /v1/%6donitor HTTP/1.1\r\n"] {
        let answer = raw(&server.read_path, request).await;
        assert!(
            answer.starts_with("HTTP/1.1 404 ") || answer.starts_with("HTTP/1.1 403 "),
            "{request}: {answer}"
        );
    }
    assert_eq!(server.client.text("/v1/export").await.unwrap(), before);
    let events = server.rig.events.list(0, None);
    let refused: Vec<&Event> = events
        .iter()
        .filter(|event| event.kind == EventKind::Refused)
        .collect();
    let [refused] = refused.as_slice() else {
        panic!("a reader pushes out other events: {refused:?}");
    };
    assert!(
        refused.message.contains("PATCH /v1/services/web/backends/b"),
        "{refused:?}"
    );
    assert!(refused.by.is_some());
}

/// An operator who misses a change finds who asked for it, and why it was refused.
#[tokio::test]
async fn a_refused_change_is_an_event_with_who_what_and_why() {
    let server = Server::start().await;
    let web = json!({ "name": "web", "address": "192.0.2.77", "port": 1 });
    let weight = json!({ "weight": 70_000 });
    let report = json!({ "health": "up" });
    let bad = json!({ "file": "lb.toml", "toml": "[[service]]\nname = \"x\"\n", "dry_run": false });
    let trial = json!({ "file": "lb.toml", "toml": "rubbish", "dry_run": true });
    for (method, path, body) in [
        (Method::POST, "/v1/services", &web),
        (Method::PATCH, "/v1/services/web/backends/b", &weight),
        (Method::POST, "/v1/services/web/backends/b/report", &report),
        (Method::POST, "/v1/services/web/backends/unknown/report", &report),
        (Method::POST, "/v1/apply", &bad),
        (Method::POST, "/v1/apply", &trial),
        (Method::PATCH, "/v1/services/web/backends/unknown", &weight),
    ] {
        let refused = server.client.change::<Value>(method, path, Some(body)).await;
        refused.unwrap_err();
    }
    let events = server.rig.events.list(0, None);
    let refused = events.iter().filter(|event| event.kind == EventKind::Refused);
    let refused: Vec<_> = refused
        .map(|event| {
            assert_eq!(
                event.by.as_ref().unwrap().pid,
                i32::try_from(std::process::id()).unwrap()
            );
            let (service, backend) = (event.service.as_deref(), event.backend.as_deref());
            (service, backend, event.message.as_str())
        })
        .collect();
    let expected = [
        (None, None, ["change refused: ", "web", "(POST /v1/services)"]),
        (
            Some("web"),
            Some("b"),
            [
                "change refused: ",
                "weight",
                "(PATCH /v1/services/web/backends/b)",
            ],
        ),
        (
            Some("web"),
            Some("b"),
            ["report refused: ", "does not wait for reports", "/report)"],
        ),
        (
            Some("web"),
            Some("unknown"),
            ["report refused: ", "unknown", "/report)"],
        ),
        (
            None,
            None,
            [
                "change refused: lb.toml: ",
                "nothing was changed: ",
                "(POST /v1/apply)",
            ],
        ),
    ];
    assert_eq!(refused.len(), expected.len(), "{refused:#?}");
    for ((service, backend, message), (of, name, words)) in refused.iter().zip(expected) {
        assert_eq!((*service, *backend), (of, name), "{message}");
        for word in words {
            assert!(message.contains(word), "{word}: {message}");
        }
    }
}
