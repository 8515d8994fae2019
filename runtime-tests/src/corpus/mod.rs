//! Hostile layers and their verdicts: the rows of the table of hostile layers, each in many shapes.
//!
//! A case is one layer, with what is below it in its image. Nothing depends on time or chance, so the same code
//! makes the same bytes. Who reads layers (`pull`, `load`, `import`, other tools' readers) gets all of them.

use crate::header::Header;
use crate::image::{Tar, digest, gzip};
use serde_json::{Value, json};

mod archives;
mod attributes;
mod bulk;
mod headers;
mod links;
mod names;
mod nodes;
mod packing;
mod pax;
mod whiteouts;

/// How a blob is packed, by its media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// `tar`
    Plain,
    /// `tar+gzip`
    Gzip,
    /// `tar+zstd`
    Zstd,
}

/// What has to become of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The error has all of these texts.
    Refused(Vec<&'static str>),
    /// The layer's directory has these lines of [`crate::tree::lines`].
    Tree(Vec<String>),
    /// It is unpacked; the tree is too large to be listed here, and has so many paths.
    Paths(usize),
}

/// Something else about the image that is not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// The configuration has another diffID.
    DiffId,
    /// The manifest has another digest.
    Digest,
    /// The manifest has a larger size.
    Larger,
    /// The manifest has a smaller size.
    Smaller,
    /// The configuration has one diffID more.
    MoreDiffIds,
    /// The configuration has one diffID less.
    FewerDiffIds,
    /// The configuration has the diffIDs of two layers in the other order.
    Swapped,
    /// The manifest has the layer twice, the configuration once.
    Twice,
}

/// One hostile layer.
#[derive(Debug, Clone)]
pub struct Case {
    /// Of the table of hostile layers, 1 to 42.
    pub row: u8,
    /// What the row is about.
    pub family: &'static str,
    /// Its name in the family.
    pub label: String,
    /// The layers below it, bottom to top, as plain tar archives.
    pub below: Vec<Vec<u8>>,
    /// The layer as it is stored.
    pub blob: Vec<u8>,
    /// How it is announced.
    pub media: Media,
    /// The digest of its tar stream.
    pub diff_id: String,
    /// What has to become of it.
    pub verdict: Verdict,
    /// What else is wrong with its image.
    pub lie: Option<Lie>,
}

/// A layer as an image stores it.
struct Stored {
    diff_id: String,
    blob: Vec<u8>,
    media: Media,
}

impl Case {
    /// `row_01_dotdot/label`
    pub fn name(&self) -> String {
        format!("row_{:02}_{}/{}", self.row, self.family, self.label)
    }

    /// Puts a layer below it.
    pub fn over(&mut self, below: Tar) -> &mut Self {
        self.below.push(below.finish());
        self
    }

    /// The blob in another packing; its diffID is as before.
    fn packed(&mut self, media: Media, blob: Vec<u8>) -> &mut Self {
        self.blob = blob;
        self.media = media;
        self
    }

    fn layers(&self) -> Vec<Stored> {
        let plain =
            |layer: &Vec<u8>| Stored { diff_id: digest(layer), blob: gzip(layer), media: Media::Gzip };
        let mut layers: Vec<_> = self.below.iter().map(plain).collect();
        let top = || Stored { diff_id: self.diff_id.clone(), blob: self.blob.clone(), media: self.media };
        layers.push(top());
        if self.lie == Some(Lie::Twice) {
            layers.push(top());
        }
        layers
    }

    /// The image's configuration, with what it lies.
    fn config(&self, layers: &[Stored]) -> Vec<u8> {
        let mut diff_ids: Vec<String> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let other = || digest(b"another layer");
        match self.lie {
            Some(Lie::DiffId) => *diff_ids.last_mut().expect("a layer") = other(),
            Some(Lie::MoreDiffIds) => diff_ids.push(other()),
            Some(Lie::FewerDiffIds | Lie::Twice) => drop(diff_ids.pop()),
            Some(Lie::Swapped) => diff_ids.reverse(),
            _ => {}
        }
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = json!({
            "architecture": architecture, "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        serde_json::to_vec(&config).expect("JSON")
    }

    /// Blobs by digest, and the manifest's bytes: an image for registries and OCI archives.
    pub fn oci(&self) -> (Vec<(String, Vec<u8>)>, Vec<u8>) {
        let layers = self.layers();
        let config = self.config(&layers);
        let describe = |layer: &Stored| {
            let mut size = layer.blob.len();
            let mut name = digest(&layer.blob);
            if layer.blob == self.blob {
                match self.lie {
                    Some(Lie::Larger) => size += 1,
                    Some(Lie::Smaller) => size -= 1,
                    Some(Lie::Digest) => name = digest(b"another blob"),
                    _ => {}
                }
            }
            let packing = match layer.media {
                Media::Plain => "",
                Media::Gzip => "+gzip",
                Media::Zstd => "+zstd",
            };
            let media_type = format!("application/vnd.oci.image.layer.v1.tar{packing}");
            (json!({"mediaType": media_type, "digest": name, "size": size}), name)
        };
        let (descriptors, names): (Vec<Value>, Vec<String>) = layers.iter().map(describe).unzip();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": crate::registry::MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest(&config), "size": config.len(),
            },
            "layers": descriptors,
        });
        let manifest = serde_json::to_vec(&manifest).expect("JSON");
        let mut blobs: Vec<_> = names.into_iter().zip(layers.into_iter().map(|layer| layer.blob)).collect();
        blobs.dedup();
        blobs.push((digest(&config), config));
        (blobs, manifest)
    }

    /// An archive of an OCI layout.
    pub fn oci_archive(&self) -> Vec<u8> {
        let (blobs, manifest) = self.oci();
        crate::image::oci_layout(
            &[blobs, vec![(digest(&manifest), manifest.clone())]].concat(),
            &manifest,
            "case",
        )
    }

    /// An archive of `docker save`. There is no place in it for the sizes and digests of blobs.
    pub fn docker_archive(&self) -> Vec<u8> {
        let layers = self.layers();
        let config = self.config(&layers);
        let mut tar = Tar::new().file("config.json", 0o644, &config);
        let mut names = Vec::new();
        for (at, layer) in layers.iter().enumerate() {
            let name = format!("{at}.tar");
            tar = tar.file(&name, 0o644, &layer.blob);
            names.push(name);
        }
        let manifest = json!([{"Config": "config.json", "RepoTags": ["case"], "Layers": names}]);
        tar.file("manifest.json", 0o644, &serde_json::to_vec(&manifest).expect("JSON")).finish()
    }

    /// The directory name of the layer in a store: its chainID, without the algorithm.
    pub fn chain(&self) -> String {
        let ids = self.below.iter().map(|layer| digest(layer)).chain([self.diff_id.clone()]);
        let chain = ids.reduce(|below, id| digest(format!("{below} {id}").as_bytes())).expect("a layer");
        chain.trim_start_matches("sha256:").to_owned()
    }
}

/// All cases in the making.
#[derive(Debug, Default)]
pub struct Corpus {
    /// What was made until now.
    pub cases: Vec<Case>,
    row: u8,
    family: &'static str,
    /// A directory outside of every store, for those that want to get there.
    outside: String,
}

/// All cases; `outside` is a directory that no layer may reach: it has the file `secret`.
pub fn all(outside: &str) -> Vec<Case> {
    let mut corpus = of_entries(outside);
    bulk::cases(&mut corpus);
    packing::cases(&mut corpus);
    archives::cases(&mut corpus);
    corpus.cases
}

/// The cases about single entries, which are made in no time.
pub fn entries(outside: &str) -> Vec<Case> {
    of_entries(outside).cases
}

fn of_entries(outside: &str) -> Corpus {
    let mut corpus = Corpus { outside: outside.to_owned(), ..Corpus::default() };
    names::cases(&mut corpus);
    links::cases(&mut corpus);
    whiteouts::cases(&mut corpus);
    nodes::cases(&mut corpus);
    attributes::cases(&mut corpus);
    headers::cases(&mut corpus);
    pax::cases(&mut corpus);
    corpus
}

impl Corpus {
    fn family(&mut self, row: u8, family: &'static str) {
        self.row = row;
        self.family = family;
    }

    fn add(&mut self, label: impl Into<String>, stream: Vec<u8>, verdict: Verdict) -> &mut Case {
        self.cases.push(Case {
            row: self.row,
            family: self.family,
            label: label.into(),
            below: Vec::new(),
            diff_id: digest(&stream),
            blob: stream,
            media: Media::Plain,
            verdict,
            lie: None,
        });
        self.cases.last_mut().expect("just added")
    }

    /// A layer that must be refused with these words.
    fn refuse(&mut self, label: impl Into<String>, tar: Tar, words: &[&'static str]) -> &mut Case {
        self.add(label, tar.finish(), Verdict::Refused(words.to_vec()))
    }

    /// A layer that must give this tree.
    fn accept(&mut self, label: impl Into<String>, tar: Tar, tree: &[&str]) -> &mut Case {
        let tree = tree.iter().map(|line| (*line).to_owned()).collect();
        self.add(label, tar.finish(), Verdict::Tree(tree))
    }
}

/// A header of an empty entry.
fn entry(kind: u8, name: impl AsRef<[u8]>) -> Header {
    Header::new(kind, name, 0)
}

/// An empty file.
fn empty(name: impl AsRef<[u8]>) -> Tar {
    Tar::new().node(b'0', name)
}
