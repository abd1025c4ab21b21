//! The ways to fail that kinds over a connection have in common, for each of them.

use super::*;
use crate::settings::{DnsCheck, GrpcCheck, RecordType, TlsCheck, Transport};

/// The behaviour of a peer on a connection.
#[derive(Clone, Copy, Debug)]
enum Conduct {
    /// Reads and sends nothing.
    Silent,
    /// Reads the request and closes.
    Closes,
    /// Reads the request and resets.
    Resets,
}

async fn peer(conduct: Conduct) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert_ne!(stream.read(&mut [0; 4096]).await.unwrap(), 0);
            match conduct {
                Conduct::Silent => drop(tokio::spawn(async move {
                    while stream.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {}
                })),
                Conduct::Closes => {
                    // Unread bytes would make the kernel send a reset instead.
                    stream.shutdown().await.unwrap();
                    while stream.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {}
                }
                Conduct::Resets => stream.set_zero_linger().unwrap(),
            }
        }
    });
    address
}

/// Every kind over a connection, and the stage in which it first waits for an answer.
fn kinds() -> Vec<(&'static str, CheckKind, Stage)> {
    let tls = || {
        Some(TlsCheck {
            verify: false,
            ..TlsCheck::default()
        })
    };
    let web = |tls| HttpCheck {
        tls,
        ..HttpCheck::default()
    };
    let call = |tls| GrpcCheck {
        tls,
        ..GrpcCheck::default()
    };
    let dns = DnsCheck {
        name: "a.example".to_owned(),
        record: RecordType::A,
        transport: Transport::Tcp,
        expect_answer: None,
    };
    vec![
        ("tls", CheckKind::Tls(tls().unwrap()), Stage::Handshake),
        ("http", CheckKind::Http(web(None)), Stage::Request),
        ("https", CheckKind::Http(web(tls())), Stage::Handshake),
        ("http2", CheckKind::Http2(web(None)), Stage::Request),
        ("http2 over TLS", CheckKind::Http2(web(tls())), Stage::Handshake),
        ("grpc", CheckKind::Grpc(call(None)), Stage::Request),
        ("grpc over TLS", CheckKind::Grpc(call(tls())), Stage::Handshake),
        ("dns", CheckKind::Dns(dns), Stage::Request),
    ]
}

#[tokio::test(start_paused = true)]
async fn every_kind_distinguishes_refusal_silence_end_and_reset() {
    let (_taken, refusing) = refusing();
    let (_listener, _filler, hole) = black_hole();
    let silent = peer(Conduct::Silent).await;
    let closes = peer(Conduct::Closes).await;
    let resets = peer(Conduct::Resets).await;
    for (name, kind, stage) in kinds() {
        let settings = CheckSettings {
            kind,
            ..CheckSettings::default()
        };
        let timed_out = |target, stage| CheckError::TimedOut {
            target,
            stage,
            after: SECOND,
        };
        let cases = [
            CheckError::Refused(refusing),
            timed_out(hole, Stage::Connect),
            timed_out(silent, stage),
            CheckError::Closed {
                target: closes,
                stage,
            },
            CheckError::Reset {
                target: resets,
                stage,
            },
        ];
        for (expected, target) in cases.into_iter().zip([refusing, hole, silent, closes, resets]) {
            let started = Instant::now();
            let probe = ProbeCache::default().probe(&settings);
            let outcome = settled(probe.check(target, SECOND)).await;
            assert_eq!(outcome, Err(expected), "{name}");
            // Simulated time: one tick of the timer wheel at most.
            let took = started.elapsed();
            assert!(took <= SECOND + Duration::from_millis(1), "{name}: {took:?}");
        }
    }
}
