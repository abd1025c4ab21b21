//! Where requests go: a URL, or the address of an echo server, and the socket address behind it.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
};

use http::{
    Uri,
    uri::{Authority, PathAndQuery, Scheme},
};

/// What carries the exchanges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transport {
    /// HTTP, with or without TLS.
    Http,
    /// Payloads over TCP.
    Tcp,
    /// Payloads over UDP.
    Udp,
}

impl Transport {
    /// How a target is written.
    fn form(self) -> &'static str {
        match self {
            Self::Http => "http://HOST[:PORT][/PATH] or https://HOST[:PORT][/PATH]",
            Self::Tcp | Self::Udp => "HOST:PORT",
        }
    }
}

/// A server, and what is asked of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    /// As the user wrote it.
    pub(crate) text: String,
    /// Whether TLS goes first.
    pub(crate) tls: bool,
    /// Host and, if written, port: the header `Host`.
    pub(crate) authority: Authority,
    /// Port to connect to.
    pub(crate) port: u16,
    /// Path with query.
    pub(crate) path: PathAndQuery,
}

/// Why a target cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    /// Not in the form of a target.
    #[error("bad URL {text:?}: {reason}; write it as {}", .transport.form())]
    Form {
        /// As written.
        text: String,
        /// What is wrong.
        reason: String,
        /// What kind of target it should be.
        transport: Transport,
    },
    /// A name without an address.
    #[error("cannot resolve {host}: {source}; correct the name, or give the address by --connect")]
    Resolve {
        /// The name.
        host: String,
        /// The resolver's error.
        source: io::Error,
    },
}

impl Target {
    /// Reads a URL, or `HOST:PORT` of an echo server.
    ///
    /// # Errors
    /// When it has another form.
    pub(crate) fn parse(text: &str, transport: Transport) -> Result<Self, TargetError> {
        let error = |reason: &str| TargetError::Form {
            text: text.to_owned(),
            reason: reason.to_owned(),
            transport,
        };
        let uri: Uri = text.parse().map_err(|reason| error(&format!("{reason}")))?;
        let parts = uri.into_parts();
        let authority = parts.authority.ok_or_else(|| error("no host"))?;
        if authority.host().is_empty() {
            return Err(error("no host"));
        }
        if authority.as_str().contains('@') {
            return Err(error("credentials; give them by -H 'Authorization: …'"));
        }
        let tls = parts.scheme == Some(Scheme::HTTPS);
        let default_port = match (transport, parts.scheme) {
            (Transport::Http, None) => return Err(error("no scheme")),
            (Transport::Http, Some(scheme)) if scheme == Scheme::HTTPS => Some(443),
            (Transport::Http, Some(scheme)) if scheme == Scheme::HTTP => Some(80),
            (Transport::Http, Some(_)) => return Err(error("unknown scheme")),
            (Transport::Tcp | Transport::Udp, Some(_)) => return Err(error("a scheme")),
            (Transport::Tcp | Transport::Udp, None) => None,
        };
        let port = authority.port_u16().or(default_port);
        Ok(Self {
            text: text.to_owned(),
            tls,
            port: port.ok_or_else(|| error("no port"))?,
            authority,
            path: parts
                .path_and_query
                .unwrap_or_else(|| PathAndQuery::from_static("/")),
        })
    }

    /// The host, without the brackets of an IPv6 address.
    pub(crate) fn host(&self) -> &str {
        self.authority.host().trim_matches(['[', ']'])
    }

    /// The addresses behind it.
    ///
    /// # Errors
    /// When the name has none.
    pub(crate) fn resolve(&self) -> Result<Vec<SocketAddr>, TargetError> {
        let failed = |source| TargetError::Resolve {
            host: self.host().to_owned(),
            source,
        };
        let found: Vec<_> = (self.host(), self.port)
            .to_socket_addrs()
            .map_err(failed)?
            .collect();
        if found.is_empty() {
            return Err(failed(io::Error::other("no address")));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_ports_and_paths_of_their_own_or_the_usual_ones() {
        for (text, tls, host, port, path) in [
            ("http://a", false, "a", 80, "/"),
            ("https://a/b?c=d", true, "a", 443, "/b?c=d"),
            ("http://a:8080/", false, "a", 8080, "/"),
            ("http://[::1]:81/x", false, "::1", 81, "/x"),
        ] {
            let target = Target::parse(text, Transport::Http).unwrap();
            let parts = (target.tls, target.host(), target.port, target.path.as_str());
            assert_eq!(parts, (tls, host, port, path), "{text}");
        }
        for text in ["10.0.0.1:7", "[fd00::1]:7", "echo.test:7"] {
            assert_eq!(Target::parse(text, Transport::Udp).unwrap().port, 7, "{text}");
        }
    }

    #[test]
    fn a_bad_url_names_its_fault_and_the_form() {
        for (text, transport, expected) in [
            ("localhost", Transport::Http, "no scheme"),
            ("ftp://a/", Transport::Http, "unknown scheme"),
            ("/x", Transport::Http, "no host"),
            ("http://a b/", Transport::Http, "bad URL \"http://a b/\""),
            ("http://u:p@a/", Transport::Http, "credentials"),
            ("a", Transport::Tcp, "no port; write it as HOST:PORT"),
            ("http://a:7", Transport::Tcp, "a scheme; write it as HOST:PORT"),
        ] {
            let error = Target::parse(text, transport).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
            assert!(error.contains("; write it as "), "{error}");
        }
    }
}
