//! A fork: what was changed since a session began is packed, and unpacked in a new session.
//!
//! Only our own parts of it pass through this host, one at a time, and nothing here opens them.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sandbox_core::{Error, ErrorKind, Labels, Operation, Result};

use super::client::Session;
use super::sandbox::AcaSession;
use super::transport::MARKER;
use crate::guest::handle::{Guest, fresh};
use crate::guest::script::{garbled, said};
use crate::guest::transport::Transport as _;

const OP: Operation = Operation::Fork;
/// The largest part that passes through this host.
const PART: u64 = 16 << 20;
/// The largest archive that comes and goes with the scripts.
const SMALL: u64 = 128 << 10;

/// Packed files of the parent.
enum Packed {
    Here(Bytes),
    /// Number of parts in a directory of the parent.
    There(String, u64),
}

impl AcaSession {
    /// An independent copy: files, environment, workdir.
    pub(super) async fn copied(&self, labels: Labels) -> Result<Arc<AcaSession>> {
        self.guest.open(OP)?;
        let _files = self.guest.files.write().await;
        let (info, env) = {
            let state = self.guest.state();
            (state.info.clone(), state.env.clone())
        };
        let mut info = info.labels(labels);
        info.created = std::time::SystemTime::now();
        info.parent = Some(self.guest.id.clone());
        let packed = self.pack().await?;
        let stale_dirs = match &packed {
            Packed::Here(_) => None,
            Packed::There(dir, _) => Some(dir.clone()),
        };
        let moved = async {
            let child = self.shared.make(OP, info, env).await?;
            match self.unpack(&child, packed).await {
                Ok(()) => Ok(child),
                Err(error) => {
                    // The first error is the one to tell.
                    let _ = self.shared.close(&child).await;
                    Err(error)
                }
            }
        };
        let moved = moved.await;
        self.guest.state().stale_dirs.extend(stale_dirs);
        let child = moved.map_err(|error| self.guest.named(error))?;
        Ok(AcaSession::new(child, Arc::clone(&self.shared)))
    }

    /// Packs what was changed.
    async fn pack(&self) -> Result<Packed> {
        let (dir, _) = fresh(Session::STAGING);
        let workdir = self.guest.workdir();
        let mut script = self.guest.files_script(&dir).text("trap - EXIT\nworkdir=");
        script.quoted(workdir.as_bytes());
        let script = script.text(&format!(
            r#"
mkdir -p "$stage"
cd /
find / /mnt/data "$workdir" -xdev -mindepth 1 \( -path /proc -o -path /sys -o -path /dev -o -path /run \
  -o -path '/mnt/data/sandbox-*' -o -path '/var/tmp/.sandbox-*' -o -path /tmp/.sandbox-lock \) -prune \
  -o -cnewer {MARKER} ! -type s -print0 2> /dev/null | sort -zu > "$stage/names"
said=$(LC_ALL=C tar -C / --no-recursion --null --verbatim-files-from -T "$stage/names" -P -S --format=gnu -cf - 2>&1 > "$stage/tar")
case $? in 0 | 1) ;; *) denied "$said" ;; esac
if [ "$(stat -c %s "$stage/tar")" -le {SMALL} ]; then emit "$stage/tar"; rm -rf "$stage"; exit 0; fi
split -b {PART} -a 5 -d "$stage/tar" "$stage/p" || no NOSPACE
rm -f "$stage/tar" "$stage/names"
set -- "$stage"/p*
echo "OK P $#"
"#
        ));
        let said_ = self.guest.helper(OP, script, &dir, &[&workdir]).await?;
        let words = said(&said_, OP)
            .map_err(|error| self.guest.named(error))?
            .words;
        match words[..] {
            ["OK", "P", parts, ..] => {
                let parts = parts.parse().ok().filter(|parts| *parts < 100_000);
                let parts = parts.ok_or_else(|| self.guest.named(garbled(OP)))?;
                Ok(Packed::There(dir, parts))
            }
            _ => self
                .guest
                .emitted(OP, &said_, &dir, SMALL)
                .await
                .map(Packed::Here),
        }
    }

    async fn unpack(&self, child: &Guest<Session>, packed: Packed) -> Result<()> {
        let (dir, _) = fresh(Session::STAGING);
        let (source, target) = (&self.guest.transport, &child.transport);
        let mut script = child.files_script(&dir);
        match packed {
            Packed::Here(bytes) => {
                let bytes = STANDARD.encode(bytes);
                script = script.text("mkdir -p \"$stage\"; base64 -d > \"$stage/p\" <<'.'\n");
                script = script.text(&bytes).text("\n.\n");
            }
            Packed::There(from, parts) => {
                for number in 0..parts {
                    let name = format!("p{number:05}");
                    let part = source
                        .get_file(OP, "", &format!("{from}/{name}"), PART)
                        .await;
                    let part = part.map_err(|failure| self.guest.failed(failure))?;
                    let put = target
                        .put_file(OP, "", &format!("{dir}/{name}"), part)
                        .await;
                    put.map_err(|failure| child.failed(failure))?;
                }
            }
        }
        let script = script.text(
            r#"
said=$(cat "$stage"/p* | LC_ALL=C tar -P -C / -xpf - --no-overwrite-dir 2>&1) || denied "$said"
echo OK
"#,
        );
        let minutes = Duration::from_secs(200);
        let said = child.run(OP, &script, &dir, false, minutes).await;
        let said = said.map_err(|failure| child.failed(failure))?;
        child.verdict(OP, &said, &[]).map_err(|error| {
            Error::new(ErrorKind::Other, OP)
                .with_message("the files could not be unpacked in the fork")
                .with_source(error)
        })
    }
}
