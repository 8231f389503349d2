//! The fields of a container that tell something of it, or make something else than a container.
//!
//! Invariant: only those are evaluated whose answer needs it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::container::{Container, Step, exit_code, stream_text};
use super::directory::{FileSource, Source};
use super::engine::{Engine, Failure, Node, digest};
use super::eval::{Given, absolute, keep_container, keep_directory, keep_file, keep_service};
use super::oci;
use super::query::Field;
use super::service::ServiceSource;
use super::stat;
use super::steps::step_field;

pub(super) async fn container_field(
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
        "stdout" | "stderr" => {
            let output = container.output(engine).await?;
            let bytes = match field.name.as_str() {
                "stdout" => &output.stdout.bytes,
                _ => &output.stderr.bytes,
            };
            let said = stream_text(engine, bytes);
            engine.logs.again(&said);
            Given::Value(json!(said))
        }
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
            let kind = field.text("expectedType");
            let follow = !field.flag("doNotFollowSymlinks") && kind != Some("SYMLINK_TYPE");
            let state = container.state(engine).await?;
            let is = match stat::of_guest(&*state, &path, follow).await {
                Ok(stat) => stat.is(kind),
                Err(failure) if failure.message.ends_with(stat::MISSING) => false,
                Err(failure) => return Err(failure),
            };
            Given::Value(json!(is))
        }
        "envVariables" => Given::Nodes(
            container
                .config
                .env
                .iter()
                .map(|(name, value)| {
                    let variable = (name.clone(), value.clone());
                    let id = format!("EnvVariable:{}", digest(&variable));
                    let variable = Arc::new(variable);
                    engine.intern(&id, Node::EnvVariable(variable))
                })
                .collect(),
        ),
        "stat" => {
            let path = absolute(&container.config, field.need("path")?);
            let follow = !field.flag("doNotFollowSymlinks");
            let state = container.state(engine).await?;
            let stat = stat::of_guest(&*state, &path, follow).await?;
            Given::Node(Node::Stat(Arc::new(stat)))
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
        "exportImage" => {
            return Err(Failure::text(
                "failed to export image: no image store on this host",
            ));
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
