//! Problems of HTTP/2 connections, and of gRPC calls on them.

/// Why a peer did not answer a request over HTTP/2 (RFC 9113).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Http2Problem {
    /// It answers in HTTP/1.
    #[error("answers in HTTP/1 and does not speak HTTP/2")]
    Http1,
    /// Its first frame is not SETTINGS (section 3.4).
    #[error("does not speak HTTP/2: its first frame is not SETTINGS")]
    Garbage,
    /// It gave the connection up, with this code (section 6.8).
    #[error("gave the HTTP/2 connection up: GOAWAY with {0}")]
    GoAway(String),
    /// It gave the request up, with this code (section 6.4).
    #[error("gave the request up: RST_STREAM with {0}")]
    Reset(String),
    /// It violates the protocol; with the error code of section 7.
    #[error("breaks the rules of HTTP/2: {0}")]
    Violation(String),
}

/// Why an answered call of `grpc.health.v1.Health/Check` is no success.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GrpcProblem {
    /// `NOT_SERVING`.
    #[error("is NOT_SERVING")]
    NotServing,
    /// `UNKNOWN`: the server does not know yet.
    #[error("has the status UNKNOWN")]
    Unknown,
    /// `SERVICE_UNKNOWN`, or the call's status `NOT_FOUND`: the server has no service of the name.
    #[error("is SERVICE_UNKNOWN to the server")]
    ServiceUnknown,
    /// A number that the protocol does not have.
    #[error("has the unknown status {0}")]
    Undefined(u64),
    /// The call's status is `UNIMPLEMENTED`: the server has no health service.
    #[error("cannot be asked: the server has no grpc.health.v1.Health (UNIMPLEMENTED)")]
    Unimplemented,
    /// The call failed with another status.
    #[error("cannot be asked: {name}{}", quoted(.message))]
    Call {
        /// Its name.
        name: String,
        /// The server's words, if any.
        message: String,
    },
    /// The answer is not of gRPC.
    #[error("cannot be asked: the answer is of type \"{0}\" and not application/grpc")]
    ContentType(String),
    /// The answer ends without `grpc-status`.
    #[error("cannot be asked: the answer has no grpc-status")]
    NoStatus,
    /// The message is invalid.
    #[error("cannot be asked: {0}")]
    Message(&'static str),
}

fn quoted(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(" \"{message}\"")
    }
}
