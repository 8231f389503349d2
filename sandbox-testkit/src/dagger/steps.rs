//! The fields of a container that make another one.
//!
//! Invariant: none of them evaluates anything.

use std::sync::Arc;

use serde_json::Value;

use super::container::{Config, Container, Exec, Mount, Step};
use super::engine::{Engine, Failure};
use super::query::Field;

use super::eval::{Given, absolute, keep_container};
/// The fields that make another container.
pub(super) fn step_field(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    field: &Field,
) -> Result<Given, Failure> {
    let mut config = container.config.clone();
    let mut key = format!("{} {}", field.name, Value::Object(field.arguments.clone()));
    let mut layers = container.layers;
    let step = match field.name.as_str() {
        "from" => {
            layers = 1;
            Step::From(field.need("address")?.to_owned())
        }
        "withExec" => {
            if field.flag("experimentalPrivilegedNesting") || field.flag("insecureRootCapabilities")
            {
                return Err(Failure::text("the double gives no command these rights"));
            }
            if !engine.quirks().exec_cache {
                key.push_str(&engine.unique().to_string());
            }
            layers += 1;
            Step::Exec(Exec {
                args: field.texts("args"),
                stdin: field.text("stdin").unwrap_or("").to_owned(),
                any: field.text("expect") == Some("ANY"),
            })
        }
        "withRootfs" => {
            let directory = engine.directory(field.need("directory")?)?;
            layers = directory.layers;
            Step::Rootfs(directory)
        }
        "withDirectory" => {
            layers += 1;
            let directory = engine.directory(
                field
                    .text("source")
                    .map_or_else(|| field.need("directory"), Ok)?,
            )?;
            Step::Directory(absolute(&config, field.need("path")?), directory)
        }
        "withNewFile" => {
            layers += 1;
            let mode = field.arguments.get("permissions").and_then(Value::as_u64);
            let mode = mode
                .and_then(|mode| u32::try_from(mode).ok())
                .unwrap_or(0o644);
            let contents = field.need("contents")?.to_owned();
            Step::NewFile(absolute(&config, field.need("path")?), contents, mode)
        }
        "withoutFile" | "withoutDirectory" => {
            layers += 1;
            Step::Without(absolute(&config, field.need("path")?))
        }
        _ => {
            configure(engine, &mut config, field)?;
            Step::Config
        }
    };
    Ok(Given::Node(keep_container(
        engine,
        Some(container),
        config,
        step,
        &key,
        layers,
    )))
}

/// The fields that only change what later commands get.
fn configure(engine: &Engine, config: &mut Config, field: &Field) -> Result<(), Failure> {
    let without = |list: &mut Vec<(String, Mount)>, path: &str| list.retain(|(at, _)| at != path);
    match field.name.as_str() {
        "withEnvVariable" => {
            let (name, value) = (
                field.need("name")?.to_owned(),
                field.need("value")?.to_owned(),
            );
            config.env.retain(|(known, _)| *known != name);
            config.env.push((name, value));
        }
        "withoutEnvVariable" => {
            let name = field.need("name")?;
            config.env.retain(|(known, _)| known != name);
        }
        "withSecretVariable" => {
            let name = field.need("name")?.to_owned();
            let secret = engine.secret(field.need("secret")?)?;
            config.secrets.retain(|(known, _)| *known != name);
            config.secrets.push((name, secret));
        }
        "withoutSecretVariable" => {
            let name = field.need("name")?;
            config.secrets.retain(|(known, _)| known != name);
        }
        "withWorkdir" => config.workdir = Some(absolute(config, field.need("path")?)),
        "withMountedDirectory" => {
            let directory = engine.directory(field.need("source")?)?;
            let path = absolute(config, field.need("path")?);
            without(&mut config.mounts, &path);
            config.mounts.push((path, Mount::Directory(directory)));
        }
        "withMountedTemp" => {
            let path = absolute(config, field.need("path")?);
            without(&mut config.mounts, &path);
            config.mounts.push((path, Mount::Temp));
        }
        "withoutMount" => {
            let path = absolute(config, field.need("path")?);
            without(&mut config.mounts, &path);
        }
        _ => {
            return Err(Failure::text(format_args!(
                "Cannot query field {:?} on type \"Container\".",
                field.name
            )));
        }
    }
    Ok(())
}
