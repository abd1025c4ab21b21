//! Answers of hostile servers to health checks, over real sockets.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use lb_health_core::{Checker, Checkers};
use lb_model::config;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
    runtime::{Builder, Runtime},
};

/// The checks, one of which the first byte of an input selects.
const CHECKS: [&str; 8] = [
    "kind = \"http\"\nexpect_body = \"ok\"",
    "kind = \"http\"\nexpect_status = \"2xx\"\nkeep_alive = false",
    "kind = \"http2\"\nexpect_body = \"ok\"",
    "kind = \"grpc\"",
    "kind = \"dns\"\nname = \"example.org\"\ntransport = \"tcp\"",
    "kind = \"tcp\"\nsend = \"hello\"\nexpect_regex = \"^(ok|well)+$\"",
    "kind = \"dns\"\nname = \"example.org\"",
    "kind = \"udp\"\npayload = \"hello\"\nexpect_reply = \"ok\"",
];
/// The checks before this one are over TCP.
const UDP: usize = 6;
/// Long enough for an answer on this machine; a datagram that is no answer is waited behind for that long.
const TIMEOUT: Duration = Duration::from_millis(20);

thread_local! {
    static RUNTIME: Option<Runtime> = Builder::new_current_thread().enable_all().build().ok();
}

pub(crate) fn check(bytes: &[u8]) {
    let Some((first, answer)) = bytes.split_first() else {
        return;
    };
    let number = usize::from(*first) % CHECKS.len();
    RUNTIME.with(|runtime| match runtime {
        Some(runtime) => runtime.block_on(ask(number, answer)),
        None => panic!("no runtime"),
    });
}

/// Makes a check of a server that gives this answer. Its result is all the same; it must come.
async fn ask(number: usize, answer: &[u8]) {
    let settings = match config::parse_check(CHECKS[number], "check") {
        Ok(settings) => settings,
        Err(errors) => panic!("{errors:?}"),
    };
    let checker = match Checkers::new(settings) {
        Ok(mut checkers) => checkers.checker(),
        Err(error) => panic!("{error}"),
    };
    let served = if number < UDP {
        tcp(&checker, answer).await
    } else {
        udp(&checker, answer).await
    };
    if let Err(error) = served {
        panic!("no socket: {error}");
    }
}

/// Answers each connection and closes it.
async fn tcp(checker: &impl Checker, answer: &[u8]) -> std::io::Result<()> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
    let target = listener.local_addr()?;
    let serve = async {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else {
                continue;
            };
            // A client that has gone is not the server's matter.
            let _ = stream.read(&mut [0; 512]).await;
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
        }
    };
    tokio::select! {
        _ = checker.check(target, TIMEOUT) => Ok(()),
        () = serve => Ok(()),
    }
}

/// Answers each datagram, with the id of the question where the answer's begins with 0.
async fn udp(checker: &impl Checker, answer: &[u8]) -> std::io::Result<()> {
    let socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
    let target = socket.local_addr()?;
    let serve = async {
        let mut question = [0; 512];
        loop {
            let Ok((length, client)) = socket.recv_from(&mut question).await else {
                continue;
            };
            let mut answer = answer.to_vec();
            if answer.first() == Some(&0) {
                let ids = answer.iter_mut().zip(&question[..length.min(2)]);
                ids.for_each(|(to, from)| *to = *from);
            }
            // A client that has gone is not the server's matter.
            let _ = socket.send_to(&answer, client).await;
        }
    };
    tokio::select! {
        _ = checker.check(target, TIMEOUT) => Ok(()),
        () = serve => Ok(()),
    }
}
