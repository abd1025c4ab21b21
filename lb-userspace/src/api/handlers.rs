//! One function for each path and method.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Extension, Json,
    extract::{State, rejection::JsonRejection},
    http::{Method, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use hyper::body::Bytes;

use super::{
    access::{Changer, Operator, Role},
    bodies::Held,
    error::ApiError,
    query::{Params, Path},
    requests::{ApplyRequest, Changed, ErrorBody, ErrorCode, Expected, Moved, RemoveQuery},
    stream,
    types::{self, Status},
};
use crate::{
    api::{context::Api, snapshot::StatusSnapshot},
    author::Author,
    config::{
        self, Source,
        change::{self, Request},
        fields::Keys,
        lb::needs_restart,
        values,
    },
    config_file::FileError,
    control::{Change, ControlError, Outcome},
    state::{
        backend::Admin,
        desired::Revision,
        names::{BackendName, ServiceName},
        removals::MayRemove,
        stored::FileOrder,
        words::Word as _,
    },
};

type Shared = State<Arc<Api>>;
type Answer<T> = Result<Json<T>, ApiError>;
type JsonBody<T> = Result<Json<T>, JsonRejection>;

/// The daemon, its interfaces, services and backends, and its problems.
#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = Status)))]
pub(super) async fn status(State(api): Shared) -> Result<Response, ApiError> {
    let snapshot = StatusSnapshot::take(&api).await?;
    let status = snapshot.status(&api);
    stream::status(snapshot, status).map_err(|error| {
        let what = format!("the answer cannot be written: {error}");
        ApiError::new(ErrorCode::Unavailable, what, None)
    })
}

/// Whether the desired state is programmed: 200 or 503.
#[utoipa::path(get, path = "/v1/health", responses(
    (status = 200, body = types::Readiness), (status = 503, body = ErrorBody)))]
pub(super) async fn health(State(api): Shared) -> Answer<types::Readiness> {
    let view = api.control.view();
    match view.not_ready(&api.interfaces.borrow()) {
        None => Ok(Json(types::Readiness {
            ready: true,
            revision: view.desired.revision.0,
        })),
        Some(why) => Err(ApiError::new(
            ErrorCode::Unavailable,
            format!("not ready: {why}"),
            None,
        )),
    }
}

/// The desired state as a configuration file.
#[utoipa::path(get, path = "/v1/export", responses((status = 200, body = String, content_type = "application/toml")))]
pub(super) async fn export(State(api): Shared) -> Response {
    (
        [(CONTENT_TYPE, "application/toml")],
        config::export(&api.control.view().desired, Keys::Hidden),
    )
        .into_response()
}

/// Makes the desired state equal to a configuration file.
#[utoipa::path(post, path = "/v1/apply", params(Expected), request_body = ApplyRequest, responses(
    (status = 200, body = Changed), (status = 409, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn apply(
    State(api): Shared,
    Changer(by): Changer,
    Params(query): Params<Expected>,
    held: Option<Extension<Held>>,
    body: Bytes,
) -> Answer<Changed> {
    let expected = query.revision;
    let known = Arc::clone(&api.control.view().desired);
    let parsed = api.parser.run(body.len(), move || {
        let _held = held;
        let Json(ApplyRequest {
            file,
            toml,
            more,
            dry_run,
            allow_empty,
            allow_removals,
        }) = Json::from_bytes(&body)?;
        drop(body);
        let mut sources = vec![Source {
            file: &file,
            text: &toml,
        }];
        sources.extend(more.iter().map(|more| Source {
            file: &more.file,
            text: &more.toml,
        }));
        let config = config::parse_all(&sources, &known).map_err(FileError::content);
        let config = config.map_err(|error| ApiError::from(error).of_trial(dry_run))?;
        let may = MayRemove {
            all: allow_empty || allow_removals,
            most: allow_removals,
        };
        Ok::<_, ApiError>((config, dry_run, may))
    });
    let (config, dry_run, may) = parsed.await??;
    let mut warnings = needs_restart(&api.settings, &config.daemon);
    let change = Change::File(Arc::new(config), FileOrder::Apply, may);
    let control = api.control.by(by);
    let outcome = control.change(change, revision(expected), dry_run).await;
    let outcome = outcome.map_err(|error| ApiError::from(error).of_trial(dry_run))?;
    let changed = changed(&api, outcome, dry_run);
    warnings.extend(changed.warnings);
    Ok(Json(Changed { warnings, ..changed }))
}

/// All services.
#[utoipa::path(get, path = "/v1/services", responses((status = 200, body = [types::Service])))]
pub(super) async fn list_services(State(api): Shared) -> Result<Response, ApiError> {
    Ok(stream::services(StatusSnapshot::take(&api).await?))
}

/// Adds a service. Adding one that exists with the same settings succeeds.
#[utoipa::path(post, path = "/v1/services", params(Expected), request_body(content = ref("#/components/schemas/ServiceSpec")), responses(
    (status = 200, body = Changed), (status = 409, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn add_service(
    State(api): Shared,
    Changer(by): Changer,
    Params(query): Params<Expected>,
    body: JsonBody<Request>,
) -> Answer<Changed> {
    make(&api, by, Change::AddService(body?.0), query.revision).await
}

/// One service.
#[utoipa::path(get, path = "/v1/services/{service}", params(("service" = String, Path)), responses(
    (status = 200, body = types::Service), (status = 404, body = ErrorBody)))]
pub(super) async fn show_service(State(api): Shared, Path(name): Path<String>) -> Answer<types::Service> {
    let name: ServiceName = values::name(&name)?;
    Ok(Json(StatusSnapshot::take(&api).await?.service(&name)?))
}

/// Changes a service; absent fields stay.
#[utoipa::path(patch, path = "/v1/services/{service}", params(("service" = String, Path), Expected),
    request_body(content = ref("#/components/schemas/ServicePatch")), responses((status = 200, body = Changed), (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn set_service(
    State(api): Shared,
    Changer(by): Changer,
    Path(name): Path<String>,
    Params(query): Params<Expected>,
    body: JsonBody<Request>,
) -> Answer<Changed> {
    let request = Change::SetService(values::name(&name)?, body?.0);
    make(&api, by, request, query.revision).await
}

/// Removes a service and its backends.
#[utoipa::path(delete, path = "/v1/services/{service}", params(("service" = String, Path), Expected), responses(
    (status = 200, body = Changed), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(super) async fn remove_service(
    State(api): Shared,
    Changer(by): Changer,
    Path(name): Path<String>,
    Params(query): Params<Expected>,
) -> Answer<Changed> {
    let request = Change::RemoveService(values::name(&name)?);
    make(&api, by, request, query.revision).await
}

/// The backends of a service.
#[utoipa::path(get, path = "/v1/services/{service}/backends", params(("service" = String, Path)), responses(
    (status = 200, body = [types::Backend]), (status = 404, body = ErrorBody)))]
pub(super) async fn list_backends(
    State(api): Shared,
    Path(name): Path<String>,
) -> Answer<Vec<types::Backend>> {
    let name: ServiceName = values::name(&name)?;
    Ok(Json(StatusSnapshot::take(&api).await?.service(&name)?.backends))
}

/// Adds a backend. Adding one that exists with the same settings succeeds.
#[utoipa::path(post, path = "/v1/services/{service}/backends", params(("service" = String, Path), Expected),
    request_body(content = ref("#/components/schemas/BackendSpec")), responses((status = 200, body = Changed), (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn add_backend(
    State(api): Shared,
    Changer(by): Changer,
    Path(service): Path<String>,
    Params(query): Params<Expected>,
    body: JsonBody<Request>,
) -> Answer<Changed> {
    let backend = change::backend(&body?.0).map_err(ControlError::from)?;
    let request = Change::AddBackend(values::name(&service)?, backend);
    make(&api, by, request, query.revision).await
}

/// One backend.
#[utoipa::path(get, path = "/v1/services/{service}/backends/{backend}",
    params(("service" = String, Path), ("backend" = String, Path)), responses(
    (status = 200, body = types::Backend), (status = 404, body = ErrorBody)))]
pub(super) async fn show_backend(
    State(api): Shared,
    Path((service, name)): Path<(String, String)>,
) -> Answer<types::Backend> {
    let (service, name): (ServiceName, BackendName) = (values::name(&service)?, values::name(&name)?);
    Ok(Json(StatusSnapshot::take(&api).await?.backend(&service, &name)?))
}

/// Changes a backend: its values, or `admin` to drain, disable or enable it. Absent fields stay.
#[utoipa::path(patch, path = "/v1/services/{service}/backends/{backend}",
    params(("service" = String, Path), ("backend" = String, Path), Expected), request_body(content = ref("#/components/schemas/BackendPatch")), responses(
    (status = 200, body = Changed), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
    (status = 422, body = ErrorBody)))]
pub(super) async fn set_backend(
    State(api): Shared,
    Operator(by, role): Operator,
    Path((service, name)): Path<(String, String)>,
    Params(query): Params<Expected>,
    body: JsonBody<Request>,
) -> Answer<Changed> {
    let mut request = body?.0;
    if role != Role::Admin {
        operators_keys(&request)?;
    }
    if let Some(deadline) = request.remove(DEADLINE) {
        request.insert("drain_until", drain_until(&request, &deadline)?);
    }
    let request = Change::SetBackend(values::name(&service)?, values::name(&name)?, request);
    make(&api, by, request, query.revision).await
}

/// Removes a backend. It takes no new flows from then on; without `now` it keeps the ones it has until they end, or
/// until the time `transition` of the settings has passed.
#[utoipa::path(delete, path = "/v1/services/{service}/backends/{backend}",
    params(("service" = String, Path), ("backend" = String, Path), RemoveQuery), responses(
    (status = 200, body = Changed), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(super) async fn remove_backend(
    State(api): Shared,
    Changer(by): Changer,
    Path((service, name)): Path<(String, String)>,
    Params(query): Params<RemoveQuery>,
) -> Answer<Changed> {
    let RemoveQuery { revision, now } = query;
    let request = Change::RemoveBackend {
        service: values::name(&service)?,
        backend: values::name(&name)?,
        now,
    };
    make(&api, by, request, revision).await
}

/// Any other path.
pub(super) fn no_such_path() -> Response {
    let hint = "see /openapi.json".to_owned();
    ApiError::new(ErrorCode::NotFound, "no such path in the API", Some(hint)).into_response()
}

/// A method that a path does not have.
pub(super) fn no_such_method(method: &Method) -> Response {
    let what = format!("the path has no method {method}");
    let hint = "see the header `allow`, and /openapi.json".to_owned();
    let error = ApiError::new(ErrorCode::Invalid, what, Some(hint));
    (StatusCode::METHOD_NOT_ALLOWED, Json(error.into_body())).into_response()
}

/// Makes a change. The control task finishes it also when the caller hangs up.
async fn make(api: &Api, by: Option<Author>, change: Change, expected: Option<u64>) -> Answer<Changed> {
    let control = api.control.by(by);
    let outcome = control.change(change, revision(expected), false).await?;
    Ok(Json(changed(api, outcome, false)))
}

pub(super) fn revision(number: Option<u64>) -> Option<Revision> {
    number.map(Revision)
}

pub(super) fn changed(api: &Api, outcome: Outcome, dry_run: bool) -> Changed {
    let Outcome {
        revision,
        changed,
        diff,
        services,
        moved,
        replaced,
        unconfirmed,
    } = outcome;
    let unsaved = api.store.unsaved().map(|unsaved| unsaved.message);
    let unconfirmed =
        unconfirmed.map(|what| format!("refused unless it is confirmed (`--yes`): it would remove {what}"));
    Changed {
        revision: revision.0,
        changed,
        dry_run,
        diff,
        services: services.iter().map(ToString::to_string).collect(),
        moved: moved
            .into_iter()
            .map(|moved| Moved {
                service: moved.service.to_string(),
                removed: moved.removed,
                share: moved.share,
                flows: moved.flows,
                uncounted: moved.uncounted,
            })
            .collect(),
        warnings: unsaved.into_iter().chain(unconfirmed).collect(),
        replaced,
    }
}

/// Keys of a backend that operators may set.
const OPERATORS_KEYS: [&str; 4] = ["admin", "weight", "drain_until", DEADLINE];

/// Refuses keys that only admins may set.
fn operators_keys(request: &Request) -> Result<(), ApiError> {
    let mut keys = request.keys();
    let other = keys.find(|key| !OPERATORS_KEYS.contains(key));
    other.map_or(Ok(()), |key| {
        let message = format!("{key} of a backend is not allowed with the role operate");
        let hint = format!("operators may set {}", OPERATORS_KEYS.join(", "));
        Err(ApiError::new(ErrorCode::Forbidden, message, Some(hint)))
    })
}

/// Longest time that a drain may be given.
const LONGEST_DRAIN: Duration = Duration::from_secs(365 * 24 * 3600);

/// The key of a request that ends a drain after some time.
pub(super) const DEADLINE: &str = "deadline_ms";

/// When the drain of a request ends that may take `deadline` from now, as the file has it.
fn drain_until(request: &Request, deadline: &toml::Value) -> Result<String, ApiError> {
    let invalid = |what: &str| ApiError::new(ErrorCode::Invalid, what, None);
    if request.get("admin").and_then(toml::Value::as_str) != Some(Admin::Draining.word()) {
        return Err(invalid("only a drain has a deadline"));
    }
    let millis = deadline
        .as_integer()
        .and_then(|millis| u64::try_from(millis).ok());
    let millis = millis.ok_or_else(|| invalid("deadline_ms: expected a number of milliseconds"))?;
    let time = Some(Duration::from_millis(millis)).filter(|time| *time <= LONGEST_DRAIN);
    let until = time.and_then(|time| values::whole_millis(SystemTime::now() + time));
    until
        .map(values::rfc3339)
        .ok_or_else(|| invalid("a drain's deadline is 365 days away at most"))
}
