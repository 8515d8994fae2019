//! Small images as archives, made without any other tool.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::io::Write;

/// `sha256:…` of `bytes`.
pub fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Gzip of `bytes`, always the same for the same input.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("gzip");
    encoder.finish().expect("gzip")
}

/// The type of a tar entry, as the ustar type flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A regular file.
    File = b'0',
    /// A hard link to an earlier name.
    Hardlink = b'1',
    /// A symbolic link.
    Symlink = b'2',
    /// A character device.
    Char = b'3',
    /// A block device.
    Block = b'4',
    /// A directory.
    Dir = b'5',
    /// A named pipe.
    Fifo = b'6',
    /// A PAX extended header of the next entry.
    Pax = b'x',
}

/// A tar archive in the making: names and links go in as they are, so that a hostile layer can be written too.
#[derive(Debug, Default, Clone)]
pub struct Tar {
    bytes: Vec<u8>,
}

impl Tar {
    /// An empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an entry with all its fields.
    pub fn entry(
        mut self,
        kind: Kind,
        name: &str,
        link: &str,
        mode: u32,
        owner: (u32, u32),
        data: &[u8],
    ) -> Self {
        let mut header = [0u8; 512];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        assert!(name.len() <= 100 && link.len() <= 100, "a name for a PAX header: {name}");
        put(0, name.as_bytes());
        put(100, format!("{mode:07o}").as_bytes());
        put(108, format!("{:07o}", owner.0).as_bytes());
        put(116, format!("{:07o}", owner.1).as_bytes());
        put(124, format!("{:011o}", data.len()).as_bytes());
        put(136, format!("{:011o}", 1_000_000_000).as_bytes());
        put(148, b"        ");
        put(156, &[kind as u8]);
        put(157, link.as_bytes());
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// Adds bytes as they are.
    pub fn bytes(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.bytes.extend_from_slice(bytes.as_ref());
        self
    }

    /// The archive without an end mark.
    pub fn unfinished(self) -> Vec<u8> {
        self.bytes
    }

    /// Adds a directory.
    pub fn dir(self, name: &str) -> Self {
        self.entry(Kind::Dir, name, "", 0o755, (0, 0), b"")
    }

    /// Adds a regular file.
    pub fn file(self, name: &str, mode: u32, data: &[u8]) -> Self {
        self.entry(Kind::File, name, "", mode, (0, 0), data)
    }

    /// Adds a symbolic link.
    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(Kind::Symlink, name, target, 0o777, (0, 0), b"")
    }

    /// Adds a hard link to an executable: the entry carries its target's mode, which unpackers apply again.
    pub fn hardlink(self, name: &str, target: &str) -> Self {
        self.entry(Kind::Hardlink, name, target, 0o755, (0, 0), b"")
    }

    /// The archive with its end mark.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}

/// An image: layers bottom to top as raw tar archives, and the `config` part of its configuration.
#[derive(Debug, Clone)]
pub struct Image {
    /// Raw tar archives.
    pub layers: Vec<Vec<u8>>,
    /// `Env`, `Cmd`, `User` and so on.
    pub config: Value,
}

/// The blobs of an image with gzip layers, and its manifest.
#[derive(Debug, Clone)]
pub struct Blobs {
    /// Digest and bytes: the layers, the configuration, the manifest.
    pub blobs: Vec<(String, Vec<u8>)>,
    /// The OCI manifest's bytes.
    pub manifest: Vec<u8>,
    /// The configuration's bytes.
    pub config: Vec<u8>,
}

impl Image {
    /// Two layers: busybox with its links, and a file on top; runs a shell.
    pub fn busybox() -> Self {
        let busybox = std::fs::read(crate::needs::busybox()).expect("busybox");
        let mut base = Tar::new();
        for dir in ["bin/", "etc/", "proc/", "sys/", "dev/", "tmp/", "root/"] {
            base = base.dir(dir);
        }
        base = base.file("bin/busybox", 0o755, &busybox);
        for tool in [
            "sh", "true", "false", "cat", "echo", "ls", "id", "hostname", "sleep", "touch", "rm", "env",
            "grep", "mount", "stat", "kill", "ps", "wc", "head", "mkdir", "pwd", "dd", "nproc", "tty",
            "stty", "seq", "tail", "tr", "cut", "readlink", "uniq", "df", "mknod", "nc", "netstat",
        ] {
            base = base.hardlink(&format!("bin/{tool}"), "bin/busybox");
        }
        base = base.file(
            "etc/passwd",
            0o644,
            b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n",
        );
        base = base.file("etc/group", 0o644, b"root:x:0:\nuser:x:1000:\nstaff:x:50:user\n");
        let top = Tar::new().dir("etc/").file("etc/release", 0o644, b"corten test image\n");
        let config = json!({"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"], "WorkingDir": "/"});
        Self { layers: vec![base.finish(), top.finish()], config }
    }

    /// The configuration's bytes.
    fn configuration(&self) -> Vec<u8> {
        let diff_ids: Vec<_> = self.layers.iter().map(|layer| digest(layer)).collect();
        serde_json::to_vec(&json!({
            "created": "2001-09-09T01:46:40Z", "architecture": "amd64", "os": "linux", "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }))
        .expect("JSON")
    }

    /// Its blobs with gzip layers and an OCI manifest.
    pub fn blobs(&self) -> Blobs {
        let config = self.configuration();
        let layers: Vec<_> = self.layers.iter().map(|layer| gzip(layer)).collect();
        let describe = |kind: &str, bytes: &[u8]| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest(bytes), "size": bytes.len()});
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": describe("config.v1+json", &config),
            "layers": layers.iter().map(|layer| describe("layer.v1.tar+gzip", layer)).collect::<Vec<_>>(),
        }))
        .expect("JSON");
        let mut blobs: Vec<_> = layers.into_iter().map(|layer| (digest(&layer), layer)).collect();
        blobs.push((digest(&config), config.clone()));
        blobs.push((digest(&manifest), manifest.clone()));
        Blobs { blobs, manifest, config }
    }

    /// An OCI archive (a tar of an image layout) with this image under `name`.
    pub fn oci_archive(&self, name: &str) -> Vec<u8> {
        let Blobs { blobs, manifest, .. } = self.blobs();
        oci_layout(&blobs, &manifest, name)
    }

    /// A Docker archive (`docker save`) with this image under `name`.
    pub fn docker_archive(&self, name: &str) -> Vec<u8> {
        let config = self.configuration();
        let config_name = format!("{}.json", digest(&config).trim_start_matches("sha256:"));
        let mut tar = Tar::new().file(&config_name, 0o644, &config);
        let mut names = Vec::new();
        for layer in &self.layers {
            let name = format!("{}.tar", digest(layer).trim_start_matches("sha256:"));
            tar = tar.file(&name, 0o644, layer);
            names.push(name);
        }
        let manifest = json!([{"Config": config_name, "RepoTags": [name], "Layers": names}]);
        tar.file("manifest.json", 0o644, &serde_json::to_vec(&manifest).expect("JSON")).finish()
    }
}

/// A tar archive of an OCI layout with these blobs, in which this manifest has a name.
pub fn oci_layout(blobs: &[(String, Vec<u8>)], manifest: &[u8], name: &str) -> Vec<u8> {
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(manifest), "size": manifest.len(),
        "annotations": {"org.opencontainers.image.ref.name": name},
    }]});
    let mut tar = Tar::new()
        .file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)
        .file("index.json", 0o644, &serde_json::to_vec(&index).expect("JSON"))
        .dir("blobs/")
        .dir("blobs/sha256/");
    for (digest, bytes) in blobs {
        tar = tar.file(&format!("blobs/{}", digest.replace(':', "/")), 0o644, bytes);
    }
    tar.finish()
}
