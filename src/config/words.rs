//! Values that are text, each checked where it is read: a flag, a variable or the file.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::plan::pattern;

/// A kind of text, and the function that says why a text is none of it.
macro_rules! text {
    ($($(#[$attribute:meta])+ $kind:ident: $read:expr;)+) => { $(
        $(#[$attribute])+
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $kind(String);

        impl FromStr for $kind {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let read: fn(&str) -> Result<String, String> = $read;
                read(text).map(Self)
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl JsonSchema for $kind {
            fn inline_schema() -> bool { true }
            fn schema_name() -> Cow<'static, str> { stringify!($kind).into() }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string" })
            }
        }
    )+ };
}

text! {
    /// One line that says something.
    Line: line;
    /// A gitignore rule.
    Pattern: |text| pattern::check(text).map(|()| text.to_owned());
    /// The name of a file, without its folder.
    FileName: file_name;
    /// Scheme, host, and perhaps a port and a path.
    EndpointUrl: endpoint_url;
    /// Where CloudWatch keeps metrics: the name of a group of them.
    Namespace: namespace;
    /// The storage class of new objects. Servers have their own beside those of AWS.
    StorageClass: storage_class;
}

fn line(text: &str) -> Result<String, String> {
    match text.trim().is_empty() || text.chars().any(char::is_control) {
        true => Err("write one line of text, or leave it out".to_owned()),
        false => Ok(text.to_owned()),
    }
}

fn file_name(text: &str) -> Result<String, String> {
    match matches!(text, "" | "." | "..") || text.contains(['/', '\0']) {
        true => Err("write the name of a file, without a folder".to_owned()),
        false => Ok(text.to_owned()),
    }
}

fn endpoint_url(text: &str) -> Result<String, String> {
    let wanted = || "write a URL such as https://s3.example.com or http://host:9000".to_owned();
    let (scheme, rest) = text.split_once("://").ok_or_else(wanted)?;
    let authority = rest.split('/').next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !authority.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    // A secret may have a slash in it.
    if rest.contains('@') {
        return Err("no secret belongs in a URL: name a profile or a credentials_file".to_owned());
    }
    let fits = matches!(scheme, "http" | "https")
        && !host.is_empty()
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
        && !rest.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#'));
    if fits { Ok(text.trim_end_matches('/').to_owned()) } else { Err(wanted()) }
}

fn namespace(text: &str) -> Result<String, String> {
    let is_known = |c: char| c.is_ascii_alphanumeric() || " .-_/#:".contains(c);
    let fits = (1..=255).contains(&text.len())
        && text.chars().all(is_known)
        && !text.trim().is_empty()
        && !text.starts_with(':');
    match fits {
        true if text.to_ascii_uppercase().starts_with("AWS/") => {
            Err("names that begin with AWS/ are those of AWS itself".to_owned())
        }
        true => Ok(text.to_owned()),
        false => Err("write a name of up to 255 letters, digits, spaces and . - _ / # :, as \
                      keepwatch/laptop"
            .to_owned()),
    }
}

fn storage_class(text: &str) -> Result<String, String> {
    let fits = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    match text.bytes().next().is_some_and(|b| b.is_ascii_uppercase()) && text.bytes().all(fits) {
        true => Ok(text.to_owned()),
        false => Err("write a class in capitals: STANDARD, STANDARD_IA, ONEZONE_IA, \
             INTELLIGENT_TIERING, GLACIER_IR, GLACIER, DEEP_ARCHIVE, REDUCED_REDUNDANCY, \
             EXPRESS_ONEZONE, or one of your server's own"
            .to_owned()),
    }
}
