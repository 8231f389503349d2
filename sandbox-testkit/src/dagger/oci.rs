//! Images as archives: OCI layout with one layer, written and read.
//!
//! A layer holds what lies on the container's own filesystem. This machine's programs, which every
//! container of the double has from the start, are mounted over that and not part of it.
//!
//! Invariant: what is read is untrusted: a blob is looked up in memory, never on the host.

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::Arc;

use sandbox_core::{Command, ReadOptions, Sandbox, SandboxExt as _};
use serde_json::{Map, Value, json};

use super::config::Config;
use super::container::Container;
use super::engine::{Engine, Failure};
use crate::distribution::{CONFIG, LAYER, LAYER_TAR, MANIFEST, hex};

/// The archive of a container.
pub(super) async fn write(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
) -> Result<Vec<u8>, Failure> {
    let state = container.state(engine).await?;
    let layer = pack(&*state).await?;
    let mut archive = Archive(tar::Builder::new(Vec::new()));
    let layer = archive.blob(LAYER_TAR, &layer)?;
    let config = described(&container.config, &layer["digest"]).to_string();
    let config = archive.blob(CONFIG, config.as_bytes())?;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer],
    });
    let manifest = archive.blob(MANIFEST, manifest.to_string().as_bytes())?;
    let index = json!({"schemaVersion": 2, "manifests": [manifest]}).to_string();
    archive.file("index.json", index.as_bytes())?;
    archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(archive.0.into_inner()?)
}

/// The configuration of an image with this layer.
pub(super) fn described(config: &Config, layer: &Value) -> Value {
    let env = config
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect::<Vec<_>>();
    let labels = config.labels.iter();
    let labels: Map<_, _> = labels
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "architecture": architecture,
        "os": "linux",
        "config": {
            "Env": env, "Labels": labels, "User": config.user,
            "WorkingDir": config.workdir.as_deref().unwrap_or(""),
            "Entrypoint": config.entrypoint,
        },
        "rootfs": {"type": "layers", "diff_ids": [layer]},
    })
}

struct Archive(tar::Builder<Vec<u8>>);

impl Archive {
    fn file(&mut self, name: &str, content: &[u8]) -> Result<(), Failure> {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        Ok(self.0.append_data(&mut header, name, content)?)
    }

    /// Adds a blob and describes it.
    fn blob(&mut self, media_type: &str, content: &[u8]) -> Result<Value, Failure> {
        let digest = hex(content);
        self.file(&format!("blobs/sha256/{digest}"), content)?;
        Ok(json!({
            "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": content.len(),
        }))
    }
}

/// An archive's configuration and layer.
pub(super) fn read(archive: &[u8]) -> Result<(Config, Vec<u8>), Failure> {
    let bad = |what: &str| Failure::text(format_args!("invalid archive: {what}"));
    let mut files = HashMap::new();
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        files.insert(name, content);
    }
    let blob = |described: &Value| {
        let digest = described.get("digest").and_then(Value::as_str);
        let digest = digest.and_then(|digest| digest.strip_prefix("sha256:"));
        let digest = digest.ok_or_else(|| bad("a blob without a digest"))?;
        let content = files.get(&format!("blobs/sha256/{digest}"));
        let content = content.filter(|content| hex(content) == digest);
        content.ok_or_else(|| bad("a blob is missing or is not what its digest says"))
    };
    let parse = |content: &[u8]| {
        serde_json::from_slice::<Value>(content).map_err(|error| bad(&error.to_string()))
    };
    let index = files
        .get("index.json")
        .ok_or_else(|| bad("no index.json"))?;
    let manifest = parse(blob(&parse(index)?["manifests"][0])?)?;
    let layers = manifest["layers"].as_array().map_or(&[][..], Vec::as_slice);
    let [layer] = layers else {
        return Err(bad("the double reads images of one layer"));
    };
    if layer["mediaType"] != LAYER_TAR {
        return Err(bad("the double reads layers that are not compressed"));
    }
    let described = parse(blob(&manifest["config"])?)?;
    let described = &described["config"];
    let texts = |name: &str| {
        let list = described[name].as_array().cloned().unwrap_or_default();
        let text = |value: Value| value.as_str().map(str::to_owned);
        list.into_iter().filter_map(text).collect::<Vec<_>>()
    };
    let text = |name: &str| described[name].as_str().unwrap_or_default().to_owned();
    let pair = |entry: String| {
        let (name, value) = entry.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    };
    let labels = described["Labels"].as_object().cloned().unwrap_or_default();
    let labels = labels.into_iter();
    let config = Config {
        env: texts("Env").into_iter().filter_map(pair).collect(),
        workdir: Some(text("WorkingDir")).filter(|workdir| !workdir.is_empty()),
        user: text("User"),
        labels: labels
            .map(|(name, value)| (name, value.as_str().unwrap_or_default().to_owned()))
            .collect(),
        entrypoint: texts("Entrypoint"),
        ..Config::default()
    };
    Ok((config, blob(layer)?.clone()))
}

pub(super) async fn pack(state: &dyn Sandbox) -> Result<Vec<u8>, Failure> {
    let child = state.fork_one().await?;
    // No other process changes files in there.
    let script = "tar --one-file-system --exclude=\"./${1#/}\" -cf \"$1\" -C / . 2>&1; :";
    child
        .exec(Command::shell(script).cwd("/").args(["sh", LAYER]))
        .await?;
    let options = ReadOptions::new().limit(1 << 30);
    let layer = child.read_file(&LAYER.into(), options).await;
    child.close().await?;
    Ok(layer?.into())
}
