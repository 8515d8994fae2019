//! A registry's documents: manifest, index and image configuration.
#![no_main]
use corten::image::manifest::{self, Config, Document};
use corten::image::platform::Platform;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match manifest::parse(bytes, None) {
        Ok(Document::Index(index)) => {
            if let Ok(entry) = index.choose(&Platform::new("linux", "arm64", Some("v8"))) {
                assert!(manifest::is_document(&entry.descriptor.media_type));
            }
        }
        Ok(Document::Manifest(manifest)) => {
            // What it is called by its registry must be what it calls itself (CVE-2021-41190).
            for other in [manifest::OCI_INDEX, manifest::DOCKER_LIST] {
                assert!(manifest::parse(bytes, Some(other)).is_err());
            }
            assert!(!manifest.layers.iter().any(|layer| layer.descriptor.media_type.is_empty()));
        }
        Err(_) => {}
    }
    if let Ok(config) = Config::parse(bytes) {
        assert_eq!(config.chain().len(), config.diff_ids.len());
        assert!(config.check_layers(config.diff_ids.len()).is_ok());
        let shown = config.platform().to_string();
        assert!(!shown.is_empty());
    }
});
