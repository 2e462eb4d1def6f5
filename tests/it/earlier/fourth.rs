//! The fourth earlier system: a bucket backed up to a bucket by workers, with what is gone tagged,
//! and restored into a bucket of its own.

use std::collections::BTreeMap;

use super::tells;
use crate::support::bucket::Bucket;
use crate::support::program::{Said, User};
use crate::support::server::Embedded;

struct Buckets {
    server: Embedded,
    from: Bucket,
    backup: Bucket,
    user: User,
}

impl Buckets {
    fn new(keys: &[&str]) -> Self {
        let server = Embedded::start();
        let from = Bucket::create(&server.reach, "from");
        let backup = Bucket::create(&server.reach, "backup");
        keys.iter().for_each(|key| from.put(key, key.as_bytes()));
        let user = User::of(&server.reach);
        Self { server, from, backup, user }
    }

    /// A run with the numbers that the earlier system had in its sample.
    fn mirror(&self, more: &[&str]) -> Said {
        let args = ["mirror", "from::", "s3://backup", "--json", "--processes", "4"];
        let said = self.user.run(&[&args[..], &["--threads", "10"], more].concat());
        assert_eq!(said.code, 0, "{said:?}");
        said
    }

    fn tags(&self, key: &str) -> BTreeMap<String, String> {
        let tags = self.backup.client.get_object_tagging().bucket("backup").key(key);
        let tags = self.backup.run(tags.send()).unwrap();
        tags.tag_set().iter().map(|t| (t.key().to_owned(), t.value().to_owned())).collect()
    }
}

#[test]
fn missing_and_differing_keys_are_copied() {
    let buckets = Buckets::new(&["a", "b/c", "b/d e"]);
    let said = buckets.mirror(&[]);
    assert_eq!((said.number("copied"), said.number("uploaded")), (3, 0), "{said:?}");
    assert_eq!(buckets.backup.objects(), buckets.from.objects());
    buckets.from.put("a", b"longer");
    buckets.from.put("new", b"new");
    buckets.server.clear_log();
    let said = buckets.mirror(&[]);
    assert_eq!((said.number("copied"), said.number("unchanged")), (2, 2), "{said:?}");
    assert_eq!(buckets.server.count("CopyObject"), 2, "within the server");
    assert_eq!(buckets.backup.objects(), buckets.from.objects());
    let said = buckets.mirror(&["--modified-within", "24h"]);
    assert_eq!(said.number("copied"), 0, "{said:?}");
}

#[test]
fn what_is_gone_is_tagged_and_not_restored() {
    let buckets = Buckets::new(&["a", "b", "c"]);
    buckets.mirror(&[]);
    buckets.from.delete("b");
    let said = buckets.mirror(&[]);
    assert_eq!((said.number("tagged"), said.number("deleted")), (1, 0), "{said:?}");
    let tags = buckets.tags("b");
    assert_eq!(tags["Deleted"], "True");
    let shape = |c: char| if c.is_ascii_digit() { '0' } else { c };
    let at: String = tags["DeletedAt"].chars().map(shape).collect();
    assert_eq!(at, "0000-00-00T00:00");
    assert!(buckets.tags("a").is_empty());

    let restore = ["restore", "s3://backup", "s3://made-new", "--json"];
    let said = buckets.user.run(&restore);
    assert_eq!(said.code, 4, "{said:?}");
    tells(&said, &["made-new", "--create-bucket"]);
    let said = buckets.user.run(&[&restore[..], &["--create-bucket"]].concat());
    assert_eq!((said.code, said.number("copied")), (0, 2), "{said:?}");
    let new = Bucket::open(&buckets.server.reach, "made-new");
    assert_eq!(new.objects().into_keys().collect::<Vec<_>>(), ["a", "c"]);
}
