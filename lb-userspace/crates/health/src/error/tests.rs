use super::*;

fn target() -> SocketAddr {
    "10.0.0.11:8080".parse().unwrap()
}

/// Operators read these in `lb backend list`; each must name the target and the place to look.
#[test]
fn failures_read_as_sentences() {
    let target = target();
    let after = Duration::from_secs(1);
    let cases = [
        (
            CheckError::Refused(target),
            "connection refused by 10.0.0.11:8080",
        ),
        (
            CheckError::TimedOut {
                target,
                stage: Stage::Connect,
                after,
            },
            "no answer to the connection request within 1s from 10.0.0.11:8080",
        ),
        (
            CheckError::TimedOut {
                target,
                stage: Stage::Request,
                after: Duration::from_millis(250),
            },
            "no answer within 250ms from 10.0.0.11:8080",
        ),
        (
            CheckError::TimedOut {
                target,
                stage: Stage::Body,
                after,
            },
            "no complete body within 1s from 10.0.0.11:8080",
        ),
        (
            CheckError::NoEcho {
                target: target.ip(),
                after,
            },
            "no echo reply within 1s from 10.0.0.11",
        ),
        (
            CheckError::IcmpError {
                target: target.ip(),
                from: "10.0.0.1".parse().unwrap(),
                words: "host unreachable".into(),
            },
            "host unreachable, reported by 10.0.0.1 on the path to 10.0.0.11",
        ),
        (
            CheckError::Reset {
                target,
                stage: Stage::Body,
            },
            "10.0.0.11:8080 reset the connection in the middle of the body",
        ),
        (
            CheckError::Closed {
                target,
                stage: Stage::Request,
            },
            "10.0.0.11:8080 closed the connection before it answered",
        ),
        (
            CheckError::Status {
                url: "http://10.0.0.11:8080/healthz".into(),
                status: 503,
                expected: [200].as_slice().into(),
            },
            "status 503 from http://10.0.0.11:8080/healthz, expected 200",
        ),
        (
            CheckError::Status {
                url: "http://10.0.0.11:8080/healthz".into(),
                status: 404,
                expected: [200, 204, 205, 300, 301, 302, 303].as_slice().into(),
            },
            "status 404 from http://10.0.0.11:8080/healthz, expected 200 or 204 or 205 or 300-303",
        ),
        (
            CheckError::NotHttp {
                target,
                reason: "bad status line",
            },
            "answer of 10.0.0.11:8080 is not HTTP: bad status line",
        ),
        (
            CheckError::Body {
                url: "https://10.0.0.11:8443/".into(),
                pattern: "^ok$".into(),
                examined: 12,
            },
            "body of https://10.0.0.11:8443/ does not match \"^ok$\" in its first 12 bytes",
        ),
        (
            CheckError::Local {
                target,
                error: LocalError::Descriptors,
            },
            "cannot check 10.0.0.11:8080: too many open files on this machine (raise LimitNOFILE)",
        ),
    ];
    for (error, text) in cases {
        assert_eq!(error.to_string(), text);
    }
}

/// A backend must not go down because the balancer ran out of something; nor stay up because its failure was
/// mistaken for ours.
#[test]
fn local_errors_are_separate_from_failures_of_the_target() {
    let target = target();
    let local = |error| CheckError::Local { target, error };
    let cases = [
        (libc::ECONNREFUSED, CheckError::Refused(target)),
        (
            libc::ECONNRESET,
            CheckError::Reset {
                target,
                stage: Stage::Request,
            },
        ),
        (
            libc::EPIPE,
            CheckError::Reset {
                target,
                stage: Stage::Request,
            },
        ),
        (
            libc::EHOSTUNREACH,
            CheckError::Unreachable {
                target,
                reason: "no route to host".to_owned(),
            },
        ),
        (
            libc::ENETUNREACH,
            CheckError::Unreachable {
                target,
                reason: "network is unreachable".to_owned(),
            },
        ),
        (
            libc::ETIMEDOUT,
            CheckError::Connection {
                target,
                reason: "connection timed out".to_owned(),
            },
        ),
        (libc::EMFILE, local(LocalError::Descriptors)),
        (libc::ENFILE, local(LocalError::Descriptors)),
        (libc::EADDRNOTAVAIL, local(LocalError::Ports)),
        (libc::EADDRINUSE, local(LocalError::Ports)),
        (libc::ENOBUFS, local(LocalError::Memory)),
        (libc::EPERM, local(LocalError::NotPermitted)),
        (libc::EAFNOSUPPORT, local(LocalError::Family)),
    ];
    for (code, error) in cases {
        let seen = CheckError::from_io(target, Stage::Request, &io::Error::from_raw_os_error(code));
        assert_eq!(seen, error);
        assert_eq!(seen.is_local(), matches!(error, CheckError::Local { .. }));
    }
}
