//! The fields of the host, of directories and of files.
//!
//! Invariant: nothing of the host is changed but what an export names.

use std::path::PathBuf;
use std::sync::Arc;

use sandbox_core::SandboxExt as _;
use serde_json::{Value, json};

use super::container::stream_text;
use super::directory::{Directory, Edit, File, FileSource, Source, below, blocking};
use super::dockerfile;
use super::engine::{Engine, Failure, Node};
use super::eval::{Given, keep_directory, keep_file, keep_service, unknown};
use super::host;
use super::query::Field;
use super::service::ServiceSource;
use super::stat;

pub(super) async fn host_field(engine: &Arc<Engine>, field: &Field) -> Result<Given, Failure> {
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

pub(super) async fn directory_field(
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
            if let Some((state, at)) = directory.in_guest(engine, field.need("path")?).await? {
                return Ok(Given::Value(json!(state.exists(at.as_str()).await?)));
            }
            let copied = directory.read(engine).await?;
            let there = below(&copied.path, field.need("path")?)
                .symlink_metadata()
                .is_ok();
            Given::Value(json!(there))
        }
        "stat" => {
            let path = field.need("path")?.to_owned();
            let follow = !field.flag("doNotFollowSymlinks");
            if let Some((state, at)) = directory.in_guest(engine, &path).await? {
                let stat = stat::of_guest(&*state, &at, follow).await?;
                return Ok(Given::Node(Node::Stat(Arc::new(stat))));
            }
            let copied = directory.read(engine).await?;
            let stat = blocking(move || stat::of_tree(&copied.path, &path, follow)).await?;
            Given::Node(Node::Stat(Arc::new(stat)))
        }
        "glob" => {
            let copied = directory.read(engine).await?;
            let pattern = field.need("pattern")?.to_owned();
            Given::Value(json!(
                blocking(move || stat::glob(&copied.path, &pattern)).await?
            ))
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

pub(super) async fn file_field(
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
        "withTimestamps" => {
            let time = field.arguments.get("timestamp").and_then(Value::as_u64);
            let time = time.ok_or_else(|| Failure::text("the timestamp is not a number"))?;
            let key = format!("{} at {time}", file.digest);
            let source = FileSource::Timed {
                file: file.clone(),
                time,
            };
            Given::Node(keep_file(engine, source, &key))
        }
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
