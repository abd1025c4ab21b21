//! Who may do what: each socket has a role, and a request that changes something names its author.

use std::{sync::Arc, time::SystemTime};

use super::{context::Api, error::ApiError, requests::ErrorCode};
use crate::{
    author::{Author, Peer},
    events::{EventKind, NewEvent},
};
use axum::{
    extract::{FromRequestParts, Request, State},
    http::{Method, Uri, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};

/// Characters of a refused path that are reported.
const MAX_PATH: usize = 100;

/// What a socket is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Everything.
    Operate,
    /// Reading alone.
    Read,
}

/// The author of a change, or of a look that loads another program. Refused on a socket that only reads.
pub(super) struct Changer(pub(super) Option<Author>);

impl FromRequestParts<Arc<Api>> for Changer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        let peer = parts.extensions.get::<Peer>();
        match parts.extensions.get::<Role>() {
            Some(Role::Operate) => Ok(Self(peer.map(Peer::author))),
            Some(Role::Read) | None => Err(refuse(api, peer, &parts.method, &parts.uri)),
        }
    }
}

/// Lets requests through that the socket's role allows, with the role as an extension.
pub(super) async fn admit(
    State((role, api)): State<(Role, Arc<Api>)>,
    mut request: Request,
    next: Next,
) -> Response {
    // By the method of the request line alone: no header overrides it.
    if role == Role::Read && request.method() != Method::GET {
        let peer = request.extensions().get::<Peer>();
        return refuse(&api, peer, request.method(), request.uri()).into_response();
    }
    request.extensions_mut().insert(role);
    next.run(request).await
}

/// Refuses and reports a request that the socket does not allow.
fn refuse(api: &Api, peer: Option<&Peer>, method: &Method, uri: &Uri) -> ApiError {
    if let Some(others) = api.refusals.count() {
        let by = peer.map(Peer::author);
        let path: String = uri.path().chars().take(MAX_PATH).collect();
        let others = match others {
            0 => String::new(),
            others => format!(", and {others} others before"),
        };
        let message = format!("not allowed on the socket for reading: {method} {path}{others}");
        tracing::warn!(by = by.as_ref().map(tracing::field::display), "{message}");
        let event = NewEvent {
            kind: EventKind::Refused,
            service: None,
            backend: None,
            revision: api.control.view().desired.revision.0,
            message,
            by,
        };
        api.events.push(event, SystemTime::now());
    }
    let socket = api.settings.socket.display();
    ApiError::new(
        ErrorCode::Forbidden,
        format!("this socket is for reading alone: {method} is not allowed on it"),
        Some(format!(
            "use {socket} (--socket, LB_SOCKET), which is for root and the members of its group"
        )),
    )
}
