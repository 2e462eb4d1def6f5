//! Which buckets are meant, on which server, and what belongs to whom.

use super::Pair;
use crate::support::bucket::Bucket;
use crate::support::program::User;
use crate::support::server::{Embedded, Fault};
use crate::support::write_secret;

/// A user whose profiles each name a server.
fn with_profiles(pair: Pair, servers: &[(&str, &Embedded)]) -> Pair {
    let user = User::new();
    let folder = user.home.path().join(".aws");
    std::fs::create_dir_all(&folder).unwrap();
    let text: String = servers
        .iter()
        .map(|(name, server)| {
            let reach = &server.reach;
            format!(
                "[profile {name}]\nendpoint_url = {}\naws_access_key_id = {}\n\
                 aws_secret_access_key = {}\n",
                reach.endpoint, reach.access_key, reach.secret_key
            )
        })
        .collect();
    write_secret(&folder.join("config"), &text);
    Pair { user, ..pair }
}

#[test]
fn another_server_that_a_profile_names_is_another_source() {
    let (one, two) = (Embedded::start(), Embedded::start());
    let pair = Pair::new(&one.reach);
    let other = Bucket::create(&two.reach, "source");
    (0..4).for_each(|n| pair.source.put(&format!("k/{n}"), b"1"));
    other.put("k/0", b"1");
    let pair = with_profiles(pair, &[("one", &one), ("two", &two)]);
    pair.mirror(&["--profile", "one"], 0);
    let said = pair.mirror(&["--profile", "one", "--source-profile", "two"], 4);
    assert!(said.stderr.contains("belongs to"), "{said:?}");
    (0..4).for_each(|n| assert!(pair.tags(&format!("k/{n}")).is_empty()));
    assert_eq!(
        pair.mirror(&["--profile", "one", "--source-profile", "one"], 0).number("copied"),
        0
    );
}

#[test]
fn one_server_has_many_spellings() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    pair.source.put("a", b"1");
    let port = server.reach.endpoint.rsplit(':').next().unwrap().to_owned();
    for (at, host) in ["127.0.0.1", "localhost", "127.0.0.1", "LOCALHOST"].iter().enumerate() {
        let url = format!("http://{host}:{port}/");
        let said = pair.mirror(&["--endpoint-url", &url], 0);
        assert_eq!(said.number("copied"), u64::from(at == 0), "{said:?}");
        // Nor do they make a difference between the sides.
        let said = pair.mirror(&["--source-endpoint-url", &url], 0);
        assert_eq!((said.number("copied"), said.number("requests.head")), (0, 0), "{said:?}");
    }
}

#[test]
fn a_wrong_source_claims_nothing() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    pair.source.put("a", b"1");
    for (source, code, words) in [
        ("s3://nosuch", 4, "a source is never made"),
        ("s3://source/nosuch", 0, "there is no object in s3://source/nosuch/ yet"),
    ] {
        let said = pair.user.run(&["mirror", source, "s3://copies"]);
        assert!(said.code == code && said.stderr.contains(words), "{source}: {said:?}");
        assert!(pair.copies.keys().is_empty(), "{source}");
    }
    assert_eq!(pair.mirror(&[], 0).number("copied"), 1);
    // Once it is ours, an empty source is one that was emptied.
    pair.source.put("b", b"1");
    pair.mirror(&[], 0);
    ["a", "b"].iter().for_each(|key| pair.source.delete(key));
    pair.mirror(&[], 7);
}

#[test]
fn a_listing_that_fails_is_everybodys_trouble() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    (0..3).for_each(|n| pair.source.put(&format!("k/{n}"), b"1"));
    pair.mirror(&[], 0);
    pair.source.delete("k/0");
    let cut = bytes::Bytes::from_static(b"<ListBucketResult></ListBucketResult>");
    for side in ["/source", "/copies"] {
        for (fault, code) in [
            (Fault::Error(403, "AccessDenied"), 4),
            (Fault::Error(500, "InternalError"), 5),
            (Fault::Whole(cut.clone()), 5),
        ] {
            server.rule(move |seen| match seen.path.trim_end_matches('/') == side {
                true if seen.query.contains("list-type=2") => fault.clone(),
                _ => Fault::Pass,
            });
            let said = pair.mirror(&["--retry-for", "1s"], code);
            assert_eq!((said.number("copied"), said.number("tagged")), (0, 0), "{side}: {said:?}");
        }
    }
    server.no_rule();
    assert_eq!(pair.mirror(&[], 0).number("tagged"), 1);
}

#[test]
fn a_user_of_a_server_without_a_name_is_no_other() {
    // The environment names the server, then the command line does.
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    pair.source.put("a", b"1");
    pair.mirror(&[], 0);
    let url = server.reach.endpoint.as_str();
    let said = pair.mirror(&["--endpoint-url", url], 0);
    assert_eq!((said.number("copied"), said.number("requests.head")), (0, 0), "{said:?}");
}
