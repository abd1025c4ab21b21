//! Under which names a browser may open the page.
//!
//! A foreign site can give its own name the address of this machine (DNS rebinding). A browser then takes the page for a part of
//! that site, whose scripts may read it. The name is in the header `Host`, so names that are not this machine's are refused.

use std::{fs, net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header::HOST},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::{number, state::hosts::HostName};

/// Where the kernel has the machine's name.
const OWN_NAME: &str = "/proc/sys/kernel/hostname";

/// Host names under which the page may be opened, in lower case.
#[derive(Clone, Debug, Default)]
pub struct HostNames(Vec<String>);

impl HostNames {
    /// `localhost`, the machine's own name, whole and without its domain, and `configured` ones.
    pub fn new(configured: &[HostName]) -> Self {
        let own = own_name();
        let short = own.split('.').next().unwrap_or_default();
        let names = ["localhost", &own, short].map(str::to_ascii_lowercase);
        let configured = configured
            .iter()
            .map(|name| name.as_str().trim_end_matches('.').to_owned());
        let names = names.into_iter().chain(configured);
        Self(names.filter(|name| !name.is_empty()).collect())
    }

    /// Whether a browser that sends this header `Host` may have the page.
    fn allow(&self, host: &str) -> bool {
        if let Some(rest) = host.strip_prefix('[') {
            return rest
                .split_once(']')
                .is_some_and(|(address, port)| address.parse::<IpAddr>().is_ok() && is_port(port));
        }
        let (name, port) = match host.find(':') {
            Some(at) => host.split_at(at),
            None => (host, ""),
        };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        is_port(port) && (name.parse::<IpAddr>().is_ok() || self.0.contains(&name))
    }
}

/// The name of this machine; empty if it cannot be read.
pub(super) fn own_name() -> String {
    let name = fs::read_to_string(OWN_NAME).unwrap_or_default();
    name.trim().to_owned()
}

/// Whether a text is nothing, or a colon and a port.
fn is_port(text: &str) -> bool {
    text.is_empty()
        || text
            .strip_prefix(':')
            .is_some_and(|port| port.is_empty() || number::decimal::<u16>(port).is_some())
}

/// Refuses foreign names, and pages of other sites.
pub(super) async fn admit(State(names): State<Arc<HostNames>>, request: Request, next: Next) -> Response {
    match refusal(&names, request.headers()) {
        Some(refusal) => refusal.into_response(),
        None => next.run(request).await,
    }
}

/// Why a request with these headers is refused, if it is.
fn refusal(names: &HostNames, headers: &HeaderMap) -> Option<(StatusCode, &'static str)> {
    let header = |name: &str| headers.get(name)?.to_str().ok();
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    if hosts.next().is_some() || !host.is_some_and(|host| names.allow(host)) {
        let text = "this name is not one of the balancer's: open the page by its address, or add the name to metrics_names of [lb]\n";
        return Some((StatusCode::MISDIRECTED_REQUEST, text));
    }
    // A page of another site could take all places for readers, though it sees nothing.
    let is_foreign =
        header("sec-fetch-site") == Some("cross-site") && header("sec-fetch-mode") != Some("navigate");
    is_foreign.then_some((StatusCode::FORBIDDEN, "not for pages of other sites\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_own_names_are_allowed_and_foreign_names_are_not() {
        let names = HostNames(vec!["localhost".into(), "lb1".into(), "lb1.example.org".into()]);
        for host in [
            "127.0.0.1",
            "127.0.0.1:9900",
            "[::1]",
            "[2001:db8::1]:9900",
            "localhost:9900",
            "LOCALHOST",
            "lb1.example.org.:80",
            "lb1:9900",
        ] {
            assert!(names.allow(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "lb1.example.org.evil.example",
            "127.0.0.1.evil.example",
            "[evil.example]:80",
            "[::1",
            "localhost:x",
            "lb1@evil",
            "localhost:80:80",
            "xlocalhost",
            "127.1",
        ] {
            assert!(!names.allow(host), "{host}");
        }
    }

    #[test]
    fn configured_names_add_to_the_own_ones() {
        let names = HostNames::new(&["LB.example.org.".parse().unwrap()]);
        assert!(names.allow("lb.example.org") && names.allow("localhost"));
        let own = own_name();
        assert!(own.is_empty() || names.allow(&own), "{own}");
    }
}
