//! What every field of every type does.
//!
//! Invariant: a field that is not known is an error that names it.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use sandbox_core::SandboxExt as _;
use serde_json::{Map, Value, json};

use super::config::{Cache, Config};
use super::container::{Container, Step, exit_code, stream_text};
use super::directory::{Directory, Edit, File, FileSource, Source, below, blocking};
use super::dockerfile;
use super::engine::{Engine, Failure, Node, SecretValue, digest};
use super::host;
use super::introspection;
use super::oci;
use super::query::Field;
use super::service::{Service, ServiceSource};
use super::steps::step_field;

/// What a field gives.
pub(super) enum Given {
    Value(Value),
    Node(Node),
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
            let value = match give(engine, node, field).await? {
                Given::Value(value) => value,
                Given::Node(node) => below_node(engine, &node, field).await?,
            };
            into.insert(field.key.clone(), value);
        }
        Ok(())
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
    }
}

fn unknown(node: &Node, field: &Field) -> Result<Given, Failure> {
    Err(Failure::text(format_args!(
        "Cannot query field {:?} on type {:?}.",
        field.name,
        type_name(node)
    )))
}

async fn query(engine: &Arc<Engine>, field: &Field) -> Result<Given, Failure> {
    let node = match field.name.as_str() {
        "__schema" => return Ok(Given::Value(introspection::schema()?)),
        "version" => return Ok(Given::Value(json!("v0.21.11"))),
        "host" => Node::Host,
        "node" => engine.node(field.need("id")?)?,
        "container" => keep_container(engine, None, Config::default(), Step::Scratch, "scratch", 0),
        "directory" => keep_directory(engine, Source::Empty, "empty", 0),
        "setSecret" => {
            let (name, plaintext) = (field.need("name")?, field.need("plaintext")?);
            let secret = Arc::new(SecretValue {
                name: name.to_owned(),
                plaintext: plaintext.to_owned(),
            });
            engine.intern(&format!("Secret:{}", digest(name)), Node::Secret(secret))
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

async fn host_field(engine: &Arc<Engine>, field: &Field) -> Result<Given, Failure> {
    match field.name.as_str() {
        "directory" => {
            let path = PathBuf::from(field.need("path")?);
            let cached = !field.flag("noCache") && engine.quirks().host_cache;
            let key = match cached {
                true => format!("host {}", path.display()),
                false => format!("host {} {}", path.display(), engine.unique()),
            };
            // A directory that was asked for without the cache is read now: it is gone later.
            let source = Source::Host { path, cached };
            let node = keep_directory(engine, source, &key, 1);
            if let (false, Node::Directory(directory)) = (cached, &node) {
                let copied = directory.read(engine).await?;
                let pinned = Source::Host {
                    path: copied.path.clone(),
                    cached: true,
                };
                engine.host.pin(copied);
                return Ok(Given::Node(keep_directory(
                    engine,
                    pinned,
                    &format!("{key} read"),
                    1,
                )));
            }
            Ok(Given::Node(node))
        }
        "file" => {
            let path = PathBuf::from(field.need("path")?);
            let mut key = format!("host file {}", path.display());
            if field.flag("noCache") || !engine.quirks().host_cache {
                key = format!("{key} {}", engine.unique());
            }
            Ok(Given::Node(keep_file(
                engine,
                FileSource::Host { path },
                &key,
            )))
        }
        "tunnel" => {
            let upstream = engine.service(field.need("service")?)?;
            let key = format!("tunnel {}", upstream.digest);
            Ok(Given::Node(keep_service(
                engine,
                ServiceSource::Tunnel(upstream),
                &key,
            )))
        }
        _ => unknown(&Node::Host, field),
    }
}

fn keep_service(engine: &Engine, source: ServiceSource, key: &str) -> Node {
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

/// A path of the guest from the container's workdir.
pub(super) fn absolute(config: &Config, path: &str) -> String {
    match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("{}/{path}", config.workdir.as_deref().unwrap_or("/")),
    }
}

async fn container_field(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    field: &Field,
) -> Result<Given, Failure> {
    let text = |bytes: &[u8]| Given::Value(json!(stream_text(engine, bytes)));
    Ok(match field.name.as_str() {
        "id" => Given::Value(json!(format!("Container:{}", container.digest))),
        "sync" => {
            container.evaluate(engine).await?;
            Given::Value(json!(format!("Container:{}", container.digest)))
        }
        "stdout" => text(&container.output(engine).await?.stdout.bytes),
        "stderr" => text(&container.output(engine).await?.stderr.bytes),
        "exitCode" => Given::Value(json!(exit_code(&*container.output(engine).await?))),
        "workdir" => Given::Value(json!(container.config.workdir.as_deref().unwrap_or(""))),
        "envVariable" => {
            let name = field.need("name")?;
            let found = container
                .config
                .env
                .iter()
                .rev()
                .find(|(known, _)| known == name);
            Given::Value(found.map_or(Value::Null, |(_, value)| json!(value)))
        }
        "exists" => {
            let path = absolute(&container.config, field.need("path")?);
            Given::Value(json!(
                container.state(engine).await?.exists(path.as_str()).await?
            ))
        }
        "user" => Given::Value(json!(container.config.user)),
        "label" => {
            let name = field.need("name")?;
            let mut labels = container.config.labels.iter();
            let found = labels.find(|(known, _)| known == name);
            Given::Value(found.map_or(Value::Null, |(_, value)| json!(value)))
        }
        "combinedOutput" => {
            // The double does not know in which order the streams were written.
            let output = container.output(engine).await?;
            text(&[&output.stdout.bytes[..], &output.stderr.bytes].concat())
        }
        "import" => {
            let file = engine.file(field.need("source")?)?;
            let (config, layer) = oci::read(&file.read(engine).await?)?;
            let key = format!("import {}", file.digest);
            let step = Step::Layer(Arc::new(layer));
            Given::Node(keep_container(engine, None, config, step, &key, 1))
        }
        "publish" => {
            let address = field.need("address")?;
            let published = engine.registry.publish(engine, container, address);
            Given::Value(json!(published.await?))
        }
        "asTarball" => {
            let key = format!("{} as tarball", container.digest);
            let source = FileSource::Image(container.clone());
            Given::Node(keep_file(engine, source, &key))
        }
        "asService" => {
            let args = field.texts("args");
            let key = format!("{} {args:?}", container.digest);
            let source = ServiceSource::Container {
                container: container.clone(),
                args,
            };
            Given::Node(keep_service(engine, source, &key))
        }
        "file" => {
            let path = absolute(&container.config, field.need("path")?);
            let key = format!("{} {path}", container.digest);
            let source = FileSource::Guest {
                container: container.clone(),
                path,
            };
            Given::Node(keep_file(engine, source, &key))
        }
        "directory" | "rootfs" => {
            let path = absolute(&container.config, field.text("path").unwrap_or("/"));
            let key = format!("{} {path}", container.digest);
            let source = Source::Guest {
                container: container.clone(),
                path,
            };
            Given::Node(keep_directory(engine, source, &key, container.layers))
        }
        _ => return step_field(engine, container, field),
    })
}

async fn directory_field(
    engine: &Arc<Engine>,
    directory: &Arc<Directory>,
    field: &Field,
) -> Result<Given, Failure> {
    Ok(match field.name.as_str() {
        "id" => Given::Value(json!(format!("Directory:{}", directory.digest))),
        "sync" => {
            directory.read(engine).await?;
            Given::Value(json!(format!("Directory:{}", directory.digest)))
        }
        "entries" => {
            let path = field.text("path").unwrap_or("/");
            Given::Value(json!(directory.entries(engine, path).await?))
        }
        "exists" => {
            let copied = directory.read(engine).await?;
            let there = below(&copied.path, field.need("path")?)
                .symlink_metadata()
                .is_ok();
            Given::Value(json!(there))
        }
        "file" => {
            let path = field.need("path")?.to_owned();
            let key = format!("{} {path}", directory.digest);
            let source = FileSource::Below {
                directory: directory.clone(),
                path,
            };
            Given::Node(keep_file(engine, source, &key))
        }
        "directory" => {
            let path = field.need("path")?.to_owned();
            let key = format!("{} below {path}", directory.digest);
            let source = Source::Below {
                base: directory.clone(),
                path,
            };
            Given::Node(keep_directory(engine, source, &key, directory.layers))
        }
        "dockerBuild" => {
            let file = field.text("dockerfile").unwrap_or("Dockerfile");
            Given::Node(dockerfile::build(engine, directory, file).await?)
        }
        "withNewFile" | "withNewDirectory" | "withFile" | "withoutFile" | "withoutDirectory" => {
            let path = field.need("path")?.to_owned();
            let edit = match field.name.as_str() {
                "withNewFile" => Edit::NewFile(field.need("contents")?.to_owned()),
                "withNewDirectory" => Edit::NewDirectory,
                "withFile" => Edit::File(engine.file(field.need("source")?)?),
                _ => Edit::Without,
            };
            let arguments = Value::Object(field.arguments.clone());
            let key = format!("{} {} {arguments}", directory.digest, field.name);
            let source = Source::Edit {
                base: directory.clone(),
                path,
                edit,
            };
            let layers = directory.layers + 1;
            Given::Node(keep_directory(engine, source, &key, layers))
        }
        "withDirectory" => {
            let path = field.need("path")?.to_owned();
            let id = field
                .text("source")
                .map_or_else(|| field.need("directory"), Ok)?;
            let other = engine.directory(id)?;
            let key = format!("{} with {path} {}", directory.digest, other.digest);
            let layers = directory.layers + 1;
            let source = Source::With {
                base: directory.clone(),
                path,
                other,
            };
            Given::Node(keep_directory(engine, source, &key, layers))
        }
        "export" => {
            let copied = directory.read(engine).await?;
            let to = PathBuf::from(field.need("path")?);
            let wipe = field.flag("wipe");
            let target = to.clone();
            blocking(move || {
                if wipe && to.exists() {
                    std::fs::remove_dir_all(&to)?;
                }
                std::fs::create_dir_all(&to)?;
                Ok(host::copy(&copied.path, &to)?)
            })
            .await?;
            Given::Value(json!(target.to_string_lossy()))
        }
        _ => return unknown(&Node::Directory(directory.clone()), field),
    })
}

async fn file_field(
    engine: &Arc<Engine>,
    file: &Arc<File>,
    field: &Field,
) -> Result<Given, Failure> {
    Ok(match field.name.as_str() {
        "id" => Given::Value(json!(format!("File:{}", file.digest))),
        "sync" => {
            file.read(engine).await?;
            Given::Value(json!(format!("File:{}", file.digest)))
        }
        "contents" => Given::Value(json!(stream_text(engine, &file.read(engine).await?))),
        "size" => Given::Value(json!(file.read(engine).await?.len())),
        "export" => {
            let bytes = file.read(engine).await?;
            let to = PathBuf::from(field.need("path")?);
            let target = to.clone();
            blocking(move || Ok(std::fs::write(to, bytes)?)).await?;
            Given::Value(json!(target.to_string_lossy()))
        }
        _ => return unknown(&Node::File(file.clone()), field),
    })
}
