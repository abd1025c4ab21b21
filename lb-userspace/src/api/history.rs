//! `/v1/history` and `/v1/rollback`: earlier states, and the way back to one.

use std::sync::Arc;

use axum::{Json, extract::State, extract::rejection::JsonRejection};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    access::Changer,
    error::ApiError,
    handlers::{changed, revision},
    query::Params,
    requests::{Changed, ErrorBody, ErrorCode, Expected},
};
use crate::{
    api::context::Api,
    author::Author,
    chain::chain,
    config::diff,
    control::Change,
    events::rfc3339,
    state::{
        desired::{Desired, Revision},
        removals::MayRemove,
        store::{KeptState, Store, StoreError},
        stored::{Stored, same_content},
    },
};

/// Revisions that are listed without a wish.
const LISTED: usize = 20;
/// Differences that are listed of each of several revisions; more are counted.
const FEW_LINES: usize = 20;
/// Differences that are listed of a single revision.
const MANY_LINES: usize = 1_000;

/// Which revisions are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct HistoryQuery {
    /// How many, the latest first; left out: 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// This one alone, with up to 1,000 differences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

/// A revision of the desired state that is kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct PastRevision {
    /// Its number.
    pub revision: u64,
    /// When it was saved, in RFC 3339, UTC.
    pub at: String,
    /// Who made it, if a command did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Author>,
    /// Whether it is in force.
    pub present: bool,
    /// Its differences from the revision kept before it, one line each; absent where that one is not kept any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<Vec<String>>,
    /// Further differences that are not listed.
    pub more: usize,
}

/// The state to go back to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// Its revision; left out: the one before the revision in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Only show what would change.
    #[serde(default)]
    pub dry_run: bool,
    /// Go back although no service is left; without it, that is refused.
    #[serde(default)]
    pub allow_empty: bool,
    /// Remove every service or more than half of the backends, of all or of one service; without it, that is refused.
    #[serde(default)]
    pub allow_removals: bool,
}

/// Earlier states of the desired state, the latest first, with what each changed.
#[utoipa::path(get, path = "/v1/history", params(HistoryQuery), responses(
    (status = 200, body = Vec<PastRevision>), (status = 404, body = ErrorBody)))]
pub(super) async fn history(
    State(api): State<Arc<Api>>,
    Params(query): Params<HistoryQuery>,
) -> Result<Json<Vec<PastRevision>>, ApiError> {
    let kept = kept(&api)?;
    let (begin, count, lines) = match query.revision {
        Some(wanted) => {
            let at = kept.iter().position(|kept| kept.revision.0 == wanted);
            (at.ok_or_else(|| not_kept(Revision(wanted)))?, 1, MANY_LINES)
        }
        None => (0, query.limit.unwrap_or(LISTED), FEW_LINES),
    };
    let present = api.control.view().desired.revision;
    let kept: Vec<KeptState> = kept
        .into_iter()
        .skip(begin)
        .take(count.saturating_add(1))
        .collect();
    let store = Arc::clone(&api.store);
    let described = api.parser.run(largest(&kept), move || {
        describe(&*store, &kept, count, lines, present)
    });
    Ok(Json(described.await??))
}

/// Brings back the services and settings of an earlier revision, as a new one. The file and the differences from it stay.
#[utoipa::path(post, path = "/v1/rollback", params(Expected), request_body = RollbackRequest, responses(
    (status = 200, body = Changed), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(super) async fn rollback(
    State(api): State<Arc<Api>>,
    Changer(by): Changer,
    Params(query): Params<Expected>,
    body: Result<Json<RollbackRequest>, JsonRejection>,
) -> Result<Json<Changed>, ApiError> {
    let Json(request) = body?;
    let kept = kept(&api)?;
    let view = api.control.view();
    let present = view.desired.revision;
    let wanted = match request.revision {
        Some(revision) => Revision(revision),
        None => kept
            .iter()
            .map(|kept| kept.revision)
            .find(|kept| *kept < present)
            .ok_or_else(|| ApiError::new(ErrorCode::NotFound, "no earlier revision is kept", None))?,
    };
    let store = Arc::clone(&api.store);
    let of_wanted: Vec<_> = kept.into_iter().filter(|kept| kept.revision == wanted).collect();
    let past = api
        .parser
        .run(largest(&of_wanted), move || past(&*store, wanted))
        .await??;
    // Without a wish of the caller's, the state must not have moved on since the look above.
    let expected = revision(query.revision).or(request.revision.is_none().then_some(present));
    let may = MayRemove {
        all: request.allow_empty || request.allow_removals,
        most: request.allow_removals,
    };
    let differs = !same_content(&past.desired, &view.desired);
    let change = Change::Rollback(past.desired, may);
    let outcome = api
        .control
        .by(by)
        .change(change, expected, request.dry_run)
        .await
        .map_err(|error| ApiError::from(error).of_trial(request.dry_run))?;
    let mut answer = changed(&api, outcome, request.dry_run);
    if differs && !answer.changed {
        answer.warnings.push(format!(
            "revision {} differs only in addresses that host names gave, which stay as they are now; `lb history` lists others",
            wanted.0
        ));
    }
    Ok(Json(answer))
}

/// The states that are kept, up to the one in force. Those above it belong to changes that failed.
fn kept(api: &Api) -> Result<Vec<KeptState>, ApiError> {
    let present = api.control.view().desired.revision;
    let kept = api.store.history().map_err(|error| {
        let what = format!("earlier states cannot be listed: {error}");
        ApiError::new(
            ErrorCode::Failed,
            what,
            Some("look at the state directory".to_owned()),
        )
    })?;
    Ok(kept.into_iter().filter(|kept| kept.revision <= present).collect())
}

/// Bytes of the largest file.
fn largest(kept: &[KeptState]) -> usize {
    let largest = kept.iter().map(|kept| kept.bytes).max().unwrap_or_default();
    usize::try_from(largest).unwrap_or(usize::MAX)
}

/// The first `count` of `kept`, each compared with the next.
fn describe(
    store: &dyn Store,
    kept: &[KeptState],
    count: usize,
    lines: usize,
    present: Revision,
) -> Result<Vec<PastRevision>, ApiError> {
    let mut described = Vec::new();
    let mut after: Option<(KeptState, Stored)> = None;
    let mut add = |of: KeptState, by: Option<Author>, differences: Option<diff::Diff>| {
        let text = differences.map(|differences| differences.to_string());
        let shown = text
            .as_ref()
            .map(|text| text.lines().take(lines).map(str::to_owned).collect::<Vec<_>>());
        described.push(PastRevision {
            revision: of.revision.0,
            at: rfc3339(of.at),
            by,
            present: of.revision == present,
            more: text.map_or(0, |text| text.lines().count().saturating_sub(lines)),
            diff: shown,
        });
    };
    for of in kept {
        let state = past(store, of.revision)?;
        if let Some((later, later_state)) = after.replace((*of, state.clone())) {
            let differences = diff::diff(&state.desired, &later_state.desired);
            add(later, later_state.by, Some(differences));
        }
    }
    if let Some((oldest, state)) = after.filter(|_| kept.len() <= count) {
        // A daemon begins with nothing, in revision 0.
        let is_first = oldest.revision <= Revision(1);
        let differences = is_first.then(|| diff::diff(&Desired::default(), &state.desired));
        add(oldest, state.by, differences);
    }
    Ok(described)
}

fn past(store: &dyn Store, wanted: Revision) -> Result<Stored, ApiError> {
    match store.past(wanted) {
        Ok(past) => past.ok_or_else(|| not_kept(wanted)),
        Err(error) => Err(unusable(&error)),
    }
}

fn not_kept(Revision(wanted): Revision) -> ApiError {
    let what = format!("revision {wanted} is not kept");
    ApiError::new(
        ErrorCode::NotFound,
        what,
        Some("`lb history` lists those that are".to_owned()),
    )
}

fn unusable(error: &StoreError) -> ApiError {
    ApiError::new(
        ErrorCode::Failed,
        chain(error),
        Some("choose another revision: `lb history`".to_owned()),
    )
}
