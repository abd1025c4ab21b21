//! `/v1/reload`, and SIGHUP: the configuration file is read again.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{Json, extract::State};
use tokio::time;

use super::{
    access::Changer,
    context::Api,
    error::ApiError,
    handlers,
    query::Params,
    requests::{Changed, ErrorBody, ErrorCode, ReloadQuery},
};
use crate::{
    author::Author,
    chain::chain,
    config_file::{self, FileError, with_details},
    control::Change,
    state::{removals::MayRemove, stored::FileOrder},
};

/// Longest time that a request waits until a reloaded state is programmed. A change that cannot be programmed is refused at
/// once; this is for a state that could not be programmed before.
const PROGRAM_PATIENCE: Duration = Duration::from_secs(10);

/// Reads the configuration file again and makes it the desired state, as SIGHUP does. Answers when the state is programmed. A file
/// that cannot be used changes nothing.
#[utoipa::path(post, path = "/v1/reload", params(ReloadQuery), responses(
    (status = 200, body = Changed), (status = 409, body = ErrorBody), (status = 422, body = ErrorBody),
    (status = 500, body = ErrorBody)))]
pub(super) async fn reload(
    State(api): State<Arc<Api>>,
    Changer(by): Changer,
    Params(query): Params<ReloadQuery>,
) -> Result<Json<Changed>, ApiError> {
    // A task of its own: a caller that hangs up does not leave a reload half done.
    let work = {
        let api = Arc::clone(&api);
        let may = MayRemove {
            all: query.allow_empty || query.allow_removals,
            most: query.allow_removals,
        };
        async move { run(&api, by, may).await }
    };
    let changed = api.tracker.spawn(work).await??;
    programmed(&api).await?;
    Ok(Json(changed))
}

/// Reloads as SIGHUP asks for it. A refusal is reported in log, events and status.
pub async fn by_signal(api: &Api) {
    // Reported already, and no request waits for it.
    let _ = run(api, None, MayRemove::NOT_ALL).await;
}

/// Reads the configuration file again, and makes its content the desired state. Counts the reload and reports a refusal.
///
/// # Errors
/// There is no file, or it cannot be used: the state before stays.
async fn run(api: &Api, by: Option<Author>, may: MayRemove) -> Result<Changed, ApiError> {
    let _turn = api.reloads.turn.lock().await;
    match attempt(api, by.clone(), may).await {
        Ok(changed) => {
            api.reloads.metrics.count(true, SystemTime::now());
            Ok(changed)
        }
        Err(Refused { error, why }) => {
            if let Some(why) = why {
                api.reloads.metrics.count(false, SystemTime::now());
                api.control.by(by).refused(why).await;
            }
            Err(error)
        }
    }
}

/// A refused reload.
struct Refused {
    error: ApiError,
    /// For event, log and status; `None` if there is no file.
    why: Option<String>,
}

async fn attempt(api: &Api, by: Option<Author>, may: MayRemove) -> Result<Changed, Refused> {
    let Some(file) = &api.config else {
        let what = "the daemon was started without --config: there is no file to reload";
        tracing::warn!("reload: {what}");
        let hint = "`lb apply FILE` applies one; `lb run --config FILE` starts with one";
        return Err(Refused {
            error: ApiError::new(ErrorCode::Invalid, what, Some(hint.to_owned())),
            why: None,
        });
    };
    let (paths, shown) = (file.paths().to_vec(), file.name());
    let read = api.parser.run(file.length(), move || config_file::read(&paths));
    let read = read.await;
    let config = match read {
        Ok(Ok(config)) => config,
        Ok(Err(error)) => {
            if let FileError::Content { errors, .. } = &error {
                errors.iter().for_each(|error| tracing::error!("{error}"));
            }
            let why = format!("reload refused, nothing was changed: {}", with_details(&error));
            return Err(Refused {
                error: error.into(),
                why: Some(why),
            });
        }
        Err(error) => {
            let why = format!("reload failed, nothing was changed: {error}");
            return Err(Refused {
                error: error.into(),
                why: Some(why),
            });
        }
    };
    let restart = api.waits_for_restart(&config.daemon);
    let change = Change::File(Arc::new(config), FileOrder::Reload, may);
    let outcome = api.control.by(by).change(change, None, false).await;
    let outcome = outcome.map_err(|error| Refused {
        why: Some(format!(
            "reload of {shown} refused, nothing was changed: {}",
            chain(&error)
        )),
        error: error.into(),
    })?;
    let mut changed = handlers::changed(api, outcome, false);
    for warning in &restart {
        tracing::warn!("{warning}");
    }
    changed.warnings.splice(..0, restart);
    tracing::info!(
        revision = changed.revision,
        changed = changed.changed,
        "reloaded {shown}"
    );
    Ok(changed)
}

/// Waits until the state in force is programmed.
async fn programmed(api: &Api) -> Result<(), ApiError> {
    let mut views = api.control.views();
    let is_programmed = views.wait_for(|view| view.failure.is_none() && view.is_programmed());
    match time::timeout(PROGRAM_PATIENCE, is_programmed).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(ApiError::new(
            ErrorCode::Unavailable,
            "the daemon is shutting down",
            None,
        )),
        Err(_) => {
            let view = api.control.view();
            let why = view.failure.as_deref().unwrap_or("the writer is busy");
            Err(ApiError::new(
                ErrorCode::Failed,
                format!("the file is in force, but not programmed: {why}"),
                Some("the daemon tries again; see `lb status`".to_owned()),
            ))
        }
    }
}
