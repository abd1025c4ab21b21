//! Dialogues with servers that send too little, too much, the wrong text or nothing.

use std::sync::Mutex;

use super::*;
use crate::settings::{Bytes, DialogueStep, Expected, TcpDialogue};

/// An action of a server on a connection.
#[derive(Clone, Copy)]
enum Act {
    Say(&'static [u8]),
    /// Waits until this many bytes have arrived.
    Hear(usize),
    /// Sends the bytes for ever.
    Flood(&'static [u8]),
    Close,
}

/// A server that does the same on each connection, and then stays silent. Also returns the bytes that it received.
async fn server(acts: &'static [Act]) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let received = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&received);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            for act in acts {
                match act {
                    Act::Say(bytes) => stream.write_all(bytes).await.unwrap(),
                    Act::Hear(count) => {
                        let mut bytes = vec![0; *count];
                        stream.read_exact(&mut bytes).await.unwrap();
                        sink.lock().unwrap().extend(bytes);
                    }
                    Act::Flood(bytes) => while stream.write_all(bytes).await.is_ok() {},
                    Act::Close => stream.shutdown().await.unwrap(),
                }
            }
            // Until the checker closes it.
            let _ = stream.read(&mut [0]).await;
        }
    });
    (address, received)
}

fn text(text: &str) -> Bytes {
    Bytes::Text(text.to_owned())
}

fn step(send: Option<&str>, expect: Option<&str>) -> DialogueStep {
    DialogueStep {
        send: send.map(text),
        expect: expect.map(|expect| Expected::Bytes(text(expect))),
    }
}

fn checker(steps: Vec<DialogueStep>) -> DialogueChecker {
    DialogueChecker::new(&TcpDialogue { steps }).unwrap()
}

#[tokio::test]
async fn server_with_expected_answers_is_up() {
    const SMTP: &[Act] = &[
        Act::Say(b"220-mail.example\r\n"),
        Act::Say(b"220 ready\r\n"),
        Act::Hear(6),
        Act::Say(b"250 ok\r\n"),
        Act::Hear(6),
        Act::Say(b"221 bye\r\n"),
    ];
    let (target, received) = server(SMTP).await;
    let steps = vec![
        step(None, Some("220-")),
        step(None, Some("220 ")),
        step(Some("EHLO\r\n"), Some("250")),
        step(Some("QUIT\r\n"), Some("221")),
    ];
    checker(steps).check(target, PLENTY).await.unwrap();
    assert_eq!(*received.lock().unwrap(), b"EHLO\r\nQUIT\r\n");

    let (target, _) = server(&[Act::Hear(6), Act::Say(b"\x01+PO"), Act::Say(b"NG\r\n")]).await;
    for expect in [
        Expected::Bytes(text("+PONG")),
        Expected::Bytes(Bytes::Hex(b"\x01+PONG\r\n".to_vec())),
        Expected::Regex("PON.".to_owned()),
    ] {
        let ping = DialogueStep {
            send: Some(Bytes::Hex(b"PING\r\n".to_vec())),
            expect: Some(expect),
        };
        checker(vec![ping]).check(target, PLENTY).await.unwrap();
    }
    // The step only sends.
    checker(vec![step(Some("PING\r\n"), None)])
        .check(target, PLENTY)
        .await
        .unwrap();
}

/// An answer to the last question must not be taken for one to the next.
#[tokio::test]
async fn bytes_before_a_step_sends_are_no_answer_to_it() {
    let (target, _) = server(&[Act::Say(b"ok ok"), Act::Hear(1), Act::Say(b"no"), Act::Close]).await;
    let steps = vec![step(None, Some("ok ")), step(Some("?"), Some("ok"))];
    let error = checker(steps)
        .check(target, PLENTY)
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        format!(
            "wrong answer of {target}: in step 2 of 2, expected \"ok\", got \"no\", then closed the connection"
        )
    );
}

#[tokio::test]
async fn failure_shows_expected_and_received_text() {
    let fails = async |acts: &'static [Act], expect: &str| -> String {
        let (target, _) = server(acts).await;
        let error = checker(vec![step(None, Some(expect))])
            .check(target, PLENTY)
            .await
            .unwrap_err();
        assert!(!error.is_local(), "{error}");
        error
            .to_string()
            .replace(&format!("wrong answer of {target}: "), "")
    };
    assert_eq!(
        fails(&[Act::Say(b"role:slave\r\n\xff"), Act::Close], "role:master").await,
        "expected \"role:master\", got \"role:slave\\r\\n\\xff\", then closed the connection"
    );
    assert_eq!(
        fails(&[Act::Close], "\n").await,
        "expected \"\\n\", got nothing, then closed the connection"
    );
    let long = "y".repeat(200);
    let error = fails(&[Act::Say(&[b'x'; 200]), Act::Close], &long).await;
    let (y, x) = ("y".repeat(80), "x".repeat(80));
    assert_eq!(
        error,
        format!("expected \"{y}\"… (200 bytes), got \"{x}\"… (200 bytes), then closed the connection")
    );
    // A server that never ends is given up long before memory is.
    let error = fails(&[Act::Flood(&[b'z'; 1000])], "a").await;
    assert!(
        error.ends_with("and the first 65536 bytes are all that is read"),
        "{error}"
    );
}

/// One time-out holds for all steps: a server that answers each just in time does not stretch it.
#[tokio::test(start_paused = true)]
async fn the_time_is_one_for_all_steps() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        loop {
            time::sleep(Duration::from_millis(400)).await;
            if stream.write_all(b".").await.is_err() {
                return;
            }
        }
    });
    let steps = (0..4).map(|_| step(None, Some("."))).collect();
    let error = settled(checker(steps).check(target, SECOND)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "wrong answer of {target}: in step 3 of 4, expected \".\", got nothing, nothing more within 1s"
        )
    );
}

#[test]
fn invalid_dialogue_is_refused() {
    for (steps, words) in [
        (vec![], "from 1 to 32 steps"),
        (vec![step(None, None)], "sends something"),
        (vec![step(Some(""), None)], "send must have from 1 to 16384 bytes"),
        (
            vec![step(None, Some(""))],
            "expect must have from 1 to 16384 bytes",
        ),
    ] {
        let error = DialogueChecker::new(&TcpDialogue { steps })
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{error}");
    }
}
