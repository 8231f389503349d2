//! Presets of agents: data, with a check that it has one meaning.
//!
//! A preset must never be able to put a prompt where a program would take it for an option.

use std::collections::BTreeMap;

use sandbox_core::{Command, EgressPolicy, EgressRule, Secret};
use sandbox_sessions::{Key, Status};
use serde::Deserialize;

use crate::{Error, Result, StreamRule};

const BUILTIN: &str = include_str!("presets.toml");
const PROMPT: &str = "{prompt}";

/// The name by which a sandbox reaches its model; it exists there alone.
const MODEL_NAME: &str = "model.internal";

/// Description of one agent: how it is installed, started and understood.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Preset {
    /// The agent's name for people.
    pub title: String,
    /// Image that an environment starts from, where the backend has images and the request names no
    /// other source.
    #[serde(default)]
    pub image: Option<String>,
    /// Programs that must be in the sandbox.
    #[serde(default)]
    pub tools: Vec<String>,
    /// Scripts of `/bin/sh` that install the agent. Default: none, so that the agent's program must be
    /// there.
    #[serde(default)]
    pub setup: Vec<String>,
    /// Names that these scripts reach, by TLS on port 443.
    #[serde(default)]
    pub setup_hosts: Vec<String>,
    /// Scripts of `/bin/sh` that write the agent's settings, run in each environment once the model's
    /// variables are set. They need no network.
    #[serde(default)]
    pub configure: Vec<String>,
    /// Variables of the agent.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Program and arguments. `{prompt}` stands for the prompt; without it the prompt is standard
    /// input.
    pub command: Vec<String>,
    /// Service of the agent's model. Default: none that a key opens.
    #[serde(default)]
    pub model: Option<ModelHost>,
    /// Rules by which standard output tells a status; the first that fits counts.
    #[serde(default)]
    pub stream: Vec<StreamRule>,
}

/// The service that an agent's model is behind.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct ModelHost {
    /// Name of the host; it is reached by TLS on port 443, from the host's side.
    pub host: String,
    /// Header that has the key.
    pub header: String,
    /// Text before the key in that header.
    #[serde(default)]
    pub prefix: String,
    /// Variable that gives the agent another address of the model; a script of
    /// [`configure`](Preset::configure) can put it where the agent looks.
    pub url: String,
    /// Path behind the name in that address.
    #[serde(default)]
    pub path: String,
    /// Variable that the agent wants to have a key in; it gets a placeholder.
    pub key: String,
}

impl ModelHost {
    /// The policy that lets a sandbox reach this model alone, with the key added on the host's side.
    pub(crate) fn policy(&self, key: &Secret) -> EgressPolicy {
        let mut value = self.prefix.clone().into_bytes();
        value.extend_from_slice(key.expose());
        let rule = EgressRule::exact(MODEL_NAME)
            .upstream(&self.host)
            .header(&self.header, Secret::new(value));
        EgressPolicy::new().rule(rule)
    }

    /// The address of the model as the sandbox sees it with that policy.
    pub(crate) fn address(&self) -> String {
        format!("http://{MODEL_NAME}{}", self.path)
    }
}

impl Preset {
    fn check(&self, name: &str) -> Result<()> {
        let wrong = |why: String| Error::invalid(format!("the preset {name:?}: {why}"));
        Key::new(name).map_err(|error| wrong(error.to_string()))?;
        if self
            .command
            .first()
            .is_none_or(|program| program.contains(PROMPT))
        {
            return Err(wrong("its command names no program".to_owned()));
        }
        for pair in self.command.windows(2) {
            // `--option={prompt}` and `-- {prompt}` are one argument whatever the prompt is.
            let alone = pair[1].starts_with(PROMPT);
            if alone && pair[0] != "--" {
                return Err(wrong(format!(
                    "{:?} could be taken for an option: write \"--\" before it, join it to its \
                     option (--option={{prompt}}), or leave it out to give the prompt as standard \
                     input",
                    pair[1]
                )));
            }
        }
        for rule in &self.stream {
            let told = matches!(
                rule.status,
                Status::Working | Status::Waiting | Status::Thinking | Status::Error
            );
            if !told || rule.when.is_empty() {
                return Err(wrong(
                    "a rule of its stream needs a condition, and a status of working, waiting, \
                     thinking or error"
                        .to_owned(),
                ));
            }
        }
        for tool in &self.tools {
            if tool.is_empty() || tool.starts_with('-') || tool.contains('/') {
                return Err(wrong(format!("{tool:?} is not the name of a program")));
            }
        }
        Ok(())
    }

    /// The command line for a prompt. What setup installed below the home directory is found first.
    pub(crate) fn command(&self, prompt: &str) -> Command {
        let mut argv = self.command.iter().map(|part| part.replace(PROMPT, prompt));
        let program = argv.next().unwrap_or_default();
        let command = if self.setup.is_empty() {
            Command::new(program).args(argv)
        } else {
            const FIND: &str = "PATH=\"$HOME/.local/bin:$HOME/.local/node_modules/.bin:$PATH\"; \
                                export PATH; exec \"$0\" \"$@\"";
            Command::new("sh")
                .args(["-c", FIND])
                .arg(program)
                .args(argv)
        };
        let placed = self.command.iter().any(|part| part.contains(PROMPT));
        let command = match placed {
            true => command,
            false => command.stdin(prompt.to_owned()),
        };
        self.env.iter().fold(command, |command, (name, value)| {
            command.env(name.as_str(), value.as_str())
        })
    }
}

/// Presets by name.
#[derive(Clone, Debug, Default)]
pub struct Presets(BTreeMap<String, Preset>);

impl Presets {
    /// An empty list of presets.
    pub fn new() -> Self {
        Self::default()
    }

    /// Those of this crate: `claude`, `codex`, `gemini`, `opencode`, `aider`.
    ///
    /// ```
    /// let presets = sandbox_coding::Presets::builtin()?;
    /// assert_eq!(presets.get("claude")?.title, "Claude Code");
    /// # Ok::<(), sandbox_coding::Error>(())
    /// ```
    ///
    /// # Errors
    /// None in a released version: a test reads them all.
    pub fn builtin() -> Result<Self> {
        Self::new().with_file(BUILTIN)
    }

    /// Adds the presets of a TOML text, one table for each; one of the same name is replaced.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) that says what can't be right.
    pub fn with_file(mut self, text: &str) -> Result<Self> {
        let read: BTreeMap<String, Preset> = toml::from_str(text)
            .map_err(|error| Error::invalid(format!("the presets can't be read: {error}")))?;
        for (name, preset) in read {
            preset.check(&name)?;
            self.0.insert(name, preset);
        }
        Ok(self)
    }

    /// Adds one preset as TOML.
    ///
    /// # Errors
    /// Those of [`with_file`](Presets::with_file).
    pub fn with(mut self, name: &str, text: &str) -> Result<Self> {
        let preset: Preset = toml::from_str(text)
            .map_err(|error| Error::invalid(format!("the preset {name:?}: {error}")))?;
        preset.check(name)?;
        self.0.insert(name.to_owned(), preset);
        Ok(self)
    }

    /// The preset of this name.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) with the names that there are.
    pub fn get(&self, name: &str) -> Result<&Preset> {
        self.0.get(name).ok_or_else(|| {
            let shown: String = name.chars().take(64).collect();
            Error::invalid(format!("there is no agent {shown:?}")).with_hint(format!(
                "there are: {}",
                self.names().collect::<Vec<_>>().join(", ")
            ))
        })
    }

    /// Returns the names that there are.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_can_be_read_and_no_prompt_becomes_an_option() {
        let presets = Presets::builtin().unwrap();
        let names: Vec<_> = presets.names().collect();
        assert_eq!(names, ["aider", "claude", "codex", "gemini", "opencode"]);
        for name in names {
            let preset = presets.get(name).unwrap();
            let prompt = "--help; $(touch /tmp/x) `id` \n-rf";
            let command = preset.command(prompt);
            for pair in command.argv().windows(2) {
                if pair[1].starts_with(b"--help") {
                    assert_eq!(pair[0], b"--", "{name}");
                }
            }
            // Only as an argument or as standard input, never as a part of a script.
            assert!(
                !command.argv()[..3]
                    .concat()
                    .windows(4)
                    .any(|w| w == b"help")
            );
        }
        assert!(
            presets
                .get("../claude")
                .unwrap_err()
                .to_string()
                .contains("aider, claude")
        );
    }

    #[test]
    fn a_preset_with_two_meanings_is_refused() {
        for (name, text, said) in [
            ("a", "title = 'A'\ncommand = ['a', '{prompt}']", "option"),
            ("a", "title = 'A'\ncommand = []", "program"),
            ("a", "title = 'A'\ncommand = ['{prompt}']", "program"),
            ("a", "title = 'A'\ncommand = ['a']\ntols = []", "tols"),
            ("a;b", "title = 'A'\ncommand = ['a']", "a;b"),
            ("a", "title = 'A'\ncommand = ['a']\ntools = ['-x']", "-x"),
            (
                "a",
                "title = 'A'\ncommand = ['a']\nstream = [{ when = {}, status = 'error' }]",
                "condition",
            ),
            (
                "a",
                "title = 'A'\ncommand = ['a']\nstream = [{ when = { '/a' = 1 }, status = 'gone' }]",
                "status",
            ),
        ] {
            let error = Presets::new().with(name, text).unwrap_err();
            assert!(error.to_string().contains(said), "{text}: {error}");
        }
    }
}
