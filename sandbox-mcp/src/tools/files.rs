//! Tools that read, write, edit, list and find files of a sandbox.

use rmcp::handler::server::wrapper::{Json, Parameters};
use rmcp::model::RequestMetaObject;
use rmcp::service::RequestContext;
use rmcp::{Peer, RoleServer, tool, tool_router};
use sandbox_core::{
    DEFAULT_READ_LIMIT, FileBatch, FileKind, ListOptions, Mode, ReadOptions, SandboxExt as _,
};

use super::Tools;
use super::call::{ENTRIES, path, said, under};
use crate::arguments::{FileEdit, FileFind, FileList, FileRead, FileWrite};
use crate::find;
use crate::outputs::PAGE;
use crate::results::{Edited, Entries, Entry, FileOut, Finds, Written};

#[tool_router(router = files, vis = "pub(super)")]
impl Tools {
    #[tool(
        name = "file_read",
        description = "Reads lines of a text file.",
        annotations(title = "Read a file", read_only_hint = true, open_world_hint = false)
    )]
    async fn file_read(
        &self,
        Parameters(read): Parameters<FileRead>,
    ) -> Result<Json<FileOut>, String> {
        let sandbox = self.sandbox(&read.sandbox_id).await?;
        let bytes = sandbox
            .read_file(&read.path.into(), ReadOptions::new())
            .await;
        let bytes = bytes.map_err(said)?;
        let text = String::from_utf8_lossy(&bytes);
        let lossy = matches!(text, std::borrow::Cow::Owned(_));
        // Not kept as a list: a file may be of empty lines.
        let total_lines = text.split_inclusive('\n').count();
        let start = read.start_line.unwrap_or(1).max(1);
        let mut content = String::new();
        let mut cut_lines = 0;
        let mut next = start - 1;
        let lines = text.split_inclusive('\n').skip(next);
        for line in lines.take(read.lines.unwrap_or(usize::MAX)) {
            if !content.is_empty() && content.len() + line.len() > PAGE as usize {
                break;
            }
            let kept = boundary(line, PAGE as usize);
            cut_lines += usize::from(kept < line.len());
            content.push_str(&line[..kept]);
            next += 1;
        }
        Ok(Json(FileOut {
            content,
            start_line: start,
            next_line: (next < total_lines).then_some(next + 1),
            total_lines,
            cut_lines,
            lossy,
        }))
    }

    #[tool(
        name = "file_write",
        description = "Writes files whole: all of them or none.",
        annotations(
            title = "Write files",
            read_only_hint = false,
            destructive_hint = true,
            idempotent_hint = true,
            open_world_hint = false
        )
    )]
    async fn file_write(
        &self,
        Parameters(write): Parameters<FileWrite>,
    ) -> Result<Json<Written>, String> {
        let sandbox = self.sandbox(&write.sandbox_id).await?;
        let files = write.files.len();
        let mut batch = FileBatch::new();
        for file in write.files {
            let new = batch.push(file.path, file.content);
            if file.executable {
                new.mode = Some(Mode::EXECUTABLE);
            }
        }
        sandbox.write_files(batch).await.map_err(said)?;
        Ok(Json(Written { files }))
    }

    #[tool(
        name = "file_edit",
        description = "Replaces a text in a file. The text must occur exactly once, unless all is true.",
        annotations(
            title = "Edit a file",
            read_only_hint = false,
            destructive_hint = true,
            open_world_hint = false
        )
    )]
    async fn file_edit(
        &self,
        Parameters(edit): Parameters<FileEdit>,
    ) -> Result<Json<Edited>, String> {
        if edit.search.is_empty() {
            return Err("search is empty: give the text to replace".into());
        }
        let sandbox = self.sandbox(&edit.sandbox_id).await?;
        let metadata = sandbox.stat(&*edit.path).await.map_err(said)?;
        if metadata.kind == FileKind::Symlink {
            // It would be replaced by a file, and what it points to stay as it is.
            let target = metadata
                .link_target
                .unwrap_or_else(|| "another file".into());
            return Err(format!("{} is a link to {target}: edit that", edit.path));
        }
        let text = sandbox.read_to_string(&*edit.path).await.map_err(said)?;
        let replacements = text.matches(&edit.search).count();
        match replacements {
            0 => {
                return Err(format!(
                    "the text does not occur in {}: read the file again and copy it exactly",
                    edit.path
                ));
            }
            2.. if !edit.all => {
                return Err(format!(
                    "the text occurs in {} {replacements} times: take more lines around it, or set all",
                    edit.path
                ));
            }
            _ => {}
        }
        // Both are at most what is read and what a request holds; together they could be anything.
        let removed = replacements.saturating_mul(edit.search.len());
        let added = replacements.saturating_mul(edit.replace.len());
        let length = text.len().saturating_sub(removed).saturating_add(added);
        if length as u64 > DEFAULT_READ_LIMIT {
            return Err(format!(
                "{} would have {length} bytes, and {DEFAULT_READ_LIMIT} are the most: use a command",
                edit.path
            ));
        }
        let mode = Mode::new(metadata.mode.bits() & 0o777);
        let text = text.replace(&edit.search, &edit.replace);
        let batch = FileBatch::new().file_with_mode(edit.path, text, mode);
        sandbox.write_files(batch).await.map_err(said)?;
        Ok(Json(Edited { replacements }))
    }

    #[tool(
        name = "file_list",
        description = "Lists a directory.",
        annotations(
            title = "List a directory",
            read_only_hint = true,
            open_world_hint = false
        )
    )]
    async fn file_list(
        &self,
        Parameters(list): Parameters<FileList>,
    ) -> Result<Json<Entries>, String> {
        let sandbox = self.sandbox(&list.sandbox_id).await?;
        let options = ListOptions::new().recursive(list.recursive);
        let all = sandbox
            .list_dir(&path(list.path), options)
            .await
            .map_err(said)?;
        let entries: Vec<Entry> = all
            .iter()
            .take(ENTRIES)
            .map(|entry| Entry {
                path: entry.path.to_string(),
                kind: match entry.metadata.kind {
                    FileKind::File => "file",
                    FileKind::Directory => "directory",
                    FileKind::Symlink => "symlink",
                    _ => "other",
                },
                size: entry.metadata.size,
            })
            .collect();
        Ok(Json(Entries {
            truncated: entries.len() < all.len(),
            total: all.len(),
            entries,
        }))
    }

    #[tool(
        name = "file_find",
        description = "Finds files by a glob on their paths, by a text that they have, or both.",
        annotations(title = "Find files", read_only_hint = true, open_world_hint = false)
    )]
    async fn file_find(
        &self,
        Parameters(what): Parameters<FileFind>,
        meta: RequestMetaObject,
        peer: Peer<RoleServer>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<Finds>, String> {
        let sandbox = self.sandbox(&what.sandbox_id).await?;
        let directory = path(what.path);
        let finding = find::find(
            &*sandbox,
            &directory,
            what.glob.as_deref(),
            what.text.as_deref(),
        );
        under(&meta, &peer, &context, finding).await?.map(Json)
    }
}

/// The last boundary between characters up to a length.
fn boundary(line: &str, length: usize) -> usize {
    let mut at = length.min(line.len());
    while !line.is_char_boundary(at) {
        at -= 1;
    }
    at
}
