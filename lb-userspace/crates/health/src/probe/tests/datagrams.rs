//! UDP and DNS against small peers that fail in every way.

use tokio::net::UdpSocket;

use super::*;
use crate::settings::{DnsCheck, RecordType, Transport, UdpCheck};

/// Answers each datagram with the same bytes, or not at all.
async fn answering(answer: Option<&'static [u8]>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut question = [0; 1000];
        loop {
            let (_, from) = socket.recv_from(&mut question).await.unwrap();
            if let Some(answer) = answer {
                socket.send_to(answer, from).await.unwrap();
            }
        }
    });
    address
}

/// A closed UDP port.
async fn closed() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
}

fn udp(expect: Option<&str>) -> UdpChecker {
    UdpChecker::new(&UdpCheck {
        payload: "ping".to_owned(),
        expect_reply: expect.map(str::to_owned),
    })
    .unwrap()
}

fn dns(transport: Transport) -> DnsChecker {
    DnsChecker::new(&DnsCheck {
        name: "a.example".to_owned(),
        record: RecordType::A,
        transport,
        expect_answer: None,
    })
    .unwrap()
}

#[tokio::test(start_paused = true)]
async fn datagrams_are_answered_as_expected_or_fail_in_their_own_way() {
    let (pong, silent, closed) = (
        answering(Some(b"pong")).await,
        answering(None).await,
        closed().await,
    );
    assert!(settled(udp(Some("^pong$")).check(pong, SECOND)).await.is_ok());
    assert!(settled(udp(None).check(pong, SECOND)).await.is_ok());
    // Many services answer only valid requests.
    assert!(settled(udp(None).check(silent, SECOND)).await.is_ok());
    let error = settled(udp(Some("^pong$")).check(silent, SECOND))
        .await
        .unwrap_err();
    assert_eq!(class(&error), "timed out in Request");
    for expect in [None, Some("pong")] {
        assert_eq!(
            settled(udp(expect).check(closed, SECOND)).await,
            Err(CheckError::Refused(closed))
        );
    }
    let error = settled(udp(Some("^ping$")).check(pong, SECOND))
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        format!("wrong answer of {pong}: its 4 bytes do not match \"^ping$\"")
    );
}

#[tokio::test(start_paused = true)]
async fn failing_name_server_is_reported_with_its_code() {
    let closed = closed().await;
    assert_eq!(
        settled(dns(Transport::Udp).check(closed, SECOND)).await,
        Err(CheckError::Refused(closed))
    );
    let error = settled(dns(Transport::Udp).check(answering(None).await, SECOND))
        .await
        .unwrap_err();
    assert_eq!(class(&error), "timed out in Request");
    // Too short for an id, so no answer to another question either.
    let garbage = answering(Some(b"?")).await;
    assert_eq!(
        settled(dns(Transport::Udp).check(garbage, SECOND))
            .await
            .unwrap_err()
            .to_string(),
        format!("wrong answer of {garbage}: it is cut off")
    );
    let (_taken, refusing) = refusing();
    assert_eq!(
        settled(dns(Transport::Tcp).check(refusing, SECOND)).await,
        Err(CheckError::Refused(refusing))
    );
}

/// Half a frame over TCP, and a frame that never ends.
#[tokio::test(start_paused = true)]
async fn name_server_that_stops_within_its_answer_is_reported() {
    for (answer, close, expected) in [
        (&b""[..], true, "closed in Request"),
        (b"\x00", true, "closed in Request"),
        (b"\x00\x20half", true, "closed in Body"),
        (b"\x00\x20half", false, "timed out in Body"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert_ne!(stream.read(&mut [0; 1000]).await.unwrap(), 0);
            stream.write_all(answer).await.unwrap();
            (!close).then_some(stream)
        };
        let checker = dns(Transport::Tcp);
        let (outcome, _open) = settled(async { tokio::join!(checker.check(target, SECOND), serve) }).await;
        assert_eq!(class(&outcome.unwrap_err()), expected);
    }
}
