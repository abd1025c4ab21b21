use super::*;

fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pairs = pairs.iter().map(|(name, value)| {
        (
            http::HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    });
    pairs.collect()
}

const SERVING: &[u8] = b"\0\0\0\0\x02\x08\x01";

#[test]
fn an_answer_is_judged_by_its_status_and_its_message() {
    type Fields = &'static [(&'static str, &'static str)];
    const GRPC: (&str, &str) = ("content-type", "application/grpc+proto");
    let ok: Fields = &[("grpc-status", "0")];
    let call = |name: &str, message: &str| {
        Err(GrpcProblem::Call {
            name: name.to_owned(),
            message: message.to_owned(),
        })
    };
    type Case = (Fields, &'static [u8], Option<Fields>, Result<(), GrpcProblem>);
    let cases: [Case; 10] = [
        (&[GRPC], SERVING, Some(ok), Ok(())),
        (&[GRPC], SERVING, None, Err(GrpcProblem::NoStatus)),
        (&[GRPC], SERVING, Some(&[]), Err(GrpcProblem::NoStatus)),
        // A status in the headers does not count where there are trailers.
        (
            &[GRPC, ("grpc-status", "0")],
            SERVING,
            Some(&[("grpc-status", "14")]),
            call("UNAVAILABLE", ""),
        ),
        (
            &[GRPC, ("grpc-status", "12")],
            b"",
            None,
            Err(GrpcProblem::Unimplemented),
        ),
        (
            &[GRPC, ("grpc-status", "5")],
            b"",
            None,
            Err(GrpcProblem::ServiceUnknown),
        ),
        (
            &[GRPC, ("grpc-status", "16"), ("grpc-message", "who%20are%0Ayou%?")],
            b"",
            None,
            call("UNAUTHENTICATED", "who are you%?"),
        ),
        (
            &[GRPC, ("grpc-status", "99")],
            b"",
            None,
            call("grpc-status 99", ""),
        ),
        (
            &[("content-type", "text/html"), ("grpc-status", "0")],
            SERVING,
            None,
            Err(GrpcProblem::ContentType("text/html".to_owned())),
        ),
        (
            &[],
            SERVING,
            Some(ok),
            Err(GrpcProblem::ContentType(String::new())),
        ),
    ];
    for (headers, body, trailers, expected) in cases {
        let trailers = trailers.map(fields);
        assert_eq!(
            judge(&fields(headers), body, trailers.as_ref()),
            expected,
            "{headers:?}"
        );
    }
}

#[test]
fn calls_that_cannot_be_made_are_refused() {
    let cases = [
        (
            GrpcCheck {
                service: "x".repeat(MAX_SERVICE + 1),
                ..GrpcCheck::default()
            },
            "service is over 127 bytes",
        ),
        (
            GrpcCheck {
                host: Some("a b".to_owned()),
                ..GrpcCheck::default()
            },
            "\"a b\" is no host name",
        ),
    ];
    for (settings, expected) in cases {
        assert_eq!(GrpcChecker::new(&settings).unwrap_err().to_string(), expected);
    }
}
