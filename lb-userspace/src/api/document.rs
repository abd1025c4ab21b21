//! The OpenAPI document, completed with answers that every path has.

use serde_json::Value;
use utoipa::openapi::{
    Content, ObjectBuilder, OpenApi, Ref, RefOr, Required, Response, Schema, Type, extensions::Extensions,
    path::PathItem,
};

use super::{error::ApiError, requests::ErrorCode, schema};

/// The type of answers that have one JSON object per line.
const LINES: &str = "application/x-ndjson";

/// `document` as it is served: completed, and with the schemas of requests.
pub(super) fn served(document: OpenApi) -> Result<Value, ApiError> {
    let document = serde_json::to_value(complete(document));
    let mut document = document.map_err(|error| ApiError::new(ErrorCode::Failed, error.to_string(), None))?;
    for (name, schema) in schema::of_requests() {
        document["components"]["schemas"][name.as_str()] = schema;
    }
    Ok(document)
}

/// `document` with required bodies, a description of each answer (which OpenAPI requires), and the failure answer that any path
/// may give.
fn complete(mut document: OpenApi) -> OpenApi {
    let failure = || {
        let mut response = Response::default();
        response.description = "any other failure".to_owned();
        let body = Content::new(Some(Ref::from_schema_name("ErrorBody")));
        response
            .content
            .insert("application/json".to_owned(), body.into());
        response
    };
    let paths = document.paths.paths.iter_mut();
    let operations = paths.flat_map(|(path, item)| operations(item).map(move |operation| (path, operation)));
    for (path, operation) in operations {
        operation.tags = Some(vec![tag(path).to_owned()]);
        if let Some(RefOr::T(body)) = &mut operation.request_body {
            body.required = Some(Required::True);
        }
        let summary = operation.summary.clone();
        let responses = &mut operation.responses.responses;
        for (status, response) in responses.iter_mut() {
            let RefOr::T(response) = response else { continue };
            if let Some(RefOr::T(lines)) = response.content.get_mut(LINES) {
                of_lines(lines);
            }
            if response.description.is_empty() {
                response.description = match (status.as_str(), &summary) {
                    ("404", _) => "no such service or backend".to_owned(),
                    ("409", _) => "it exists with other content, or the revision moved on".to_owned(),
                    ("422", _) => "the request makes no sense; nothing was changed".to_owned(),
                    ("503", _) => "the daemon is starting or leaving, or not ready".to_owned(),
                    (_, Some(summary)) => summary.clone(),
                    (_, None) => "done".to_owned(),
                };
            }
        }
        responses.insert("default".to_owned(), RefOr::T(failure()));
    }
    document
}

/// The group of a path, by which generated clients and pages sort operations.
fn tag(path: &str) -> &'static str {
    if path.contains("/backends") {
        "backends"
    } else if path.starts_with("/v1/services") {
        "services"
    } else if ["/v1/flows", "/v1/monitor", "/v1/explain"]
        .iter()
        .any(|group| path.starts_with(group))
    {
        "traffic"
    } else {
        "daemon"
    }
}

/// Describes an answer of lines as a text. Its schema until now is that of one line, which OpenAPI has a key for from version 3.2 on
/// (`itemSchema`): a client of 3.1 would read the whole answer as one object.
fn of_lines(content: &mut Content) {
    let line = content
        .schema
        .replace(Schema::from(ObjectBuilder::new().schema_type(Type::String)).into());
    let line = line.and_then(|line| serde_json::to_value(line).ok());
    let extensions = Extensions::builder().add("x-itemSchema", line).build();
    content.extensions = Some(extensions);
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut utoipa::openapi::path::Operation> {
    let methods = [
        &mut item.get,
        &mut item.post,
        &mut item.put,
        &mut item.patch,
        &mut item.delete,
    ];
    methods.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::{super::routes, *};

    /// A generator of clients refuses a document without them.
    #[test]
    fn every_answer_and_every_parameter_of_a_path_is_described() {
        let document = serde_json::to_value(complete(routes().1)).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        let mut ids = std::collections::BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let at = format!("{method} {path}");
                assert!(
                    ids.insert(operation["operationId"].as_str().unwrap().to_owned()),
                    "{at}"
                );
                let responses = operation["responses"].as_object().unwrap();
                assert!(
                    responses.contains_key("200") && responses.contains_key("default"),
                    "{at}"
                );
                for (status, response) in responses {
                    let text = response["description"].as_str().unwrap_or_default();
                    assert!(!text.is_empty(), "{at}: {status} has no description");
                }
                let named: Vec<&str> = path.split(['{', '}']).skip(1).step_by(2).collect();
                let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
                let in_path = parameters.iter().filter(|parameter| parameter["in"] == "path");
                let in_path: Vec<_> = in_path.map(|p| p["name"].as_str().unwrap()).collect();
                assert_eq!(in_path, named, "{at}");
            }
        }
    }
}
