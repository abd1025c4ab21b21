//! Parameters of a request, in its path and in its query.

use axum::{
    extract::{self, FromRequestParts, Query},
    http::{Uri, request::Parts},
};
use serde::de::DeserializeOwned;
use utoipa::{
    IntoParams,
    openapi::{RefOr, Schema, Type, path::Parameter, schema::SchemaType},
};

use super::{error::ApiError, requests::ErrorCode, types::FlowSelection};

/// Names in the path. Refused as an error of the API where they are no text.
pub(super) struct Path<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let named = extract::Path::from_request_parts(parts, state).await;
        let extract::Path(names) =
            named.map_err(|error| ApiError::new(ErrorCode::Invalid, error.body_text(), None))?;
        Ok(Self(names))
    }
}

/// Parameters. Others are refused: a filter or an expected revision that is misspelt would be ignored, and the request do more than
/// was asked for.
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + IntoParams> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        refuse_wrong(&parts.uri, &T::into_params(|| None))?;
        Ok(Self(Query::try_from_uri(&parts.uri)?.0))
    }
}

/// Which flows are meant, and parameters as in [`Params`].
pub(super) struct Selected<T>(pub(super) FlowSelection, pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + IntoParams> FromRequestParts<S> for Selected<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let known = [FlowSelection::into_params(|| None), T::into_params(|| None)].concat();
        refuse_wrong(&parts.uri, &known)?;
        let selection = Query::try_from_uri(&parts.uri)?;
        let params = Query::try_from_uri(&parts.uri)?;
        Ok(Self(selection.0, params.0))
    }
}

/// Refuses parameters that are not known, and numbers with a plus sign.
fn refuse_wrong(uri: &Uri, known: &[Parameter]) -> Result<(), ApiError> {
    let given: Vec<(String, String)> = Query::try_from_uri(uri)?.0;
    let parameter = |name: &str| known.iter().find(|parameter| parameter.name == name);
    let signed = given.iter().find_map(|(name, value)| {
        let digits = value.strip_prefix('+')?;
        parameter(name).is_some_and(is_number).then_some((name, digits))
    });
    if let Some((name, digits)) = signed {
        let message = format!("parameter \"{name}\": +{digits} is no number");
        return Err(ApiError::new(
            ErrorCode::Invalid,
            message,
            Some(format!("write {digits}")),
        ));
    }
    let Some((name, _)) = given.iter().find(|(name, _)| parameter(name).is_none()) else {
        return Ok(());
    };
    let names: Vec<&str> = known.iter().map(|parameter| parameter.name.as_str()).collect();
    Err(ApiError::new(
        ErrorCode::Invalid,
        format!("unknown parameter \"{name}\""),
        Some(format!("parameters: {}", names.join(", "))),
    ))
}

fn is_number(parameter: &Parameter) -> bool {
    let Some(RefOr::T(Schema::Object(object))) = &parameter.schema else {
        return false;
    };
    match &object.schema_type {
        SchemaType::Type(of) => *of == Type::Integer,
        SchemaType::Array(all) => all.contains(&Type::Integer),
        SchemaType::AnyValue => false,
    }
}
