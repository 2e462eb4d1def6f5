//! What happens at the same time: conditions are atomic, and readers see whole objects.

use std::sync::Arc;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use futures_util::future::join_all;

use super::{BUCKET, Rig, md5_hex, noise, refusal};

fn put(
    client: &Client,
    key: &str,
    body: Vec<u8>,
) -> aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder {
    client.put_object().bucket(BUCKET).key(key).body(body.into())
}

#[tokio::test]
async fn one_of_many_creates_through_two_handles() {
    let rig = Rig::new().await;
    let clients = [rig.client.clone(), rig.second()];
    for round in 0..5 {
        let key = format!("k{round}");
        let attempts = (0..32u8).map(|n| {
            put(&clients[usize::from(n % 2)], &key, vec![n; 100]).if_none_match("*").send()
        });
        let results = join_all(attempts).await;
        let winner = results.iter().position(Result::is_ok).unwrap() as u8;
        let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1);
        for result in lost {
            assert_eq!(refusal(result), (412, "PreconditionFailed".to_owned()));
        }
        assert_eq!(rig.get(&key).await, vec![winner; 100]);
    }
    assert_eq!(rig.on_their_way(), 0);
}

#[tokio::test]
async fn a_counter_under_if_match_loses_nothing() {
    let rig = Rig::new().await;
    rig.put("n", b"0").await;
    let clients = [rig.client.clone(), rig.second()];
    let workers = (0..8).map(|worker| {
        let client = clients[worker % 2].clone();
        async move {
            for _ in 0..10 {
                loop {
                    let read = client.get_object().bucket(BUCKET).key("n").send().await.unwrap();
                    let etag = read.e_tag().unwrap().to_owned();
                    let bytes = read.body.collect().await.unwrap().to_vec();
                    let count: u32 = String::from_utf8(bytes).unwrap().parse().unwrap();
                    let next = (count + 1).to_string().into_bytes();
                    if put(&client, "n", next).if_match(etag).send().await.is_ok() {
                        break;
                    }
                }
            }
        }
    });
    join_all(workers).await;
    assert_eq!(rig.get("n").await, b"80");
}

/// Overwrites, deletes, clashes and versions under readers: every answer is one whole object.
#[tokio::test]
async fn readers_see_whole_objects_while_others_write() {
    let rig = Arc::new(Rig::new().await);
    let (done, second) = (Arc::new(std::sync::atomic::AtomicBool::new(false)), rig.second());
    let readers = (0..4).map(|_| {
        let (rig, done) = (rig.clone(), done.clone());
        async move {
            let mut reads = 0;
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                for key in ["a", "a/b"] {
                    let get = rig.client.get_object().bucket(BUCKET).key(key).send().await;
                    let answer = match get {
                        Ok(answer) => answer,
                        Err(error) => {
                            assert_eq!(error.code(), Some("NoSuchKey"), "{error:?}");
                            continue;
                        }
                    };
                    let etag = answer.e_tag().unwrap().trim_matches('"').to_owned();
                    let body = answer.body.collect().await.unwrap().to_vec();
                    assert_eq!(md5_hex(&body), etag);
                    reads += 1;
                }
            }
            assert!(reads > 10, "{reads}");
        }
    });
    let writers = [rig.client.clone(), second].map(|client| {
        let rig = rig.clone();
        async move {
            for round in 0..150u64 {
                let key = if round % 3 == 0 { "a/b" } else { "a" };
                put(&client, key, noise(round, 3000 + round as usize)).send().await.unwrap();
                match round % 10 {
                    4 => drop(client.delete_object().bucket(BUCKET).key("a").send().await),
                    6 => drop(client.delete_object().bucket(BUCKET).key("a/b").send().await),
                    7 if round == 77 => rig.enable_versions().await,
                    _ => {}
                }
            }
        }
    });
    let writing = async {
        join_all(writers).await;
        done.store(true, std::sync::atomic::Ordering::SeqCst);
    };
    tokio::join!(join_all(readers), writing);
    assert_eq!(rig.on_their_way(), 0);
}

/// The transactions in a write-ahead log (sqlite.org/fileformat2.html#walformat).
fn commits(wal: &std::path::Path) -> usize {
    let bytes = std::fs::read(wal).unwrap();
    let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    let frame_bytes = 24 + word(8) as usize;
    (32..bytes.len()).step_by(frame_bytes).filter(|at| word(at + 4) != 0).count()
}

#[tokio::test]
async fn writes_that_wait_share_one_commit() {
    let rig = Rig::new().await;
    let wal = rig.path(".keepwatch-store/index.db-wal");
    let other = rusqlite::Connection::open(rig.path(".keepwatch-store/index.db")).unwrap();
    let before = commits(&wal);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let writing = tokio::spawn({
        let client = rig.client.clone();
        let puts = (0..64).map(move |n| put(&client, &n.to_string(), vec![1]).send());
        async move { join_all(puts).await }
    });
    // All bodies are there, and so are most of the requests to publish them.
    while rig.on_their_way() < 64 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    other.execute_batch("COMMIT").unwrap();
    assert!(writing.await.unwrap().into_iter().all(|result| result.is_ok()));
    let commits = commits(&wal) - before;
    assert!((1..32).contains(&commits), "{commits} commits for 64 objects");
}

#[tokio::test]
async fn a_request_given_up_leaves_nothing_and_hurts_nobody() {
    let rig = Rig::new().await;
    for round in 0..40 {
        let request = put(&rig.client, "given-up", noise(round, 3 << 20)).send();
        let mut request = Box::pin(request);
        // Polled a few times, then dropped in whatever state it is.
        for _ in 0..round {
            if futures_util::poll!(&mut request).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(request);
    }
    rig.put("k", b"fine").await;
    assert_eq!(rig.get("k").await, b"fine");
    let folder = rig.folder.clone();
    let options = rig.store.options().clone();
    drop(rig);
    drop(crate::store::Store::open(folder.path(), options).unwrap());
    let tmp = folder.path().join(".keepwatch-store/tmp");
    assert_eq!(std::fs::read_dir(tmp).unwrap().count(), 0);
}
