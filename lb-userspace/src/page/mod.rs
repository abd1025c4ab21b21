//! The web page beside the metrics: one document, and a stream with the daemon's state each second. It only reads.

mod access;
mod feed;
mod rows;
mod stream;
#[cfg(test)]
mod tests;
mod tick;

use std::{
    fs::File,
    io::{self, Read as _},
    sync::Arc,
};

use axum::{
    Router,
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    },
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};

pub use self::{access::HostNames, feed::Feed};

/// The document, with its style and script.
const DOCUMENT: &str = include_str!("page.html");
/// Stands in the document for the number that allows its style and script.
const NONCE: &str = "@NONCE@";
/// Bytes of that number.
const NONCE_BYTES: usize = 16;

/// Headers of every answer of the page. Browsers then run nothing but the document's own script, show it in no frame, and send its
/// address to no other site.
const HEADERS: [(&str, &str); 6] = [
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
];

/// The page and its stream.
pub fn routes(feed: Arc<Feed>, names: HostNames) -> Router {
    Router::new()
        .route("/", get(async || document()))
        .route("/live", get(stream::live))
        .layer(middleware::from_fn_with_state(Arc::new(names), access::admit))
        .layer(middleware::map_response(with_headers))
        .with_state(feed)
}

async fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    if !headers.contains_key(CONTENT_SECURITY_POLICY) {
        headers.insert(
            CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
        );
    }
    response
}

fn document() -> Response {
    let nonce = match nonce() {
        Ok(nonce) => nonce,
        Err(error) => {
            return (
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("no random number: {error}\n"),
            )
                .into_response();
        }
    };
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let mut response = (
        [(CONTENT_TYPE, "text/html; charset=utf-8")],
        DOCUMENT.replace(NONCE, &nonce),
    )
        .into_response();
    if let Ok(policy) = HeaderValue::try_from(policy) {
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// A number that cannot be guessed, in hexadecimal.
fn nonce() -> io::Result<String> {
    let mut bytes = [0; NONCE_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
