//! Reports about backends, for checks of kind push.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
};
use tokio::{task, time::Instant};

use super::{
    access::Operator,
    error::ApiError,
    query::Path,
    requests::{ErrorBody, ErrorCode, ReportSpec, ReportTaken, Reported},
};
use crate::{
    api::context::Api,
    config::values,
    health::{MAX_INTERVAL, MIN_INTERVAL, Report, millis, settings::CheckKind},
    state::{
        names::{BackendName, ServiceName},
        store::Record,
    },
};

/// Characters of a report's detail that are kept.
const MAX_DETAIL: usize = 200;

/// Reports how a backend is. The service's check must be of kind push. A report holds until the next one or until its
/// time is over; then the backend is down until it reports again.
#[utoipa::path(post, path = "/v1/services/{service}/backends/{backend}/report",
    params(("service" = String, Path), ("backend" = String, Path)), request_body = ReportSpec, responses(
    (status = 200, body = ReportTaken), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn report(
    State(api): State<Arc<Api>>,
    _: Operator,
    Path((service, name)): Path<(String, String)>,
    body: Result<Json<ReportSpec>, JsonRejection>,
) -> Result<Json<ReportTaken>, ApiError> {
    let ReportSpec {
        health,
        ttl_ms,
        detail,
    } = body?.0;
    let (service, name): (ServiceName, BackendName) = (values::name(&service)?, values::name(&name)?);
    let view = api.control.view();
    let backend = view.desired.backend(&service, &name)?;
    let CheckKind::Push(push) = &view.desired.service(&service)?.health.kind else {
        return Err(ApiError::new(
            ErrorCode::Invalid,
            format!("service {service} does not wait for reports"),
            Some(format!("lb service set {service} --check push")),
        ));
    };
    let ttl = ttl_ms.map_or(push.ttl, Duration::from_millis);
    if !(MIN_INTERVAL..=MAX_INTERVAL).contains(&ttl) {
        let what = "a report holds for 1 ms to 1 day";
        return Err(ApiError::new(ErrorCode::Invalid, what, None));
    }
    let says = match health {
        Reported::Up => Ok(()),
        Reported::Down => Err(words(detail.as_deref()).into()),
    };
    // The report may not be repeated before its expiry, so a restart needs it.
    let record = Record::Report {
        target: backend.address,
        down: says.as_ref().err().map(|why: &Arc<str>| why.to_string()),
        at: millis(SystemTime::now()),
        ttl: millis_of(ttl),
    };
    let store = Arc::clone(&api.store);
    task::spawn_blocking(move || store.remember(&[record])).await?;
    let report = Report {
        says,
        at: Instant::now(),
        ttl,
    };
    api.checks.report(backend.address, report);
    Ok(Json(ReportTaken {
        holds_ms: millis_of(ttl),
    }))
}

fn millis_of(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The detail in one line, bounded: it is shown in tables and logs.
fn words(detail: Option<&str>) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let detail = detail.map(str::trim).filter(|detail| !detail.is_empty());
    let detail = detail.unwrap_or("no reason given");
    detail.chars().take(MAX_DETAIL).map(printable).collect()
}
