//! Certificates of all kinds: accepted ones, and the errors for others.

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{
    tls::{Authority, TlsPeer, both},
    *,
};
use crate::{error::CertificateProblem, probe::certificate::element, settings::TlsCheck};

/// A certificate and a key as a server shows them, even if they do not match or the library refuses the certificate.
fn showing(certificate: Vec<u8>, key: &KeyPair) -> ServerConfig {
    #[derive(Debug)]
    struct Shown(Arc<CertifiedKey>);
    impl ResolvesServerCert for Shown {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
    }
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = ring::sign::any_supported_type(&key).unwrap();
    let shown = CertifiedKey::new(vec![certificate.into()], key);
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Shown(Arc::new(shown))))
}

/// A sequence of DER.
fn sequence(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[0x30, 0x82], &length[..], content].concat()
}

/// The certificate as `openssl x509 -req` without extensions would have made it: of version 1. Its signature is
/// invalid.
fn version_1(der: &[u8]) -> Vec<u8> {
    const VERSION: u8 = 0xa0;
    const EXTENSIONS: u8 = 0xa3;
    let elements = |mut content: &[u8]| {
        let mut elements = Vec::new();
        while let Some((_, _, rest)) = element(content) {
            let (one, after) = content.split_at(content.len() - rest.len());
            elements.push(one.to_vec());
            content = after;
        }
        elements
    };
    let inside = |der: &[u8]| element(der).unwrap().1.to_vec();
    let parts = elements(&inside(der));
    let mut body = elements(&inside(&parts[0]));
    body.retain(|part| part[0] != VERSION && part[0] != EXTENSIONS);
    sequence(&[sequence(&body.concat()), parts[1].clone(), parts[2].clone()].concat())
}

/// Without verification any certificate is accepted, but the server must hold its key.
#[tokio::test]
async fn any_certificate_of_the_servers_key_is_taken_unverified() {
    let ca = Authority::new();
    let (certificate, key) = ca.sign(2020, 4000);
    let der = certificate.der().to_vec();
    let trusting = TlsCheck {
        verify: false,
        ..TlsCheck::default()
    };
    let old = TlsPeer::start(showing(version_1(&der), &key)).await;
    assert_eq!(both(&trusting, old.address).await, Ok(()));
    let error = both(&ca.settings(), old.address).await.unwrap_err().to_string();
    assert!(error.contains("is not of X.509 version 3"), "{error}");

    let foreign = TlsPeer::start(showing(der, &KeyPair::generate().unwrap())).await;
    for settings in [trusting, ca.settings()] {
        let error = both(&settings, foreign.address).await.unwrap_err().to_string();
        let expected = format!(
            "certificate of {} does not belong to the key that the server has",
            foreign.address
        );
        assert_eq!(error, expected);
    }
}

/// A certificate that the operator names is trusted with any issuer.
#[tokio::test]
async fn a_servers_own_certificate_can_be_its_ca_file() {
    // As `openssl req -x509` makes it: a CA certificate.
    let own = |names: &[&str], from, to| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().der().to_vec(), key)
    };
    let (good, good_key) = own(&["a.example"], 2020, 4000);
    let expired = own(&["a.example"], 2020, 2021);
    let future = own(&["a.example"], 3999, 4000);
    let nameless = own(&[], 2020, 4000);
    let old = (version_1(&good), good_key);
    let (good, good_key) = own(&["a.example"], 2020, 4000);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("own.pem");
    let settings = |name: &str| TlsCheck {
        ca_file: Some(file.to_str().unwrap().to_owned()),
        server_name: Some(name.to_owned()),
        ..TlsCheck::default()
    };
    let cases = [
        ("good", &good, &good_key, "a.example", None),
        (
            "another name",
            &good,
            &good_key,
            "b.example",
            Some(CertificateProblem::WrongName {
                expected: "b.example".to_owned(),
                presented: vec!["a.example".to_owned()],
            }),
        ),
        (
            "expired",
            &expired.0,
            &expired.1,
            "a.example",
            Some(CertificateProblem::Expired(Some(
                date_time_ymd(2021, 1, 1).into(),
            ))),
        ),
        (
            "not valid yet",
            &future.0,
            &future.1,
            "a.example",
            Some(CertificateProblem::NotYetValid(Some(
                date_time_ymd(3999, 1, 1).into(),
            ))),
        ),
        // Where it has no names, being this one is enough.
        ("without names", &nameless.0, &nameless.1, "a.example", None),
        ("of version 1", &old.0, &old.1, "a.example", None),
    ];
    for (way, der, key, name, problem) in cases {
        let peer = TlsPeer::start(showing(der.clone(), key)).await;
        fs::write(&file, pem(der)).unwrap();
        let expected = problem.map_or(Ok(()), |problem| {
            Err(CheckError::Certificate {
                target: peer.address,
                problem,
            })
        });
        assert_eq!(both(&settings(name), peer.address).await, expected, "{way}");
    }
    // Another one of the same kind is not trusted by that.
    let (other, key) = own(&["a.example"], 2020, 4000);
    let peer = TlsPeer::start(showing(other, &key)).await;
    let error = both(&settings("a.example"), peer.address).await.unwrap_err();
    assert!(matches!(error, CheckError::Certificate { .. }), "{error}");
    assert!(!error.to_string().contains("Error"), "{error}");
}

fn pem(der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in der.chunks(3) {
        let bits = group
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - group.len()));
        for place in 0..4 {
            text.push(if place <= group.len() {
                ALPHABET[usize::try_from(bits >> (18 - 6 * place) & 63).unwrap()].into()
            } else {
                '='
            });
        }
    }
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

/// The certificate is for the host of the request, and not for the address that happens to be checked.
#[tokio::test]
async fn certificate_must_have_the_address_given_as_host() {
    let ca = Authority::new();
    let of = |name: &str| {
        let (certificate, key) = ca.sign_for(name, 2020, 4000);
        showing(certificate.der().to_vec(), &key)
    };
    let host = TlsPeer::start(of("2001:db8::1")).await;
    let target = TlsPeer::start(of("127.0.0.1")).await;
    let checker = |name: &str| {
        http(|http| {
            http.host = Some(name.to_owned());
            http.tls = Some(TlsCheck {
                server_name: None,
                ..ca.settings()
            });
        })
    };
    for name in ["[2001:db8::1]", "[2001:db8::1]:8443"] {
        checker(name).check(host.address, PLENTY).await.unwrap();
        let error = checker(name).check(target.address, PLENTY).await.unwrap_err();
        let expected = format!(
            "certificate of {} is not for 2001:db8::1, but for 127.0.0.1",
            target.address
        );
        assert_eq!(error.to_string(), expected);
    }
    for name in ["127.0.0.1", "127.0.0.1:8443"] {
        checker(name).check(target.address, PLENTY).await.unwrap();
    }
    // No certificate is for such a host: it must not be replaced by another name without a word.
    let mut settings = HttpCheck {
        host: Some("[fe80::1%eth0]".to_owned()),
        tls: Some(TlsCheck::default()),
        ..HttpCheck::default()
    };
    let error = HttpChecker::new(&settings).unwrap_err().to_string();
    assert!(error.starts_with("host \"[fe80::1%eth0]\" is no name"), "{error}");
    settings.tls = Some(TlsCheck {
        verify: false,
        ..TlsCheck::default()
    });
    HttpChecker::new(&settings).unwrap();
}
