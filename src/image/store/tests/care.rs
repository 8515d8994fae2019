//! Pruning, weighing and verifying.
use super::*;
use std::collections::HashMap;
use std::path::Path;

/// Containers as a test has them: their image's ID, and whether they run.
#[derive(Default)]
struct Containers(HashMap<String, (String, bool)>);

impl Holders for Containers {
    fn keep_stopped(&self, holder: &str) -> Option<Box<dyn std::any::Any>> {
        let running = self.0.get(holder).is_some_and(|(_, running)| *running);
        (!running).then(|| Box::new(()) as Box<dyn std::any::Any>)
    }

    fn image_of(&self, holder: &str) -> Option<String> {
        self.0.get(holder).map(|(image, _)| image.clone())
    }
}

impl Bench {
    fn prune(&self, all: bool, dry_run: bool) -> Pruned {
        self.store.prune(&Prune { all, dry_run, keeps: &|_| false }).unwrap()
    }

    fn check(&self, repair: bool, containers: &Containers) -> Vec<(String, String, Outcome)> {
        let report = self.store.fsck(&Fsck { repair, contents: true, holders: containers }).unwrap();
        let text =
            |finding: Finding| (finding.subject.to_string(), finding.problem.to_string(), finding.outcome);
        report.findings.into_iter().map(text).collect()
    }

    #[track_caller]
    fn assert_sound(&self) {
        assert_eq!(self.check(false, &Containers::default()), []);
    }

    fn tree(&self, recipe: &Recipe, at: usize) -> PathBuf {
        self.store.layer_dir(&manifest::chain(&recipe.diff_ids())[at]).join("fs")
    }

    fn blob(&self, bytes: &[u8]) -> PathBuf {
        self.store.blobs().join(Digest::of(bytes).hex())
    }
}

fn reasons(verdicts: &[Verdict]) -> Vec<String> {
    let mut lines: Vec<String> =
        verdicts.iter().map(|verdict| format!("{}: {}", verdict.object, verdict.reason)).collect();
    lines.sort();
    lines
}

#[test]
fn prune_tells_why_things_go_and_stay() {
    let bench = Bench::new();
    bench.add(&one(), Some("app")).unwrap();
    let named = bench.add(&two(), Some("app")).unwrap();
    let dry = bench.prune(false, true);
    let goes = reasons(&dry.verdicts.goes);
    let chain = manifest::chain(&one().diff_ids());
    assert!(
        goes.contains(&format!(
            "image {}: dangling: it has no name, and no container uses it",
            one().descriptor().digest
        )),
        "{goes:?}"
    );
    assert!(goes.contains(&format!("layer {}: no image and no container uses it", chain[1])), "{goes:?}");
    let stays = reasons(&dry.verdicts.stays);
    assert!(stays.contains(&format!("layer {}: image app:latest uses it", chain[0])), "{stays:?}");
    assert!(
        stays.contains(&format!("image {}: it is named app:latest", two().descriptor().digest)),
        "{stays:?}"
    );
    assert_eq!(bench.store.images().unwrap().len(), 2, "a dry run removes nothing");
    let wet = bench.prune(false, false);
    assert_eq!((wet.verdicts, wet.postponed), (dry.verdicts, false));
    assert_eq!(bench.store.images().unwrap().len(), 1);
    assert!(bench.prune(false, false).verdicts.goes.is_empty());

    bench.store.lease(&named, "c0ffee").unwrap();
    let all = bench.prune(true, false);
    assert!(all.verdicts.goes.is_empty());
    let stays = reasons(&all.verdicts.stays);
    assert!(
        stays.contains(&format!("image {}: container c0ffee uses it", two().descriptor().digest)),
        "{stays:?}"
    );
    bench.store.release("c0ffee").unwrap();
    let all = reasons(&bench.prune(true, false).verdicts.goes);
    assert!(
        all.iter().any(|line| line.ends_with("no container uses it; it was named app:latest")),
        "{all:?}"
    );
    assert_eq!(bench.content(), Vec::<String>::new());
}

#[test]
fn prune_leaves_what_an_import_may_need_to_it() {
    let bench = Bench::new();
    bench.add(&two(), None).unwrap();
    let import = bench.store.import().unwrap();
    build(&import, &one()).unwrap();
    let pruned = bench.prune(false, false);
    assert!(pruned.postponed);
    let stays = reasons(&pruned.verdicts.stays);
    assert!(stays.iter().any(|line| line.contains("a pull or load runs")), "{stays:?}");
    import.commit_image(Some(&"one".parse().unwrap()), &one().descriptor()).unwrap();
    drop(import);
    assert!(bench.store.resolve("one").is_ok());
    assert_eq!(entries(&bench.store.layers()).unwrap().len(), 2, "the import has done what was postponed");
}

#[test]
fn prune_filters_by_age() {
    let bench = Bench::new();
    bench.add(&one(), None).unwrap();
    let keeps = |created: Option<&str>| created.is_none();
    let pruned = bench.store.prune(&Prune { all: true, dry_run: false, keeps: &keeps }).unwrap();
    assert!(pruned.verdicts.goes.is_empty());
    assert!(reasons(&pruned.verdicts.stays)[0].contains("uses it"), "blobs are kept by the image");
}

#[test]
fn an_image_that_was_removed_cannot_be_leased() {
    let bench = Bench::new();
    let image = bench.add(&one(), Some("one")).unwrap();
    // The content stays for a moment, as while an import runs.
    let import = bench.store.import().unwrap();
    bench.store.remove("one", false).unwrap();
    assert!(matches!(bench.store.lease(&image, "late"), Err(StoreError::NoImage { .. })));
    drop(import);
    assert_eq!(bench.content(), Vec::<String>::new());
}

#[test]
fn a_removal_that_was_killed_is_done_by_the_next_import() {
    let bench = Bench::new();
    bench.add(&one(), Some("one")).unwrap();
    // After the name has gone nothing more happened.
    collect::postpone(&bench.store).unwrap();
    index::change(&bench.store, |entries| {
        entries.clear();
        Ok(true)
    })
    .unwrap();
    assert_eq!(entries(&bench.store.layers()).unwrap().len(), 2);
    drop(bench.store.import().unwrap());
    assert_eq!(bench.content(), Vec::<String>::new());
}

#[test]
fn what_images_share_is_told_apart_from_what_is_their_own() {
    let bench = Bench::new();
    bench.add(&one(), Some("one")).unwrap();
    bench.add(&two(), Some("two")).unwrap();
    let used = bench.store.disk_use().unwrap();
    let chain = manifest::chain(&one().diff_ids());
    let layer =
        |at: usize| used.layers.iter().find(|layer| layer.object == Object::Layer(chain[at])).unwrap();
    assert_eq!((layer(0).images, layer(1).images), (2, 1));
    assert!(layer(0).bytes > 0 && layer(0).reclaimable);
    let image = used.images.iter().find(|image| image.id == Digest::of(&one().config)).unwrap();
    let before = disk_of(bench.store.root());
    bench.store.remove("one", false).unwrap();
    assert_eq!(before - disk_of(bench.store.root()), image.unique);
    let all = bench.store.disk_use().unwrap();
    let objects = all.blobs.iter().chain(&all.layers).chain(&all.staging).map(|object| object.bytes);
    let root = crate::sys::disk::own(bench.store.root()).unwrap().bytes;
    assert_eq!(objects.sum::<u64>() + all.records + root, disk_of(bench.store.root()));
}

fn disk_of(path: &Path) -> u64 {
    use std::os::fd::AsFd;
    let parent = open_dir(path.parent().unwrap()).unwrap();
    crate::sys::disk::used(parent.as_fd(), Path::new(path.file_name().unwrap()), u64::MAX).unwrap().bytes
}

#[test]
fn a_damaged_layer_is_unpacked_again() {
    let bench = Bench::new();
    bench.add(&one(), Some("one")).unwrap();
    bench.add(&two(), Some("two")).unwrap();
    bench.assert_sound();
    let tree = bench.tree(&one(), 0);
    // After a power failure that nobody waited for.
    File::options().write(true).open(tree.join("etc/os")).unwrap().set_len(0).unwrap();
    let found = bench.check(false, &Containers::default());
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].1.contains("etc/os has another size"), "{found:?}");
    assert_eq!(found[0].2, Outcome::Found);
    let repaired = bench.check(true, &Containers::default());
    assert_eq!(repaired[0].2, Outcome::Repaired);
    assert_eq!(std::fs::read_to_string(tree.join("etc/os")).unwrap(), "base");
    bench.assert_sound();

    std::fs::write(tree.join("more"), "").unwrap();
    std::fs::remove_file(bench.tree(&one(), 1).join("one")).unwrap();
    std::fs::write(bench.tree(&two(), 1).parent().unwrap().join("layer.json"), "{}").unwrap();
    let repaired = bench.check(true, &Containers::default());
    assert_eq!(repaired.len(), 3, "{repaired:?}");
    assert!(repaired.iter().all(|(_, _, outcome)| *outcome == Outcome::Repaired), "{repaired:?}");
    bench.assert_sound();
    let layer = bench.tree(&two(), 1).parent().unwrap().to_owned();
    staging::discard(&bench.store, &layer).unwrap();
    assert!(bench.store.resolve("two").is_err());
    assert_eq!(bench.check(true, &Containers::default())[0].2, Outcome::Repaired);
    assert!(bench.store.resolve("two").is_ok());
}

#[test]
fn a_damaged_blob_is_dropped_and_fetched_again() {
    let bench = Bench::new();
    bench.add(&one(), Some("one")).unwrap();
    let layer = &one().layers[1];
    let mut bytes = layer.clone();
    bytes[0] ^= 1;
    std::fs::write(bench.blob(layer), &bytes).unwrap();
    let found = bench.check(true, &Containers::default());
    assert_eq!(found[0].2, Outcome::Dropped, "{found:?}");
    assert!(!bench.blob(layer).exists());
    let left = bench.check(true, &Containers::default());
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0].2, Outcome::NeedsPull);
    bench.add(&one(), Some("one")).unwrap();
    bench.assert_sound();
    // Neither its layer nor its blob is whole: both go, and the image needs a pull.
    std::fs::write(bench.blob(layer), &bytes).unwrap();
    std::fs::write(bench.tree(&one(), 1).parent().unwrap().join("layer.json"), "{}").unwrap();
    let found = bench.check(true, &Containers::default());
    assert!(
        found
            .iter()
            .any(|(subject, _, outcome)| subject.starts_with("layer") && *outcome == Outcome::Dropped),
        "{found:?}"
    );
    bench.add(&one(), Some("one")).unwrap();
    bench.assert_sound();
}

#[test]
fn a_layer_below_a_running_container_stays() {
    let bench = Bench::new();
    let image = bench.add(&one(), Some("one")).unwrap();
    bench.store.lease(&image, "c0ffee").unwrap();
    let mut containers = Containers::default();
    containers.0.insert("c0ffee".into(), (image.id.to_string(), true));
    let file = bench.tree(&one(), 0).join("etc/os");
    std::fs::write(&file, "BASE").unwrap();
    let found = bench.check(true, &containers);
    assert_eq!(found[0].2, Outcome::InUse { containers: vec!["c0ffee".into()] });
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "BASE");
    containers.0.insert("c0ffee".into(), (image.id.to_string(), false));
    assert_eq!(bench.check(true, &containers)[0].2, Outcome::Repaired);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "base");
}

#[test]
fn a_lease_that_was_lost_is_written_again() {
    let bench = Bench::new();
    let image = bench.add(&one(), Some("one")).unwrap();
    let mut containers = Containers::default();
    containers.0.insert("c0ffee".into(), (image.id.to_string(), false));
    for holder in ["c0ffee", "gone"] {
        bench.store.lease_volatile(&image, holder).unwrap();
        // Power was lost before its content was on disk.
        std::fs::write(bench.store.leases().join(holder), "").unwrap();
    }
    assert!(matches!(
        bench.store.prune(&Prune { all: true, dry_run: false, keeps: &|_| false }),
        Err(StoreError::Record { .. })
    ));
    assert_eq!(bench.check(true, &containers).len(), 2);
    assert_eq!(bench.store.holders().unwrap(), ["c0ffee"]);
    bench.assert_sound();
    assert!(matches!(bench.store.remove("one", false), Err(StoreError::InUse { .. })));
}

#[test]
fn a_repair_wants_the_store_for_itself() {
    let bench = Bench::new();
    let _import = bench.store.import().unwrap();
    let fsck = |repair| bench.store.fsck(&Fsck { repair, contents: true, holders: &Containers::default() });
    assert!(matches!(fsck(true), Err(StoreError::Busy)));
    assert!(fsck(false).is_ok());
}
