use super::*;

const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

fn descriptor(media_type: &str, digest: &str) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":3}}"#)
}

fn image(layers: &[&str]) -> String {
    let layers: Vec<String> = layers.iter().map(|media_type| descriptor(media_type, A)).collect();
    format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#, descriptor(OCI_CONFIG, B), layers.join(","))
}

fn entry(platform: &str, digest: &str) -> String {
    let (os, rest) = platform.split_once('/').unwrap();
    let (architecture, variant) = rest.split_once('/').unwrap_or((rest, ""));
    format!(
        r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{digest}","size":3,
            "platform":{{"os":"{os}","architecture":"{architecture}","variant":"{variant}"}}}}"#
    )
}

fn index_of(entries: &[String]) -> String {
    format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","))
}

#[test]
fn reads_both_families() {
    let layer = "application/vnd.oci.image.layer.v1.tar+gzip";
    let Document::Manifest(oci) = parse(image(&[layer]).as_bytes(), Some(OCI_MANIFEST)).unwrap() else {
        panic!("want a manifest")
    };
    assert_eq!(oci.media_type, OCI_MANIFEST);
    assert_eq!(oci.config.digest.to_string(), B);
    assert_eq!(oci.layers[0].compression, Compression::Gzip);

    let docker = format!(
        r#"{{"schemaVersion":2,"mediaType":"{DOCKER_MANIFEST}","config":{},"layers":[{},{}]}}"#,
        descriptor(DOCKER_CONFIG, B),
        descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", A),
        descriptor("application/vnd.docker.image.rootfs.diff.tar", A),
    );
    for announced in [Some(DOCKER_MANIFEST), Some("application/json; charset=utf-8"), None] {
        let Document::Manifest(docker) = parse(docker.as_bytes(), announced).unwrap() else {
            panic!("want a manifest")
        };
        assert_eq!(docker.media_type, DOCKER_MANIFEST);
        assert_eq!(docker.layers[1].compression, Compression::None);
    }
    let index = index_of(&[entry("linux/amd64", A)]);
    assert!(matches!(parse(index.as_bytes(), None), Ok(Document::Index(_))));
    assert!(matches!(parse(index.as_bytes(), Some(DOCKER_LIST)), Ok(Document::Index(_))));
}

#[test]
fn cve_2021_41190_ambiguous_documents_are_refused() {
    let config = descriptor(OCI_CONFIG, B);
    let both = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[],"manifests":[]}}"#);
    for announced in [None, Some(OCI_MANIFEST), Some(OCI_INDEX), Some(DOCKER_MANIFEST), Some(DOCKER_LIST)] {
        assert!(matches!(parse(both.as_bytes(), announced), Err(ManifestError::Ambiguous { .. })));
    }
    let signed = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[],"fsLayers":[]}}"#);
    assert!(matches!(parse(signed.as_bytes(), None), Err(ManifestError::Ambiguous { .. })));

    let named =
        format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{config},"layers":[]}}"#);
    assert!(parse(named.as_bytes(), Some(OCI_MANIFEST)).is_ok());
    for announced in [OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST, "text/html"] {
        let error = parse(named.as_bytes(), Some(announced)).unwrap_err();
        assert!(matches!(error, ManifestError::MediaTypeMismatch { .. }), "{announced}: {error}");
    }
    // An index served as a manifest, where neither names itself.
    let index = index_of(&[]);
    assert!(matches!(parse(index.as_bytes(), Some(OCI_MANIFEST)), Err(ManifestError::Ambiguous { .. })));
    assert!(matches!(parse(image(&[]).as_bytes(), Some(OCI_INDEX)), Err(ManifestError::Ambiguous { .. })));

    let twice = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[],"layers":[]}}"#);
    assert!(matches!(parse(twice.as_bytes(), None), Err(ManifestError::Json(_))));
}

#[test]
fn hostile_documents_are_refused() {
    let config = descriptor(OCI_CONFIG, B);
    let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
    let with_layer = |layer: String| format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]}}"#);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for bytes in [
        "".to_owned(),
        "null".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        deep.clone(),
        format!(r#"{{"schemaVersion":2,"x":{deep}}}"#),
        r#"{"schemaVersion":2}"#.to_owned(),
        r#"{"schemaVersion":3,"manifests":[]}"#.to_owned(),
        r#"{"schemaVersion":"2","manifests":[]}"#.to_owned(),
        r#"{"schemaVersion":2,"layers":[]}"#.to_owned(),
        format!(r#"{{"schemaVersion":2,"config":{config}}}"#),
        with_layer(descriptor(gzip, "sha256:../../x")),
        with_layer(descriptor(gzip, A).replace(":3", ":-1")),
        with_layer(descriptor(gzip, A).replace(":3", ":1e3")),
        with_layer(descriptor(gzip, A).replace(":3", ":99999999999999999999999")),
        with_layer("null".to_owned()),
        format!("{} x", image(&[])),
    ] {
        assert!(parse(bytes.as_bytes(), None).is_err(), "{}", &bytes[..bytes.len().min(200)]);
    }
    let large = vec![b' '; MANIFEST_MAX as usize + 1];
    assert!(matches!(parse(&large, None), Err(ManifestError::TooLarge { .. })));
    let many = image(&vec![gzip; LAYERS_MAX + 1]);
    assert!(matches!(parse(many.as_bytes(), None), Err(ManifestError::TooManyLayers { .. })));
    let artifact = image(&[]).replace(OCI_CONFIG, "application/vnd.oci.empty.v1+json");
    assert!(matches!(parse(artifact.as_bytes(), None), Err(ManifestError::NotAnImage { .. })));
}

#[test]
fn schema_1_is_named() {
    let schema1 = r#"{"schemaVersion":1,"name":"a","fsLayers":[],"history":[],"signatures":[]}"#;
    for announced in [None, Some(DOCKER_SCHEMA1), Some(DOCKER_SCHEMA1_SIGNED)] {
        assert!(matches!(parse(schema1.as_bytes(), announced), Err(ManifestError::Schema1)));
    }
}

#[test]
fn unknown_and_foreign_layers_are_refused() {
    for media_type in [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    ] {
        let Ok(Document::Manifest(manifest)) = parse(image(&[media_type]).as_bytes(), None) else {
            panic!("{media_type}");
        };
        let error = manifest.refuse_foreign().unwrap_err();
        assert!(matches!(error, ManifestError::ForeignLayer { .. }), "{error}");
    }
    for media_type in ["", "text/plain", "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"] {
        let error = parse(image(&[media_type]).as_bytes(), None).unwrap_err();
        assert!(matches!(error, ManifestError::LayerMediaType { .. }), "{error}");
    }
}

#[test]
fn chooses_the_platform() {
    let index = index_of(&[
        entry("windows/amd64", A),
        entry("linux/arm64/v8", B),
        entry("unknown/unknown", A),
        entry("linux/amd64/v3", A),
        entry("linux/amd64", B),
    ]);
    let Document::Index(index) = parse(index.as_bytes(), None).unwrap() else { panic!("want an index") };
    let choose = |text: &str| {
        index.choose(&text.parse().unwrap()).map(|entry| entry.platform.as_ref().unwrap().to_string())
    };
    assert_eq!(choose("linux/amd64").unwrap(), "linux/amd64");
    assert_eq!(choose("linux/amd64/v2").unwrap(), "linux/amd64");
    assert_eq!(choose("linux/amd64/v4").unwrap(), "linux/amd64/v3");
    assert_eq!(choose("linux/aarch64").unwrap(), "linux/arm64");
    let error = choose("linux/s390x").unwrap_err().to_string();
    assert!(error.contains("linux/s390x") && error.contains("linux/arm64"), "{error}");
}

#[test]
fn an_entry_without_platform_is_the_last_resort() {
    let plain = descriptor(OCI_MANIFEST, A);
    let choose = |entries: &[String]| {
        let Document::Index(index) = parse(index_of(entries).as_bytes(), None).unwrap() else { panic!() };
        index.choose(&"linux/amd64".parse().unwrap()).map(|entry| entry.descriptor.digest.to_string())
    };
    assert_eq!(choose(&[plain.clone(), entry("linux/amd64", B)]).unwrap(), B);
    assert_eq!(choose(&[plain, entry("linux/arm64", B)]).unwrap(), A);
    assert!(choose(&[descriptor("application/x", A)]).is_err());
    assert!(choose(&[]).is_err());
}

fn config(diff_ids: &str) -> String {
    format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Labels":null,"Env":null}},
            "rootfs":{{"type":"layers","diff_ids":{diff_ids}}}}}"#
    )
}

#[test]
fn configurations() {
    let read = Config::parse(config(&format!(r#"["{A}","{B}"]"#)).as_bytes()).unwrap();
    assert_eq!(read.platform().to_string(), "linux/amd64");
    assert!(read.check_layers(2).is_ok());
    assert!(matches!(read.check_layers(1), Err(ManifestError::LayerCount { layers: 1, diff_ids: 2 })));
    let chain = read.chain();
    assert_eq!(chain[0].to_string(), A);
    assert_eq!(chain[1], Digest::of(format!("{A} {B}").as_bytes()));

    let bad = Config::parse(config(r#"["sha256:../../x"]"#).as_bytes());
    assert!(matches!(bad, Err(ManifestError::DiffId(_))));
    let squash = config("[]").replace(r#""layers""#, r#""squash""#);
    assert!(matches!(Config::parse(squash.as_bytes()), Err(ManifestError::RootfsType { .. })));
    assert!(matches!(Config::parse(b"{}"), Err(ManifestError::Config(_))));
}
