use proptest::prelude::*;

use super::*;

#[derive(Clone, PartialEq, Debug)]
enum Read {
    /// Complete: status, body, and whether the connection can be used again.
    Done(u16, &'static str, bool),
    /// Complete only by the end of the connection: status and body.
    UntilClose(u16, &'static str),
    /// More is wanted when the connection ends.
    Incomplete,
    Malformed(&'static str),
}

/// Feeds `input` in pieces of `piece` bytes, then ends the connection.
fn read(
    head_request: bool,
    max_body: usize,
    input: &[u8],
    piece: usize,
) -> Result<(ResponseReader, bool), Malformed> {
    let mut reader = ResponseReader::new(head_request, max_body);
    for bytes in input.chunks(piece) {
        reader.feed(bytes)?;
    }
    let before_end = reader.done().is_some();
    reader.end();
    Ok((reader, before_end))
}

#[test]
fn answers_are_read_to_their_end_and_not_further() {
    use Read::{Done, Incomplete, UntilClose};
    let cases: [(&str, &str, Read); 42] = [
        (
            "length",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            Done(200, "ok", true),
        ),
        (
            "folded header lines",
            "HTTP/1.1 200 OK\r\nX-Note: one\r\n two\r\nContent-Length:\r\n\t2\r\n\r\nok",
            Done(200, "ok", true),
        ),
        (
            "folded list",
            "HTTP/1.1 200 OK\r\nConnection: foo,\r\n close\r\nContent-Length: 2\r\n\r\nok",
            Done(200, "ok", false),
        ),
        (
            "blank before the colon",
            "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
            Done(200, "ok", true),
        ),
        (
            "identity is no coding",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Identity\r\nContent-Length: 2\r\n\r\nok",
            Done(200, "ok", true),
        ),
        (
            "identity without a length",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nuntil",
            UntilClose(200, "until"),
        ),
        (
            "no reason phrase",
            "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
            Done(200, "ok", true),
        ),
        (
            "empty body",
            "HTTP/1.1 503 no\r\ncontent-length: 0\r\n\r\n",
            Done(503, "", true),
        ),
        (
            "no body by status",
            "HTTP/1.1 204 No Content\r\n\r\n",
            Done(204, "", true),
        ),
        (
            "304 has no body",
            "HTTP/1.1 304 x\r\nContent-Length: 10\r\n\r\n",
            Done(304, "", true),
        ),
        (
            "body at its bound",
            "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n12345678",
            Done(200, "12345678", true),
        ),
        (
            "body over its bound",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n12345678",
            Done(200, "12345678", false),
        ),
        (
            "huge length",
            "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n12345678",
            Done(200, "12345678", false),
        ),
        (
            "close is asked for",
            "HTTP/1.1 200 OK\r\nConnection: foo, Close\r\nContent-Length: 2\r\n\r\nok",
            Done(200, "ok", false),
        ),
        (
            "1.0 is not kept",
            "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
            Done(200, "ok", false),
        ),
        (
            "until close",
            "HTTP/1.1 200 OK\r\n\r\nuntil",
            UntilClose(200, "until"),
        ),
        (
            "until close, empty",
            "HTTP/1.0 200 OK\r\n\r\n",
            UntilClose(200, ""),
        ),
        (
            "until close at the bound",
            "HTTP/1.1 200 OK\r\n\r\n12345678",
            UntilClose(200, "12345678"),
        ),
        (
            "until close over the bound",
            "HTTP/1.1 200 OK\r\n\r\n123456789",
            Done(200, "12345678", false),
        ),
        (
            "chunks",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
            Done(200, "abcde", true),
        ),
        (
            "chunk size in capitals, padded",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n0003 \r\nabc\r\n000\r\n\r\n",
            Done(200, "abc", true),
        ),
        (
            "trailers",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\na\r\n0\r\nA: b\r\nC: d\r\n\r\n",
            Done(200, "a", true),
        ),
        (
            "chunks at the bound",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n12345678\r\n0\r\n\r\n",
            Done(200, "12345678", true),
        ),
        (
            "chunks over the bound",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n12345678\r\n1\r\n",
            Done(200, "12345678", false),
        ),
        (
            "coding without end",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxyz",
            UntilClose(200, "xyz"),
        ),
        (
            "chunks and length",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
            Done(200, "", false),
        ),
        (
            "interim answers",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            Done(200, "ok", true),
        ),
        (
            "more than was asked for",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 408 x\r\n\r\n",
            Done(200, "ok", false),
        ),
        (
            "same length twice",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
            Done(200, "ok", true),
        ),
        (
            "bare line feeds",
            "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
            Done(200, "ok", true),
        ),
        ("protocol switch", "HTTP/1.1 101 x\r\n\r\n", Done(101, "", false)),
        ("nothing", "", Incomplete),
        ("half a head", "HTTP/1.1 200 OK\r\nContent-Le", Incomplete),
        (
            "half a body",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
            Incomplete,
        ),
        (
            "half a chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
            Incomplete,
        ),
        (
            "no last chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
            Incomplete,
        ),
        (
            "other protocol",
            "SSH-2.0-OpenSSH_9.2\r\n",
            Read::Malformed("it does not begin with HTTP/1."),
        ),
        (
            "no status",
            "HTTP/1.1 OK\r\n\r\n",
            Read::Malformed("bad status line"),
        ),
        (
            "status out of range",
            "HTTP/1.1 999 x\r\n\r\n",
            Read::Malformed("status out of range"),
        ),
        (
            "length with a sign",
            "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
            Read::Malformed("bad Content-Length"),
        ),
        (
            "two lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok",
            Read::Malformed("contradicting Content-Length"),
        ),
        (
            "chunk size of words",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            Read::Malformed("bad chunk"),
        ),
    ];
    for (name, input, expected) in cases {
        for piece in [1, 2, 7, input.len().max(1)] {
            let seen = match read(false, 8, input.as_bytes(), piece) {
                Err(Malformed(reason)) => Read::Malformed(reason),
                Ok((reader, before_end)) => {
                    let body: &'static str = String::from_utf8(reader.body().to_vec()).unwrap().leak();
                    match reader.done() {
                        Some(reusable) if before_end => Read::Done(reader.status(), body, reusable),
                        Some(_) => Read::UntilClose(reader.status(), body),
                        None => Read::Incomplete,
                    }
                }
            };
            assert_eq!(seen, expected, "{name} in pieces of {piece}");
        }
    }
}

#[test]
fn the_answer_to_head_has_no_body() {
    let input = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
    let (reader, before_end) = read(true, 8, input, 5).unwrap();
    assert!(before_end);
    assert_eq!(reader.done(), Some(true));
}

#[test]
fn endless_answers_are_not_read_for_ever() {
    let header = b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n";
    let cases: [(&str, &[u8], &[u8], &str); 6] = [
        (
            "interim answers",
            b"",
            b"HTTP/1.1 100 x\r\n\r\n",
            "too many interim answers",
        ),
        (
            "header line",
            b"HTTP/1.1 200 OK\r\nX: ",
            b"yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy",
            "header too long",
        ),
        ("headers", b"HTTP/1.1 200 OK\r\n", header, "too many headers"),
        (
            "chunk extension",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;",
            b"yyyyyyyy",
            "chunk framing too long",
        ),
        (
            "trailers",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            b"A: b\r\n",
            "chunk framing too long",
        ),
        (
            "chunk size",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1",
            b"0",
            "chunk size too large",
        ),
    ];
    for (name, begin, repeated, expected) in cases {
        let mut reader = ResponseReader::new(false, 8);
        reader.feed(begin).unwrap();
        let end = (0..2 * MAX_HEAD).find_map(|_| reader.feed(repeated).err());
        assert_eq!(end, Some(Malformed(expected)), "{name}");
    }
}

proptest! {
    /// Any bytes, in any pieces: no panic, the same result, and never more body than the bound.
    #[test]
    fn any_bytes_in_any_pieces(
        head in prop_oneof![
            Just(&b""[..]),
            Just(&b"HTTP/1.1 200 OK\r\n"[..]),
            Just(&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..]),
            Just(&b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n"[..]),
        ],
        tail in prop::collection::vec(prop_oneof![
            4 => any::<u8>(),
            4 => prop::sample::select(&b"0123af;: \r\n\r\n\r\n"[..]),
        ], 0..200),
        piece in 1_usize..50,
        max_body in 0_usize..30,
    ) {
        let input = [head, &tail].concat();
        let whole = read(false, max_body, &input, input.len().max(1));
        let pieces = read(false, max_body, &input, piece);
        match (whole, pieces) {
            (Ok((whole, _)), Ok((pieces, _))) => {
                prop_assert!(whole.body().len() <= max_body);
                prop_assert_eq!(whole.body(), pieces.body());
                prop_assert_eq!(whole.done(), pieces.done());
                prop_assert_eq!(whole.status(), pieces.status());
            }
            (whole, pieces) => prop_assert_eq!(whole.map(|_| ()), pieces.map(|_| ())),
        }
    }
}
