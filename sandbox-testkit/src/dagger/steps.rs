//! The fields of a container that make another one.
//!
//! Invariant: none of them evaluates anything.

use std::sync::Arc;

use serde_json::Value;

use super::cache::Sharing;
use super::config::{Config, Login, Mount};
use super::container::{Container, Exec, Expect, Step};
use super::engine::{Engine, Failure};
use super::eval::{Given, absolute, keep_container};
use super::query::Field;
use super::registry::check_reference;

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
            let address = field.need("address")?.to_owned();
            check_reference(&address)?;
            if let Some(image) = engine.registry.known(&address) {
                let logins = std::mem::take(&mut config.logins);
                config = Config {
                    logins,
                    ..image.config
                };
                key.push_str(&image.digest);
            }
            Step::From(address)
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
                expect: Expect::new(field.text("expect"))?,
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
        "withFile" => {
            layers += 1;
            let file = engine.file(field.need("source")?)?;
            Step::File(absolute(&config, field.need("path")?), file, mode(field))
        }
        "withNewFile" => {
            layers += 1;
            let contents = field.need("contents")?.to_owned();
            let mode = mode(field).unwrap_or(0o644);
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

/// The argument `permissions`.
pub(super) fn mode(field: &Field) -> Option<u32> {
    let mode = field.arguments.get("permissions").and_then(Value::as_u64);
    mode.and_then(|mode| u32::try_from(mode).ok())
}

/// The fields that only change what later commands get.
fn configure(engine: &Engine, config: &mut Config, field: &Field) -> Result<(), Failure> {
    let without = |list: &mut Vec<(String, Mount)>, path: &str| list.retain(|(at, _)| at != path);
    match field.name.as_str() {
        "withEnvVariable" => {
            Config::set(&mut config.env, field.need("name")?, field.need("value")?);
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
        "withMountedCache" => {
            let cache = engine.cache(field.need("cache")?)?;
            let path = absolute(config, field.need("path")?);
            without(&mut config.mounts, &path);
            let sharing = match field.text("sharing") {
                None | Some("SHARED") => Sharing::Shared,
                _ => Sharing::Locked,
            };
            config.mounts.push((path, Mount::Cache(cache, sharing)));
        }
        "withUser" => config.user = field.need("name")?.to_owned(),
        "withoutUser" => config.user.clear(),
        "withLabel" => Config::set(
            &mut config.labels,
            field.need("name")?,
            field.need("value")?,
        ),
        "withEntrypoint" => config.entrypoint = field.texts("args"),
        "withExposedPort" => {
            let port = field.arguments.get("port").and_then(Value::as_u64);
            let port = port.and_then(|port| u16::try_from(port).ok());
            let port = port.ok_or_else(|| Failure::text("the port is not a port number"))?;
            config.ports.retain(|known| *known != port);
            config.ports.push(port);
        }
        "withServiceBinding" => {
            let alias = field.need("alias")?.to_owned();
            let service = engine.service(field.need("service")?)?;
            config.bindings.retain(|(known, _)| *known != alias);
            config.bindings.push((alias, service));
        }
        "withRegistryAuth" => config.logins.push(Login {
            registry: field.need("address")?.to_owned(),
            user: field.need("username")?.to_owned(),
            password: engine.secret(field.need("secret")?)?,
        }),
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
