//! The schema: the answer to an introspection query, from `schema.graphqls` in the form that
//! clients build their schema from; and which arguments a field may have.
//!
//! Invariant: the answer is whole whatever was selected; clients ignore what they did not ask for.

use std::collections::HashMap;
use std::sync::LazyLock;

use async_graphql_parser::Positioned;
use async_graphql_parser::parse_schema;
use async_graphql_parser::types::{
    BaseType, FieldDefinition, InputValueDefinition, Type, TypeKind, TypeSystemDefinition,
};
use serde_json::{Map, Value, json};

use super::config::is_known_user;
use super::engine::Failure;
use super::query::Field;

const SCHEMA: &str = include_str!("schema.graphqls");
const SCALARS: [&str; 5] = ["Boolean", "Float", "ID", "Int", "String"];

/// Value of `__schema`.
pub(super) fn schema() -> Result<Value, Failure> {
    let document = parse_schema(SCHEMA).map_err(Failure::text)?;
    let definitions = document.definitions.into_iter();
    let types: Vec<_> = definitions
        .filter_map(|definition| match definition {
            TypeSystemDefinition::Type(definition) => Some(definition.node),
            _ => None,
        })
        .collect();
    let mut kinds: Map<String, Value> = SCALARS
        .iter()
        .map(|scalar| ((*scalar).to_owned(), json!("SCALAR")))
        .collect();
    for definition in &types {
        kinds.insert(definition.name.to_string(), json!(kind(&definition.kind)));
    }
    let mut described: Vec<_> = SCALARS
        .iter()
        .map(|scalar| whole("SCALAR", scalar))
        .map(Value::Object)
        .collect();
    for definition in &types {
        let name = definition.name.node.as_str();
        let mut entry = whole(kind(&definition.kind), name);
        match &definition.kind {
            TypeKind::Object(object) => {
                entry.insert("fields".into(), fields(&kinds, &object.fields));
                let interfaces = object.implements.iter();
                let interfaces: Vec<_> = interfaces
                    .map(|interface| named(&kinds, interface.node.as_str()))
                    .collect();
                entry.insert("interfaces".into(), json!(interfaces));
            }
            TypeKind::Interface(interface) => {
                entry.insert("fields".into(), fields(&kinds, &interface.fields));
                entry.insert("interfaces".into(), json!([]));
                let implementing = types.iter().filter(|other| match &other.kind {
                    TypeKind::Object(object) => {
                        object.implements.iter().any(|known| known.node == name)
                    }
                    _ => false,
                });
                let implementing: Vec<_> = implementing
                    .map(|other| named(&kinds, other.name.node.as_str()))
                    .collect();
                entry.insert("possibleTypes".into(), json!(implementing));
            }
            TypeKind::Enum(choices) => {
                let values = choices.values.iter().map(|value| {
                    json!({
                        "name": value.node.value.node.as_str(), "description": null,
                        "isDeprecated": false, "deprecationReason": null,
                    })
                });
                entry.insert("enumValues".into(), values.collect());
            }
            _ => {}
        }
        described.push(Value::Object(entry));
    }
    Ok(json!({
        "description": null,
        "queryType": {"name": "Query"}, "mutationType": null, "subscriptionType": null,
        "types": described,
        "directives": [],
    }))
}

/// Arguments that a field may have.
struct Known {
    /// The arguments of every field, by type and field.
    arguments: HashMap<(String, String), Vec<InputValueDefinition>>,
    /// The values of every enumeration.
    choices: HashMap<String, Vec<String>>,
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let mut known = Known {
        arguments: HashMap::new(),
        choices: HashMap::new(),
    };
    // A schema that can't be read is an error of `schema`, which a test looks at.
    let definitions = parse_schema(SCHEMA).map(|document| document.definitions);
    for definition in definitions.into_iter().flatten() {
        let TypeSystemDefinition::Type(definition) = definition else {
            continue;
        };
        let name = definition.node.name.to_string();
        match definition.node.kind {
            TypeKind::Object(object) => {
                for field in object.fields {
                    let arguments = field.node.arguments.into_iter();
                    let arguments = arguments.map(|argument| argument.node).collect();
                    let place = (name.clone(), field.node.name.to_string());
                    known.arguments.insert(place, arguments);
                }
            }
            TypeKind::Enum(choices) => {
                let values = choices.values.iter();
                let values = values.map(|value| value.node.value.to_string()).collect();
                known.choices.insert(name, values);
            }
            _ => {}
        }
    }
    known
});

/// Refuses arguments that the schema does not have, that are missing or of another type, as the
/// engine does, and those of the engine that the double can't honour.
pub(super) fn check_arguments(type_name: &str, field: &Field) -> Result<(), Failure> {
    let place = (type_name.to_owned(), field.name.clone());
    let Some(known) = KNOWN.arguments.get(&place) else {
        return Ok(());
    };
    for name in field.arguments.keys() {
        if !known
            .iter()
            .any(|argument| argument.name.node.as_str() == name)
        {
            return Err(Failure::text(format_args!(
                "Unknown argument {name:?} on field \"{type_name}.{}\".",
                field.name
            )));
        }
    }
    for argument in known {
        let name = argument.name.node.as_str();
        let value = field.arguments.get(name).unwrap_or(&Value::Null);
        let ty = &argument.ty.node;
        if value.is_null() && !ty.nullable {
            return Err(Failure::text(format_args!(
                "Field {:?} argument {name:?} of type \"{ty}\" is required, but it was not provided.",
                field.name
            )));
        }
        if !is_of(value, ty) {
            return Err(Failure::text(format_args!(
                "Argument {name:?} of field \"{type_name}.{}\" has the value {value}, which is no \
                 \"{ty}\".",
                field.name
            )));
        }
        let honoured = match (type_name, field.name.as_str(), name) {
            (_, "container", "platform") | (_, "import", "tag") => value.is_null(),
            (_, "withMountedCache", "sharing") => value != "PRIVATE",
            (_, "withExposedPort", "protocol") => value != "UDP",
            (_, "asService", "experimentalPrivilegedNesting") => value != true,
            // All of them are one user of the double.
            (_, _, "owner") => value.as_str().is_none_or(is_known_user),
            _ => true,
        };
        if !honoured {
            return Err(Failure::text(format_args!(
                "the double can't honour {name}: {value} of {type_name}.{}",
                field.name
            )));
        }
    }
    Ok(())
}

/// Whether a value is one of a type.
fn is_of(value: &Value, ty: &Type) -> bool {
    if value.is_null() {
        return ty.nullable;
    }
    match &ty.base {
        BaseType::List(of) => value
            .as_array()
            .is_some_and(|values| values.iter().all(|value| is_of(value, of))),
        BaseType::Named(name) => match name.as_str() {
            "Boolean" => value.is_boolean(),
            "Int" => value.is_i64() || value.is_u64(),
            "Float" => value.is_number(),
            "ID" | "String" => value.is_string(),
            name => {
                let choices = KNOWN.choices.get(name);
                let text = value.as_str();
                choices.is_none_or(|known| known.iter().any(|known| Some(&**known) == text))
            }
        },
    }
}

fn kind(kind: &TypeKind) -> &'static str {
    match kind {
        TypeKind::Scalar => "SCALAR",
        TypeKind::Object(_) => "OBJECT",
        TypeKind::Interface(_) => "INTERFACE",
        TypeKind::Union(_) => "UNION",
        TypeKind::Enum(_) => "ENUM",
        TypeKind::InputObject(_) => "INPUT_OBJECT",
    }
}

/// A type with everything that a type may have.
fn whole(kind: &str, name: &str) -> Map<String, Value> {
    let none = [
        "description",
        "specifiedByURL",
        "fields",
        "inputFields",
        "interfaces",
        "enumValues",
        "possibleTypes",
        "isOneOf",
    ];
    let mut entry: Map<_, _> = none
        .iter()
        .map(|key| ((*key).to_owned(), Value::Null))
        .collect();
    entry.insert("kind".into(), json!(kind));
    entry.insert("name".into(), json!(name));
    entry
}

fn named(kinds: &Map<String, Value>, name: &str) -> Value {
    json!({"kind": kinds.get(name), "name": name, "ofType": null})
}

fn type_of(kinds: &Map<String, Value>, ty: &Type) -> Value {
    let inner = match &ty.base {
        BaseType::Named(name) => named(kinds, name.as_str()),
        BaseType::List(of) => json!({"kind": "LIST", "name": null, "ofType": type_of(kinds, of)}),
    };
    match ty.nullable {
        true => inner,
        false => json!({"kind": "NON_NULL", "name": null, "ofType": inner}),
    }
}

fn fields(kinds: &Map<String, Value>, fields: &[Positioned<FieldDefinition>]) -> Value {
    let described = fields.iter().map(|field| {
        let field = &field.node;
        let arguments = field.arguments.iter();
        json!({
            "name": field.name.node.as_str(), "description": null,
            "args": arguments.map(|argument| input(kinds, &argument.node)).collect::<Vec<_>>(),
            "type": type_of(kinds, &field.ty.node),
            "isDeprecated": false, "deprecationReason": null,
        })
    });
    described.collect()
}

fn input(kinds: &Map<String, Value>, input: &InputValueDefinition) -> Value {
    json!({
        "name": input.name.node.as_str(), "description": null,
        "type": type_of(kinds, &input.ty.node), "defaultValue": null,
        "isDeprecated": false, "deprecationReason": null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_says_what_clients_build_theirs_from() {
        let schema = schema().unwrap_or_default();
        let types = schema["types"].as_array().cloned().unwrap_or_default();
        let named = |name: &str| types.iter().find(|known| known["name"] == name).cloned();
        let node = named("Node").unwrap_or_default();
        assert_eq!(node["kind"], "INTERFACE");
        assert_eq!(node["possibleTypes"].as_array().map(Vec::len), Some(11));
        let container = named("Container").unwrap_or_default();
        let fields = container["fields"].as_array().cloned().unwrap_or_default();
        let exec = fields.iter().find(|field| field["name"] == "withExec");
        let exec = exec.cloned().unwrap_or_default();
        assert_eq!(exec["type"]["kind"], "NON_NULL");
        let expect = &exec["args"][2];
        assert_eq!(
            (&expect["name"], &expect["type"]["kind"]),
            (&json!("expect"), &json!("ENUM"))
        );
    }
}
