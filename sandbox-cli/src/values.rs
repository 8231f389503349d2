//! Values of the command line: sizes, times, places.
//!
//! What is wrong with one is said in the words of its user.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// A number of bytes: `512M`, `2G`, `1024`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("{text:?} can't be read as a size: write a number, and K, M, G or T behind it");
    let (number, unit) = match text.char_indices().find(|(_, c)| !c.is_ascii_digit()) {
        Some((at, _)) => text.split_at(at),
        None => (text, ""),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let shift = match unit {
        "" | "B" => 0,
        "K" | "k" | "KB" | "KiB" => 10,
        "M" | "m" | "MB" | "MiB" => 20,
        "G" | "g" | "GB" | "GiB" => 30,
        "T" | "t" | "TB" | "TiB" => 40,
        _ => return Err(wrong()),
    };
    match number.checked_mul(1 << shift) {
        Some(0) => Err("a limit can't be zero: leave the option out for no limit".into()),
        Some(bytes) => Ok(bytes),
        None => Err(format!("{text:?} is more than there can be")),
    }
}

/// A time: `90`, `90s`, `5m`, `2h`, `1.5s`, `200ms`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} can't be read as a time: write 90, 90s, 5m, 2h or 200ms");
    let digits = |c: char| !(c.is_ascii_digit() || c == '.');
    let (number, unit) = text.find(digits).map_or((text, ""), |at| text.split_at(at));
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let factor = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(wrong()),
    };
    let time = Duration::try_from_secs_f64(number * factor).map_err(|_| wrong())?;
    match time.is_zero() {
        true => Err("a time can't be zero: leave the option out for no limit".into()),
        false => Ok(time),
    }
}

/// A number above zero.
pub(crate) fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err(format!("{text:?} can't be read as a number above zero")),
    }
}

/// `HOST:GUEST[:ro|:rw]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mounted {
    pub(crate) host: PathBuf,
    pub(crate) guest: String,
    pub(crate) writable: bool,
}

impl FromStr for Mounted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, writable) = match text.rsplit_once(':') {
            Some((rest, "ro")) => (rest, false),
            Some((rest, "rw")) => (rest, true),
            _ => (text, false),
        };
        match rest.split_once(':') {
            Some((host, guest)) if !host.is_empty() && guest.starts_with('/') => Ok(Self {
                host: host.into(),
                guest: guest.into(),
                writable,
            }),
            _ => Err(format!(
                "{text:?} can't be read as a mount: write HOST:GUEST with an absolute GUEST, and :rw behind it \
                 if the sandbox may write there"
            )),
        }
    }
}

/// `DIR[:GUEST]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Imported {
    pub(crate) from: PathBuf,
    pub(crate) to: String,
}

impl FromStr for Imported {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) = text.split_once(':').unwrap_or((text, "."));
        match from.is_empty() || to.is_empty() {
            true => Err(format!(
                "{text:?} can't be read as an import: write DIR or DIR:GUEST"
            )),
            false => Ok(Self {
                from: from.into(),
                to: to.into(),
            }),
        }
    }
}

/// `GUEST:DIR`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exported {
    pub(crate) from: String,
    pub(crate) to: PathBuf,
}

impl FromStr for Exported {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some((from, to)) if !from.is_empty() && !to.is_empty() => Ok(Self {
                from: from.into(),
                to: to.into(),
            }),
            _ => Err(format!(
                "{text:?} can't be read as an export: write GUEST:DIR"
            )),
        }
    }
}

/// `NAME=VALUE`, or `NAME` to take the value of this program's environment.
#[derive(Clone)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) value: OsString,
}

impl FromStr for Variable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The value is not quoted: it may be a secret.
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.into())),
            None => (text, std::env::var_os(text)),
        };
        match (name.is_empty(), value) {
            (true, _) => Err("a variable needs a name: write NAME=VALUE or NAME".into()),
            (false, None) => Err(format!(
                "{name} is not set here: write {name}=VALUE, or set it"
            )),
            (false, Some(value)) => Ok(Self {
                name: name.into(),
                value,
            }),
        }
    }
}

/// `KEY=VALUE`
#[derive(Clone, Debug)]
pub(crate) struct Label(pub(crate) String, pub(crate) String);

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self(key.into(), value.into())),
            _ => Err(format!(
                "{text:?} can't be read as a label: write KEY=VALUE"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_and_what_is_none_is_refused() {
        assert_eq!(size("512M"), Ok(512 << 20));
        assert_eq!(size("2GiB"), Ok(2 << 30));
        assert_eq!(size("7"), Ok(7));
        for wrong in [
            "",
            "M",
            "-1",
            "1X",
            "0",
            "99999999999T",
            "1.5G",
            "1iB",
            "1KBB",
        ] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for wrong in ["", "s", "0", "-1", "1w", "1e99h", "..", "inf"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn mounts_name_both_sides() {
        let mount: Mounted = "/a:/b:rw".parse().unwrap();
        assert!(mount.writable && mount.guest == "/b");
        assert!(!"./a:/b".parse::<Mounted>().unwrap().writable);
        for wrong in ["/a", ":/b", "/a:b", "/a:", ""] {
            assert!(wrong.parse::<Mounted>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_value_is_not_quoted() {
        let error = "=s3cret".parse::<Variable>().err().unwrap();
        assert!(!error.contains("s3cret"));
    }
}
