//! A container of an app, a job or a pool: image, command, environment, size, probes.
//!
//! Source: <https://learn.microsoft.com/azure/container-apps/containers>

use sandbox_core::Result;
use serde::{Deserialize, Serialize};

/// Share of a machine that a container gets. The service has pairs of 1 processor to 2 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    millicores: u32,
}

impl Size {
    /// Quarters of a processor, each with half a GiB of memory: 1 to 16.
    ///
    /// # Errors
    /// [`InvalidInput`](sandbox_core::ErrorKind::InvalidInput) for any other number.
    pub fn quarters(quarters: u32) -> Result<Self> {
        match (1..=16).contains(&quarters) {
            true => Ok(Self {
                millicores: quarters * 250,
            }),
            false => Err(sandbox_core::Error::new(
                sandbox_core::ErrorKind::InvalidInput,
                sandbox_core::Operation::Provision,
            )
            .with_message("a container has 1 to 16 quarters of a processor")),
        }
    }

    /// Processors.
    pub fn cpu(&self) -> f64 {
        f64::from(self.millicores) / 1000.0
    }

    /// Memory in GiB.
    pub fn memory_gib(&self) -> f64 {
        2.0 * self.cpu()
    }
}

impl Default for Size {
    /// Half a processor and 1 GiB.
    fn default() -> Self {
        Self { millicores: 500 }
    }
}

/// Purpose of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ProbeType {
    /// Whether it is to be restarted.
    Liveness,
    /// Whether it gets requests.
    Readiness,
    /// Whether it has started.
    Startup,
}

/// A question by HTTP whether a container is well.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Probe {
    /// Purpose of the probe.
    pub kind: ProbeType,
    /// Path that is asked for.
    pub path: String,
    /// The port that is asked.
    pub port: u16,
}

impl Probe {
    /// Asks for this path at this port.
    pub fn new(kind: ProbeType, path: impl Into<String>, port: u16) -> Self {
        Self {
            kind,
            path: path.into(),
            port,
        }
    }
}

/// A variable of a container's environment.
#[derive(Clone, PartialEq, Eq)]
enum Value {
    Plain(String),
    Secret(String),
}

/// A container.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Container {
    /// The name among those of the app.
    pub name: String,
    /// The image, best by digest: `registry/name@sha256:…`.
    pub image: String,
    /// The program in place of the image's entry point.
    pub command: Vec<String>,
    /// The arguments.
    pub args: Vec<String>,
    /// The share of a machine.
    pub size: Size,
    /// Probes by which the service sees whether it is well.
    pub probes: Vec<Probe>,
    env: Vec<(String, Value)>,
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Container")
            .field("name", &self.name)
            .field("image", &self.image)
            .field("size", &self.size)
            .field("env", &names)
            .finish_non_exhaustive()
    }
}

impl Container {
    /// A container `main` of this image.
    pub fn new(image: impl Into<String>) -> Self {
        Self {
            name: "main".into(),
            image: image.into(),
            command: Vec::new(),
            args: Vec::new(),
            size: Size::default(),
            probes: Vec::new(),
            env: Vec::new(),
        }
    }

    /// Runs this program in place of the image's entry point.
    #[must_use]
    pub fn command(mut self, words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.command = words.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the arguments.
    #[must_use]
    pub fn args(mut self, words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.args = words.into_iter().map(Into::into).collect();
        self
    }

    /// Sets a variable, which everyone sees who may read the app.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), Value::Plain(value.into())));
        self
    }

    /// Sets a variable to a secret of the app or job.
    #[must_use]
    pub fn secret_env(mut self, name: impl Into<String>, secret: impl Into<String>) -> Self {
        self.env.push((name.into(), Value::Secret(secret.into())));
        self
    }

    sandbox_core::setters! {
        /// Gives it this share of a machine.
        size: Size,
    }

    /// Makes the service ask whether it is well.
    #[must_use]
    pub fn probe(mut self, probe: Probe) -> Self {
        self.probes.push(probe);
        self
    }

    /// Whether the image is named by its digest, so that it can't change under its name.
    pub fn is_pinned(&self) -> bool {
        let digest = self.image.rsplit_once("@sha256:").map(|(_, digest)| digest);
        digest.is_some_and(|digest| {
            digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
    }

    pub(super) fn wire(&self) -> Wire {
        let words = |words: &[String]| (!words.is_empty()).then(|| words.to_vec());
        let probes = self.probes.iter().map(|probe| ProbeWire {
            kind: probe.kind,
            http_get: HttpGet {
                path: probe.path.clone(),
                port: probe.port,
            },
        });
        let env = self.env.iter().map(|(name, value)| match value {
            Value::Plain(value) => Variable {
                name: name.clone(),
                value: Some(value.clone()),
                secret_ref: None,
            },
            Value::Secret(secret) => Variable {
                name: name.clone(),
                value: None,
                secret_ref: Some(secret.clone()),
            },
        });
        Wire {
            name: self.name.clone(),
            image: self.image.clone(),
            command: words(&self.command),
            args: words(&self.args),
            env: env.collect(),
            resources: Resources {
                cpu: self.size.cpu(),
                memory: format!("{}Gi", self.size.memory_gib()),
            },
            probes: Some(probes.collect::<Vec<_>>()).filter(|probes| !probes.is_empty()),
        }
    }
}

/// A container as it is sent.
#[derive(Serialize)]
pub(super) struct Wire {
    pub(super) name: String,
    image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<Vec<String>>,
    pub(super) env: Vec<Variable>,
    resources: Resources,
    #[serde(skip_serializing_if = "Option::is_none")]
    probes: Option<Vec<ProbeWire>>,
}

/// A variable as it is sent and shown.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Variable {
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) secret_ref: Option<String>,
}

#[derive(Serialize)]
struct Resources {
    cpu: f64,
    memory: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProbeWire {
    #[serde(rename = "type")]
    kind: ProbeType,
    http_get: HttpGet,
}

#[derive(Serialize)]
struct HttpGet {
    path: String,
    port: u16,
}
