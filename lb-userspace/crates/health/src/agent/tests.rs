//! Agents over real sockets.

use std::{collections::BTreeMap, io::Write, net::SocketAddr, sync::Arc, time::Duration};

use prometheus::Registry;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{ask::ask, *};
use crate::{
    agent::metrics::AgentMetrics,
    error::{CheckError, Stage},
    testing::{self, AgentSpec, AgentView},
};

/// No test waits longer.
const PLENTY: Duration = Duration::from_secs(60);

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Whole and broken answers of agents, and their meaning.
#[tokio::test]
async fn a_line_is_read_to_its_end_and_no_further() {
    let endless = vec![b'x'; MAX_LINE + 1];
    type Failure = fn(SocketAddr) -> CheckError;
    let within_the_line: Failure = |target| CheckError::Closed {
        target,
        stage: Stage::Line,
    };
    let before_it: Failure = |target| CheckError::Closed {
        target,
        stage: Stage::Request,
    };
    let too_long: Failure = |target| CheckError::Answer {
        target,
        reason: "no end of line within 1024 bytes".into(),
    };
    for (answer, expected) in [
        (&b"up 50%\n"[..], Ok(&b"up 50%"[..])),
        (b"up\r\n", Ok(b"up")),
        (b"\n", Ok(b"")),
        (b"drain\ndown\n", Ok(b"drain")),
        (b"down", Err(within_the_line)),
        (b"", Err(before_it)),
        (&endless, Err(too_long)),
    ] {
        let (listener, target) = listen().await;
        let agent = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            // The other end may have read enough.
            let _ = stream.write_all(answer).await;
        };
        let (found, ()) = tokio::join!(ask(target, "", PLENTY), agent);
        let expected = expected.map(<[u8]>::to_vec).map_err(|failure| failure(target));
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn agent_receives_the_configured_text() {
    let (listener, target) = listen().await;
    let agent = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut sent = [0; 6];
        stream.read_exact(&mut sent).await.unwrap();
        assert_eq!(&sent, b"state\n");
        stream.write_all(b"maint\n").await.unwrap();
    };
    let (found, ()) = tokio::join!(ask(target, "state\n", PLENTY), agent);
    assert_eq!(found.unwrap(), b"maint");
}

#[tokio::test]
async fn silence_ends_with_the_time_out() {
    let (listener, target) = listen().await;
    let error = ask(target, "", Duration::from_millis(30)).await.unwrap_err();
    drop(listener);
    // A machine that was too busy to measure reports that.
    let words = error.to_string();
    assert!(
        words.contains("no answer within 30ms") || error.is_local(),
        "{words}"
    );
}

/// An agent in a thread, with the answer that the test sets.
fn agent() -> (SocketAddr, Arc<std::sync::Mutex<String>>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let line = Arc::new(std::sync::Mutex::new("up\n".to_owned()));
    let says = Arc::clone(&line);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let line = says.lock().unwrap().clone();
            let _ = stream.and_then(|mut stream| stream.write_all(line.as_bytes()));
        }
    });
    (address, line)
}

#[tokio::test]
async fn reports_reach_their_readers_and_end_with_the_agent() {
    let (target, line) = agent();
    let registry = Registry::new();
    let metrics = AgentMetrics::register(&registry).unwrap();
    let (task, handle) = AgentTask::new(1, metrics);
    let cancel = CancellationToken::new();
    let running = tokio::spawn(task.run(cancel.clone()));
    let id = testing::id("web", "a");
    let settings = AgentSettings {
        interval: Duration::from_millis(5),
        timeout: PLENTY,
        ..AgentSettings::default()
    };
    handle.update(vec![AgentSpec {
        id: id.clone(),
        target,
        settings,
        initial: AgentAnswer {
            percent: 30,
            ..AgentAnswer::default()
        },
    }]);
    let mut reports = handle.reports();
    for (answer, expected) in [
        ("up\n", "30%"),
        ("drain 50%\n", "drain, 50%"),
        ("ready down #disk\n", "down, 50%"),
        ("up 100%\n", "ready"),
    ] {
        answer.clone_into(&mut line.lock().unwrap());
        let is = |view: &AgentView| {
            view.get(&id)
                .is_some_and(|reports| reports.word.to_string() == expected)
        };
        timeout(PLENTY, reports.wait_for(is)).await.unwrap().unwrap();
    }
    let text = || {
        prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap()
    };
    assert!(
        text().contains("lb_agent_polls_total{result=\"answer\",service=\"web\"}"),
        "{}",
        text()
    );
    assert!(handle.snapshot()[&id].last.is_some());

    handle.update(Vec::new());
    timeout(PLENTY, reports.wait_for(BTreeMap::is_empty))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(handle.snapshot().len(), 0);
    assert!(!text().contains("lb_agent_polls_total{"), "{}", text());
    cancel.cancel();
    timeout(PLENTY, running).await.unwrap().unwrap();
}
