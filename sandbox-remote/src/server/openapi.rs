//! The OpenAPI document: paths from the table of routes, schemas by hand.

use serde_json::{Map, Value, json};

use super::routes::{ROUTES, Route};

/// The schemas of bodies and answers.
const SCHEMAS: &str = include_str!("schemas.json");

/// The document, of OpenAPI 3.1.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(route.verb.name().to_owned(), operation(route));
        }
    }
    // Checked by a test.
    let schemas: Value = serde_json::from_str(SCHEMAS).unwrap_or_default();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "sandbox-remote",
            "version": crate::wire::PROTOCOL,
            "description": "Any sandbox over HTTP. An answer of this server has the header \
                `sandbox-protocol`. A call with `sandbox-request-id` that comes again is found and \
                not run twice; its answer may be 202, and is then at `/v1/calls/{call}`. A frame is \
                a byte (D data, E end, H heartbeat, M ask again from the next offset, X error), a \
                length of four bytes, big-endian, and so many bytes.",
        },
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": schemas,
        },
    })
}

fn operation(route: &Route) -> Value {
    let content = |schema: &str| match schema {
        "binary" => json!({ "application/octet-stream": {} }),
        "Any" => json!({ "application/json": {} }),
        name => json!({ "application/json": { "schema": reference(name) } }),
    };
    let mut parameters: Vec<Value> = Vec::new();
    let names = route
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    for name in names {
        let text = json!({ "type": "string" });
        parameters.push(json!({ "name": name, "in": "path", "required": true, "schema": text }));
    }
    let (wait, number) = (
        ["wait"].as_slice(),
        json!({ "type": "integer", "minimum": 0 }),
    );
    let query = match route.path.rsplit('/').next() {
        Some("stdout" | "stderr") => &["from"],
        Some("stdin") => &["offset", "end", "wait"][..],
        _ => wait,
    };
    for name in query {
        let required = matches!(*name, "from" | "offset");
        parameters
            .push(json!({ "name": name, "in": "query", "required": required, "schema": number }));
    }
    if route.action.is_named() {
        let text = json!({ "type": "string", "pattern": "^[A-Za-z0-9-]{16,64}$" });
        parameters.push(json!({
            "name": crate::wire::REQUEST_ID, "in": "header", "required": true, "schema": text,
        }));
    }
    let mut operation = json!({
        "operationId": format!("{:?}", route.action),
        "summary": route.summary,
        "parameters": parameters,
        "responses": {
            "200": { "description": "done", "content": content(route.gives) },
            "default": { "description": "an error", "content": content("Failed") },
        },
    });
    if route.action.is_named()
        && let Some(responses) = operation["responses"].as_object_mut()
    {
        let running = json!({ "description": "still running: ask at /v1/calls/{call}" });
        responses.insert("202".into(), running);
    }
    if !route.takes.is_empty() {
        operation["requestBody"] = json!({ "content": content(route.takes) });
    }
    if route.path == "/v1/health" {
        operation["security"] = json!([]);
    }
    operation
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}
