//! Schemas of requests, made of the table of keys: a request has the keys of a file.

use serde_json::{Map, Value, json};

use super::handlers::DEADLINE;
use crate::config::keys::{self, Absent, Key, KeyTable, Shape};

/// What a request does with a table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// It gives a whole one: absent keys have their defaults.
    Spec,
    /// It changes one: absent keys stay.
    Patch,
}

/// The schemas of all requests by name.
pub(super) fn of_requests() -> Map<String, Value> {
    let mut schemas = Map::new();
    for table in [&keys::SERVICE, &keys::BACKEND] {
        add(&mut schemas, table, Use::Spec);
        add(&mut schemas, table, Use::Patch);
    }
    let deadline = json!({
        "type": "integer",
        "format": "int64",
        "minimum": 0,
        "description": "With `admin: draining`: milliseconds after which remaining flows move and the backend is disabled.",
    });
    if let Some(properties) = schemas
        .get_mut("BackendPatch")
        .and_then(|schema| schema.get_mut("properties"))
    {
        properties[DEADLINE] = deadline;
    }
    schemas
}

/// `ServiceSpec`, `ServicePatch`: the table, and its use.
fn name(table: &KeyTable, of: Use) -> String {
    let of = match of {
        Use::Spec => "Spec",
        Use::Patch => "Patch",
    };
    let header = table.header.trim_matches(['[', ']']);
    let last = match header.rsplit('.').next().unwrap_or_default() {
        "steps" => "step",
        last => last,
    };
    let (first, rest) = last.split_at(1);
    format!("{}{rest}{of}", first.to_uppercase())
}

/// What a request that does `of` with a table does with a table in it: a list is replaced as a whole.
fn below(table: &KeyTable, of: Use) -> Use {
    if table.is_list() { Use::Spec } else { of }
}

/// Adds the schema of a table, and those of the tables in it.
fn add(schemas: &mut Map<String, Value>, table: &KeyTable, of: Use) {
    let name = name(table, of);
    if schemas.contains_key(&name) {
        return;
    }
    let mut properties = Map::new();
    let mut required = Vec::new();
    for key in table.keys.iter().filter(|key| !key.is_of_file) {
        if let Shape::Table(inner) = key.value.shape {
            add(schemas, inner, below(inner, of));
        }
        properties.insert(key.name.to_owned(), property(key, of));
        if of == Use::Spec && key.is_required() {
            required.push(key.name);
        }
    }
    let mut schema = json!({
        "type": "object",
        "description": match of {
            Use::Spec => format!("The keys of `{}` in the configuration file.", table.header),
            Use::Patch => format!("Changed keys of `{}` in the configuration file; absent keys stay.", table.header),
        },
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schemas.insert(name, schema);
}

/// The schema of a key. Its default stands in the description alone: a generated client fills in what `default` says, and would send
/// keys that the kind of the check does not have.
fn property(key: &Key, of: Use) -> Value {
    let mut schema = of_shape(key.value.shape, of);
    schema["description"] = describe(key, of).into();
    schema
}

fn of_shape(shape: Shape, of: Use) -> Value {
    let text = || json!({ "type": "string" });
    let number = || json!({ "type": "integer", "format": "int32", "minimum": 0 });
    match shape {
        Shape::Text => text(),
        Shape::Word(words) => json!({ "type": "string", "enum": words() }),
        Shape::Bool => json!({ "type": "boolean" }),
        Shape::Number(least, most) => {
            let format = if i32::try_from(most).is_ok() {
                "int32"
            } else {
                "int64"
            };
            json!({ "type": "integer", "format": format, "minimum": least, "maximum": most })
        }
        Shape::Share => json!({ "type": "number", "format": "double", "minimum": 0, "maximum": 1 }),
        Shape::NumberOr(word) => json!({ "oneOf": [number(), { "type": "string", "enum": [word] }] }),
        Shape::Texts(_) => json!({ "type": "array", "items": text() }),
        Shape::Numbers => json!({ "type": "array", "items": { "oneOf": [number(), text()] } }),
        Shape::OneOrMore => json!({
            "oneOf": [number(), text(), { "type": "array", "items": { "oneOf": [number(), text()] } }]
        }),
        Shape::Map => json!({ "type": "object", "additionalProperties": text() }),
        Shape::Table(table) => {
            let schema = json!({ "$ref": format!("#/components/schemas/{}", name(table, below(table, of))) });
            if table.is_list() {
                json!({ "type": "array", "items": schema })
            } else {
                schema
            }
        }
    }
}

/// Its meaning, its values where their type does not say them, and what its absence means in a whole table.
fn describe(key: &Key, of: Use) -> String {
    let mut text = String::new();
    if !key.kinds.is_empty() {
        text.push_str(&format!("Kinds {}: ", key.kinds.join(", ")));
    }
    text.push_str(key.help);
    match key.value.shape {
        Shape::Text
        | Shape::NumberOr(_)
        | Shape::Texts(_)
        | Shape::Numbers
        | Shape::OneOrMore
        | Shape::Map => {
            text.push_str(&format!(": {}", key.value.about()));
        }
        Shape::Word(_) | Shape::Bool | Shape::Number(..) | Shape::Share | Shape::Table(_) => {}
    }
    text.push('.');
    if of == Use::Spec
        && let Absent::Default(words) | Absent::Otherwise(words, _) = key.absent
    {
        text.push_str(&format!(" Default: {words}."));
    }
    if let Some(other) = key.instead {
        text.push_str(&format!(" Not beside `{other}`."));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_that_a_request_may_have_is_in_its_schema() {
        let schemas = of_requests();
        let tables = [
            (&keys::SERVICE, "ServiceSpec"),
            (&keys::SERVICE, "ServicePatch"),
            (&keys::HEALTH, "HealthSpec"),
            (&keys::HEALTH, "HealthPatch"),
            (&keys::ALSO, "AlsoSpec"),
            (&keys::GUARD, "GuardPatch"),
            (&keys::AGENT, "AgentPatch"),
            (&keys::CLIENTS, "ClientsSpec"),
            (&keys::QUIC, "QuicSpec"),
            (&keys::BACKEND, "BackendSpec"),
            (&keys::BACKEND, "BackendPatch"),
        ];
        for (table, name) in tables {
            let properties = schemas[name]["properties"].as_object().unwrap();
            let has = |key: &&Key| properties.contains_key(key.name);
            let missing = table.keys.iter().filter(|key| !key.is_of_file && !has(key));
            assert_eq!(missing.map(|key| key.name).collect::<Vec<_>>(), [""; 0], "{name}");
        }
        let text = Value::Object(schemas.clone()).to_string();
        for reference in text.split("\"#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name}");
        }
    }

    /// A client made of the document fills in what `default` says.
    #[test]
    fn a_schema_has_type_range_and_words_and_its_default_in_its_description_alone() {
        let schemas = of_requests();
        let of = |schema: &str, key: &str| schemas[schema]["properties"][key].clone();
        let mode = of("ServiceSpec", "mode");
        assert_eq!(
            (&mode["type"], &mode["enum"][0]),
            (&json!("string"), &json!("nat"))
        );
        let text = mode["description"].as_str().unwrap();
        assert!(text.contains(r#"Default: "nat"."#), "{text}");
        let text = of("ServicePatch", "mode")["description"].clone();
        assert!(!text.as_str().unwrap().contains("Default"), "{text}");
        let percent = of("ServicePatch", "max_removed_percent");
        assert_eq!(
            (&percent["minimum"], &percent["maximum"]),
            (&json!(0), &json!(100))
        );
        assert!(
            !Value::Object(schemas.clone())
                .to_string()
                .contains("\"default\":")
        );
        let health = json!("#/components/schemas/HealthPatch");
        assert_eq!(of("ServicePatch", "health")["$ref"], health);
        assert_eq!(schemas["ServiceSpec"]["required"], json!(["name", "address"]));
        assert_eq!(schemas["BackendSpec"]["required"], json!(["name", "address"]));
        assert_eq!(schemas["ServicePatch"].get("required"), None);
        assert!(!of("BackendPatch", DEADLINE).is_null());
    }
}
