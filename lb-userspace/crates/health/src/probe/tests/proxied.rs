//! The PROXY header before each kind of check over TCP, as a server sees it.

use super::*;
use crate::settings::{DialogueStep, DnsCheck, GrpcCheck, ProxyVersion, TcpDialogue, TlsCheck, Transport};

/// The first bytes of a connection of this kind of check, and its source.
async fn beginning(kind: CheckKind, version: Option<ProxyVersion>, length: usize) -> (Vec<u8>, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    let settings = CheckSettings {
        kind,
        send_proxy: version,
        ..CheckSettings::default()
    };
    let probe = ProbeCache::default().probe(&settings);
    let check = tokio::spawn(async move { probe.check(target, PLENTY).await.map(drop) });
    let (mut stream, source) = listener.accept().await.unwrap();
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await.unwrap();
    check.abort();
    (bytes, source)
}

#[tokio::test]
async fn each_kind_begins_its_connections_with_the_header() {
    let tls = || Some(TlsCheck::default());
    let http = |tls| HttpCheck {
        tls,
        ..HttpCheck::default()
    };
    let grpc = |tls| {
        CheckKind::Grpc(GrpcCheck {
            tls,
            ..GrpcCheck::default()
        })
    };
    let dialogue = TcpDialogue {
        steps: vec![DialogueStep {
            send: Some(crate::settings::Bytes::Text("QUIT".to_owned())),
            expect: None,
        }],
    };
    for kind in [
        CheckKind::Tcp,
        CheckKind::Dialogue(dialogue),
        CheckKind::Tls(TlsCheck::default()),
        CheckKind::Http(http(None)),
        CheckKind::Http(http(tls())),
        CheckKind::Http2(http(None)),
        CheckKind::Http2(http(tls())),
        grpc(None),
        grpc(tls()),
        CheckKind::Dns(DnsCheck {
            name: ".".to_owned(),
            transport: Transport::Tcp,
            ..DnsCheck::default()
        }),
    ] {
        let (bytes, source) = beginning(kind.clone(), Some(ProxyVersion::V2), 28).await;
        assert_eq!(bytes[..14], *b"\r\n\r\n\0\r\nQUIT\n\x20\x11", "{kind:?}");
        assert_eq!(bytes[24..26], source.port().to_be_bytes(), "{kind:?}");
        let (bytes, source) = beginning(kind.clone(), Some(ProxyVersion::V1), 30).await;
        let line = format!("PROXY TCP4 {} 127.0.0.1 ", source.ip());
        assert_eq!(bytes, line.as_bytes()[..30], "{kind:?}");
    }
}
