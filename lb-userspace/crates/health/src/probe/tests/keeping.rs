//! Connections that are kept between checks: they must neither block a server nor hide failures.

use tokio::{io, task::JoinHandle};

use super::{
    tls::{Authority, TlsPeer},
    *,
};

/// Answers requests on one connection after the other, each for as long as the client keeps it. Returns the requests.
async fn one_at_a_time() -> (SocketAddr, Arc<std::sync::Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::<std::sync::Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&requests);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            serve(stream, &[Answer::Send(OK); 100], Arc::clone(&seen)).await;
        }
    });
    (address, requests)
}

/// A client must be served between two checks, from the first one on.
#[tokio::test]
async fn a_check_does_not_occupy_a_server_of_one_connection() {
    let (target, requests) = one_at_a_time().await;
    let checker = http(any).with_patience_in_use();
    for check in 1..=4 {
        checker.check(target, PLENTY).await.unwrap();
        assert_eq!(checker.serves_one(), check >= 2, "slow once is not enough");
        let mut client = TcpStream::connect(target).await.unwrap();
        client.write_all(b"GET /client HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = [0; OK.len()];
        let served = time::timeout(PLENTY, client.read_exact(&mut answer)).await;
        assert!(served.is_ok_and(|read| read.is_ok()), "check {check}");
    }
    let last = requests.lock().unwrap().iter().rev().nth(1).cloned().unwrap();
    assert!(last.contains("\r\nConnection: close\r\n"), "{last}");
}

/// A new connection is made beside the old one, which shows whether the server still serves both.
#[tokio::test]
async fn a_server_that_is_replaced_is_tried_again() {
    let many = Peer::start(&[Answer::Send(OK); 100]).await;
    let checker = http(any).with_fresh_every(2).with_patience_in_use();
    for _ in 0..6 {
        checker.check(many.address, PLENTY).await.unwrap();
    }
    let (target, _) = one_at_a_time().await;
    // It is kept twice, as for a server that serves many connections, and then tested twice.
    for _ in 0..4 {
        checker.check(target, PLENTY).await.unwrap();
    }
    assert!(checker.serves_one());
}

#[tokio::test]
async fn no_connection_is_kept_where_none_is_wanted() {
    let peer = Peer::start(&[Answer::Send(OK); 100]).await;
    let alone = http(|http| http.keep_alive = false);
    for check in 1..=3 {
        alone.check(peer.address, PLENTY).await.unwrap();
        assert_eq!(peer.connections(), check);
    }
    assert!(
        peer.requests()
            .iter()
            .all(|request| request.contains("\r\nConnection: close\r\n"))
    );
    // Nor while something speaks against the target.
    let checker = http(any);
    checker.check(peer.address, PLENTY).await.unwrap();
    for _ in 0..3 {
        let before = peer.connections();
        checker.renew();
        checker.check(peer.address, PLENTY).await.unwrap();
        assert_eq!(peer.connections(), before + 1);
    }
}

/// Accepts connections for another server until it is closed; existing ones continue.
struct Front {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Front {
    async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut behind = TcpStream::connect(server).await.unwrap();
                    io::copy_bidirectional(&mut client, &mut behind).await
                });
            }
        });
        Self { address, accepting }
    }

    async fn close(self) {
        self.accepting.abort();
        assert!(self.accepting.await.unwrap_err().is_cancelled());
    }
}

/// New clients are refused: the check's old connection must not hide that.
#[tokio::test]
async fn a_closed_listener_is_found_by_the_next_check() {
    let ca = Authority::new();
    let plain = Peer::start(&[Answer::Send(OK); 100]).await;
    let secure = TlsPeer::start(ca.server(2020, 4000, false)).await;
    let (second, _) = super::http2::long_winded(2).await;
    let https = http(|http| http.tls = Some(ca.settings()));
    for (kind, checker, server) in [
        ("http", Probe::Http(http(any)), plain.address),
        ("https", Probe::Http(https), secure.address),
        ("http2", Probe::Http2(super::http2::http2(any)), second),
    ] {
        let front = Front::start(server).await;
        let target = front.address;
        for _ in 0..3 {
            checker.check(target, PLENTY).await.unwrap();
        }
        front.close().await;
        let refused = Err(CheckError::Refused(target));
        assert_eq!(checker.check(target, PLENTY).await, refused, "{kind}");
    }
}
