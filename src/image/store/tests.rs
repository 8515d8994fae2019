use super::*;
use crate::image::manifest::Compression;
use crate::image::unpack::Limits;
use crate::image::unpack::testing::Tar;
use std::io::Write;
use std::os::unix::fs::MetadataExt;

mod care;

struct Bench {
    dir: tempfile::TempDir,
    store: Store,
}

/// What an image is made of.
struct Recipe {
    layers: Vec<Vec<u8>>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl Recipe {
    fn new(comment: &str, layers: &[Tar]) -> Recipe {
        let layers: Vec<Vec<u8>> = layers.iter().map(|tar| tar.clone().end()).collect();
        let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "author": comment,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = serde_json::to_vec(&config).unwrap();
        let blob = |media_type: &str, bytes: &[u8]| serde_json::json!({"mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len()});
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": manifest::OCI_MANIFEST,
            "config": blob(manifest::OCI_CONFIG, &config),
            "layers": layers.iter().map(|layer| blob("application/vnd.oci.image.layer.v1.tar", layer))
                .collect::<Vec<_>>(),
        });
        Recipe { layers, config, manifest: serde_json::to_vec(&manifest).unwrap() }
    }

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            media_type: manifest::OCI_MANIFEST.to_owned(),
            digest: Digest::of(&self.manifest),
            size: self.manifest.len() as u64,
        }
    }

    fn diff_ids(&self) -> Vec<Digest> {
        self.layers.iter().map(|layer| Digest::of(layer)).collect()
    }
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let store = Store::open(&dir.path().join("root")).unwrap();
        Bench { dir, store }
    }

    fn add(&self, recipe: &Recipe, name: Option<&str>) -> Result<Image> {
        let import = self.store.import()?;
        build(&import, recipe)?;
        let name: Option<Reference> = name.map(|name| name.parse().unwrap());
        import.commit_image(name.as_ref(), &recipe.descriptor())
    }

    /// Everything in the store that is not always there.
    fn content(&self) -> Vec<String> {
        let mut found = Vec::new();
        for dir in ["content/blobs/sha256", "layers", "leases", "staging"] {
            for name in entries(&self.store.root().join(dir)).unwrap() {
                found.push(format!("{dir}/{}", name.to_string_lossy()));
            }
        }
        found
    }
}

fn build(import: &Import<'_>, recipe: &Recipe) -> Result<usize> {
    let mut built = 0;
    for (at, layer) in recipe.layers.iter().enumerate() {
        if let Slot::Build(staging) = import.layer(&recipe.diff_ids(), at)? {
            let unpacked = staging.unpack(&layer[..], Compression::None, &Limits::default())?;
            staging.commit(unpacked)?;
            built += 1;
        }
        import.put_blob(layer)?;
    }
    import.put_blob(&recipe.config)?;
    import.put_blob(&recipe.manifest)?;
    Ok(built)
}

fn base() -> Tar {
    Tar::new().dir("etc").file("etc/os", b"base")
}

fn one() -> Recipe {
    Recipe::new("one", &[base(), Tar::new().file("one", b"1")])
}

fn two() -> Recipe {
    Recipe::new("two", &[base(), Tar::new().file("two", b"22")])
}

#[test]
fn an_image_is_found_by_name_and_id() {
    let bench = Bench::new();
    let image = bench.add(&one(), Some("app:1")).unwrap();
    let again = bench.add(&one(), Some("localhost:5000/other")).unwrap();
    assert_eq!((image.id, image.size, image.chain.len()), (Digest::of(&one().config), 5, 2));
    assert_eq!(again.names.len(), 2);
    let hex = image.id.hex();
    for name in [
        "app:1",
        "docker.io/library/app:1",
        "localhost:5000/other:latest",
        &hex,
        &hex[..6],
        &format!("sha256:{hex}"),
    ] {
        assert_eq!(bench.store.resolve(name).unwrap().id, image.id, "{name}");
    }
    let digest = format!("app@{}", one().descriptor().digest);
    assert_eq!(bench.store.resolve(&digest).unwrap().id, image.id);
    assert!(matches!(bench.store.resolve("app"), Err(StoreError::NoImage { .. })));
    assert!(matches!(bench.store.resolve("No Name"), Err(StoreError::Name { .. })));
    assert!(matches!(bench.store.resolve(&"0".repeat(64)), Err(StoreError::NoImage { .. })));
    let dirs = bench.store.lower_dirs(&image);
    assert_eq!(std::fs::read_to_string(dirs[0].join("one")).unwrap(), "1");
    assert_eq!(std::fs::read_to_string(dirs[1].join("etc/os")).unwrap(), "base");
}

#[test]
fn a_shared_layer_is_stored_once_and_outlives_one_image() {
    let bench = Bench::new();
    bench.add(&one(), Some("one")).unwrap();
    let shared = bench.store.layer_dir(&one().diff_ids()[0]).join("fs/etc/os").metadata().unwrap().ino();
    let import = bench.store.import().unwrap();
    assert_eq!(build(&import, &two()).unwrap(), 1);
    import.commit_image(Some(&"two".parse().unwrap()), &two().descriptor()).unwrap();
    drop(import);
    assert_eq!(entries(&bench.store.layers()).unwrap().len(), 3);
    let removal = bench.store.remove("one", false).unwrap();
    assert_eq!(removal.deleted, Some(Digest::of(&one().config)));
    assert_eq!(entries(&bench.store.layers()).unwrap().len(), 2);
    let two = bench.store.resolve("two").unwrap();
    let left = bench.store.lower_dirs(&two)[1].join("etc/os").metadata().unwrap().ino();
    assert_eq!(left, shared);
    bench.store.remove("two", false).unwrap();
    assert_eq!(bench.content(), Vec::<String>::new());
}

#[test]
fn a_name_moves_and_the_old_image_stays_without_one() {
    let bench = Bench::new();
    let old = bench.add(&one(), Some("app")).unwrap();
    let new = bench.add(&two(), Some("app")).unwrap();
    assert_eq!(bench.store.resolve("app").unwrap().id, new.id);
    let images = bench.store.images().unwrap();
    assert_eq!(images.len(), 2);
    assert!(bench.store.resolve(&old.id.hex()).unwrap().names.is_empty());
    bench.add(&one(), Some("back")).unwrap();
    assert_eq!(bench.store.images().unwrap().len(), 2);
    assert_eq!(bench.store.remove(&old.id.hex(), false).unwrap().untagged.len(), 1);
}

#[test]
fn rmi_takes_names_first() {
    let bench = Bench::new();
    let image = bench.add(&one(), Some("a")).unwrap();
    bench.add(&one(), Some("b")).unwrap();
    let id = image.id.hex();
    assert!(matches!(bench.store.remove(&id, false), Err(StoreError::SeveralNames { .. })));
    assert_eq!(bench.store.remove("a", false).unwrap().deleted, None);
    assert!(bench.store.resolve("b").is_ok());
    bench.add(&one(), Some("c")).unwrap();
    let removal = bench.store.remove(&id, true).unwrap();
    assert_eq!((removal.untagged.len(), removal.deleted), (2, Some(image.id)));
    assert!(matches!(bench.store.remove("b", false), Err(StoreError::NoImage { .. })));
}

#[test]
fn an_image_in_use_stays() {
    let bench = Bench::new();
    let image = bench.add(&one(), Some("app")).unwrap();
    bench.store.lease(&image, "c0ffee").unwrap();
    let error = bench.store.remove("app", false).unwrap_err();
    assert!(error.to_string().contains("c0ffee"), "{error}");
    assert_eq!(bench.store.remove("app", true).unwrap().deleted, None);
    let unnamed = bench.store.resolve(&image.id.hex()).unwrap();
    assert!(unnamed.names.is_empty());
    assert!(bench.store.lower_dirs(&unnamed).iter().all(|dir| dir.is_dir()));
    bench.store.release("c0ffee").unwrap();
    bench.store.release("c0ffee").unwrap();
    bench.store.remove(&image.id.hex(), false).unwrap();
    assert_eq!(bench.content(), Vec::<String>::new());
    assert!(matches!(bench.store.lease(&image, "late"), Err(StoreError::NoBlob { .. })));
    for holder in ["", ".", "..", "../x", "a/b", ".hidden", "x.tmp", "a\n"] {
        assert!(matches!(bench.store.release(holder), Err(StoreError::Holder { .. })), "{holder:?}");
    }
}

#[test]
fn an_import_keeps_the_collector_away() {
    let bench = Bench::new();
    bench.add(&two(), Some("two")).unwrap();
    let import = bench.store.import().unwrap();
    build(&import, &one()).unwrap();
    // Another process removes an image meanwhile.
    Store::open(bench.store.root()).unwrap().remove("two", false).unwrap();
    assert_eq!(entries(&bench.store.layers()).unwrap().len(), 3);
    import.commit_image(Some(&"one".parse().unwrap()), &one().descriptor()).unwrap();
    drop(import);
    // The last import has done what was postponed.
    assert_eq!(entries(&bench.store.layers()).unwrap().len(), 2);
    assert!(bench.store.resolve("one").is_ok());
    assert!(!bench.store.root().join("collect-later").exists());
}

#[test]
fn row_41_wrong_digests_sizes_and_diff_ids_publish_nothing() {
    let bench = Bench::new();
    let import = bench.store.import().unwrap();
    let digest = Digest::of(b"hello");
    let mut writer = import.blob_writer(&digest, 5).unwrap();
    writer.write_all(b"hellO").unwrap();
    assert!(matches!(writer.commit(), Err(StoreError::BlobDigest { .. })));
    let mut writer = import.blob_writer(&digest, 5).unwrap();
    writer.write_all(b"hell").unwrap();
    assert!(matches!(writer.commit(), Err(StoreError::BlobSize { actual: 4, .. })));
    let mut writer = import.blob_writer(&digest, 4).unwrap();
    assert!(writer.write_all(b"hello").is_err());
    drop(writer);

    let stream = base().end();
    let Slot::Build(staging) = import.layer(&[digest], 0).unwrap() else { panic!("it is not there") };
    let unpacked = staging.unpack(&stream[..], Compression::None, &Limits::default()).unwrap();
    assert!(matches!(staging.commit(unpacked), Err(StoreError::DiffId { .. })));
    let Slot::Build(staging) = import.layer(&[digest], 0).unwrap() else { panic!("it is not there") };
    assert!(staging.unpack(&stream[..1000], Compression::None, &Limits::default()).is_err());
    drop(staging);

    assert!(matches!(import.commit_image(None, &one().descriptor()), Err(StoreError::NoBlob { .. })));
    for layer in &one().layers {
        import.put_blob(layer).unwrap();
    }
    import.put_blob(&one().config).unwrap();
    import.put_blob(&one().manifest).unwrap();
    assert!(matches!(import.commit_image(None, &one().descriptor()), Err(StoreError::NoLayer { .. })));
    drop(import);
    assert!(bench.store.images().unwrap().is_empty());
    assert!(entries(&bench.store.layers()).unwrap().is_empty());
    assert!(entries(&bench.store.staging()).unwrap().is_empty());
}

#[test]
fn a_layer_cannot_be_committed_before_those_below() {
    let bench = Bench::new();
    let import = bench.store.import().unwrap();
    let recipe = one();
    let Slot::Build(upper) = import.layer(&recipe.diff_ids(), 1).unwrap() else { panic!("it is not there") };
    let unpacked = upper.unpack(&recipe.layers[1][..], Compression::None, &Limits::default()).unwrap();
    assert!(matches!(upper.commit(unpacked), Err(StoreError::NoLayer { .. })));
}

#[test]
fn what_a_dead_process_left_is_swept() {
    let bench = Bench::new();
    let staging = bench.store.staging();
    std::fs::create_dir_all(staging.join("layer-1-0/fs/deep/er")).unwrap();
    std::fs::write(staging.join("layer-1-0/fs/file"), "x").unwrap();
    std::fs::write(staging.join("blob-1-1"), "half").unwrap();
    std::fs::create_dir(staging.join("trash-1-2")).unwrap();
    std::fs::write(bench.store.content().join("index.json.tmp"), "{").unwrap();
    // What is being made stays.
    let import = bench.store.import().unwrap();
    let _writer = import.blob_writer(&Digest::of(b""), 0).unwrap();
    let Slot::Build(_layer) = import.layer(&[Digest::of(b"")], 0).unwrap() else { panic!("it is not there") };
    assert_eq!(entries(&staging).unwrap().len(), 5);
    Store::open(bench.store.root()).unwrap();
    assert_eq!(entries(&staging).unwrap().len(), 2);
    bench.add(&one(), Some("one")).unwrap();
}

#[test]
fn a_sweep_leaves_what_another_process_has_just_made() {
    let bench = Bench::new();
    let done = std::sync::atomic::AtomicBool::new(false);
    let (done, root) = (&done, bench.store.root());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(move || {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    Store::open(root).unwrap();
                }
            });
        }
        let making = std::panic::catch_unwind(|| {
            for _ in 0..500 {
                let file = staging::StagingFile::create(&bench.store).unwrap();
                let dir = staging::StagingDir::create(&bench.store).unwrap();
                std::thread::yield_now();
                assert!(dir.path().exists(), "a directory that is held was swept");
                file.publish(&bench.store.blobs().join("made")).unwrap();
            }
        });
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        making.unwrap();
    });
}

#[test]
fn a_layer_without_its_record_is_built_again() {
    let bench = Bench::new();
    bench.add(&one(), Some("one")).unwrap();
    let dir = bench.store.layer_dir(&one().diff_ids()[0]);
    std::fs::remove_file(dir.join("layer.json")).unwrap();
    assert!(matches!(bench.store.resolve("one"), Err(StoreError::NoLayer { .. })));
    assert!(bench.store.images().unwrap().is_empty());
    let import = bench.store.import().unwrap();
    assert_eq!(build(&import, &one()).unwrap(), 1);
    drop(import);
    assert!(bench.store.resolve("one").is_ok());
}

#[test]
fn a_damaged_manifest_is_told() {
    let bench = Bench::new();
    bench.add(&one(), Some("one")).unwrap();
    let blob = bench.store.blobs().join(one().descriptor().digest.hex());
    std::fs::write(&blob, "{}").unwrap();
    assert!(matches!(bench.store.resolve("one"), Err(StoreError::BlobDigest { .. })));
    std::fs::write(bench.store.content().join("index.json"), "no json").unwrap();
    assert!(matches!(bench.store.resolve("one"), Err(StoreError::Record { .. })));
}

#[test]
fn two_imports_of_the_same_image_build_each_layer_once() {
    let bench = Bench::new();
    let built: Vec<usize> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|at| {
                let store = Store::open(bench.store.root()).unwrap();
                scope.spawn(move || {
                    let import = store.import().unwrap();
                    let built = build(&import, &one()).unwrap();
                    let name = format!("name:{at}").parse().unwrap();
                    import.commit_image(Some(&name), &one().descriptor()).unwrap();
                    built
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(built.iter().sum::<usize>(), 2);
    assert_eq!(bench.store.resolve("name:3").unwrap().names.len(), 4);
}

#[test]
fn entries_of_other_tools_survive() {
    let bench = Bench::new();
    let index = bench.store.content().join("index.json");
    let foreign = serde_json::json!({
        "schemaVersion": 2,
        "manifests": [
            {"mediaType": "application/vnd.other", "digest": Digest::of(b"x"), "size": 1, "data": "eA=="},
        ],
        "annotations": {"k": "v"},
    });
    std::fs::write(&index, foreign.to_string()).unwrap();
    bench.add(&one(), Some("one")).unwrap();
    bench.store.remove("one", false).unwrap();
    let after: serde_json::Value = serde_json::from_slice(&std::fs::read(&index).unwrap()).unwrap();
    assert_eq!(after, foreign);
}

#[test]
fn a_layer_that_replaces_the_root_hides_what_is_below() {
    let bench = Bench::new();
    let recipe = Recipe::new("opaque", &[base(), Tar::new().file(".wh..wh..opq", b"").file("new", b"")]);
    let image = bench.add(&recipe, Some("opaque")).unwrap();
    assert_eq!(image.chain.len(), 2);
    let dirs = bench.store.lower_dirs(&image);
    assert_eq!(dirs.len(), 1);
    assert!(dirs[0].join("new").exists());
}

#[test]
fn row_20_nobody_else_may_enter() {
    let bench = Bench::new();
    bench.add(&one(), Some("one")).unwrap();
    for dir in ["", "content", "layers", "leases", "staging"] {
        let mode = bench.dir.path().join("root").join(dir).metadata().unwrap().mode();
        assert_eq!(mode & 0o777, 0o700, "{dir}");
    }
}
