//! Evaluation of every field of every type.
//!
//! Invariant: a field that is not known is an error that names it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::cache::Cache;
use super::config::Config;
use super::container::{Container, Step};
use super::directory::{Directory, File, FileSource, Source};
use super::engine::{Engine, Failure, Node, SecretValue, digest};
use super::fields::container_field;
use super::introspection;
use super::query::Field;
use super::service::{Service, ServiceSource};
use super::steps;
use super::trees::{directory_field, file_field, host_field};

/// Value of a field.
pub(super) enum Given {
    Value(Value),
    Node(Node),
    Nodes(Vec<Node>),
}

/// Answers the fields of a node.
pub(super) fn select<'a>(
    engine: &'a Arc<Engine>,
    node: &'a Node,
    fields: &'a [Field],
    into: &'a mut Map<String, Value>,
) -> Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + 'a>> {
    Box::pin(async move {
        for field in fields {
            let value = value(engine, node, field).await;
            let value = value.map_err(|failure| failure.below(&field.key))?;
            into.insert(field.key.clone(), value);
        }
        Ok(())
    })
}

async fn value(engine: &Arc<Engine>, node: &Node, field: &Field) -> Result<Value, Failure> {
    Ok(match give(engine, node, field).await? {
        Given::Value(value) => value,
        Given::Node(node) => below_node(engine, &node, field).await?,
        Given::Nodes(nodes) => {
            let mut all = Vec::with_capacity(nodes.len());
            for node in &nodes {
                all.push(below_node(engine, node, field).await?);
            }
            Value::Array(all)
        }
    })
}

async fn below_node(engine: &Arc<Engine>, node: &Node, field: &Field) -> Result<Value, Failure> {
    let mut object = Map::new();
    select(engine, node, &field.below, &mut object).await?;
    Ok(Value::Object(object))
}

async fn give(engine: &Arc<Engine>, node: &Node, field: &Field) -> Result<Given, Failure> {
    if field.name == "__typename" {
        return Ok(Given::Value(json!(type_name(node))));
    }
    introspection::check_arguments(type_name(node), field)?;
    match node {
        Node::Query => query(engine, field).await,
        Node::Host => host_field(engine, field).await,
        Node::Container(container) => container_field(engine, container, field).await,
        Node::Directory(directory) => directory_field(engine, directory, field).await,
        Node::File(file) => file_field(engine, file, field).await,
        Node::Secret(secret) => match field.name.as_str() {
            "id" => Ok(Given::Value(json!(format!(
                "Secret:{}",
                digest(&secret.name)
            )))),
            "name" => Ok(Given::Value(json!(secret.name))),
            "plaintext" => Ok(Given::Value(json!(secret.plaintext))),
            _ => unknown(node, field),
        },
        Node::Cache(cache) => match field.name.as_str() {
            "id" => Ok(Given::Value(json!(format!(
                "CacheVolume:{}",
                digest(&cache.key)
            )))),
            _ => unknown(node, field),
        },
        Node::EnvVariable(variable) => match field.name.as_str() {
            "id" => Ok(Given::Value(json!(format!(
                "EnvVariable:{}",
                digest(&**variable)
            )))),
            "name" => Ok(Given::Value(json!(variable.0))),
            "value" => Ok(Given::Value(json!(variable.1))),
            _ => unknown(node, field),
        },
        Node::Stat(stat) => match stat.field(&field.name) {
            Some(value) => Ok(Given::Value(value)),
            None => unknown(node, field),
        },
        Node::Service(service) => match service.field(engine, field).await? {
            Some(value) => Ok(Given::Value(value)),
            None => unknown(node, field),
        },
    }
}

fn type_name(node: &Node) -> &'static str {
    match node {
        Node::Query => "Query",
        Node::Host => "Host",
        Node::Container(_) => "Container",
        Node::Directory(_) => "Directory",
        Node::File(_) => "File",
        Node::Secret(_) => "Secret",
        Node::Cache(_) => "CacheVolume",
        Node::Service(_) => "Service",
        Node::EnvVariable(_) => "EnvVariable",
        Node::Stat(_) => "Stat",
    }
}

pub(super) fn unknown(node: &Node, field: &Field) -> Result<Given, Failure> {
    Err(Failure::text(format_args!(
        "Cannot query field {:?} on type {:?}.",
        field.name,
        type_name(node)
    )))
}

async fn query(engine: &Arc<Engine>, field: &Field) -> Result<Given, Failure> {
    let node = match field.name.as_str() {
        "__schema" => return Ok(Given::Value(introspection::schema()?)),
        "version" => return Ok(Given::Value(json!(engine.version()))),
        "host" => Node::Host,
        "node" => engine.node(field.need("id")?)?,
        "container" => keep_container(engine, None, Config::default(), Step::Scratch, "scratch", 0),
        "directory" => keep_directory(engine, Source::Empty, "empty", 0),
        "file" => {
            let contents = field.need("contents")?.to_owned();
            let mode = steps::mode(field).unwrap_or(0o644);
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let since = since.map_or(0, |since| since.as_secs());
            let key = format!("new {mode:o} {} {contents}", field.need("name")?);
            let source = FileSource::New {
                contents,
                mode,
                since,
            };
            keep_file(engine, source, &key)
        }
        "setSecret" => {
            let (name, plaintext) = (field.need("name")?, field.need("plaintext")?);
            let secret = Arc::new(SecretValue {
                name: name.to_owned(),
                plaintext: plaintext.to_owned(),
            });
            engine.intern(&format!("Secret:{}", digest(name)), Node::Secret(secret))
        }
        "secret" => {
            let uri = field.need("uri")?;
            let plaintext = match uri.split_once("://") {
                Some(("env", name)) => std::env::var(name).map_err(|_| {
                    Failure::text(format_args!("secret env var not found: {name:?}"))
                })?,
                Some(("file", path)) => std::fs::read_to_string(path)?,
                _ => {
                    let why = format!("unsupported secret provider: {uri:?}");
                    return Err(Failure::text(why));
                }
            };
            let secret = Arc::new(SecretValue {
                name: uri.to_owned(),
                plaintext,
            });
            engine.intern(&format!("Secret:{}", digest(uri)), Node::Secret(secret))
        }
        "engine" => {
            let (entries, bytes) = engine.states.disk_use().await;
            let set = json!({"entryCount": entries, "diskSpaceBytes": bytes});
            // What is held by a session is not removed, and the double keeps nothing else.
            let store = json!({"localCache": {"entrySet": set, "prune": null}});
            return Ok(Given::Value(selected(&store, &field.below)?));
        }
        "cacheVolume" => {
            let key = field.need("key")?;
            let id = format!("CacheVolume:{}", digest(key));
            match engine.node(&id) {
                Ok(known) => known,
                Err(_) => engine.intern(&id, Node::Cache(Arc::new(Cache::new(key)?))),
            }
        }
        _ => return unknown(&Node::Query, field),
    };
    Ok(Given::Node(node))
}

/// The selected parts of a value.
fn selected(value: &Value, fields: &[Field]) -> Result<Value, Failure> {
    let mut object = Map::new();
    for field in fields {
        let part = value
            .get(&field.name)
            .ok_or_else(|| Failure::text(format_args!("Cannot query field {:?}.", field.name)))?;
        let part = match field.below.is_empty() {
            true => part.clone(),
            false => selected(part, &field.below)?,
        };
        object.insert(field.key.clone(), part);
    }
    Ok(Value::Object(object))
}

pub(super) fn keep_service(engine: &Engine, source: ServiceSource, key: &str) -> Node {
    let digest = digest(("service", key));
    let id = format!("Service:{digest}");
    engine.intern(&id, Node::Service(Arc::new(Service::new(digest, source))))
}

pub(super) fn keep_container(
    engine: &Engine,
    parent: Option<&Arc<Container>>,
    config: Config,
    step: Step,
    key: &str,
    layers: u32,
) -> Node {
    let digest = digest((parent.map(|parent| &parent.digest), key));
    let id = format!("Container:{digest}");
    let container = Container {
        digest,
        parent: parent.cloned(),
        config,
        step,
        layers,
        done: Default::default(),
    };
    engine.intern(&id, Node::Container(Arc::new(container)))
}

pub(super) fn keep_directory(engine: &Engine, source: Source, key: &str, layers: u32) -> Node {
    let digest = digest(("directory", key));
    let id = format!("Directory:{digest}");
    engine.intern(
        &id,
        Node::Directory(Arc::new(Directory {
            digest,
            source,
            layers,
        })),
    )
}

pub(super) fn keep_file(engine: &Engine, source: FileSource, key: &str) -> Node {
    let digest = digest(("file", key));
    let id = format!("File:{digest}");
    engine.intern(&id, Node::File(Arc::new(File { digest, source })))
}

/// A path of the guest from the container's workdir, without `.`, `..` and superfluous slashes.
pub(super) fn absolute(config: &Config, path: &str) -> String {
    match path.starts_with('/') {
        true => clean(path),
        false => clean(&format!(
            "{}/{path}",
            config.workdir.as_deref().unwrap_or("/")
        )),
    }
}

/// An absolute path without `.`, `..` and superfluous slashes.
pub(super) fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}
