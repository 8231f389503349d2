//! A few small files written without a container: the engine puts them in place itself.
//!
//! Invariant: only what ends as a command of the guest would have it is done so; everything else,
//! failures among them, is the guest's. Nothing at a path is replaced but a regular file, and no
//! link is on the way to it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::SystemTime;

use bytes::Bytes;
use sandbox_core::backend::blocking;
use sandbox_core::{ErrorKind, FileWrite, GuestPath, Operation, Result, WriteMode};
use serde_json::Value;

use crate::guest::stage::Stage;
use crate::sandbox::DaggerSandbox;
use crate::session::client::SMALL_ANSWER;
use crate::session::query;

const OP: Operation = Operation::WriteFiles;
/// The number of files: each is a layer of its own and makes the query one level deeper.
const MOST: usize = 8;
/// The size of all texts together that are part of the query; more is handed over as files.
const LARGEST: usize = 256 << 10;
/// The mode of a new file for which none is given.
const MODE: u32 = 0o644;

/// A file as the query has it.
struct Text<'a> {
    path: &'a str,
    content: &'a Bytes,
    mode: Option<u32>,
    new: bool,
}

/// Writes the files; tells whether it did. If not, nothing has changed, and the guest has to be
/// asked.
pub(super) async fn put(
    sandbox: &DaggerSandbox,
    files: &[(GuestPath, &FileWrite)],
) -> Result<bool> {
    let Some(texts) = texts(sandbox, files) else {
        return Ok(false);
    };
    let turn = sandbox.turn(OP).await?;
    let head = turn.head();
    let ask = async |query: String| {
        let answer = sandbox.ask(&query, OP, SMALL_ANSWER, sandbox.patience());
        match answer.await {
            Ok(answer) => Ok(Some(answer)),
            // The engine says no, which the guest can explain better.
            Err(error) if error.kind() == ErrorKind::Other => Ok(None),
            Err(error) => Err(error),
        }
    };
    let stage = staged(&texts).await?;
    if let Some(stage) = &stage {
        sandbox.session.hand_over(stage.size());
    }
    let Some(seen) = ask(look(&head.id, &texts, stage.as_ref())).await? else {
        return Ok(false);
    };
    let Some(replaced) = replaced(&seen, &texts) else {
        return Ok(false);
    };
    let modes = match replaced.contains(&true) {
        false => Value::Null,
        true => match ask(modes(&head.id, &texts, &replaced)).await? {
            Some(modes) => modes,
            None => return Ok(false),
        },
    };
    // An id would be given before anything is done.
    let mut below = "sync".to_owned();
    for (number, text) in texts.iter().enumerate() {
        let file = if stage.is_some() { "/file" } else { "" };
        let source = seen.pointer(&format!("/c{number}{file}/withTimestamps/id"));
        let Some(source) = source.and_then(Value::as_str) else {
            return Ok(false);
        };
        let kept = modes.pointer(&format!("/node/m{number}/permissions"));
        let kept = kept
            .and_then(Value::as_u64)
            .and_then(|mode| u32::try_from(mode).ok());
        below = format!(
            "withFile(path: {}, source: {}, permissions: {}) {{ {below} }}",
            query::string(text.path),
            query::string(source),
            text.mode.or(kept).unwrap_or(MODE)
        );
    }
    let Some(done) = ask(query::on_container(&head.id, &below)).await? else {
        return Ok(false);
    };
    let Some(id) = query::find(&done, "sync") else {
        return Ok(false);
    };
    turn.advance(id, u32::try_from(texts.len()).unwrap_or(u32::MAX));
    Ok(true)
}

/// The directory of the host from which the engine takes the contents: nothing if they are small
/// texts, which go in the query.
async fn staged(files: &[Text<'_>]) -> Result<Option<Stage>> {
    let size: usize = files.iter().map(|file| file.content.len()).sum();
    let is_text = |file: &Text<'_>| std::str::from_utf8(file.content).is_ok();
    if size <= LARGEST && files.iter().all(is_text) {
        return Ok(None);
    }
    let contents: Vec<_> = files.iter().map(|file| file.content.clone()).collect();
    let stage = blocking(OP, move || {
        let stage = Stage::new(OP)?;
        for (number, content) in contents.iter().enumerate() {
            stage.file(&format!("f{number}"), content, 0o600)?;
        }
        Ok(stage)
    });
    stage.await.map(Some)
}

/// The files, if they are few, at paths where the engine sees what a command does.
fn texts<'a>(
    sandbox: &DaggerSandbox,
    files: &'a [(GuestPath, &FileWrite)],
) -> Option<Vec<Text<'a>>> {
    if files.is_empty() || files.len() > MOST {
        return None;
    }
    let text = |(path, file): &'a (GuestPath, &FileWrite)| {
        Some(Text {
            path: sandbox.direct(path)?,
            content: &file.content,
            mode: file.mode.map(|mode| mode.bits()),
            new: file.write_mode == WriteMode::CreateNew,
        })
    };
    files.iter().map(text).collect()
}

/// The directories above these paths, without the root.
fn above<'a>(texts: &[Text<'a>]) -> BTreeSet<&'a str> {
    let mut all = BTreeSet::new();
    for text in texts {
        let mut at = text.path;
        while let Some((parent, _)) = at.rsplit_once('/') {
            if parent.is_empty() {
                break;
            }
            all.insert(parent);
            at = parent;
        }
    }
    all
}

/// A query that asks what is at the paths and above them, and hands the contents over.
fn look(id: &str, texts: &[Text<'_>], stage: Option<&Stage>) -> String {
    let mut looks = String::new();
    let mut both = |letter: char, number: usize, path: &str, kind: &str| {
        let path = query::string(path);
        let _ = write!(
            looks,
            "{letter}{number}: exists(path: {path}, doNotFollowSymlinks: true) \
             {letter}{number}k: exists(path: {path}, expectedType: {kind}, \
             doNotFollowSymlinks: true) "
        );
    };
    for (number, path) in above(texts).into_iter().enumerate() {
        both('a', number, path, "DIRECTORY_TYPE");
    }
    for (number, text) in texts.iter().enumerate() {
        both('f', number, text.path, "REGULAR_TYPE");
    }
    // Equal contents are one file to the engine, with the time at which it came first.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs());
    let contents: String = texts
        .iter()
        .enumerate()
        .map(|(number, text)| {
            let timed = format!("{{ withTimestamps(timestamp: {now}) {{ id }} }}");
            match stage {
                Some(stage) => {
                    let path = stage.at(&format!("f{number}"));
                    let path = query::string(&path.to_string_lossy());
                    format!(" c{number}: host {{ file(path: {path}, noCache: true) {timed} }}")
                }
                None => {
                    let text = query::string(&String::from_utf8_lossy(text.content));
                    format!(" c{number}: file(name: \"f\", contents: {text}) {timed}")
                }
            }
        })
        .collect();
    format!(
        "query {{ node(id: {}) {{ ... on Container {{ {looks}}} }}{contents} }}",
        query::string(id)
    )
}

/// Whether each file replaces one; nothing if the guest has to be asked.
fn replaced(seen: &Value, texts: &[Text<'_>]) -> Option<Vec<bool>> {
    // Whether something is there, which then is what it should be.
    let there = |letter: char, number: usize| {
        let is = |name: String| seen.pointer(&format!("/node/{name}"))?.as_bool();
        let there = is(format!("{letter}{number}"))?;
        let as_expected = is(format!("{letter}{number}k"))?;
        (!there || as_expected).then_some(there)
    };
    for number in 0..above(texts).len() {
        there('a', number)?;
    }
    let file = |(number, text): (usize, &Text<'_>)| {
        let there = there('f', number)?;
        (!there || !text.new).then_some(there)
    };
    texts.iter().enumerate().map(file).collect()
}

/// A query for the modes of files that are replaced.
fn modes(id: &str, texts: &[Text<'_>], replaced: &[bool]) -> String {
    let mut below = String::new();
    for (number, (text, _)) in texts
        .iter()
        .zip(replaced)
        .enumerate()
        .filter(|(_, (_, replaced))| **replaced)
    {
        let path = query::string(text.path);
        let _ = write!(
            below,
            "m{number}: stat(path: {path}, doNotFollowSymlinks: true) {{ permissions }} "
        );
    }
    query::on_container(id, &below)
}
