//! Checks that look at the head of an answer alone.

use super::{
    http2::{DATA, END_HEADERS, END_STREAM, HEADERS, Reply, STATUS_200, answer, frame, hello, http2, peer},
    *,
};

/// Where the body does not matter, a server need not end it: streams, and scripts that leave the connection open.
#[tokio::test]
async fn the_head_decides_where_no_body_is_wanted() {
    // The bytes sent, and whether the connection is reusable if the rest arrives: then a second one is tested beside
    // it.
    let heads: [(&'static [u8], usize); 6] = [
        (b"HTTP/1.1 200 OK\r\n\r\n", 0),
        (b"HTTP/1.1 200 OK\r\n\r\nsome of it", 0),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n",
            0,
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome of it", 1),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", 1),
        (
            b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n",
            1,
        ),
    ];
    for (head, beside) in heads {
        for max_body in [0, 64] {
            let peer = Peer::start(&*vec![Answer::Send(head)].leak()).await;
            // A body over the bound makes a connection of no further use.
            let beside = if max_body == 0 { 0 } else { beside };
            let checker = http(|http| http.max_body = max_body);
            for check in 1..=2 {
                checker.check(peer.address, PLENTY).await.unwrap();
                // A connection in the middle of an answer takes no further request.
                assert_eq!(peer.connections(), check + beside, "{head:?}");
            }
        }
    }
    let peer = Peer::start(&[Answer::Endless(b"HTTP/1.1 503 no\r\n\r\n", b"data: x\n\n")]).await;
    let error = http(any).check(peer.address, PLENTY).await.unwrap_err();
    assert_eq!(class(&error), "status 503 from URL, expected 200");
}

/// Servers that send head and body apart must not cost a new connection each time.
#[tokio::test]
async fn a_body_that_comes_later_is_read_by_the_next_check() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    let checker = http(any).with_fresh_every(100);
    let server = async {
        let mut streams = Vec::new();
        // The check tries a second connection, and keeps that.
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert_ne!(stream.read(&mut [0; 1000]).await.unwrap(), 0);
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n";
            stream.write_all(head).await.unwrap();
            streams.push(stream);
        }
        streams
    };
    let (first, mut streams) = tokio::join!(checker.check(target, PLENTY), server);
    let stream = &mut streams[1];
    first.unwrap();
    stream.write_all(b"ok\r\n0\r\n\r\n").await.unwrap();
    // The event loop polls sockets only when the thread is idle.
    spawn_blocking(|| {}).await.unwrap();
    let answer = async {
        assert_ne!(stream.read(&mut [0; 1000]).await.unwrap(), 0);
        stream.write_all(OK).await.unwrap();
    };
    let (second, ()) = tokio::join!(checker.check(target, PLENTY), answer);
    second.unwrap();
}

/// Where the body does not matter, a server need not end it.
#[tokio::test]
async fn the_head_decides_over_http2_too() {
    let head = |stream| frame(HEADERS, END_HEADERS, stream, STATUS_200);
    let whole = answer(3, STATUS_200, b"ok");
    let cases = [
        // The next check finds the end of the body, or none. The first one tries a second connection.
        (vec![Reply::Send([hello(), head(1)].concat())], 3),
        (
            vec![Reply::Endless(
                [hello(), head(1)].concat(),
                frame(DATA, 0, 1, b"x"),
            )],
            3,
        ),
        (
            vec![
                Reply::Send([hello(), head(1), frame(DATA, END_STREAM, 1, b"ok")].concat()),
                Reply::Send(whole),
            ],
            2,
        ),
    ];
    for (replies, expected) in cases {
        let (target, connections) = peer(replies).await;
        let checker = http2(any);
        for _ in 0..2 {
            checker.check(target, PLENTY).await.unwrap();
        }
        assert_eq!(connections.load(Ordering::SeqCst), expected);
    }
}
