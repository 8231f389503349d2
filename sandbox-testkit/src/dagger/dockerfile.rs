//! Dockerfiles, as far as tests need them.
//!
//! Invariant: an instruction that is not known is an error that names it.

use std::sync::Arc;

use super::config::Config;
use super::container::{Container, Exec, Expect, Step};
use super::directory::{Directory, FileSource, Source, below};
use super::engine::{Engine, Failure, Node};
use super::eval::{absolute, keep_container, keep_directory, keep_file};

/// The container that a Dockerfile in a directory describes.
pub(super) async fn build(
    engine: &Arc<Engine>,
    context: &Arc<Directory>,
    file: &str,
) -> Result<Node, Failure> {
    let copied = context.read(engine).await?;
    let text = std::fs::read_to_string(below(&copied.path, file)).map_err(|error| {
        Failure::text(format_args!("failed to read dockerfile {file}: {error}"))
    })?;
    let mut at: Option<Arc<Container>> = None;
    for line in text.replace("\\\n", " ").lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (instruction, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        let mut config = at.as_ref().map(|at| at.config.clone()).unwrap_or_default();
        let mut layers = at.as_ref().map_or(1, |at| at.layers);
        let mut key = format!("dockerfile {line}");
        let step = match instruction.to_ascii_uppercase().as_str() {
            "FROM" => {
                at = None;
                config = Config::default();
                Step::From(
                    rest.split_whitespace()
                        .next()
                        .unwrap_or_default()
                        .to_owned(),
                )
            }
            "RUN" => {
                layers += 1;
                Step::Exec(Exec {
                    args: ["/bin/sh", "-c", rest].map(str::to_owned).into(),
                    stdin: String::new(),
                    expect: Expect::Success,
                })
            }
            "COPY" => {
                layers += 1;
                key = format!("{key} {}", context.digest);
                let (from, to) = rest.split_once(char::is_whitespace).unwrap_or((rest, "."));
                copy(engine, context, &copied.path, &config, from, to.trim())
            }
            "ENV" | "LABEL" => {
                let pair = rest.split_once('=').or_else(|| rest.split_once(' '));
                let (name, value) = pair.unwrap_or((rest, ""));
                let list = match instruction.eq_ignore_ascii_case("ENV") {
                    true => &mut config.env,
                    false => &mut config.labels,
                };
                Config::set(list, name.trim(), value.trim().trim_matches('"'));
                Step::Config
            }
            "WORKDIR" => {
                config.workdir = Some(absolute(&config, rest));
                Step::Config
            }
            "USER" => {
                config.user = rest.to_owned();
                Step::Config
            }
            "CMD" | "EXPOSE" => continue,
            unknown => {
                return Err(Failure::text(format_args!(
                    "dockerfile parse error: unknown instruction: {unknown}"
                )));
            }
        };
        let made = keep_container(engine, at.as_ref(), config, step, &key, layers);
        if let Node::Container(made) = made {
            at = Some(made);
        }
    }
    at.map(Node::Container)
        .ok_or_else(|| Failure::text("dockerfile parse error: no build stage"))
}

fn copy(
    engine: &Arc<Engine>,
    context: &Arc<Directory>,
    copied: &std::path::Path,
    config: &Config,
    from: &str,
    to: &str,
) -> Step {
    let target = absolute(config, to);
    if below(copied, from).is_dir() {
        let source = Source::Below {
            base: context.clone(),
            path: from.to_owned(),
        };
        let key = format!("{} below {from}", context.digest);
        let made = keep_directory(engine, source, &key, context.layers);
        if let Node::Directory(directory) = made {
            return Step::Directory(target, directory);
        }
    }
    let name = from.rsplit('/').next().unwrap_or(from);
    let target = match to.ends_with(['/', '.']) {
        true => format!("{}/{name}", target.trim_end_matches(['/', '.'])),
        false => target,
    };
    let source = FileSource::Below {
        directory: context.clone(),
        path: from.to_owned(),
    };
    let file = keep_file(engine, source, &format!("{} {from}", context.digest));
    match file {
        Node::File(file) => Step::File(target, file, None),
        _ => Step::Config,
    }
}
