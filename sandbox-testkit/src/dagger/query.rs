//! A GraphQL document as the double needs it: fields with plain JSON arguments.
//!
//! Invariant: what the engine's clients never send (several operations, mutations) is refused, not
//! guessed.

use async_graphql_parser::parse_query;
use async_graphql_parser::types::{
    DocumentOperations, ExecutableDocument, OperationType, Selection, SelectionSet,
};
use serde_json::{Map, Value};

/// Limit of a document's depth.
const MAX_DEPTH: usize = 512;

/// A field with what is selected below it.
#[derive(Clone, Debug)]
pub(super) struct Field {
    /// The key in the answer.
    pub(super) key: String,
    /// The field's name.
    pub(super) name: String,
    /// The arguments; variables are filled in.
    pub(super) arguments: Map<String, Value>,
    /// Fields selected below it; inline fragments are merged in.
    pub(super) below: Vec<Field>,
}

impl Field {
    /// A text argument.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.arguments.get(name).and_then(Value::as_str)
    }

    /// A text argument that must be there.
    pub(super) fn need(&self, name: &str) -> Result<&str, String> {
        self.text(name)
            .ok_or_else(|| format!("{}: argument {name:?} is missing", self.name))
    }

    /// A flag; false if it is not given.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.arguments.get(name).and_then(Value::as_bool) == Some(true)
    }

    /// A list of texts.
    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        let list = self.arguments.get(name).and_then(Value::as_array);
        let text = |value: &Value| value.as_str().map(str::to_owned);
        list.map(|list| list.iter().filter_map(text).collect())
            .unwrap_or_default()
    }
}

/// The fields of a request's one operation.
pub(super) fn parse(text: &str, variables: &Value) -> Result<Vec<Field>, String> {
    let document = parse_query(text).map_err(|error| error.to_string())?;
    let operation = match &document.operations {
        DocumentOperations::Single(operation) => operation,
        DocumentOperations::Multiple(map) if map.len() == 1 => {
            map.values().next().ok_or("no operation")?
        }
        DocumentOperations::Multiple(_) => return Err("more than one operation".into()),
    };
    if operation.node.ty != OperationType::Query {
        return Err("only queries are known".into());
    }
    let reader = Reader {
        document: &document,
        variables,
    };
    reader.fields(&operation.node.selection_set.node, 0)
}

struct Reader<'a> {
    document: &'a ExecutableDocument,
    variables: &'a Value,
}

impl Reader<'_> {
    fn fields(&self, set: &SelectionSet, depth: usize) -> Result<Vec<Field>, String> {
        if depth > MAX_DEPTH {
            return Err("the query is too deep".into());
        }
        let mut fields = Vec::new();
        for item in &set.items {
            match &item.node {
                Selection::Field(field) => {
                    let field = &field.node;
                    let mut arguments = Map::new();
                    for (name, value) in &field.arguments {
                        let value = value.node.clone().into_const_with(|variable| {
                            let given = self.variables.get(variable.as_str()).cloned();
                            serde_json::from_value(given.unwrap_or(Value::Null))
                                .map_err(|error| error.to_string())
                        })?;
                        let value = value.into_json().map_err(|error| error.to_string())?;
                        arguments.insert(name.node.to_string(), value);
                    }
                    fields.push(Field {
                        key: field.response_key().node.to_string(),
                        name: field.name.node.to_string(),
                        arguments,
                        below: self.fields(&field.selection_set.node, depth + 1)?,
                    });
                }
                Selection::InlineFragment(fragment) => {
                    fields.extend(self.fields(&fragment.node.selection_set.node, depth + 1)?);
                }
                Selection::FragmentSpread(spread) => {
                    let name = &spread.node.fragment_name.node;
                    let fragment = self.document.fragments.get(name);
                    let fragment = fragment.ok_or_else(|| format!("no fragment {name}"))?;
                    fields.extend(self.fields(&fragment.node.selection_set.node, depth + 1)?);
                }
            }
        }
        Ok(fields)
    }
}
