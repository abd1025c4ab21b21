//! TLS and HTTPS against servers of the same TLS library, with certificates made for the test.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{
    HandshakeKind, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{error::CertificateProblem, settings::TlsCheck};

/// A CA with its files.
pub(super) struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

impl Authority {
    pub(super) fn new() -> Self {
        Self::named("a CA")
    }

    pub(super) fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.pem"), certificate.pem()).unwrap();
        Self {
            dir,
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    /// Name of a file.
    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A certificate for a.example that is valid through these years.
    pub(super) fn sign(&self, from: i32, to: i32) -> (rcgen::Certificate, KeyPair) {
        self.sign_for("a.example", from, to)
    }

    pub(super) fn sign_for(&self, name: &str, from: i32, to: i32) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    pub(super) fn server(&self, from: i32, to: i32, clients: bool) -> ServerConfig {
        let (certificate, key) = self.sign(from, to);
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if clients {
            let mut roots = RootCertStore::empty();
            roots.add(self.certificate.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(
                Arc::new(roots),
                Arc::new(ring::default_provider()),
            );
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        builder
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap()
    }

    pub(super) fn settings(&self) -> TlsCheck {
        TlsCheck {
            ca_file: Some(self.file("ca.pem").to_str().unwrap().to_owned()),
            server_name: Some("a.example".to_owned()),
            ..TlsCheck::default()
        }
    }
}

/// Answers HTTP over TLS; counts connections and those among them that resume a session.
pub(super) struct TlsPeer {
    pub(super) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    resumed: Arc<AtomicUsize>,
}

impl TlsPeer {
    pub(super) async fn start(config: ServerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            resumed: Arc::default(),
        };
        let (connections, resumed) = (Arc::clone(&peer.connections), Arc::clone(&peer.resumed));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                connections.fetch_add(1, Ordering::SeqCst);
                if stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
                    resumed.fetch_add(1, Ordering::SeqCst);
                }
                tokio::spawn(async move {
                    // A request is one small record.
                    while stream.read(&mut [0; 1000]).await.is_ok_and(|read| read > 0) {
                        stream.write_all(OK).await.unwrap();
                        stream.flush().await.unwrap();
                    }
                });
            }
        });
        peer
    }
}

fn https(tls: TlsCheck) -> HttpChecker {
    http(|http| http.tls = Some(tls))
}

pub(super) async fn both(tls: &TlsCheck, target: SocketAddr) -> Result<(), CheckError> {
    let handshake = TlsChecker::new(tls).unwrap().check(target, PLENTY).await;
    let request = https(tls.clone()).check(target, PLENTY).await;
    assert_eq!(handshake.is_ok(), request.is_ok(), "{handshake:?} {request:?}");
    if let (Err(handshake), Err(request)) = (&handshake, &request) {
        assert_eq!(handshake, request);
    }
    handshake.map(drop)
}

#[tokio::test]
async fn a_certificate_must_be_valid_and_for_the_name() {
    let ca = Authority::new();
    let good = TlsPeer::start(ca.server(2020, 4000, false)).await;
    let expired = TlsPeer::start(ca.server(2020, 2021, false)).await;
    let future = TlsPeer::start(ca.server(3999, 4000, false)).await;
    let certificate = |peer: &TlsPeer, problem| {
        Err(CheckError::Certificate {
            target: peer.address,
            problem,
        })
    };
    let settings = ca.settings();
    let other = Authority::named("another CA");
    assert_eq!(both(&settings, good.address).await, Ok(()));
    assert_eq!(
        both(&settings, expired.address).await,
        certificate(
            &expired,
            CertificateProblem::Expired(Some(rcgen::date_time_ymd(2021, 1, 1).into()))
        )
    );
    assert_eq!(
        both(&settings, future.address).await,
        certificate(
            &future,
            CertificateProblem::NotYetValid(Some(rcgen::date_time_ymd(3999, 1, 1).into()))
        )
    );
    assert_eq!(
        both(&other.settings(), good.address).await,
        certificate(&good, CertificateProblem::UnknownIssuer)
    );
    for (name, shown) in [(Some("b.example"), "\"b.example\""), (None, "\"127.0.0.1\"")] {
        let wrong = TlsCheck {
            server_name: name.map(str::to_owned),
            ..settings.clone()
        };
        let error = both(&wrong, good.address).await.unwrap_err().to_string();
        let shown = shown.trim_matches('"');
        assert_eq!(
            error,
            format!(
                "certificate of {} is not for {shown}, but for a.example",
                good.address
            )
        );
    }
    let trusting = TlsCheck {
        verify: false,
        ca_file: None,
        ..settings
    };
    for peer in [&good, &expired, &future] {
        assert_eq!(both(&trusting, peer.address).await, Ok(()));
    }
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_gets_it() {
    let ca = Authority::new();
    let peer = TlsPeer::start(ca.server(2020, 4000, true)).await;
    let error = https(ca.settings())
        .check(peer.address, PLENTY)
        .await
        .unwrap_err();
    let wanted = "it demands a client certificate: set cert_file and key_file";
    let expected = format!("no TLS session with {}: {wanted}", peer.address);
    assert_eq!(error.to_string(), expected);
    // In TLS 1.3 the server reports it only after the client has finished the handshake.
    assert_eq!(both(&ca.settings(), peer.address).await, Err(error));
    let (certificate, key) = ca.sign(2020, 4000);
    fs::write(ca.file("client.pem"), certificate.pem()).unwrap();
    fs::write(ca.file("client.key"), key.serialize_pem()).unwrap();
    let with = TlsCheck {
        cert_file: Some(ca.file("client.pem").to_str().unwrap().to_owned()),
        key_file: Some(ca.file("client.key").to_str().unwrap().to_owned()),
        ..ca.settings()
    };
    assert_eq!(both(&with, peer.address).await, Ok(()));
    // A certificate that the server does not trust.
    let (certificate, key) = Authority::named("another CA").sign(2020, 4000);
    fs::write(ca.file("client.pem"), certificate.pem()).unwrap();
    fs::write(ca.file("client.key"), key.serialize_pem()).unwrap();
    let checker = TlsChecker::new(&with).unwrap();
    let error = checker.check(peer.address, PLENTY).await.unwrap_err().to_string();
    assert!(
        error.contains("it does not accept the client certificate"),
        "{error}"
    );
}

#[tokio::test]
async fn one_of_the_offered_protocols_must_be_taken() {
    let ca = Authority::new();
    let mut config = ca.server(2020, 4000, false);
    let plain = TlsPeer::start(config.clone()).await;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let h2 = TlsPeer::start(config).await;
    let checker = |alpn: &str| {
        TlsChecker::new(&TlsCheck {
            alpn: vec![alpn.to_owned()],
            ..ca.settings()
        })
        .unwrap()
    };
    checker("h2").check(h2.address, PLENTY).await.unwrap();
    assert_eq!(
        checker("h2").check(plain.address, PLENTY).await,
        Err(CheckError::Protocol {
            target: plain.address,
            offered: "h2".into()
        })
    );
    // This one does not ignore the offer but ends the handshake.
    assert_eq!(
        checker("other").check(h2.address, PLENTY).await,
        Err(CheckError::Protocol {
            target: h2.address,
            offered: "other".into()
        })
    );
}

#[tokio::test]
async fn connections_are_kept_and_new_ones_resume_the_session() {
    let ca = Authority::new();
    let peer = TlsPeer::start(ca.server(2020, 4000, false)).await;
    let checker = https(ca.settings()).with_fresh_every(2);
    for _ in 0..6 {
        checker.check(peer.address, PLENTY).await.unwrap();
    }
    // The first check tries a second connection.
    assert_eq!(peer.connections.load(Ordering::SeqCst), 4);
    assert_eq!(peer.resumed.load(Ordering::SeqCst), 3);
    // Another target has to prove itself.
    let other = checker.sibling().with_fresh_every(1);
    other.check(peer.address, PLENTY).await.unwrap();
    assert_eq!(peer.resumed.load(Ordering::SeqCst), 3);
}

/// Each way to fail before there is a session gives its own error.
#[tokio::test(start_paused = true)]
async fn peers_without_tls_are_distinguished() {
    let cases: [(&[u8], bool, &str); 5] = [
        (b"", false, "timed out in Handshake"),
        (b"", true, "closed in Handshake"),
        // Half a record.
        (b"\x16\x03\x03\x10\x00half", false, "timed out in Handshake"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", false, "tls"),
        // The alert handshake_failure.
        (b"\x15\x03\x03\x00\x02\x02\x28", false, "tls"),
    ];
    let ca = Authority::new();
    for (answer, close, expected) in cases {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert_ne!(stream.read(&mut [0; 4096]).await.unwrap(), 0);
            stream.write_all(answer).await.unwrap();
            if close {
                return None;
            }
            Some(stream)
        };
        let checker = TlsChecker::new(&ca.settings()).unwrap();
        let (outcome, _open) = settled(async { tokio::join!(checker.check(target, SECOND), serve) }).await;
        let error = outcome.unwrap_err();
        let found = if matches!(error, CheckError::Tls { .. }) {
            "tls".to_owned()
        } else {
            class(&error)
        };
        assert_eq!(found, expected, "{error}");
    }
}

#[tokio::test]
async fn files_that_cannot_be_read_are_no_fault_of_the_target() {
    let ca = Authority::new();
    let peer = TlsPeer::start(ca.server(2020, 4000, false)).await;
    let late = ca.file("late.pem");
    let settings = TlsCheck {
        ca_file: Some(late.to_str().unwrap().to_owned()),
        ..ca.settings()
    };
    let checker = TlsChecker::new(&settings).unwrap();
    let error = checker.check(peer.address, PLENTY).await.unwrap_err();
    assert!(
        error.is_local() && error.to_string().contains("late.pem"),
        "{error}"
    );
    // It needs no restart once they are there.
    fs::copy(ca.file("ca.pem"), late).unwrap();
    checker.check(peer.address, PLENTY).await.unwrap();
}
