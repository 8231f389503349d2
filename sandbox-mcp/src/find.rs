//! Finding files by name and text.
//!
//! It must never read without a bound, whatever is in the sandbox.

use globset::GlobBuilder;
use sandbox_core::{ErrorKind, FileKind, GuestPath, ListOptions, Operation, ReadOptions, Sandbox};

use crate::results::{Finds, Found};

/// Most results.
const MATCHES: usize = 200;
/// Most files that are read for their text.
const READ: usize = 2_000;
/// Largest file that is read.
const LARGEST: u64 = 1 << 20;
/// Most characters of a line.
const LINE: usize = 300;

pub(crate) async fn find(
    sandbox: &dyn Sandbox,
    directory: &GuestPath,
    glob: Option<&str>,
    text: Option<&str>,
) -> Result<Finds, String> {
    let matcher = match glob {
        Some(glob) => Some(
            GlobBuilder::new(glob)
                .literal_separator(true)
                .build()
                .map_err(|error| format!("the glob {glob:?} can't be right: {}", error.kind()))?
                .compile_matcher(),
        ),
        None => None,
    };
    let options = ListOptions::new().recursive(true);
    let entries = sandbox
        .list_dir(directory, options)
        .await
        .map_err(|error| error.to_string())?;
    let mut found = Finds {
        matches: Vec::new(),
        truncated: false,
    };
    let mut read = 0;
    for entry in entries {
        let path = entry.path.to_string_lossy().into_owned();
        let fits = matcher.as_ref().is_none_or(|glob| glob.is_match(&*path));
        if !fits || entry.metadata.kind != FileKind::File {
            continue;
        }
        if found.matches.len() >= MATCHES {
            found.truncated = true;
            break;
        }
        let Some(text) = text else {
            found.matches.push(Found {
                path,
                line: None,
                text: None,
            });
            continue;
        };
        if entry.metadata.size > LARGEST || read >= READ {
            found.truncated = true;
            continue;
        }
        read += 1;
        let whole = directory
            .join(&entry.path)
            .resolve(&sandbox.info().workdir, Operation::ReadFile)
            .map_err(|error| error.to_string())?;
        let content = match sandbox
            .read_file(&whole, ReadOptions::new().limit(LARGEST))
            .await
        {
            Ok(content) => content,
            // It went away, has grown, or is not to be read: the search goes on.
            Err(error) if matches!(error.kind(), ErrorKind::Closed | ErrorKind::Lost) => {
                return Err(error.to_string());
            }
            Err(_) => {
                found.truncated = true;
                continue;
            }
        };
        let content = String::from_utf8_lossy(&content);
        for (number, line) in content.lines().enumerate() {
            if !line.contains(text) {
                continue;
            }
            if found.matches.len() >= MATCHES {
                found.truncated = true;
                break;
            }
            found.matches.push(Found {
                path: path.clone(),
                line: Some(number + 1),
                text: Some(line.chars().take(LINE).collect()),
            });
        }
    }
    Ok(found)
}
