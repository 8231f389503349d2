//! Runs a line of shell in a session: a constant driver with packed arguments, whose answer stands
//! in a frame that only we can know.
//!
//! Nothing that a caller gives may be taken for a part of the driver, and what the session says
//! outside of the frame is nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::config::SessionKind;
use super::identifier::hex;
use crate::guest::script::quote;

const PYTHON: &str = include_str!("driver.py");
const SHELL: &str = include_str!("driver.sh");

/// The longest line that goes in quotes.
const LONGEST: usize = 100 << 10;

/// One call of the driver.
#[derive(Debug)]
pub(crate) struct Call {
    nonce: String,
    /// Directory of the command in the session.
    pub(crate) dir: String,
    /// Text that is to be sent.
    pub(crate) text: String,
}

impl Call {
    /// A call that runs `line` if `marker` is there; output up to `inline` bytes comes along.
    pub(crate) fn new(
        kind: SessionKind,
        staging: &str,
        marker: &str,
        line: &str,
        inline: usize,
    ) -> Self {
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        let dir = format!("{staging}{nonce}");
        let text = match kind {
            SessionKind::Python => {
                let args = json!({
                    "nonce": nonce, "dir": dir, "marker": marker, "line": line, "inline": inline,
                });
                // One expression: no name of the caller's is touched.
                format!(
                    "exec(__import__(\"base64\").b64decode(\"{}\"), {{\"args\": \"{}\"}})",
                    STANDARD.encode(PYTHON),
                    STANDARD.encode(args.to_string()),
                )
            }
            SessionKind::Shell => {
                let settings = format!("nonce={nonce} dir={dir} marker={marker} inline={inline}");
                let mut script = Vec::new();
                quote(&mut script, line.as_bytes());
                // One argument in the end, and quotes of quotes are long.
                let script = match String::from_utf8(script) {
                    Ok(script) if script.len() < LONGEST => script,
                    _ => format!("$(printf %s {} | base64 -d)", STANDARD.encode(line)),
                };
                format!("{settings}\nscript={script}\n{SHELL}")
            }
        };
        Self { nonce, dir, text }
    }

    /// Report of the driver, if it said anything.
    pub(crate) fn heard(&self, stdout: &str) -> Option<Heard> {
        let mut parts = stdout.split(&self.nonce);
        let said: Value = serde_json::from_str(parts.nth(1)?).ok()?;
        if said["lost"] == true {
            return Some(Heard::Lost);
        }
        let size = said["len"].as_u64()?;
        let sha = said["sha"].as_str()?.to_owned();
        match said["out"].as_str() {
            // Within the frame all of it has come.
            Some(packed) => {
                let bytes = STANDARD.decode(packed).ok()?;
                (bytes.len() as u64 == size).then_some(Heard::Said(bytes))
            }
            None => Some(Heard::Written { size, sha }),
        }
    }
}

/// Report of a driver.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The session is another one than it was.
    Lost,
    /// The line's output.
    Said(Vec<u8>),
    /// The line's output is in the file `t`.
    Written {
        /// Size.
        size: u64,
        /// SHA-256.
        sha: String,
    },
}

/// Whether these are the bytes that were meant.
pub(crate) fn sound(bytes: &[u8], size: u64, sha: &str) -> bool {
    bytes.len() as u64 == size && hex(&Sha256::digest(bytes)) == sha
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_in_the_frame_counts() {
        let call = Call::new(SessionKind::Shell, "/mnt/data/x-", "", "echo", 10);
        let n = &call.nonce;
        let sha = hex(&Sha256::digest(b"hi\n"));
        let said =
            format!("noise{n}{{\"rc\":0,\"len\":3,\"sha\":\"{sha}\",\"out\":\"aGkK\"}}{n}\n");
        assert_eq!(call.heard(&said), Some(Heard::Said(b"hi\n".to_vec())));
        let cut = &said[..said.len() - 45];
        assert_eq!(call.heard(cut), None);
        assert_eq!(call.heard(&said.replace("aGkK", "aGk=")), None);
        assert_eq!(call.heard("{\"lost\":true}"), None);
        let lost = format!("{n}{{\"lost\":true}}{n}");
        assert_eq!(call.heard(&lost), Some(Heard::Lost));
    }
}
