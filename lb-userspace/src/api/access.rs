//! Who may do what: each socket has a role, names of certificates have roles, and a request that changes something names its author.

use std::{sync::Arc, time::SystemTime};

use super::{
    context::Api,
    error::{ApiError, Failure},
    refusals::others_text,
    requests::{ErrorCode, ErrorDetail},
};
use crate::{
    author::{Author, Peer},
    events::{EventKind, NewEvent},
};
use axum::{
    extract::{FromRequestParts, Request, State},
    http::{Method, StatusCode, Uri, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};

/// Characters of a refused path that are reported.
const MAX_PATH: usize = 100;

/// What a client may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// Reading alone.
    Read,
    /// Also drain, disable, enable and weigh backends, report health and flush flows.
    Operate,
    /// Everything.
    Admin,
}

/// How a listener finds out what its clients may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// All of them the same.
    All(Role),
    /// By the names of their certificates.
    ByName,
}

/// The author of a change, or of a look that loads another program. Refused to all but admins.
pub(super) struct Changer(pub(super) Option<Author>);

/// The author of something that operators may do, and the author's role.
pub(super) struct Operator(pub(super) Option<Author>, pub(super) Role);

impl FromRequestParts<Arc<Api>> for Changer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        let peer = parts.extensions.get::<Peer>();
        match parts.extensions.get::<Role>() {
            Some(Role::Admin) => Ok(Self(peer.map(Peer::author))),
            Some(Role::Read | Role::Operate) | None => Err(refuse(api, peer, &parts.method, &parts.uri)),
        }
    }
}

impl FromRequestParts<Arc<Api>> for Operator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        let peer = parts.extensions.get::<Peer>();
        match parts.extensions.get::<Role>() {
            Some(role @ (Role::Admin | Role::Operate)) => Ok(Self(peer.map(Peer::author), *role)),
            Some(Role::Read) | None => Err(refuse(api, peer, &parts.method, &parts.uri)),
        }
    }
}

/// Lets requests through that the client's role allows, with the role as an extension.
pub(super) async fn admit(
    State((access, api)): State<(Access, Arc<Api>)>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<Peer>();
    let role = match access {
        Access::All(role) => Some(role),
        Access::ByName => peer.and_then(|peer| role_of(&api, peer)),
    };
    let Some(role) = role else {
        return refuse(&api, peer, request.method(), request.uri()).into_response();
    };
    // By the method of the request line alone: no header overrides it.
    if role == Role::Read && request.method() != Method::GET {
        return refuse(&api, peer, request.method(), request.uri()).into_response();
    }
    request.extensions_mut().insert(role);
    let asked = Asked::of(&request);
    let answer = next.run(request).await;
    if let (Some(asked), Some(Failure(error))) = (asked, answer.extensions().get()) {
        asked.report(&api, answer.status(), error);
    }
    answer
}

/// A request that would change something, or reports about a backend.
struct Asked {
    method: Method,
    path: String,
    peer: Option<Peer>,
}

impl Asked {
    /// `None` for a request that only reads. A refused reload is reported where it is made.
    fn of(request: &Request) -> Option<Self> {
        let path = request.uri().path();
        let is_trial = request
            .uri()
            .query()
            .is_some_and(|query| query.contains("dry_run=true"));
        let changes = request.method() != Method::GET && path != "/v1/reload" && !is_trial;
        changes.then(|| Self {
            method: request.method().clone(),
            path: path.chars().take(MAX_PATH).collect(),
            peer: request.extensions().get().cloned(),
        })
    }

    /// Reports that it was refused: who asked, for what, and why not.
    fn report(&self, api: &Api, status: StatusCode, error: &ErrorDetail) {
        let Self { method, path, peer } = self;
        let is_report = path.ends_with("/report");
        let is_refusal = match status {
            StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY => true,
            // It may be meant for a backend that has another name here.
            StatusCode::NOT_FOUND => is_report,
            _ => false,
        };
        if !is_refusal {
            return;
        }
        let details = error.details.first().map(|first| format!(": {}", first.message));
        let what = if is_report { "report" } else { "change" };
        let mut message = format!(
            "{what} refused: {}{} ({method} {path})",
            error.message,
            details.unwrap_or_default()
        );
        let by = peer.as_ref().map(Peer::author);
        let user = by.as_ref().map_or("", |by| by.user.as_str());
        let Some(others) = api.refusals.changes.count(&format!("{user} {message}")) else {
            return;
        };
        message.push_str(&others_text(others));
        tracing::warn!(by = by.as_ref().map(tracing::field::display), "{message}");
        let mut parts = path.split('/').skip_while(|part| *part != "services").skip(1);
        let service = parts.next().map(str::to_owned);
        let event = NewEvent {
            kind: EventKind::Refused,
            backend: service.as_ref().and(parts.nth(1)).map(str::to_owned),
            service,
            revision: api.control.view().desired.revision.0,
            message,
            by,
        };
        api.events.push(event, SystemTime::now());
    }
}

/// The highest role that any name of a client's certificate has.
fn role_of(api: &Api, peer: &Peer) -> Option<Role> {
    let Peer::Client { names, .. } = peer else {
        return None;
    };
    let settings = &api.settings;
    let lists = [
        (Role::Admin, &settings.api_admin),
        (Role::Operate, &settings.api_operate),
        (Role::Read, &settings.api_read),
    ];
    let has = |(_, list): &(Role, &Vec<String>)| names.iter().any(|name| list.contains(name));
    lists.into_iter().find(has).map(|(role, _)| role)
}

/// Refuses and reports a request that the client's role does not allow.
pub(super) fn refuse(api: &Api, peer: Option<&Peer>, method: &Method, uri: &Uri) -> ApiError {
    let by = peer.map(Peer::author);
    let path: String = uri.path().chars().take(MAX_PATH).collect();
    if let Some(others) = api.refusals.requests.count("") {
        let others = others_text(others);
        let place = match peer {
            Some(Peer::Client { .. }) => "not allowed with this certificate",
            Some(Peer::Process(_)) | None => "not allowed on the socket for reading",
        };
        let message = format!("{place}: {method} {path}{others}");
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
    match peer {
        Some(peer @ Peer::Client { names, .. }) => {
            let names = names.join(", ");
            let (message, list) = match role_of(api, peer) {
                None => (
                    format!("no role for a certificate with the names {names}"),
                    "api_read, api_operate or api_admin",
                ),
                Some(role) => (
                    format!(
                        "{method} {path} is not allowed with the role {} of {names}",
                        role.name()
                    ),
                    "a list of more rights",
                ),
            };
            let hint = format!("add a name to {list} in [lb] of the configuration file");
            ApiError::new(ErrorCode::Forbidden, message, Some(hint))
        }
        Some(Peer::Process(_)) | None => {
            let socket = api.settings.socket.display();
            ApiError::new(
                ErrorCode::Forbidden,
                format!("this socket is for reading alone: {method} is not allowed on it"),
                Some(format!(
                    "use {socket} (--socket, LB_SOCKET), which is for root and the members of its group"
                )),
            )
        }
    }
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }
}
