//! Every legal key is taken for what it is.

use aws_sdk_s3::types::{Delete, EncodingType, ObjectIdentifier};

use super::{BUCKET, Rig, assert_refused, both};
use crate::store::head::form_decoded;

/// Without keys that are nothing but white space: the SDK takes those for no key at all.
#[rustfmt::skip]
fn nasty() -> Vec<String> {
    let mut keys: Vec<String> = [
        "a", "a/b", "a/", "a//", "a//b", "/", "//", "/lead", "//x", "///", ".", "..", "./a", "a/.",
        "a/..", "a/./b", "a/../b", "../../etc/passwd", "...", ".hidden", "+", "a+b", "a b",
        " lead", "trail ", "%", "%41", "%2F", "a%2Fb", "%zz", "a?b", "a#b", "a&b=c", "a;b", "a:b",
        "a\\b", "\"q\"", "'", "<x>", "&amp;", "]]>", "<![CDATA[", "*", "~", "|", "$", "@", "!",
        "ü", "u\u{308}", "é/x", "e\u{301}/x", "\u{10ffff}", "\u{201b}", "日本語", "🦀", "A",
        "a\u{a0}", ".keepwatch-store/index.db", "index.html", "?versionId=1", "uploads", "CON",
        "a\u{2028}b", "tab\t", "line\nfeed", "carriage\rreturn", "crlf\r\n", "\u{1}", "\u{1f}",
        "\u{7f}", "nul\0", "next\u{85}", "\u{fffd}", "\u{feff}bom",
    ]
    .map(str::to_owned)
    .to_vec();
    keys.push("x".repeat(1024));
    keys.push("🦀".repeat(256));
    keys.push(format!("{}/{}", "s".repeat(255), "t".repeat(255)));
    keys.push(format!("{}/x", "s".repeat(256)));
    keys.push("d/".repeat(512));
    keys.push(format!("{}e", "d/".repeat(511)));
    keys
}

/// XML 1.0 cannot carry these, so S3 can list them only with `encoding-type=url`.
fn is_xml_safe(key: &str) -> bool {
    key.chars().all(|c| c >= ' ' || matches!(c, '\t' | '\n' | '\r'))
}

async fn listed_encoded(rig: &Rig) -> Vec<String> {
    let list = rig.client.list_objects_v2().bucket(BUCKET).encoding_type(EncodingType::Url);
    let page = list.send().await.unwrap();
    page.contents().iter().map(|object| form_decoded(object.key().unwrap()).unwrap()).collect()
}

#[tokio::test]
async fn nasty_keys_are_told_apart_and_come_back() {
    both(async |rig| {
        let mut keys = nasty();
        for key in &keys {
            rig.put(key, key.as_bytes()).await;
        }
        for key in &keys {
            assert_eq!(rig.get(key).await, key.as_bytes(), "{key:?}");
        }
        keys.sort();
        assert_eq!(listed_encoded(&rig).await, keys, "in the order of their bytes");
        // Once more, now that all folders and files are where they are.
        for key in keys.iter().rev() {
            rig.put(key, format!("{key} again").as_bytes()).await;
        }
        let second = rig.second();
        for key in &keys {
            let answer = second.get_object().bucket(BUCKET).key(key).send().await.unwrap();
            let body = answer.body.collect().await.unwrap().to_vec();
            assert_eq!(body, format!("{key} again").as_bytes(), "{key:?}");
        }
        for key in &keys {
            rig.client.delete_object().bucket(BUCKET).key(key).send().await.unwrap();
        }
        assert!(rig.keys().await.is_empty());
        assert_eq!(rig.on_their_way(), 0);
        let left = std::fs::read_dir(rig.path("bkt")).unwrap().count();
        assert_eq!(left, 0, "and their folders are gone");
    })
    .await;
}

#[tokio::test]
async fn nasty_keys_survive_xml_as_far_as_xml_goes() {
    both(async |rig| {
        let mut keys: Vec<String> = nasty().into_iter().filter(|key| is_xml_safe(key)).collect();
        for key in &keys {
            rig.put(key, b"").await;
        }
        keys.sort();
        assert_eq!(rig.keys().await, keys);
        let objects = keys.iter().map(|key| ObjectIdentifier::builder().key(key).build().unwrap());
        let delete = Delete::builder().set_objects(Some(objects.collect())).build().unwrap();
        let delete = rig.client.delete_objects().bucket(BUCKET).delete(delete);
        let answer = delete.send().await.unwrap();
        assert!(answer.errors().is_empty(), "{:?}", answer.errors());
        assert!(rig.keys().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn keys_have_a_limit() {
    both(async |rig| {
        let key = "x".repeat(1025);
        let put = rig.client.put_object().bucket(BUCKET).key(&key);
        assert_refused(put.send().await, 400, "KeyTooLongError");
        let get = rig.client.get_object().bucket(BUCKET).key(&key);
        assert_refused(get.send().await, 400, "KeyTooLongError");
    })
    .await;
}
