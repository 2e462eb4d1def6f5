//! A moment as people write it.

use std::str::FromStr;

use jiff::civil;
use jiff::{Span, Timestamp, Zoned};

use crate::model::Millis;

/// A moment: with an offset as it is, without one in this machine's time zone, or so long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(pub Millis);

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text.trim(), &Zoned::now()).map(Self).ok_or_else(|| {
            "write a time such as 2026-11-01T12:00Z, 2026-11-01 12:00, 2026-11-01 or \"2 days ago\""
                .to_owned()
        })
    }
}

fn parse(text: &str, now: &Zoned) -> Option<Millis> {
    let millis = |at: Timestamp| Millis(at.as_millisecond());
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(millis(at));
    }
    // A day alone is its beginning.
    if let Ok(at) = text.parse::<civil::DateTime>() {
        return Some(millis(at.to_zoned(now.time_zone().clone()).ok()?.timestamp()));
    }
    let span: Span = text.parse().ok().filter(|_| text.ends_with("ago"))?;
    Some(millis(now.checked_add(span).ok()?.timestamp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let now: Zoned = "2026-11-21T10:00:00+01:00[+01:00]".parse().unwrap();
        let ms = |text: &str| text.parse::<Timestamp>().unwrap().as_millisecond();
        for (text, meant) in [
            ("2026-11-01T12:00Z", "2026-11-01T12:00:00Z"),
            ("2026-11-01T12:00:30.5Z", "2026-11-01T12:00:30.5Z"),
            ("2026-11-01T12:00+02:00", "2026-11-01T10:00:00Z"),
            ("2026-11-01 12:00", "2026-11-01T11:00:00Z"),
            ("2026-11-01T12:00:01", "2026-11-01T11:00:01Z"),
            ("2026-11-01", "2026-10-31T23:00:00Z"),
            ("2 days ago", "2026-11-19T09:00:00Z"),
            ("1h 30m ago", "2026-11-21T07:30:00Z"),
            ("1 month ago", "2026-10-21T09:00:00Z"),
        ] {
            assert_eq!(parse(text, &now), Some(Millis(ms(meant))), "{text}");
        }
        for text in ["", "yesterday", "2 days", "12:00", "2026-13-01", "11/01/2026"] {
            assert_eq!(parse(text, &now), None, "{text:?}");
        }
    }
}
