//! The files in memory as keepwatch sees them: walked one folder at a time, and torn while read.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::model::key::encode_name;
use crate::model::{Crc64, Entry, Key, Kind, Md5, Observed, RelPath};
use crate::plan::{Failure, Skip};
use crate::ports::{
    Batch, Chunk, FolderWatch, Fut, Identity, LeftOut, Links, LocalTree, OpenFile, PartDigest,
    ReadError, Seen, Stat, Veil, Walk, WholeRead,
};

use super::SimFs;

/// A walk that looks at one folder at a time, so that changes come between.
struct SimWalk {
    fs: SimFs,
    watch: Option<Arc<dyn FolderWatch>>,
    /// What is left, last first: entries to emit, folders to open.
    stack: Vec<(String, RelPath, bool)>,
    top: Option<RelPath>,
    failed: bool,
}

impl SimWalk {
    fn children(&self, folder: &RelPath, key: &str) -> Vec<(String, RelPath, bool)> {
        let disk = self.fs.disk();
        let mut children: Vec<_> = disk
            .nodes
            .iter()
            .filter(|(path, _)| path.parent().as_ref() == Some(folder))
            .map(|(path, node)| {
                let is_folder = node.entry.kind == Kind::Folder;
                let slash = if is_folder { "/" } else { "" };
                (format!("{key}{}{slash}", encode_name(path.name())), path.clone(), is_folder)
            })
            .collect();
        children.sort_by(|a, b| b.0.cmp(&a.0));
        children
    }

    /// Lists the folder that the walk begins with.
    fn open(&mut self, top: RelPath) -> Batch {
        let key = Key::folder(&top);
        let is_folder = top.is_root()
            || self.fs.content(&top).is_some_and(|(entry, _)| entry.kind == Kind::Folder);
        if is_folder && !self.fs.disk().unreadable.contains(&top) {
            self.stack = self.children(&top, key.as_str());
            return vec![];
        }
        vec![(key, Seen::Veil(Veil { excluded: false, tree: true, skip: None }))]
    }

    fn step(&mut self) -> Option<Result<Batch, Failure>> {
        if self.failed {
            return None;
        }
        if self.fs.disk().missing {
            self.failed = true;
            return Some(Err(SimFs::missing()));
        }
        if let Some(top) = self.top.take() {
            if let Some(watch) = &self.watch {
                watch.watch(std::slice::from_ref(&top));
            }
            return Some(Ok(self.open(top)));
        }
        let (key, path, is_folder) = self.stack.pop()?;
        let mut seen = vec![];
        let Some((entry, _)) = self.fs.content(&path) else { return Some(Ok(seen)) };
        match (is_folder, entry.kind == Kind::Folder) {
            (false, false) => {
                self.fs.note(&path, &entry);
                seen.push((Key::literal(&key), Seen::Entry(path, entry)));
            }
            (true, true) => {
                if let Some(watch) = &self.watch {
                    watch.watch(std::slice::from_ref(&path));
                }
                if self.fs.disk().unreadable.contains(&path) {
                    let skip = Skip::Unreadable("permission denied".to_owned());
                    let skip = Some((path, skip));
                    let veil = Veil { excluded: false, tree: true, skip };
                    seen.push((Key::literal(&key), Seen::Veil(veil)));
                } else {
                    let marker = SimFs::marker(&self.fs.disk(), &path, &entry);
                    let mut children = self.children(&path, &key);
                    self.stack.append(&mut children);
                    seen.extend(marker.map(|e| (Key::literal(&key), Seen::Entry(path, e))));
                }
            }
            // It became something else since it was listed.
            (tree, _) => {
                let veil = Veil { excluded: false, tree, skip: None };
                seen.push((Key::literal(&key), Seen::Veil(veil)));
            }
        }
        Some(Ok(seen))
    }
}

impl Walk for SimWalk {
    fn next(&mut self) -> Fut<'_, Option<Result<Batch, Failure>>> {
        Box::pin(async {
            if self.fs.chance.percent(30) {
                let ms = self.fs.chance.below(50);
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
            self.step()
        })
    }
}

impl SimFs {
    fn note(&self, path: &RelPath, entry: &Entry) {
        let names = self.disk().names(entry);
        self.links.note(path, entry.fingerprint.inode, names);
    }
}

impl LocalTree for SimFs {
    fn identity(&self) -> Fut<'_, Result<Identity, Failure>> {
        Box::pin(async { self.identity_now().ok_or_else(Self::missing) })
    }

    fn walk(&self, top: RelPath, watch: Option<Arc<dyn FolderWatch>>) -> Box<dyn Walk> {
        let fs = self.clone();
        Box::new(SimWalk { fs, watch, stack: vec![], top: Some(top), failed: false })
    }

    fn governed(&self, _path: &RelPath) -> Option<RelPath> {
        None
    }

    fn stat(&self, paths: Vec<RelPath>) -> Fut<'_, Result<Vec<Stat>, Failure>> {
        Box::pin(async move {
            let disk = self.disk();
            if disk.missing {
                return Err(Self::missing());
            }
            let hidden = |path: &RelPath| {
                let here = disk.nodes.get(path).is_some_and(|n| n.entry.kind == Kind::Folder);
                disk.unreadable
                    .iter()
                    .any(|folder| path.is_within(folder) && (path != folder || here))
            };
            let folder = |marker, path: &RelPath| Stat::Folder {
                marker,
                disk: disk.device(path),
                left_out: LeftOut::default(),
            };
            let one = |path: &RelPath| match disk.nodes.get(path) {
                _ if path.is_root() => folder(None, path),
                _ if hidden(path) => Stat::Unknown(Skip::Unreadable("hidden".to_owned())),
                None => {
                    self.links.forget(path);
                    Stat::Absent { disk: disk.device(path), left_out: LeftOut::default() }
                }
                Some(node) if node.entry.kind == Kind::Folder => {
                    let marker = Self::marker(&disk, path, &node.entry);
                    folder(marker, path)
                }
                Some(node) => {
                    let inode = node.entry.fingerprint.inode;
                    self.links.note(path, inode, disk.names(&node.entry));
                    Stat::Entry(node.entry)
                }
            };
            Ok(paths.iter().map(one).collect())
        })
    }

    fn links(&self) -> &Links {
        &self.links
    }

    fn read_whole(&self, path: RelPath, limit: u64) -> Fut<'_, Result<WholeRead, ReadError>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let file = self.open(path).await?;
            let before = file.opened();
            let size = before.fingerprint.size_bytes;
            let chunk = file.read(0, if size <= limit { size } else { 0 }).await?;
            let (after, by_path) = file.look().await?;
            let (md5, crc64) = (chunk.digest.md5, chunk.digest.crc64);
            Ok(WholeRead { before, after, by_path, bytes: chunk.bytes, md5, crc64 })
        })
    }

    fn open(&self, path: RelPath) -> Fut<'_, Result<Box<dyn OpenFile>, ReadError>> {
        Box::pin(async move {
            match self.content(&path) {
                Some(opened) if opened.0.kind == Kind::File => {
                    let last = Mutex::new(opened.clone());
                    let file = SimFile { fs: self.clone(), path, entry: opened.0, last };
                    Ok(Box::new(file) as Box<dyn OpenFile>)
                }
                _ => Err(ReadError::Changed),
            }
        })
    }

    fn read_link(&self, path: RelPath) -> Fut<'_, Result<(Entry, Bytes), ReadError>> {
        Box::pin(async move {
            match self.content(&path) {
                Some((entry, target)) if entry.kind == Kind::Link => Ok((entry, target)),
                _ => Err(ReadError::Changed),
            }
        })
    }
}

/// An open file: it reads the inode it was opened with, whatever happens to the name.
struct SimFile {
    fs: SimFs,
    path: RelPath,
    entry: Entry,
    /// As it was seen last: nobody else can write to a file without a name.
    last: Mutex<(Entry, Bytes)>,
}

impl SimFile {
    fn node(&self) -> (Entry, Bytes) {
        let inode = self.entry.fingerprint.inode;
        let disk = self.fs.disk();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let known = disk.nodes.get(&self.path).into_iter().chain(disk.nodes.values());
        let mut known = known.filter(|node| node.entry.fingerprint.inode == inode);
        if let Some(node) = known.next() {
            *last = (node.entry, node.content.clone());
        }
        last.clone()
    }
}

impl OpenFile for SimFile {
    fn opened(&self) -> Entry {
        self.entry
    }

    fn read(&self, offset: u64, length: u64) -> Fut<'_, Result<Chunk, ReadError>> {
        Box::pin(async move {
            // What is read first may be older than what is read last.
            let (_, first) = self.node();
            self.fs.maybe_tear(&self.path);
            let (_, last) = self.node();
            let range = |content: &Bytes| {
                let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(content.len());
                content.slice(at(offset)..at(offset + length))
            };
            let (first, last) = (range(&first), range(&last));
            let half = first.len().min(last.len()) / 2;
            let bytes = Bytes::from([&first[..half], &last[half..]].concat());
            let digest = PartDigest {
                bytes: bytes.len() as u64,
                md5: Md5::of(&bytes),
                crc64: Crc64::of(&bytes),
            };
            Ok(Chunk { bytes, digest })
        })
    }

    fn digest(&self, offset: u64, length: u64) -> Fut<'_, Result<PartDigest, ReadError>> {
        Box::pin(async move { Ok(self.read(offset, length).await?.digest) })
    }

    fn look(&self) -> Fut<'_, Result<(Entry, Observed<Entry>), ReadError>> {
        Box::pin(async move {
            let by_path = match self.fs.content(&self.path) {
                Some((entry, _)) if entry.kind != Kind::Folder => Observed::Present(entry),
                _ => Observed::Absent,
            };
            Ok((self.node().0, by_path))
        })
    }
}
