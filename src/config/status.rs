//! The `[status]` table: where other programs can read how the backups are.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::file::Table;
use super::options::{ToToml as _, options};

options! {
    /// The table as written.
    #[schemars(deny_unknown_fields)]
    StatusOptions;
    /// Address on this machine's loopback where `/metrics` is served; off unless set.
    #[arg(skip)]
    listen: [Loopback] parsed;
}

/// An address that only this machine can reach: what is served there asks for no password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loopback(pub SocketAddr);

impl fmt::Display for Loopback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Loopback {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() && address.port() > 0 => Ok(Self(address)),
            Ok(address) if !address.ip().is_loopback() => Err(
                "it must be on this machine's loopback, 127.0.0.1:PORT or [::1]:PORT: there is no \
                 password; let a proxy with one serve other machines"
                    .to_owned(),
            ),
            Ok(_) | Err(_) => Err("write an address and a port, as 127.0.0.1:8385".to_owned()),
        }
    }
}

impl JsonSchema for Loopback {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Loopback".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}
