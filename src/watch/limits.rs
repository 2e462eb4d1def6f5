//! What keeps a watcher from seeing everything, in words that say what to do about it.

use std::path::Path;

use super::Layout;

const NEXT_PASS: &str = "changes elsewhere are found by a pass every minute";

/// What is not watched.
pub struct Left {
    pub unwatched: u64,
    /// Of these, the folders that may not be read.
    pub denied: u64,
    /// Not even one watcher is to be had.
    pub no_instance: bool,
}

/// Explains why some folders are not watched.
pub fn explain(layout: Layout, watched: u64, left: &Left) -> String {
    let Left { unwatched, denied, no_instance } = *left;
    if layout == Layout::Whole {
        return format!("the system does not let the source be watched; {NEXT_PASS}");
    }
    let all = watched + unwatched;
    if no_instance {
        let limit = read_limit("max_user_instances");
        return format!(
            "no folder is watched: the limit fs.inotify.max_user_instances{limit} is used up; \
             {NEXT_PASS}. Raise it: sysctl -w fs.inotify.max_user_instances=512"
        );
    }
    if denied == unwatched {
        return format!("watching {watched} of {all} folders: the others may not be read");
    }
    let limit = read_limit("max_user_watches");
    // Other programs use it, too.
    let now: u64 = limit.trim_matches([' ', '(', ')']).parse().unwrap_or_default();
    let wanted = (all.max(65_536).max(now) * 2).next_power_of_two();
    format!(
        "watching {watched} of {all} folders: the limit fs.inotify.max_user_watches{limit} is used \
         up; {NEXT_PASS}. Raise it: sysctl -w fs.inotify.max_user_watches={wanted}"
    )
}

fn read_limit(name: &str) -> String {
    match std::fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")) {
        Ok(text) => format!(" ({})", text.trim()),
        Err(_) => String::new(),
    }
}

/// Says when the source is on a file system where other machines' changes make no events.
#[cfg(target_os = "linux")]
pub fn remote_changes(root: &Path) -> Option<String> {
    #[allow(clippy::useless_conversion, reason = "the type differs between platforms")]
    let kind = i64::from(rustix::fs::statfs(root).ok()?.f_type);
    // Magic numbers from statfs(2).
    let name = match kind & 0xffff_ffff {
        0x6969 => "NFS",
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => "SMB",
        0x6573_5546 => "FUSE",
        0x0102_1997 => "9P",
        0x5346_414f | 0x6b41_4653 => "AFS",
        0x00c3_6400 => "Ceph",
        0x786f_4256 => "a VirtualBox folder",
        0x0bd0_0bd0 => "Lustre",
        _ => return None,
    };
    Some(format!(
        "the source is on {name}: changes made by other machines make no events; they \
                  are found by a pass every minute"
    ))
}

#[cfg(not(target_os = "linux"))]
pub fn remote_changes(_root: &Path) -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_be_read_is_no_limit() {
        let left = Left { unwatched: 2, denied: 2, no_instance: false };
        let said = explain(Layout::EachFolder, 5, &left);
        assert_eq!(said, "watching 5 of 7 folders: the others may not be read");
        let left = Left { denied: 1, ..left };
        let said = explain(Layout::EachFolder, 5, &left);
        let limit = read_limit("max_user_watches");
        let now: u64 = limit.trim_matches([' ', '(', ')']).parse().unwrap_or_default();
        let wanted: u64 = said.rsplit_once('=').unwrap().1.parse().unwrap();
        assert!(wanted > now, "{said}");
    }
}
