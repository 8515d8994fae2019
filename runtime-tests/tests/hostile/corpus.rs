//! The corpus through `pull`, `load` and `import`: the verdict is the one that is written beside each case, from each
//! of them and twice; nothing is touched outside of the store, and nothing of what was refused stays in it.

use crate::store::Store;
use runtime_tests::corpus::{self, Case, Media, Verdict};
use runtime_tests::image::digest;
use runtime_tests::registry::{Answer, MANIFEST, Registry, Site};
use runtime_tests::{command, needs, tree};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// One call's bounds (each blob has at most 1 MiB).
const TIME: Duration = Duration::from_secs(2);
const MEMORY: u64 = 64 << 20;

/// What must never change: a directory with a file in it.
struct Outside {
    dir: PathBuf,
    before: Vec<String>,
}

impl Outside {
    fn new(dir: PathBuf) -> Self {
        std::fs::create_dir_all(dir.join("sub")).unwrap();
        std::fs::write(dir.join("secret"), "secret").unwrap();
        let before = Self::state(&dir);
        Self { dir, before }
    }

    /// Everything that a change would change, the time of the last change of an inode included.
    fn state(dir: &Path) -> Vec<String> {
        let state = |path: PathBuf| {
            let meta = path.symlink_metadata().unwrap();
            format!(
                "{path:?} {:o} {} {} {} {}",
                meta.mode(),
                meta.uid(),
                meta.nlink(),
                meta.ctime(),
                meta.ctime_nsec()
            )
        };
        let mut found = vec![state(dir.to_owned())];
        found.extend(std::fs::read_dir(dir).unwrap().map(|entry| state(entry.unwrap().path())));
        found.sort();
        found
    }

    fn is_untouched(&self) -> Result<(), String> {
        let now = Self::state(&self.dir);
        if now == self.before { Ok(()) } else { Err(format!("outside: {now:?}, was {:?}", self.before)) }
    }
}

/// A store, and a registry that serves one case at a time.
struct Bench {
    store: Store,
    registry: Registry,
    site: Arc<Mutex<Site>>,
}

/// A command that unpacks a layer.
struct Entry {
    name: &'static str,
    suits: fn(&Case) -> bool,
    arguments: fn(&Bench, &Case) -> Vec<String>,
    /// How its errors name the layer: `import` has but the one that it was given.
    layer: fn(&Case) -> Option<String>,
}

const ENTRIES: &[Entry] = &[
    Entry { name: "pull", suits: |_| true, arguments: pull, layer: |case| Some(digest(&case.blob)) },
    Entry { name: "load", suits: |_| true, arguments: load_oci, layer: by_diff_id },
    Entry {
        name: "load of a Docker archive",
        suits: is_for_docker,
        arguments: load_docker,
        layer: by_diff_id,
    },
    Entry { name: "import", suits: is_for_import, arguments: import, layer: |_| None },
    // The same as before: the verdict is the same each time.
    Entry { name: "load, again", suits: |_| true, arguments: load_oci, layer: by_diff_id },
];

fn pull(bench: &Bench, case: &Case) -> Vec<String> {
    let (blobs, manifest) = case.oci();
    let mut site: Site = blobs
        .into_iter()
        .map(|(digest, bytes)| {
            (format!("/v2/case/blobs/{digest}"), Answer::new("application/octet-stream", bytes))
        })
        .collect();
    for name in ["v".to_owned(), digest(&manifest)] {
        site.insert(format!("/v2/case/manifests/{name}"), Answer::new(MANIFEST, manifest.clone()));
    }
    *bench.site.lock().unwrap_or_else(PoisonError::into_inner) = site;
    vec!["pull".to_owned(), format!("{}/case:v", bench.registry.address())]
}

fn load_oci(bench: &Bench, case: &Case) -> Vec<String> {
    vec![
        "load".to_owned(),
        "--replace".to_owned(),
        "--input".to_owned(),
        bench.store.file("archive", &case.oci_archive()),
    ]
}

fn load_docker(bench: &Bench, case: &Case) -> Vec<String> {
    vec![
        "load".to_owned(),
        "--replace".to_owned(),
        "--input".to_owned(),
        bench.store.file("archive", &case.docker_archive()),
    ]
}

fn import(bench: &Bench, case: &Case) -> Vec<String> {
    vec!["import".to_owned(), bench.store.file("archive", &case.blob)]
}

fn by_diff_id(case: &Case) -> Option<String> {
    Some(case.diff_id.clone())
}

/// It makes an image of one layer, with a manifest and a configuration of its own.
fn is_for_import(case: &Case) -> bool {
    case.below.is_empty() && case.lie.is_none() && case.family != "media_type_and_magic"
}

/// A Docker archive has no media types, no sizes and no digests of blobs.
fn is_for_docker(case: &Case) -> bool {
    use corpus::Lie;
    case.family != "media_type_and_magic"
        && !matches!(case.lie, Some(Lie::Digest | Lie::Larger | Lie::Smaller))
}

impl Bench {
    fn new() -> Self {
        let site = Arc::new(Mutex::new(Site::new()));
        let served = site.clone();
        let registry = Registry::answering(move |asked| {
            let site = served.lock().unwrap_or_else(PoisonError::into_inner);
            site.get(&asked.path).cloned().unwrap_or_else(|| Answer::status(404))
        });
        Self { store: Store::on_ext4(), registry, site }
    }

    fn corten(&self, arguments: &[String]) -> command::Measured {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let command = self.store.command(&words);
        command::measure(&command, needs::stretched(Duration::from_secs(10)))
    }
}

/// The most that any call took.
#[derive(Default)]
struct Records {
    slowest: (Duration, String),
    largest: (u64, String),
    calls: usize,
}

/// One case through one command; what is wrong, if anything is.
fn judge(
    bench: &Bench,
    outside: &Outside,
    entry: &Entry,
    case: &Case,
    records: &Mutex<Records>,
) -> Result<(), String> {
    let outcome = bench.corten(&(entry.arguments)(bench, case));
    {
        let mut records = records.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("{} by {}", case.name(), entry.name);
        records.calls += 1;
        if outcome.time > records.slowest.0 {
            records.slowest = (outcome.time, name.clone());
        }
        if outcome.resident > records.largest.0 {
            records.largest = (outcome.resident, name);
        }
    }
    if outcome.time > needs::stretched(TIME) {
        return Err(format!("took {:?}", outcome.time));
    }
    if outcome.resident > MEMORY {
        return Err(format!("had {} KiB resident", outcome.resident >> 10));
    }
    outside.is_untouched()?;
    let stderr = &outcome.stderr;
    match &case.verdict {
        Verdict::Refused(words) => {
            if outcome.status.and_then(|status| status.code()) != Some(125) {
                return Err(format!("ended with {:?} and not 125: {stderr}", outcome.status));
            }
            if stderr.lines().count() != 1 || !stderr.starts_with("Error: ") || stderr.contains("panicked") {
                return Err(format!("no error of one line: {stderr}"));
            }
            if let Some(missing) = words.iter().find(|word| !stderr.contains(*word)) {
                return Err(format!("{missing:?} is not in: {stderr}"));
            }
            let name = (entry.layer)(case).filter(|name| case.lie.is_none() && !stderr.contains(name));
            if let Some(name) = name {
                return Err(format!("the layer {name} is not named: {stderr}"));
            }
        }
        accepted => {
            if outcome.status.is_none_or(|status| !status.success()) {
                return Err(format!("was refused: {stderr}"));
            }
            let got = tree::lines(&bench.store.root().join("layers").join(case.chain()).join("fs"));
            match accepted {
                Verdict::Tree(want) if got != *want => {
                    return Err(format!("gave {got:#?}\nand not {want:#?}"));
                }
                Verdict::Paths(want) if got.len() != *want => {
                    return Err(format!("gave {} paths, not {want}", got.len()));
                }
                _ => {}
            }
            let images = bench.corten(&["images".to_owned(), "--quiet".to_owned()]).stdout;
            for id in images.lines() {
                let removed = bench.corten(&["rmi".to_owned(), "--force".to_owned(), id.to_owned()]);
                if removed.status.is_none_or(|status| !status.success()) {
                    return Err(format!("cannot be removed: {}", removed.stderr));
                }
            }
        }
    }
    let residue = bench.store.residue();
    if residue.is_empty() { Ok(()) } else { Err(format!("left {residue:?}")) }
}

#[test]
fn the_corpus_through_every_command() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let outside = Outside::new(dir.path().join("outside"));
    let cases = corpus::all(outside.dir.to_str().unwrap());
    let families: BTreeSet<_> = cases.iter().map(|case| (case.row, case.family)).collect();
    assert!(families.len() >= 42 && cases.len() >= 400, "{} families, {} files", families.len(), cases.len());
    let names: BTreeSet<_> = cases.iter().map(Case::name).collect();
    assert_eq!(names.len(), cases.len(), "each case has its name");

    let records = Mutex::new(Records::default());
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (cases, outside, records) = (&cases, &outside, &records);
            let (next, failures) = (&next, &failures);
            scope.spawn(move || {
                let bench = Bench::new();
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    for entry in ENTRIES.iter().filter(|entry| (entry.suits)(case)) {
                        if let Err(what) = judge(&bench, outside, entry, case, records) {
                            let what = format!("{} by {}: {what}", case.name(), entry.name);
                            println!("{what}");
                            failures.lock().unwrap().push(what);
                            // What one has left is no other's fault.
                            bench.store.clear();
                        }
                    }
                }
            });
        }
    });
    let records = records.into_inner().unwrap();
    println!("{} files of {} families, {} calls", cases.len(), families.len(), records.calls);
    println!("slowest: {:?}, {}", records.slowest.0, records.slowest.1);
    println!("largest: {} KiB, {}", records.largest.0 >> 10, records.largest.1);
    nothing_escaped();
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// All that wants to get out has one name; where it would have got to on this machine.
fn nothing_escaped() {
    for dir in [
        "/",
        "/etc",
        "/tmp",
        "/var",
        "/var/tmp",
        "/dev",
        "/dev/shm",
        "/run",
        "/root",
        "/proc/self/cwd",
        "/usr",
        "/home",
    ] {
        let Ok(entries) = std::fs::read_dir(dir) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            assert!(!name.to_string_lossy().starts_with("corten-escape"), "{dir}/{name:?}");
        }
    }
}

#[test]
fn the_corpus_is_the_same_each_time() {
    let (one, two) = (corpus::all("/outside"), corpus::all("/outside"));
    assert!(one.iter().zip(&two).all(|(one, two)| one.blob == two.blob && one.diff_id == two.diff_id));
    assert!(one.iter().any(|case| case.media == Media::Zstd));
}
