//! Values with units, as people write them: `2s`, `1h 30m`, `64MiB`, `25%`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::plan::{Compare, Deletions, MaxDelete, MirrorCompare, Symlinks};

/// Server-side encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sse {
    Aes256,
    Kms,
    KmsTwice,
}

/// A length of time: `2s`, `1h 30m`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    pub const fn secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    pub fn millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = |_| "write a duration such as 2s, 90s, 15m, 1h 30m or 7d".to_owned();
        humantime::parse_duration(text).map(Self).map_err(wanted)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&humantime::format_duration(self.0), f)
    }
}

/// A number of bytes: `64MiB`, `1GB`, `4096`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = |_| "write a size such as 4096, 16MiB, 1GiB or 500MB".to_owned();
        text.parse::<bytesize::ByteSize>().map(|size| Self(size.as_u64())).map_err(wanted)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Exact, so that what is shown can be read again.
        let (mut value, mut unit) = (self.0, 0);
        while value >= 1024 && value.is_multiple_of(1024) && unit < 4 {
            (value, unit) = (value / 1024, unit + 1);
        }
        write!(f, "{value}{}", ["B", "KiB", "MiB", "GiB", "TiB"][unit])
    }
}

/// Bytes a second: `2MiB`; `off` for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(pub Option<u64>);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        let text = text.trim_end_matches("/s");
        match text.parse::<Size>() {
            Ok(Size(0)) | Err(_) => {
                Err("write bytes a second, such as 500KiB or 2MiB, or \"off\"".to_owned())
            }
            Ok(Size(bytes)) => Ok(Self(Some(bytes))),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => Size(bytes).fmt(f),
            None => f.write_str("off"),
        }
    }
}

/// A number of transfers at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfers(pub usize);

impl FromStr for Transfers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(number @ 1..=1_000) => Ok(Self(number)),
            _ => Err("write a number, 1 to 1000".to_owned()),
        }
    }
}

impl fmt::Display for Transfers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for MaxDelete {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || "write a share such as 25%, a number of files, or \"off\"".to_owned();
        match text.strip_suffix('%') {
            _ if text == "off" => Ok(Self::Off),
            Some(percent) => match percent.trim().parse() {
                Ok(percent @ 0..=100) => Ok(Self::Percent(percent)),
                _ => Err(wanted()),
            },
            None => text.parse().map(Self::Files).map_err(|_| wanted()),
        }
    }
}

/// Gives a policy its words, for reading, showing and the schema.
macro_rules! words {
    ($kind:ident { $($variant:ident = $word:literal),+ }) => {
        impl FromStr for $kind {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(concat!("write one of", $(" \"", $word, "\""),+).to_owned()),
                }
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $word),+ })
            }
        }

        impl JsonSchema for $kind {
            fn inline_schema() -> bool { true }
            fn schema_name() -> Cow<'static, str> { stringify!($kind).into() }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "enum": [$($word),+] })
            }
        }
    };
}

words!(Deletions { Delete = "delete", Tag = "tag", Keep = "keep" });
words!(Compare { Fingerprint = "fingerprint", Md5 = "md5", Size = "size" });
words!(MirrorCompare { Modified = "modified", Checksum = "checksum", Size = "size" });
words!(Symlinks { Store = "store", Skip = "skip" });
words!(Sse { Aes256 = "AES256", Kms = "aws:kms", KmsTwice = "aws:kms:dsse" });

/// A value with a unit is text in the file; numbers are taken where a bare number makes sense.
macro_rules! text_schema {
    ($kind:ident, $types:tt, $example:literal) => {
        impl JsonSchema for $kind {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($kind).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": $types, "examples": [$example] })
            }
        }
    };
}

text_schema!(Span, "string", "1h 30m");
text_schema!(Size, ["string", "integer"], "16MiB");
text_schema!(Rate, ["string", "integer"], "2MiB");
text_schema!(MaxDelete, ["string", "integer"], "25%");
text_schema!(Transfers, ["string", "integer"], 16);
