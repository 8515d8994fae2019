//! Random layers against a model: what a tree is after entries, duplicates and whiteouts, and what overlayfs
//! shows of a stack of such trees.
use super::*;
use crate::image::snapshot::{Driver, Stack};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Op {
    File(String, u8),
    Dir(String),
    Link(String),
    Whiteout(String),
    Opaque(String),
}

/// What the model knows of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    File(u8),
    Dir,
    Link,
}

#[derive(Debug, Default, Clone)]
struct Layer {
    own: BTreeMap<String, Node>,
    whiteouts: std::collections::BTreeSet<String>,
    opaque: std::collections::BTreeSet<String>,
}

fn inside(path: &str, dir: &str) -> bool {
    dir.is_empty() || path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

fn parents(path: &str) -> Vec<String> {
    path.match_indices('/').map(|(at, _)| path[..at].to_owned()).collect()
}

impl Layer {
    /// `false` if the entry must be refused.
    fn apply(&mut self, op: &Op) -> bool {
        let (path, node) = match op {
            Op::File(path, value) => (path, Some(Node::File(*value))),
            Op::Dir(path) => (path, Some(Node::Dir)),
            Op::Link(path) => (path, Some(Node::Link)),
            Op::Whiteout(path) | Op::Opaque(path) => (path, None),
        };
        let mut needed = parents(path);
        if let Op::Opaque(path) = op {
            needed.push(path.clone());
        }
        for parent in needed {
            match self.own.get(&parent) {
                None => drop(self.own.insert(parent, Node::Dir)),
                Some(Node::Dir) => {}
                Some(_) => return false,
            }
        }
        match (op, node) {
            (Op::Whiteout(path), _) => drop(self.whiteouts.insert(path.clone())),
            (Op::Opaque(path), _) => drop(self.opaque.insert(path.clone())),
            (_, Some(Node::Dir)) if self.own.get(path) == Some(&Node::Dir) => {}
            (_, Some(node)) => {
                self.own.retain(|other, _| !inside(other, path));
                self.whiteouts.retain(|other| !inside(other, path));
                self.opaque.retain(|other| !inside(other, path) && other != path);
                self.own.insert(path.clone(), node);
            }
            (_, None) => {}
        }
        true
    }

    /// What is seen of this layer on top of `below`.
    fn on(&self, below: &BTreeMap<String, Node>) -> BTreeMap<String, Node> {
        let hidden = |path: &str| {
            self.whiteouts.iter().any(|gone| path == gone || inside(path, gone))
                || self.opaque.iter().any(|dir| inside(path, dir))
                || self.own.iter().any(|(own, node)| *node != Node::Dir && inside(path, own))
        };
        let mut seen: BTreeMap<String, Node> =
            below.iter().filter(|(path, _)| !hidden(path)).map(|(k, v)| (k.clone(), v.clone())).collect();
        // A directory where something else was below: nothing of that remains.
        for (path, node) in &self.own {
            seen.insert(path.clone(), node.clone());
        }
        seen
    }
}

fn paths() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c")], 1..4)
        .prop_map(|parts| parts.join("/"))
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (paths(), any::<u8>()).prop_map(|(path, value)| Op::File(path, value)),
        3 => paths().prop_map(Op::Dir),
        1 => paths().prop_map(Op::Link),
        2 => paths().prop_map(Op::Whiteout),
        1 => paths().prop_map(Op::Opaque),
    ];
    proptest::collection::vec(op, 0..12)
}

fn tar_of(ops: &[Op]) -> Tar {
    ops.iter().fold(Tar::new(), |tar, op| match op {
        Op::File(path, value) => tar.file(path, [*value]),
        Op::Dir(path) => tar.dir(path),
        Op::Link(path) => tar.symlink(path, "/nowhere"),
        Op::Whiteout(path) => match path.rsplit_once('/') {
            Some((parent, name)) => tar.file(format!("{parent}/.wh.{name}"), b""),
            None => tar.file(format!(".wh.{path}"), b""),
        },
        Op::Opaque(path) => tar.file(format!("{path}/.wh..wh..opq"), b""),
    })
}

/// What is on disk, as a reader of one directory sees it.
fn walk(root: &Path) -> BTreeMap<String, Node> {
    fn visit(dir: &Path, prefix: &str, found: &mut BTreeMap<String, Node>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{prefix}{}", entry.file_name().to_str().unwrap());
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                found.insert(path.clone(), Node::Dir);
                visit(&entry.path(), &format!("{path}/"), found);
            } else if kind.is_symlink() {
                found.insert(path, Node::Link);
            } else if kind.is_file() {
                found.insert(path, Node::File(std::fs::read(entry.path()).unwrap()[0]));
            } else {
                panic!("{path} is {kind:?}");
            }
        }
    }
    let mut found = BTreeMap::new();
    visit(root, "", &mut found);
    found
}

/// The merged tree as overlayfs shows it; `None` where this process may not mount.
fn overlay(bench: &Bench) -> Option<BTreeMap<String, Node>> {
    use std::os::fd::AsRawFd;
    let (upper, work) = (bench.dir.path().join("upper"), bench.dir.path().join("work"));
    std::fs::create_dir(&upper).unwrap();
    std::fs::create_dir(&work).unwrap();
    let lowers: Vec<PathBuf> = bench.layers.iter().rev().cloned().collect();
    let mount = Driver::Overlay.mount(&Stack { lowers: &lowers, upper: &upper, work: &work }).ok()?;
    Some(walk(Path::new(&format!("/proc/self/fd/{}/", mount.as_raw_fd()))))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_stack_of_layers_is_what_the_model_says(stack in proptest::collection::vec(ops(), 1..4)) {
        if !is_root() {
            return Ok(());
        }
        let mut bench = Bench::new();
        let mut expected = BTreeMap::new();
        for ops in &stack {
            let mut layer = Layer::default();
            let accepted = ops.iter().all(|op| layer.apply(op));
            let result = bench.try_layer(tar_of(ops));
            prop_assert_eq!(result.is_ok(), accepted, "{:?}: {:?}", ops, result);
            if !accepted {
                return Ok(());
            }
            expected = layer.on(&expected);
        }
        if let Some(seen) = overlay(&bench) {
            prop_assert_eq!(seen, expected);
        }
    }
}
