//! Random stacks of layers in which all unpackers agree on what every entry means.
//!
//! Left out is what they take in different ways: an entry and its whiteout in one layer, a parent without an entry,
//! a hard link to a file of a layer below, and set-ID bits of directories, which GNU tar leaves on one that is there.

use runtime_tests::header::{Header, record};
use runtime_tests::image::Tar;
use std::collections::BTreeMap;

/// Marsaglia's xorshift: numbers that are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    fn of<'a, T>(&mut self, choice: &'a [T]) -> &'a T {
        let at = self.below(choice.len() as u64);
        &choice[usize::try_from(at).expect("an index")]
    }
}

/// Some layers; the same for the same seed.
pub fn stack(seed: u64) -> Vec<Vec<u8>> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut below: BTreeMap<String, bool> = BTreeMap::new();
    let count = 2 + random.below(4);
    (0..count).map(|_| layer(&mut random, &mut below)).collect()
}

/// The entries of one layer: name to header and data, in the order of names, so that parents come first.
struct Layer {
    tar: Tar,
    /// Paths of its own, and whether they are directories.
    own: BTreeMap<String, bool>,
}

impl Layer {
    fn add(&mut self, random: &mut Random, header: Header, data: &[u8], file: bool) {
        let mut records = Vec::new();
        if random.below(3) == 0 {
            records.extend(record(
                "mtime",
                format!("{}.{:09}", random.below(1 << 31), random.below(1_000_000_000)),
            ));
        }
        if file && random.below(4) == 0 {
            records.extend(record("SCHILY.xattr.user.note", random.below(1000).to_string()));
        }
        if file && random.below(8) == 0 {
            let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            records.extend(record("SCHILY.xattr.security.capability", capability));
        }
        let mut tar = std::mem::take(&mut self.tar);
        if !records.is_empty() {
            tar = tar.extension(b'x', records);
        }
        let owner = *random.of(&[0, 0, 1000, 70_000]);
        self.tar = tar.raw(header.owner(owner, *random.of(&[0, 33, 100])), data);
    }

    /// An entry for each parent that has none; false if one of them is no directory here.
    fn parents(&mut self, random: &mut Random, path: &str) -> bool {
        let parents: Vec<String> = path.match_indices('/').map(|(at, _)| path[..at].to_owned()).collect();
        if parents.iter().any(|parent| self.own.get(parent) == Some(&false)) {
            return false;
        }
        for parent in parents {
            if self.own.insert(parent.clone(), true).is_none() {
                let mode = *random.of(&[0o755, 0o700, 0o1777]);
                self.add(random, Header::new(b'5', format!("{parent}/"), 0).mode(mode), b"", false);
            }
        }
        true
    }
}

fn path(random: &mut Random) -> String {
    let depth = 1 + random.below(3);
    (0..depth).map(|_| *random.of(&["a", "b", "c", "d e", "\u{e9}"])).collect::<Vec<_>>().join("/")
}

fn inside(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

fn layer(random: &mut Random, below: &mut BTreeMap<String, bool>) -> Vec<u8> {
    let mut layer = Layer { tar: Tar::new(), own: BTreeMap::new() };
    let root = Header::new(b'5', "./", 0);
    layer.add(random, root, b"", false);
    let mut files: Vec<String> = Vec::new();
    let mut gone: Vec<String> = Vec::new();
    for _ in 0..4 + random.below(14) {
        let path = path(random);
        let taken = layer.own.contains_key(&path) || layer.own.keys().any(|own| inside(own, &path));
        // What was removed here does not come back here.
        if taken || gone.iter().any(|gone| *gone == path || inside(&path, gone)) {
            continue;
        }
        if random.below(4) == 0 {
            let known: Vec<String> =
                below.keys().filter(|old| !layer.own.contains_key(*old)).cloned().collect();
            let Some(old) =
                known.get(usize::try_from(random.below(known.len().max(1) as u64)).expect("an index"))
            else {
                continue;
            };
            if layer.own.keys().any(|own| inside(own, old))
                || gone.iter().any(|gone| inside(old, gone))
                || !layer.parents(random, old)
            {
                continue;
            }
            let (parent, name) =
                old.rsplit_once('/').map_or(("", old.as_str()), |(parent, name)| (parent, name));
            let slash = if parent.is_empty() { "" } else { "/" };
            let tar = std::mem::take(&mut layer.tar);
            layer.tar = tar.node(b'0', format!("{parent}{slash}.wh.{name}"));
            below.retain(|path, _| path != old && !inside(path, old));
            gone.push(old.clone());
            continue;
        }
        if !layer.parents(random, &path) {
            continue;
        }
        let mode = *random.of(&[0o644, 0o600, 0o4755, 0o2711, 0o0]);
        let kind = random.below(10);
        if kind > 1 {
            layer.own.insert(path.clone(), false);
        }
        match kind {
            0 | 1 => {
                layer.own.insert(path.clone(), true);
                let mode = *random.of(&[0o755, 0o500, 0o777]);
                layer.add(random, Header::new(b'5', format!("{path}/"), 0).mode(mode), b"", false);
                // All that was there before goes.
                if random.below(4) == 0 {
                    let tar = std::mem::take(&mut layer.tar);
                    layer.tar = tar.node(b'0', format!("{path}/.wh..wh..opq"));
                    below.retain(|old, _| !inside(old, &path));
                }
            }
            2 => {
                let target = *random.of(&["/etc/passwd", "../x", "a"]);
                layer.add(random, Header::new(b'2', &path, 0).link(target), b"", false);
            }
            3 => layer.add(random, Header::new(b'6', &path, 0).mode(mode), b"", false),
            4 => layer.add(random, Header::new(b'3', &path, 0).device(1, 3).mode(mode), b"", false),
            5 if !files.is_empty() => {
                let target = random.of(&files).clone();
                let tar = std::mem::take(&mut layer.tar);
                layer.tar = tar.linked(b'1', &path, target);
            }
            _ => {
                let data = vec![b'x'; usize::try_from(random.below(2000)).expect("a size")];
                layer.add(random, Header::new(b'0', &path, data.len()).mode(mode), &data, true);
                files.push(path.clone());
            }
        }
    }
    // What is seen on top of the layers below.
    for (path, is_dir) in &layer.own {
        if !is_dir {
            below.retain(|old, _| !inside(old, path));
        }
        below.insert(path.clone(), *is_dir);
    }
    layer.tar.finish()
}
