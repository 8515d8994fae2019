//! The configuration and the manifest of a new image.
use super::change::strings;
use super::{BuildError, Instruction, NewLayer, Result};
use crate::image::digest::Digest;
use crate::image::manifest::{
    CONFIG_MAX, Compression, DOCKER_MANIFEST, Descriptor, LAYERS_MAX, MANIFEST_MAX, ManifestError,
    OCI_CONFIG, OCI_MANIFEST,
};
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::image::store::{self, Image, Store};
use crate::image::unpack::Limits;
use serde_json::{Map, Value, json};

/// Who made an image, when and how.
#[derive(Debug, Clone, Default)]
pub struct Description {
    /// RFC 3339.
    pub created: String,
    pub author: Option<String>,
    /// What made the layer, in the history.
    pub created_by: String,
    /// `--message`.
    pub comment: String,
}

/// What a new image stands on.
#[derive(Debug, Clone, Copy)]
pub enum Base<'a> {
    /// Nothing: its layer is the whole root file system of this platform.
    Scratch(&'a Platform),
    /// Another image.
    Image(&'a Image),
}

/// An image in the making. All that it does not change of the image below it stays as it is, what is not known too.
#[derive(Debug)]
pub struct Draft {
    config: Map<String, Value>,
    manifest: Map<String, Value>,
    diff_ids: Vec<Digest>,
}

impl Draft {
    /// Begins with what `base` has.
    pub fn new(store: &Store, base: Base<'_>) -> Result<Draft> {
        match base {
            Base::Scratch(platform) => Ok(Draft::scratch(platform)),
            Base::Image(image) => Draft::on(store, image),
        }
    }

    fn scratch(platform: &Platform) -> Draft {
        let platform = platform.to_string();
        let mut config = Map::new();
        let keys = ["os", "architecture", "variant"];
        config
            .extend(keys.iter().zip(platform.split('/')).map(|(key, part)| ((*key).to_owned(), json!(part))));
        config.insert("rootfs".into(), json!({"type": "layers", "diff_ids": []}));
        let mut manifest = Map::new();
        manifest.insert("schemaVersion".into(), json!(2));
        manifest.insert("mediaType".into(), json!(OCI_MANIFEST));
        manifest.insert("config".into(), json!({"mediaType": OCI_CONFIG}));
        manifest.insert("layers".into(), json!([]));
        Draft { config, manifest, diff_ids: Vec::new() }
    }

    fn on(store: &Store, image: &Image) -> Result<Draft> {
        let object = |digest: &Digest, limit| -> Result<Map<String, Value>> {
            let bytes = store.read_blob(digest, limit)?;
            serde_json::from_slice(&bytes).map_err(|source| BuildError::Config { digest: *digest, source })
        };
        let config = object(&image.id, CONFIG_MAX)?;
        let mut manifest = object(&image.manifest.digest, MANIFEST_MAX)?;
        // They speak of the image below.
        manifest.remove("annotations");
        manifest.remove("subject");
        // Only OCI manifests may lack it.
        manifest.insert("mediaType".into(), json!(image.manifest.media_type));
        let diff_ids = strings(config.get("rootfs").and_then(|rootfs| rootfs.get("diff_ids")))
            .iter()
            .map(|text| text.parse())
            .collect::<std::result::Result<Vec<Digest>, _>>()
            .map_err(ManifestError::DiffId)?;
        if diff_ids.len() >= LAYERS_MAX {
            return Err(ManifestError::TooManyLayers { count: diff_ids.len() + 1 }.into());
        }
        Ok(Draft { config, manifest, diff_ids })
    }

    /// The `config` object of the configuration: what a container is started with.
    pub fn settings(&mut self) -> Result<&mut Map<String, Value>> {
        let settings = self.config.entry("config").or_insert_with(|| json!({}));
        if settings.is_null() {
            *settings = json!({});
        }
        settings.as_object_mut().ok_or(BuildError::Field { field: "config" })
    }

    /// Follows `--change`.
    pub fn change(&mut self, instructions: &[Instruction]) -> Result<()> {
        let settings = self.settings()?;
        instructions.iter().for_each(|instruction| instruction.apply(settings));
        Ok(())
    }

    /// Stores `layer`, puts it on top, and makes the image.
    pub fn finish(
        mut self,
        import: &store::Import<'_>,
        layer: NewLayer,
        description: &Description,
        name: Option<&Reference>,
        limits: &Limits,
    ) -> Result<Image> {
        self.diff_ids.push(*layer.diff_id());
        self.describe(description)?;
        let docker = self.manifest.get("mediaType").and_then(Value::as_str) == Some(DOCKER_MANIFEST);
        let descriptor = layer.store(import, &self.diff_ids, limits)?;
        let media_type = match (docker, layer.compression()) {
            (false, _) => descriptor.media_type.as_str(),
            (true, Compression::None) => "application/vnd.docker.image.rootfs.diff.tar",
            (true, Compression::Gzip) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            (true, Compression::Zstd) => "application/vnd.docker.image.rootfs.diff.tar.zstd",
        };
        let layers = self.manifest.get_mut("layers").and_then(Value::as_array_mut);
        layers.ok_or(BuildError::Field { field: "layers" })?.push(json!({
            "mediaType": media_type, "digest": descriptor.digest, "size": descriptor.size,
        }));
        let config = bytes(&self.config);
        let digest = import.put_blob(&config)?;
        let kind = self.manifest.get("config").and_then(|config| config.get("mediaType")).cloned();
        let kind = kind.unwrap_or_else(|| json!(OCI_CONFIG));
        self.manifest
            .insert("config".into(), json!({"mediaType": kind, "digest": digest, "size": config.len()}));
        let manifest = bytes(&self.manifest);
        let digest = import.put_blob(&manifest)?;
        let media_type = if docker { DOCKER_MANIFEST } else { OCI_MANIFEST }.to_owned();
        let descriptor = Descriptor { media_type, digest, size: manifest.len() as u64 };
        Ok(import.commit_image(name, &descriptor)?)
    }

    fn describe(&mut self, description: &Description) -> Result<()> {
        let Description { created, author, created_by, comment } = description;
        self.config.insert("created".into(), json!(created));
        if let Some(author) = author {
            self.config.insert("author".into(), json!(author));
        }
        let rootfs = self.config.get_mut("rootfs").and_then(Value::as_object_mut);
        let diff_ids = json!(self.diff_ids);
        rootfs.ok_or(BuildError::Field { field: "rootfs" })?.insert("diff_ids".into(), diff_ids);
        let mut step = Map::new();
        step.insert("created".into(), json!(created));
        let texts =
            [("author", author.as_deref()), ("created_by", Some(created_by)), ("comment", Some(comment))];
        for (key, text) in texts {
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                step.insert(key.into(), json!(text));
            }
        }
        let history = self.config.entry("history").or_insert_with(|| json!([]));
        if history.is_null() {
            *history = json!([]);
        }
        let history = history.as_array_mut().ok_or(BuildError::Field { field: "history" })?;
        // Each layer has a step, in order: of a layer below that has none nothing is known.
        let with_layer = |step: &&Value| step.get("empty_layer").and_then(Value::as_bool) != Some(true);
        let known = history.iter().filter(with_layer).count();
        let below = self.diff_ids.len().saturating_sub(1);
        history.extend((known..below).map(|_| json!({})));
        history.push(step.into());
        Ok(())
    }
}

fn bytes(document: &Map<String, Value>) -> Vec<u8> {
    Value::Object(document.clone()).to_string().into_bytes()
}
