//! Tags.

use aws_sdk_s3::types::{Tag, Tagging};

use super::{BUCKET, Rig, assert_refused, both};

fn tagging(tags: &[(&str, &str)]) -> Tagging {
    let tag = |(key, value): &(&str, &str)| Tag::builder().key(*key).value(*value).build().unwrap();
    Tagging::builder().set_tag_set(Some(tags.iter().map(tag).collect())).build().unwrap()
}

impl Rig {
    async fn tags(&self, key: &str) -> Vec<(String, String)> {
        let answer = self.client.get_object_tagging().bucket(BUCKET).key(key).send().await;
        let pair = |tag: &Tag| (tag.key().to_owned(), tag.value().to_owned());
        answer.unwrap().tag_set().iter().map(pair).collect()
    }
}

#[tokio::test]
async fn tags_are_put_read_counted_and_deleted() {
    both(async |rig| {
        rig.put("k", b"x").await;
        assert!(rig.tags("k").await.is_empty());
        let put = |tags: &[(&str, &str)]| {
            rig.client.put_object_tagging().bucket(BUCKET).key("k").tagging(tagging(tags)).send()
        };
        put(&[("Deleted", "True"), ("ü +-=._:/@", "2026-11-21T12:00")]).await.unwrap();
        let expected = [("Deleted", "True"), ("ü +-=._:/@", "2026-11-21T12:00")];
        assert_eq!(rig.tags("k").await, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
        let get = rig.client.get_object().bucket(BUCKET).key("k").send().await.unwrap();
        assert_eq!(get.tag_count(), Some(2));
        let head = rig.client.head_object().bucket(BUCKET).key("k").send().await.unwrap();
        assert_eq!(head.tag_count(), Some(2));

        let nine: Vec<String> = (0..9).map(|n| format!("k{n}")).collect();
        let mut many: Vec<(&str, &str)> = nine.iter().map(|key| (key.as_str(), "")).collect();
        many.push(("k9", ""));
        put(&many).await.unwrap();
        many.push(("k10", ""));
        assert_refused(put(&many).await, 400, "BadRequest");
        assert_refused(put(&[("a", "1"), ("a", "2")]).await, 400, "InvalidTag");
        assert_refused(put(&[("a", "<")]).await, 400, "InvalidTag");
        assert_eq!(rig.tags("k").await.len(), 10, "what was refused changed nothing");

        rig.client.delete_object_tagging().bucket(BUCKET).key("k").send().await.unwrap();
        assert!(rig.tags("k").await.is_empty());
        let none = rig.client.get_object_tagging().bucket(BUCKET).key("no").send().await;
        assert_refused(none, 404, "NoSuchKey");
    })
    .await;
}

#[tokio::test]
async fn a_put_can_bring_tags() {
    let rig = Rig::new().await;
    let put = |tags: &str| rig.client.put_object().bucket(BUCKET).key("k").tagging(tags).send();
    put("a=1&b%20c=x%2By").await.unwrap();
    assert_eq!(rig.tags("k").await[1], ("b c".to_owned(), "x+y".to_owned()));
    assert_refused(put("a=1&a=2").await, 400, "InvalidTag");
    rig.put("k", b"x").await;
    assert!(rig.tags("k").await.is_empty(), "a new object has its own tags");
}

#[tokio::test]
async fn every_version_has_its_own_tags() {
    let rig = Rig::new().await;
    rig.enable_versions().await;
    let put = rig.client.put_object().bucket(BUCKET).key("k").tagging("v=1").send().await.unwrap();
    rig.put("k", b"x").await;
    let first = put.version_id().unwrap();
    let tag = rig.client.put_object_tagging().bucket(BUCKET).key("k").version_id(first);
    let answer = tag.tagging(tagging(&[("v", "one")])).send().await.unwrap();
    assert_eq!(answer.version_id(), Some(first));
    assert!(rig.tags("k").await.is_empty());
    let get = rig.client.get_object_tagging().bucket(BUCKET).key("k").version_id(first);
    assert_eq!(get.send().await.unwrap().tag_set()[0].value(), "one");
    rig.client.delete_object().bucket(BUCKET).key("k").send().await.unwrap();
    let hidden = rig.client.get_object_tagging().bucket(BUCKET).key("k").send().await;
    assert_refused(hidden, 404, "NoSuchKey");
}
