//! A target that takes two spellings for one name, as macOS and Windows disks do. None can be
//! mounted here: one is made of a folder and a rule.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use keepwatch::app::restore::{Counts, End, Ports, Restore, RestoreSettings};
use keepwatch::fs::{RuleOptions, Rules, Target, Tree as Local};
use keepwatch::model::{ContentMd5, Crc64, Prefix, RelPath};
use keepwatch::plan::{Failure, MaxDelete, Overwrite};
use keepwatch::ports::{
    Attributes, Fut, LocalLook, NewFile, Stretch, TargetError, TargetFacts, TargetTree, Tier,
};
use keepwatch::s3::{Connection, Endpoint, S3Options, S3Store};
use tokio::sync::Mutex;

use crate::support::scene::Scene;
use crate::support::tree::Tree;

/// Names that differ in case are one name here.
#[derive(Clone)]
struct Folding {
    target: Target,
    top: PathBuf,
    /// What a file system does in one step.
    step: Arc<Mutex<()>>,
}

impl Folding {
    /// The path as it is spelled here, as far as it is there.
    fn spelled(&self, path: &RelPath) -> RelPath {
        let (mut here, mut at) = (RelPath::root(), self.top.clone());
        for name in path.segments() {
            let there = std::fs::read_dir(&at).into_iter().flatten().find_map(|entry| {
                let found = entry.unwrap().file_name().into_encoded_bytes();
                found.eq_ignore_ascii_case(name).then_some(found)
            });
            let name = there.unwrap_or_else(|| name.to_owned());
            at.push(std::str::from_utf8(&name).unwrap());
            here = here.join(&name).unwrap();
        }
        here
    }

    fn is_free(&self, path: &RelPath) -> Result<(), TargetError> {
        if self.spelled(path) == *path { Ok(()) } else { Err(TargetError::Changed) }
    }
}

struct File {
    file: Box<dyn NewFile>,
    folding: Folding,
    path: RelPath,
}

impl NewFile for File {
    fn stretch(&self, offset: u64, md5: bool) -> Box<dyn Stretch> {
        self.file.stretch(offset, md5)
    }

    fn digest(&self, part: Option<u64>) -> Fut<'_, Result<(ContentMd5, Crc64), TargetError>> {
        self.file.digest(part)
    }

    fn commit(
        self: Box<Self>,
        size_bytes: u64,
        attributes: Attributes,
        over: LocalLook,
    ) -> Fut<'static, Result<(), TargetError>> {
        Box::pin(async move {
            let _step = self.folding.step.lock().await;
            self.folding.is_free(&self.path)?;
            self.file.commit(size_bytes, attributes, over).await
        })
    }
}

impl TargetTree for Folding {
    fn prepare(&self) -> Fut<'_, Result<TargetFacts, Failure>> {
        Box::pin(async { Ok(TargetFacts { folds_names: true, ..self.target.prepare().await? }) })
    }

    fn facts(&self) -> Fut<'_, Result<TargetFacts, Failure>> {
        self.target.facts()
    }

    fn look(&self, path: RelPath) -> Fut<'_, Result<LocalLook, TargetError>> {
        let spelled = self.spelled(&path);
        match spelled == path {
            true => self.target.look(path),
            false => Box::pin(async { Ok(LocalLook::Otherwise(spelled)) }),
        }
    }

    fn look_at_all(&self, paths: Vec<RelPath>) -> Fut<'_, Vec<Result<LocalLook, TargetError>>> {
        Box::pin(async move {
            let mut looks = vec![];
            for path in paths {
                looks.push(self.look(path).await);
            }
            looks
        })
    }

    fn digest(
        &self,
        path: RelPath,
        part: Option<u64>,
    ) -> Fut<'_, Result<(ContentMd5, Crc64), TargetError>> {
        self.target.digest(self.spelled(&path), part)
    }

    fn folder(&self, path: RelPath) -> Fut<'_, Result<bool, TargetError>> {
        self.target.folder(self.spelled(&path))
    }

    fn create(&self, path: RelPath) -> Fut<'_, Result<Box<dyn NewFile>, TargetError>> {
        Box::pin(async move {
            let _step = self.step.lock().await;
            // Folders above it that are there are used, however they are spelled.
            let file = self.target.create(self.spelled(&path)).await?;
            Ok(Box::new(File { file, folding: self.clone(), path }) as Box<dyn NewFile>)
        })
    }

    fn link(
        &self,
        path: RelPath,
        target: Bytes,
        attributes: Attributes,
        over: LocalLook,
    ) -> Fut<'_, Result<(), TargetError>> {
        Box::pin(async move {
            let _step = self.step.lock().await;
            self.is_free(&path)?;
            self.target.link(path, target, attributes, over).await
        })
    }

    fn set(
        &self,
        path: RelPath,
        is: LocalLook,
        attributes: Attributes,
    ) -> Fut<'_, Result<(), TargetError>> {
        self.target.set(self.spelled(&path), is, attributes)
    }

    fn remove(&self, path: RelPath, is: LocalLook) -> Fut<'_, Result<(), TargetError>> {
        self.target.remove(self.spelled(&path), is)
    }

    fn finish(&self) -> Fut<'_, Result<(), Failure>> {
        self.target.finish()
    }
}

const SETTINGS: RestoreSettings = RestoreSettings {
    at: None,
    within: None,
    overwrite: Overwrite::Always,
    delete: false,
    max_delete: MaxDelete::Percent(25),
    owner: false,
    setuid: false,
    outside_links: false,
    transfers: 8,
    tier: Tier::Standard,
    days: 1,
    wait: true,
    poll_ms: 100,
    retry_for_ms: 1_000,
};

async fn restore(scene: &Scene, back: &Tree) -> Counts {
    let reach = &scene.server.reach;
    let endpoint = Endpoint {
        url: Some(reach.endpoint.clone()),
        region: Some(reach.region.clone()),
        keys: Some((reach.access_key.clone(), reach.secret_key.clone())),
        connections_max: 10,
        ..Endpoint::default()
    };
    let connection = Connection::open(endpoint, None).await.unwrap();
    let (bucket, prefix) = ("bucket".to_owned(), Prefix::new("p"));
    let options = S3Options { bucket, prefix, ..S3Options::default() };
    let top = back.folder.path().to_owned();
    let rules = Rules::new(RuleOptions::default()).unwrap();
    let ports = Ports {
        reader: Arc::new(S3Store::new(connection, options)),
        here: Arc::new(Local::new(&top, rules, 1_024)),
        target: Arc::new(Folding { target: Target::new(&top), top, step: Arc::default() }),
    };
    let restore = Arc::new(Restore::new(SETTINGS, ports, Arc::new(|_, _| true), None));
    assert_eq!(restore.run().await, End::Done);
    restore.tally.counts()
}

#[tokio::test]
async fn two_keys_that_are_one_name_here_are_named_and_neither_is_overwritten() {
    // The scene's own client has a runtime of its own.
    let scene = tokio::task::spawn_blocking(|| {
        let scene = Scene::new(&[]);
        for key in ["README", "readme", "ReadMe", "Dir/x", "dir/x", "dir/y", "plain", "local"] {
            scene.bucket.put(&format!("p/{key}"), key.as_bytes());
        }
        scene
    });
    let scene = scene.await.unwrap();
    let back = Tree::new(&[("LOCAL", b"here before")]);
    let mut ends = vec![];
    for _ in 0..2 {
        let counts = restore(&scene, &back).await;
        let mut named = counts.failed.named.clone();
        named.sort_unstable();
        for (path, why) in &named {
            assert!(
                why.contains("is here, and both are one name on this file system"),
                "{path}: {why}"
            );
        }
        assert_eq!(counts.failed.count, named.len() as u64);
        let mut there: Vec<(String, String)> = vec![];
        for (key, (body, _)) in back.expected("") {
            there.push((key, String::from_utf8(body).unwrap()));
        }
        ends.push((named.into_iter().map(|(path, _)| path).collect::<Vec<_>>(), there));
    }
    let (named, there) = &ends[0];
    let of = |name: &str| there.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name)).count();
    assert_eq!((of("readme"), of("dir/x"), of("plain")), (1, 1, 1), "{there:?}");
    for (key, body) in there {
        let whose = if key == "LOCAL" { "here before" } else { key };
        assert_eq!(body, whose, "the content is its own");
    }
    let is_named = |name: &str| named.iter().filter(|path| path.eq_ignore_ascii_case(name)).count();
    assert_eq!((is_named("readme"), is_named("dir/x"), is_named("local")), (2, 1, 1), "{named:?}");
    assert_eq!(ends[0], ends[1], "a second run changes nothing");
    tokio::task::spawn_blocking(move || drop(scene)).await.unwrap();
}
