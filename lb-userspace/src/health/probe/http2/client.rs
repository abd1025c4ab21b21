//! Requests over HTTP/2 on a connection that is kept between checks.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::Request;

use super::session::{Answer, Session, Wanted};
use crate::health::{
    error::CheckError,
    probe::{
        FRESH_EVERY,
        connect::{Budget, Route},
        problem::ProbeError,
        stream::Dialer,
        tls::TlsClient,
    },
    settings::TlsCheck,
};

/// The name of HTTP/2 over TLS in the handshake (RFC 9113 section 3.2).
const ALPN: &str = "h2";

/// A connection between two checks.
struct Kept {
    /// Boxed: over a kilobyte, which checkers of every kind would have to have room for.
    session: Box<Session>,
    target: SocketAddr,
    /// Checks it has served.
    uses: u32,
}

/// Sends requests to the target checked last over one kept connection, for `fresh_every` checks at most. A request that
/// fails on a kept connection is sent once more on a new one, within the same time.
pub(in crate::health::probe) struct Http2Client {
    pub(in crate::health::probe) dialer: Dialer,
    pub(in crate::health::probe) fresh_every: u32,
    kept: Mutex<Option<Kept>>,
}

impl fmt::Debug for Http2Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2Client")
            .field("dialer", &self.dialer)
            .field("fresh_every", &self.fresh_every)
            .finish_non_exhaustive()
    }
}

impl Http2Client {
    /// A client for servers known as `host`.
    ///
    /// # Errors
    /// When the TLS settings make no handshake.
    pub(in crate::health::probe) fn new(
        tls: Option<&TlsCheck>,
        host: Option<&str>,
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
            fresh_every: FRESH_EVERY,
            kept: Mutex::new(None),
        })
    }

    /// One with the same settings and a connection of its own, for another target.
    pub(in crate::health::probe) fn sibling(&self) -> Self {
        Self {
            dialer: self.dialer.sibling(),
            fresh_every: self.fresh_every,
            kept: Mutex::new(None),
        }
    }

    /// Sends a request with a body, if any, and reads what is `wanted` of the answer.
    pub(in crate::health::probe) async fn ask(
        &self,
        budget: &mut Budget,
        request: &Request<()>,
        body: Option<&Bytes>,
        wanted: Wanted,
    ) -> Result<Answer, CheckError> {
        if let Some(kept) = self.take_kept(budget.target).await {
            kept.session.recheck(&self.dialer, budget.target)?;
            match self.exchange(budget, kept, request, body, wanted).await {
                Err(error) if gone_stale(&error) => {}
                result => return result,
            }
        }
        let stream = self.dialer.connect(budget).await?;
        let fresh = Kept {
            session: Box::new(Session::open(budget, stream).await?),
            target: budget.target,
            uses: 0,
        };
        self.exchange(budget, fresh, request, body, wanted).await
    }

    /// The kept connection, if it leads to `target` and may be used again.
    async fn take_kept(&self, target: SocketAddr) -> Option<Kept> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let usable = kept.target == target && kept.uses < self.fresh_every && kept.session.is_ready().await;
        usable.then_some(kept)
    }

    async fn exchange(
        &self,
        budget: &mut Budget,
        mut kept: Kept,
        request: &Request<()>,
        body: Option<&Bytes>,
        wanted: Wanted,
    ) -> Result<Answer, CheckError> {
        let answer = kept
            .session
            .ask(budget, request.clone(), body.cloned(), wanted)
            .await?;
        if answer.whole {
            kept.uses += 1;
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        }
        Ok(answer)
    }
}

/// Whether a failure on a kept connection may only mean that the server had given it up, by closing it or by GOAWAY.
fn gone_stale(error: &CheckError) -> bool {
    matches!(
        error,
        CheckError::Reset { .. }
            | CheckError::Closed { .. }
            | CheckError::Connection { .. }
            | CheckError::Http2 { .. }
    )
}
