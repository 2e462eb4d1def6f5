//! Times and modes of files in the metadata that other tools write. Only what is certain is read;
//! what is in rclone's terms is [`Meta`]'s own business.

use crate::model::{Meta, Timestamp};

/// Fills in what `meta` lacks.
pub(super) fn supplement<'a>(
    mut meta: Meta,
    pairs: impl Iterator<Item = (&'a str, &'a str)>,
) -> Meta {
    for (name, value) in pairs {
        match name {
            "s3cmd-attrs" => s3cmd(&mut meta, value),
            // s3fs has the names of rclone, and its mode in decimal.
            "mode" if meta.mode.is_none_or(|mode| !is_plausible(mode)) => {
                let decimal = value.parse().ok();
                let decimal = decimal.filter(|mode| matches!(file_type(*mode), FILE | FOLDER));
                meta.mode = decimal.or(meta.mode);
            }
            // AWS DataSync and the file gateway.
            "file-mtime" => meta.mtime = meta.mtime.or_else(|| nanoseconds(value)),
            "file-permissions" => {
                let mode = u32::from_str_radix(value, 8).ok().filter(|mode| is_plausible(*mode));
                meta.mode = meta.mode.or(mode);
            }
            "file-owner" => meta.uid = meta.uid.or_else(|| value.parse().ok()),
            "file-group" => meta.gid = meta.gid.or_else(|| value.parse().ok()),
            _ => {}
        }
    }
    meta
}

const FILE: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;
const LINK: u32 = 0o120_000;

fn file_type(mode: u32) -> u32 {
    mode & !0o7777
}

/// Whether this can be the mode of what a backup holds. A decimal mode of a file, read as octal,
/// has a type that does not exist.
fn is_plausible(mode: u32) -> bool {
    matches!(file_type(mode), 0 | FILE | FOLDER | LINK)
}

/// `mode:33188/mtime:1598548803/uid:1000/…`: all numbers are decimal.
fn s3cmd(meta: &mut Meta, attributes: &str) {
    for attribute in attributes.split('/') {
        let Some((name, value)) = attribute.split_once(':') else { continue };
        match name {
            "mtime" => meta.mtime = meta.mtime.or_else(|| value.parse().ok()),
            "mode" => {
                let mode = value.parse().ok().filter(|mode| is_plausible(*mode));
                meta.mode = meta.mode.or(mode);
            }
            "uid" => meta.uid = meta.uid.or_else(|| value.parse().ok()),
            "gid" => meta.gid = meta.gid.or_else(|| value.parse().ok()),
            _ => {}
        }
    }
}

/// `1598548803846034345ns`.
fn nanoseconds(text: &str) -> Option<Timestamp> {
    let nanos: i64 = text.strip_suffix("ns")?.parse().ok()?;
    // INVARIANT: a remainder below 10^9 fits.
    let rest = nanos.rem_euclid(1_000_000_000) as u32;
    Some(Timestamp::new(nanos.div_euclid(1_000_000_000), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&'static str, &'static str)]) -> Meta {
        let pairs = pairs.iter().copied();
        supplement(Meta::from_pairs(pairs.clone()), pairs)
    }

    #[test]
    fn times_and_modes_of_other_tools_are_understood() {
        let stamp = Timestamp::new(1_598_548_803, 0);
        let expected =
            Meta { mtime: Some(stamp), mode: Some(0o100_644), uid: Some(1_000), gid: Some(100) };
        let s3cmd = "atime:1/ctime:2/gid:100/gname:users/md5:ab/mode:33188/mtime:1598548803/\
                     uid:1000/uname:me";
        assert_eq!(read(&[("s3cmd-attrs", s3cmd)]), expected);
        let s3fs = [("mtime", "1598548803"), ("mode", "33188"), ("uid", "1000"), ("gid", "100")];
        assert_eq!(read(&s3fs), expected);
        let datasync = [
            ("file-mtime", "1598548803000000000ns"),
            ("file-permissions", "0100644"),
            ("file-owner", "1000"),
            ("file-group", "100"),
        ];
        assert_eq!(read(&datasync), expected);
        assert_eq!(nanoseconds("-1ns"), Some(Timestamp::new(-1, 999_999_999)));
    }

    #[test]
    fn decimal_modes_that_look_octal_are_told_apart() {
        // 0100755, as s3fs and as rclone write it.
        assert_eq!(read(&[("mode", "33261")]).mode, Some(0o100_755));
        assert_eq!(read(&[("mode", "100755")]).mode, Some(0o100_755));
        assert_eq!(read(&[("mode", "120777")]).mode, Some(0o120_777));
        assert_eq!(read(&[("mode", "755")]).mode, Some(0o755));
        assert_eq!(read(&[("mode", "99999")]).mode, None);
        // A folder of s3fs; a device and a pipe of rclone, which are not to pass for files.
        assert_eq!(read(&[("mode", "16704")]).mode, Some(0o040_500));
        assert_eq!(read(&[("mode", "60666")]).mode, Some(0o060_666));
        assert_eq!(read(&[("mode", "10644")]).mode, Some(0o010_644));
    }

    #[test]
    fn what_is_in_rclones_terms_wins_and_nonsense_counts_as_absent() {
        let both = [("s3cmd-attrs", "mtime:1/mode:33188"), ("mtime", "5.5"), ("mode", "100600")];
        let meta = read(&both);
        assert_eq!(meta.mtime, Some(Timestamp::new(5, 500_000_000)));
        assert_eq!(meta.mode, Some(0o100_600));
        let nonsense = [("s3cmd-attrs", "mtime/mode:x/uid:"), ("file-mtime", "12"), ("mode", "rw")];
        assert_eq!(read(&nonsense), Meta::default());
    }
}
