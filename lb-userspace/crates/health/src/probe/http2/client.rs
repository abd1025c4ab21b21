//! Requests over HTTP/2 on a connection that is kept between checks.

use std::{fmt, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::Request;

use super::session::{Answer, Session, Wanted};
use crate::{
    error::CheckError,
    probe::{
        connect::Budget,
        keeping::{Exchange, Keeper},
        problem::ProbeError,
        route::Route,
        stream::Dialer,
        tls::TlsClient,
    },
    settings::TlsCheck,
};

/// The name of HTTP/2 over TLS in the handshake (RFC 9113 section 3.2).
const ALPN: &str = "h2";

/// Sends requests to the target checked last over one kept connection, as [`Keeper`] has it.
pub(in crate::probe) struct Http2Client {
    pub(in crate::probe) dialer: Dialer,
    /// Boxed: a session has over a kilobyte, which checkers of every kind would have to have room for.
    pub(in crate::probe) keeper: Keeper<Box<Session>>,
}

/// A request, and how it is sent.
struct Requests<'a> {
    dialer: &'a Dialer,
    request: &'a Request<()>,
    body: Option<&'a Bytes>,
    wanted: Wanted,
    judge: &'a Judge<'a>,
}

/// Decides whether an answer is the expected one.
pub(in crate::probe) type Judge<'a> = dyn Fn(&Answer) -> Result<(), CheckError> + Sync + 'a;

impl Exchange for Requests<'_> {
    type Link = Box<Session>;
    type Answer = ();

    async fn connect(&self, budget: &mut Budget) -> Result<Box<Session>, CheckError> {
        let stream = self.dialer.connect(budget).await?;
        Ok(Box::new(Session::open(budget, stream).await?))
    }

    async fn ask(
        &self,
        budget: &mut Budget,
        mut link: Box<Session>,
        _: bool,
    ) -> Result<((), Option<Box<Session>>), CheckError> {
        let (request, body) = (self.request.clone(), self.body.cloned());
        let answer = link.ask(budget, request, body, self.wanted).await?;
        (self.judge)(&answer)?;
        Ok(((), answer.whole.then_some(link)))
    }

    async fn is_ready(&self, link: &mut Box<Session>) -> bool {
        link.is_ready().await
    }

    fn recheck(&self, target: SocketAddr, link: &Box<Session>) -> Result<(), CheckError> {
        link.recheck(self.dialer, target)
    }
}

impl fmt::Debug for Http2Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2Client")
            .field("dialer", &self.dialer)
            .field("fresh_every", &self.keeper.fresh_every)
            .finish_non_exhaustive()
    }
}

impl Http2Client {
    /// A client for servers with the name `host`, which keeps connections if wanted.
    ///
    /// # Errors
    /// When the TLS settings are invalid.
    pub(in crate::probe) fn new(
        tls: Option<&TlsCheck>,
        host: Option<&str>,
        keep_alive: bool,
    ) -> Result<Self, ProbeError> {
        let tls = tls.map(|tls| TlsCheck {
            alpn: vec![ALPN.to_owned()],
            ..tls.clone()
        });
        let tls = match tls {
            Some(tls) => Some(Arc::new(TlsClient::new(&tls, host)?)),
            None => None,
        };
        Ok(Self {
            dialer: Dialer {
                route: Route::default(),
                tls,
            },
            keeper: Keeper::new(keep_alive),
        })
    }

    /// One with the same settings and a connection of its own, for another target.
    pub(in crate::probe) fn sibling(&self) -> Self {
        Self {
            dialer: self.dialer.sibling(),
            keeper: self.keeper.sibling(),
        }
    }

    /// Sends a request with a body, if any, and reads the `wanted` part of the answer, which `judge` must accept.
    pub(in crate::probe) async fn ask(
        &self,
        budget: &mut Budget,
        request: &Request<()>,
        body: Option<&Bytes>,
        wanted: Wanted,
        judge: &Judge<'_>,
    ) -> Result<(), CheckError> {
        let requests = Requests {
            dialer: &self.dialer,
            request,
            body,
            wanted,
            judge,
        };
        self.keeper.ask(&requests, self.dialer.route, budget).await
    }
}
