//! `import_dir`: the host's directory goes as one tar and is put in place from beside.
//!
//! The host's side is `transfer/gather.rs`.

use std::path::Path;
use std::sync::Arc;

use sandbox_core::{Error, ErrorKind, GuestPath, ImportOptions, Operation, Result, TransferReport};

use crate::guest::handle::{Guest, fresh};
use crate::guest::transport::Transport;
use crate::transfer::gather;

const OP: Operation = Operation::ImportDir;

/// Set before: stage, to, and the words that make the archive, as `archive`. Staged within the
/// directory itself, which may be a mount of its own: what is put in place is a second name, and
/// whole, so that tidying up may change the modes of directories only.
const PLACE: &str = r#"
said=$(LC_ALL=C mkdir -p -- "$to" 2>&1) || { case $said in *'File exists'*) no NOTDIR ;; esac; denied "$said"; }
[ -d "$to" ] || no NOTDIR
new=$to/.sandbox-new-$$
trap 'find "$new" -type d ! -perm -700 -exec chmod u+rwx {} + 2> /dev/null; rm -rf "$stage" "$new"' EXIT
said=$(LC_ALL=C mkdir -- "$new" 2>&1) || denied "$said"
said=$(archive | LC_ALL=C tar -xpf - -C "$new" --no-same-owner 2>&1) || denied "$said"
# Directories that may not be entered or written are open, here and there, until all is in place.
# A list of their names and modes, parents first.
find "$new" -type d ! -perm -700 -printf './%P\0%m\0' -exec chmod u+rwx {} \; > "$stage/modes" 2> /dev/null
open_up() {
  (cd "$to" && xargs -0 -r -n 2 -a "$stage/modes" sh -c '[ -L "$0" ] || ! [ -d "$0" ] || chmod u+rwx "$0"')
}
close_again() {
  tr '\0\n' '\n\0' < "$stage/modes" | tac | tr '\0\n' '\n\0' |
    (cd "$to" && xargs -0 -r -n 2 sh -c '[ -L "$1" ] || ! [ -d "$1" ] || chmod "$0" "$1"')
}
[ ! -s "$stage/modes" ] || open_up 2> /dev/null
if [ -e "$stage/gone" ]; then
  cd "$to" && xargs -0 -r rm -f -- < "$stage/gone" 2> /dev/null
  tr '\0\n' '\n\0' < "$stage/gone" | tac | tr '\0\n' '\n\0' | xargs -0 -r rmdir -- 2> /dev/null
  cd /
fi
left=
said=$(LC_ALL=C cp -aflT --remove-destination "$new" "$to" 2>&1) || said=$(LC_ALL=C cp -afT --remove-destination "$new" "$to" 2>&1) || left=1
[ ! -s "$stage/modes" ] || close_again 2> /dev/null
[ -z "$left" ] || denied "$said"
echo OK
"#;

impl<T: Transport> Guest<T> {
    pub(crate) async fn import_dir(
        self: Arc<Self>,
        from: &Path,
        to: &GuestPath,
        options: ImportOptions,
    ) -> Result<TransferReport> {
        self.open(OP)?;
        let to = self.resolve(to, OP)?;
        let (top, given) = (from.to_owned(), options.clone());
        let gathered = tokio::task::spawn_blocking(move || gather(&top, &given)).await;
        let mut gathered = gathered
            .map_err(|e| self.named(Error::new(ErrorKind::Other, OP).with_source(e)))?
            .map_err(|error| self.named(error))?;
        let (dir, _) = fresh(T::STAGING);
        if options.mirror {
            let there = match self.list_at(OP, &to, "", 10_000_000).await {
                Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
                there => there?.entries,
            };
            let gone = gathered.gone(there);
            gathered.scan.report.removed = gone.len() as u64;
            if !gone.is_empty() {
                let mut names = gone.join(&0);
                names.push(0);
                let file = format!("{dir}/gone");
                let put = self
                    .transport
                    .put_file(OP, self.id.as_str(), &file, names.into());
                put.await.map_err(|failure| self.failed(failure))?;
            }
        }
        let parts = self.upload_file(OP, &dir, gathered.tar).await?;
        let mut script = self
            .files_script(&dir)
            .text(&format!("archive() {{ cat {parts}; }}\nto="));
        script.quoted(to.as_bytes());
        self.helper(OP, script.text(PLACE), &dir, &[&to]).await?;
        Ok(gathered.scan.report)
    }
}
