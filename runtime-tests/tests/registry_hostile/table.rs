//! Lies, one a row: what the registry answers, and the words of the one error that it gives.

use crate::{Host, documents, expect_words, image, refusals, sizes, truth, wire};
use runtime_tests::image::{Blobs, digest};
use runtime_tests::registry::{Answer, Asked, Body, INDEX, MANIFEST, Registry, Site, site, with_manifest};
use runtime_tests::{command, needs};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// One pull's bounds.
const TIME: Duration = Duration::from_secs(5);
const MEMORY: u64 = 64 << 20;
/// Of the user whose credentials no third party may see.
const PASSWORD: &str = "sesame-of-the-test";

/// The path of the tag's manifest.
pub const TAG: &str = "/v2/t/app/manifests/v";

/// A lie in the making: an honest image of two layers, and the site that serves it until a row changes it.
pub struct Lie {
    pub image: Blobs,
    pub site: Site,
    /// `host:port` of the registry itself.
    pub here: SocketAddr,
    /// Somebody else on this machine, who serves a token and the image to anybody.
    pub third: SocketAddr,
}

impl Lie {
    /// Another answer for the tag.
    pub fn tag(&mut self, answer: Answer) {
        self.site.insert(TAG.to_owned(), answer);
    }

    /// This document under the tag, announced so.
    pub fn document(&mut self, media_type: &str, text: impl Into<Vec<u8>>) {
        self.tag(Answer::new(media_type, text));
    }

    /// Another answer for the n-th blob: the layers 0 and 1, and the configuration 2.
    pub fn blob(&mut self, nth: usize, answer: Answer) {
        self.site.insert(format!("/v2/t/app/blobs/{}", self.image.blobs[nth].0), answer);
    }

    /// Other bytes for the n-th blob, with their own length.
    pub fn bytes(&mut self, nth: usize, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.image.blobs[nth].1.clone();
        edit(&mut bytes);
        self.blob(nth, Answer::new("application/octet-stream", bytes));
    }

    /// Another manifest under the tag; blobs stay as they are.
    pub fn manifest(&mut self, edit: impl FnOnce(&mut Value)) {
        self.image = with_manifest(self.image.clone(), edit);
        self.site = site("t/app", "v", &self.image);
    }

    /// Another configuration, which the manifest names.
    pub fn config(&mut self, edit: impl FnOnce(&mut Value)) {
        let mut config: Value = serde_json::from_slice(&self.image.config).unwrap();
        edit(&mut config);
        self.config_text(serde_json::to_vec(&config).unwrap());
    }

    /// The same as text.
    pub fn config_text(&mut self, text: Vec<u8>) {
        let (name, size) = (digest(&text), text.len());
        self.image.blobs[2] = (name.clone(), text.clone());
        self.image.config = text;
        self.manifest(|manifest| {
            manifest["config"]["digest"] = name.into();
            manifest["config"]["size"] = size.into();
        });
    }

    /// An index with the manifest under the tag.
    pub fn index(&mut self, edit: impl FnOnce(&mut Value)) {
        let mut index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [{
            "mediaType": MANIFEST, "digest": digest(&self.image.manifest), "size": self.image.manifest.len(),
            "platform": {"os": "linux", "architecture": "amd64"},
        }]});
        edit(&mut index);
        self.document(INDEX, index.to_string());
    }

    /// Another answer for the manifest by its digest, which the index under the tag names.
    pub fn by_digest(&mut self, answer: Answer) {
        self.site.insert(format!("/v2/t/app/manifests/{}", digest(&self.image.manifest)), answer);
        self.index(|_| {});
    }

    /// A registry that wants a token from `realm`, of which more is said in `rest`.
    pub fn realm(&mut self, realm: &str) {
        let challenge = format!(r#"Www-Authenticate: Bearer realm="{realm}""#);
        self.tag(Answer::status(401).header(challenge));
    }

    /// The same from its own token service, which answers so.
    pub fn token(&mut self, answer: Answer) {
        self.realm(&format!("http://{}/token", self.here));
        self.site.insert("/token".to_owned(), answer);
    }
}

/// One lie.
pub struct Row {
    pub name: &'static str,
    /// What the error says; `{0}`, `{1}` and `{config}` are digests of the image.
    pub says: &'static [&'static str],
    pub lie: fn(&mut Lie),
}

pub fn row(name: &'static str, says: &'static [&'static str], lie: fn(&mut Lie)) -> Row {
    Row { name, says, lie }
}

/// An answer with a body of that kind.
pub fn body(status: u16, body: Body) -> Answer {
    Answer { body, ..Answer::status(status) }
}

/// An HTTP head and what follows, as they are.
pub fn raw(text: impl Into<Vec<u8>>) -> Answer {
    Answer::raw(Body::Raw(text.into()))
}

/// A registry whose site changes, and somebody else.
struct Bench {
    site: Arc<Mutex<Site>>,
    registry: Registry,
    third: Registry,
}

fn answer(site: &Mutex<Site>, asked: &Asked) -> Answer {
    let path = asked.path.split('?').next().unwrap();
    let site = site.lock().unwrap_or_else(PoisonError::into_inner);
    site.get(path).cloned().unwrap_or_else(|| Answer::status(404))
}

impl Bench {
    fn new() -> Self {
        let mut open = site("t/app", "v", &image());
        open.insert("/token".to_owned(), Answer::new("application/json", r#"{"token":"of-the-third"}"#));
        let open = Mutex::new(open);
        let third = Registry::answering(move |asked| answer(&open, asked));
        let site = Arc::new(Mutex::new(Site::new()));
        let served = site.clone();
        let registry = Registry::answering(move |asked| answer(&served, asked));
        Self { site, registry, third }
    }

    fn serve(&self, site: Site) {
        *self.site.lock().unwrap_or_else(PoisonError::into_inner) = site;
    }

    /// One row in a store of its own; what is wrong, if anything is.
    fn judge(&self, row: &Row) -> Result<command::Measured, String> {
        let (image, host) = (image(), Host::new());
        let honest = site("t/app", "v", &image);
        let (here, third) = (self.registry.address(), self.third.address());
        let mut lie = Lie { image, site: honest.clone(), here, third };
        (row.lie)(&mut lie);
        let blobs = lie.image.blobs.clone();
        self.serve(lie.site);
        let reference = format!("{here}/t/app:v");
        let credentials = format!("user:{PASSWORD}");
        let command = host.command(&["pull", "--creds", &credentials, &reference]);
        let outcome = command::measure(&command, needs::stretched(2 * TIME));
        if outcome.status.and_then(|status| status.code()) != Some(125) {
            return Err(format!("ended with {:?} and not 125: {}", outcome.status, outcome.stderr));
        }
        let words = row.says.iter().map(|text| {
            let text = text.replace("{0}", &blobs[0].0).replace("{1}", &blobs[1].0);
            text.replace("{config}", &blobs[2].0)
        });
        expect_words(
            &outcome.stdout,
            &outcome.stderr,
            &[reference.clone()].into_iter().chain(words).collect::<Vec<_>>(),
        )?;
        if outcome.time > needs::stretched(TIME) {
            return Err(format!("took {:?}", outcome.time));
        }
        if outcome.resident > MEMORY {
            return Err(format!("had {} KiB resident", outcome.resident >> 10));
        }
        if outcome.stderr.contains(PASSWORD) {
            return Err(format!("tells the password: {}", outcome.stderr));
        }
        if let Some(asked) =
            self.third.asked().iter().find(|asked| asked.headers.contains_key("authorization"))
        {
            return Err(format!("credentials went to somebody else: {asked:?}"));
        }
        // What broke off may be gone on with; what was a lie is gone.
        let kept = host.residue();
        if let Some(left) = kept.iter().find(|left| !blobs.iter().any(|(name, _)| left.ends_with(&name[7..])))
        {
            return Err(format!("left {left}"));
        }
        // Nothing of it is in the way of an honest answer.
        self.serve(honest);
        let honest = runtime_tests::run(&mut host.command(&["pull", &reference]));
        if honest.code != Some(0) {
            return Err(format!("the honest image is not pulled after it: {}", honest.stderr));
        }
        Ok(outcome)
    }
}

fn all() -> Vec<Row> {
    let kinds = [sizes::rows(), truth::rows(), wire::rows(), documents::rows(), refusals::rows()];
    kinds.into_iter().flatten().collect()
}

#[test]
fn every_lie_is_one_error_in_time_and_memory_and_leaves_nothing() {
    let rows = all();
    let names: BTreeSet<_> = rows.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), rows.len(), "each row has its name");
    assert!(rows.len() >= 200, "{} rows", rows.len());
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    // Most of the time goes by between two attempts.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let bench = Bench::new();
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match bench.judge(row) {
                        Ok(outcome) => println!(
                            "{}: {:?}, {} KiB: {}",
                            row.name,
                            outcome.time,
                            outcome.resident >> 10,
                            outcome.stderr.trim_end()
                        ),
                        Err(what) => failures.lock().unwrap().push(format!("{}: {what}", row.name)),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(
        failures.is_empty(),
        "{} failures of {} rows:\n{}",
        failures.len(),
        rows.len(),
        failures.join("\n")
    );
}

/// These rows alone.
fn only(names: &[&str]) {
    let bench = Bench::new();
    for name in names {
        let row = all().into_iter().find(|row| row.name == *name).unwrap();
        bench.judge(&row).unwrap();
    }
}

#[test]
fn cve_2021_41190_a_document_is_an_image_or_an_index() {
    only(&[
        "a manifest that is an index too",
        "an index that is a manifest too",
        "an index with a configuration",
        "a manifest announced as an index",
        "an index announced as a manifest",
        "a manifest that its index calls an index",
        "a media type twice",
    ]);
}

#[test]
fn cve_2024_3727_a_digest_is_no_path() {
    only(&[
        "a digest that is a path",
        "a digest with an absolute path",
        "an algorithm that is a path",
        "a digest without digits",
        "a digest that is short",
        "a digest in capitals",
        "an index with the digest of a path",
        "a configuration's digest that is a path",
        "a diffID that is a path",
    ]);
}

/// moby CVE-2021-21285 too: what is malformed is an error.
#[test]
fn cve_2020_1702_cve_2023_25153_endless_documents() {
    only(&[
        "an endless manifest",
        "an endless manifest by its digest",
        "an endless configuration",
        "an endless error for a manifest",
        "an endless error for a layer",
        "an endless token",
        "an endless error of a token service",
        "an endless header",
        "brackets in brackets",
        "an object without fields",
    ]);
}
