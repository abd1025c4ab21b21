//! gRPC, against the server of its own library.

use std::{net::SocketAddr, process::Command};

use anyhow::{Result, ensure};
use lb_tests::{lane::Lane, netns::Netns, scratch::Scratch};
use lb_userspace::health::{
    CheckError, GrpcChecker,
    settings::{GrpcCheck, TlsCheck},
};

use super::{Server, certificate, check, checks, wait_for};

/// A health service without generated code; four ports: plain, over TLS, a server without the service, and plain again.
/// The last one gives its connections up all the time, but answers what was asked on them.
pub(crate) const SERVER: &str = r#"
import sys, threading
from concurrent import futures
import grpc

UNKNOWN, SERVING, NOT_SERVING, SERVICE_UNKNOWN = range(4)
KNOWN = {"": SERVING, "a.Up": SERVING, "a.Down": NOT_SERVING, "a.Starting": UNKNOWN, "a.Later": SERVICE_UNKNOWN}

def check(request, context):
    name = request[2:].decode()
    if name == "a.Secret":
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "wer da?\nüber 100 %")
    if name not in KNOWN:
        context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
    status = KNOWN[name]
    return bytes([8, status]) if status else b""

health = grpc.method_handlers_generic_handler(
    "grpc.health.v1.Health", {"Check": grpc.unary_unary_rpc_method_handler(check)})

def start(handlers, port, credentials=None, options=()):
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=handlers, options=options)
    address = "0.0.0.0:%d" % port
    if credentials:
        server.add_secure_port(address, credentials)
    else:
        server.add_insecure_port(address)
    server.start()
    return server

read = lambda name: open(sys.argv[1] + "/" + name, "rb").read()
tls = grpc.ssl_server_credentials([(read("key.pem"), read("cert.pem"))])
servers = [
    start([], 50053),
    start([health], 50054),
    start([health], 50052, tls),
    start([health], 50051, options=[("grpc.max_connection_age_ms", 20), ("grpc.max_connection_age_grace_ms", 60000)]),
]
threading.Event().wait()
"#;

#[test]
fn grpc_server_is_up_when_it_reports_serving() -> Result<()> {
    let _lane = Lane::shared()?;
    let ns = Netns::new("probes")?;
    let scratch = Scratch::new()?;
    let trusted = certificate(&scratch)?;
    let script = scratch.write("server.py", SERVER)?;
    let mut python: Command = ns.command("python3");
    let _server = Server::start(python.arg(script).arg(scratch.path()))?;

    let port = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let (plain, secure, other) = (port(50051), port(50052), port(50053));
    let ask = |service: &str, tls: Option<&TlsCheck>| {
        GrpcChecker::new(&GrpcCheck {
            service: service.to_owned(),
            host: None,
            tls: tls.cloned(),
            ..GrpcCheck::default()
        })
    };
    wait_for(&ns, &ask("", None)?, plain)?;
    for (target, tls) in [(plain, None), (secure, Some(&trusted))] {
        for (service, expected) in [
            ("", Ok(())),
            ("a.Up", Ok(())),
            ("a.Down", Err("is NOT_SERVING")),
            ("a.Starting", Err("has the status UNKNOWN")),
            ("a.Later", Err("is SERVICE_UNKNOWN to the server")),
            ("a.Never", Err("is SERVICE_UNKNOWN to the server")),
            (
                "a.Secret",
                Err("cannot be asked: UNAUTHENTICATED \"wer da? über 100 %\""),
            ),
        ] {
            let outcome = check(&ns, &ask(service, tls)?, target)?;
            let outcome = outcome.map_err(|error| error.to_string());
            let expected = expected.map_err(|words| format!("service {service} of {target} {words}"));
            ensure!(outcome == expected, "{outcome:?}, expected {expected:?}");
        }
    }
    let outcome = checks(&ns, &ask("", None)?, plain, 500)?;
    ensure!(
        outcome == Ok(()),
        "connections that the server gives up: {outcome:?}"
    );
    let outcome = checks(&ns, &ask("", Some(&trusted))?, secure, 50)?;
    ensure!(outcome == Ok(()), "{outcome:?}");

    let error = check(&ns, &ask("", None)?, other)?.map_err(|error| error.to_string());
    let words = "cannot be asked: the server has no grpc.health.v1.Health (UNIMPLEMENTED)";
    ensure!(error == Err(format!("{other} {words}")), "{error:?}");
    // A server that requires TLS, without TLS.
    let error = check(&ns, &ask("", None)?, secure)?;
    ensure!(
        matches!(
            error,
            Err(CheckError::Closed { .. } | CheckError::Reset { .. } | CheckError::Http2 { .. })
        ),
        "{error:?}"
    );
    Ok(())
}
