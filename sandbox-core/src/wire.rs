//! Forms of values when they are serialised: bytes as text, times as seconds.
//!
//! It must never write a secret: a variable that was set with [`Env::secret`] is an error.

use std::fmt;
use std::time::Duration;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, SerializeMap};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Env, GuestPath};

/// Bytes: a text where they are UTF-8, otherwise a list of numbers.
pub(crate) struct Text(pub(crate) Vec<u8>);

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        bytes::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl<'de> Visitor<'de> for Bytes {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of bytes")
            }
            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.into()))
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Text, E> {
                Ok(Text(bytes.into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Text, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                }
                Ok(Text(bytes))
            }
        }
        deserializer.deserialize_any(Bytes)
    }
}

/// Any bytes as [`Text`].
pub(crate) mod bytes {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        bytes: &impl AsRef<[u8]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(bytes.as_ref()) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.collect_seq(bytes.as_ref()),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>, T: From<Vec<u8>>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        Ok(Text::deserialize(deserializer)?.0.into())
    }
}

/// [`bytes`], where there may be none.
pub(crate) mod bytes_or_none {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        bytes: &Option<::bytes::Bytes>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        bytes
            .as_ref()
            .map(|bytes| Text(bytes.to_vec()))
            .serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<::bytes::Bytes>, D::Error> {
        Ok(Option::<Text>::deserialize(deserializer)?.map(|Text(bytes)| bytes.into()))
    }
}

/// An argument vector as a list of [`Text`].
pub(crate) mod argv {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        argv: &[Vec<u8>],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(argv.iter().map(|arg| Text(arg.clone())))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Vec<u8>>, D::Error> {
        let argv = Vec::<Text>::deserialize(deserializer)?;
        if argv.is_empty() {
            return Err(D::Error::custom("a command needs a program"));
        }
        Ok(argv.into_iter().map(|Text(arg)| arg).collect())
    }
}

/// A time as a number of seconds, whole or with a fraction.
pub(crate) mod seconds {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        time: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match time.subsec_nanos() {
            0 => serializer.serialize_u64(time.as_secs()),
            _ => serializer.serialize_f64(time.as_secs_f64()),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        struct Seconds;
        impl Visitor<'_> for Seconds {
            type Value = Duration;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of seconds")
            }
            fn visit_u64<E>(self, seconds: u64) -> Result<Duration, E> {
                Ok(Duration::from_secs(seconds))
            }
            fn visit_i64<E: serde::de::Error>(self, seconds: i64) -> Result<Duration, E> {
                u64::try_from(seconds)
                    .map(Duration::from_secs)
                    .map_err(|_| E::custom("a time is negative"))
            }
            fn visit_f64<E: serde::de::Error>(self, seconds: f64) -> Result<Duration, E> {
                // A time without an end is more than the fraction of a second can be told of.
                match seconds >= u64::MAX as f64 {
                    true => Ok(Duration::MAX),
                    false => Duration::try_from_secs_f64(seconds).map_err(E::custom),
                }
            }
        }
        deserializer.deserialize_any(Seconds)
    }
}

/// [`seconds`], where there may be none.
pub(crate) mod seconds_or_none {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Time(#[serde(with = "super::seconds")] Duration);

    pub(crate) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        time.map(Time).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Time>::deserialize(deserializer)?.map(|Time(time)| time))
    }
}

impl Serialize for GuestPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        bytes::serialize(&self.as_bytes(), serializer)
    }
}

impl<'de> Deserialize<'de> for GuestPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        bytes::deserialize::<D, Vec<u8>>(deserializer).map(Self::from)
    }
}

/// Form of a variable in a file: its value, or a table that says more.
#[derive(Deserialize)]
#[serde(untagged)]
enum Variable {
    Value(String),
    Table(Table),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
enum Table {
    /// `{ secret = "…" }`: only read, never written.
    Secret(String),
    /// `{ bytes = […] }`: a value that is not UTF-8.
    Bytes(Vec<u8>),
    /// `{ unset = true }`
    Unset(bool),
}

/// A map from names to values.
impl Serialize for Env {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.iter() {
            let name = std::str::from_utf8(name)
                .map_err(|_| S::Error::custom("the name of a variable is not UTF-8"))?;
            match value {
                None => map.serialize_entry(name, &Table::Unset(true))?,
                Some(value) if value.is_secret => {
                    return Err(S::Error::custom(format!(
                        "the variable {name} is a secret, which is never serialised"
                    )));
                }
                Some(value) => match std::str::from_utf8(value.value.expose()) {
                    Ok(text) => map.serialize_entry(name, text)?,
                    Err(_) => {
                        map.serialize_entry(name, &Table::Bytes(value.value.expose().into()))?;
                    }
                },
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Env {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Variables;
        impl<'de> Visitor<'de> for Variables {
            type Value = Env;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from names to values")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Env, A::Error> {
                let mut env = Env::new();
                while let Some((name, variable)) = map.next_entry::<String, Variable>()? {
                    env = match variable {
                        Variable::Value(value) => env.set(name, value),
                        Variable::Table(Table::Secret(value)) => env.secret(name, value),
                        Variable::Table(Table::Bytes(value)) => env.set(name, value),
                        Variable::Table(Table::Unset(true)) => env.unset(name),
                        Variable::Table(Table::Unset(false)) => env,
                    };
                }
                Ok(env)
            }
        }
        deserializer.deserialize_map(Variables)
    }
}
