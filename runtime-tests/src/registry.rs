//! Registries for tests: one inside the test that may lie, and Debian's docker-registry.

use crate::image::{Blobs, digest};
use crate::{events, needs};
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::Value;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

/// Media type of an OCI image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// One request that a registry got.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Counts from 0.
    pub nth: usize,
    /// `GET` and so on.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
}

/// What follows the header of an answer.
#[derive(Debug, Clone)]
pub enum Body {
    /// These bytes, with their length announced.
    Whole(Vec<u8>),
    /// These bytes, with another length announced, and then the end of the connection.
    Cut(Vec<u8>, usize),
    /// Spaces without end and without a length.
    Endless,
    /// These bytes in place of an answer, and then the end of the connection.
    Raw(Vec<u8>),
    /// The same, and then a reset of the connection.
    Reset(Vec<u8>),
    /// The first bytes in place of an answer, and then the second ones without end.
    Flood(Vec<u8>, Vec<u8>),
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP's.
    pub status: u16,
    /// `Name: value`
    pub headers: Vec<String>,
    /// What follows.
    pub body: Body,
}

impl Answer {
    /// 200 with this content.
    pub fn new(media_type: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            status: 200,
            headers: vec![format!("Content-Type: {media_type}")],
            body: Body::Whole(bytes.into()),
        }
    }

    /// Another status, without content.
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Body::Whole(Vec::new()) }
    }

    /// What is no honest answer: a body that brings its own head.
    pub fn raw(body: Body) -> Self {
        Self { body, ..Self::status(0) }
    }

    /// The same with one more header.
    pub fn header(mut self, header: impl Into<String>) -> Self {
        self.headers.push(header.into());
        self
    }

    pub(crate) fn write(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        match &self.body {
            Body::Raw(bytes) => return stream.write_all(bytes),
            Body::Reset(bytes) => {
                stream.write_all(bytes)?;
                let linger = libc::linger { l_onoff: 1, l_linger: 0 };
                return Ok(setsockopt(stream, sockopt::Linger, &linger)?);
            }
            Body::Flood(head, piece) => {
                let pieces = piece.repeat((64 << 10) / piece.len());
                stream.write_all(head)?;
                loop {
                    stream.write_all(&pieces)?;
                }
            }
            Body::Whole(_) | Body::Cut(..) | Body::Endless => {}
        }
        let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", self.status);
        let length = match &self.body {
            Body::Whole(bytes) => Some(bytes.len()),
            Body::Cut(_, announced) => Some(*announced),
            _ => None,
        };
        head.extend(length.map(|length| format!("Content-Length: {length}\r\n")));
        head.extend(self.headers.iter().map(|header| format!("{header}\r\n")));
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        match &self.body {
            Body::Whole(bytes) | Body::Cut(bytes, _) => stream.write_all(bytes),
            _ => loop {
                stream.write_all(&[b' '; 64 << 10])?;
            },
        }
    }
}

/// Path to answer.
pub type Site = HashMap<String, Answer>;

/// An honest site with one image, under a tag and under its digests.
pub fn site(repository: &str, tag: &str, image: &Blobs) -> Site {
    let base = format!("/v2/{repository}");
    let mut site: Site = image
        .blobs
        .iter()
        .map(|(digest, bytes)| {
            (format!("{base}/blobs/{digest}"), Answer::new("application/octet-stream", bytes.clone()))
        })
        .collect();
    for name in [tag, &digest(&image.manifest)] {
        site.insert(format!("{base}/manifests/{name}"), Answer::new(MANIFEST, image.manifest.clone()));
    }
    site
}

/// The digest and the bytes of an image's n-th blob: its layers from the bottom, its configuration, its manifest.
pub fn blob_path(repository: &str, image: &Blobs, nth: usize) -> String {
    format!("/v2/{repository}/blobs/{}", image.blobs[nth].0)
}

/// An image whose manifest was edited; blobs stay as they are.
pub fn with_manifest(mut image: Blobs, edit: impl FnOnce(&mut Value)) -> Blobs {
    let mut manifest: Value = serde_json::from_slice(&image.manifest).expect("a manifest");
    edit(&mut manifest);
    image.manifest = serde_json::to_vec(&manifest).expect("JSON");
    image.blobs.pop();
    image.blobs.push((digest(&image.manifest), image.manifest.clone()));
    image
}

/// An image with another blob in place of its n-th layer; the configuration stays as it is.
pub fn with_layer(mut image: Blobs, nth: usize, blob: Vec<u8>) -> Blobs {
    let (name, size) = (digest(&blob), blob.len());
    image.blobs[nth] = (name.clone(), blob);
    with_manifest(image, |manifest| {
        manifest["layers"][nth]["digest"] = name.into();
        manifest["layers"][nth]["size"] = size.into();
    })
}

/// A registry in a thread of the test. It answers until the test's process ends.
#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    log: Arc<Mutex<Vec<Asked>>>,
}

impl Registry {
    /// Answers by `handler`.
    pub fn answering(handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
        let address = listener.local_addr().expect("own address");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (handler, seen) = (Arc::new(handler), log.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let (handler, seen) = (handler.clone(), seen.clone());
                std::thread::spawn(move || {
                    let Some(mut asked) = read_request(&stream) else { return };
                    let asked = {
                        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                        asked.nth = seen.len();
                        seen.push(asked.clone());
                        asked
                    };
                    // A client that has seen enough hangs up.
                    let _ = handler(&asked).write(&mut stream);
                });
            }
        });
        Self { address, log }
    }

    /// Serves a site; anything else is not found.
    pub fn serving(site: Site) -> Self {
        Self::answering(move |asked| site.get(&asked.path).cloned().unwrap_or_else(|| Answer::status(404)))
    }

    /// `host:port`
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it was asked until now.
    pub fn asked(&self) -> Vec<Asked> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn read_request(stream: &TcpStream) -> Option<Asked> {
    read_head(&mut BufReader::new(stream)).map(|(asked, _)| asked)
}

/// The head of a request, and its lines as they are.
pub(crate) fn read_head(reader: &mut impl BufRead) -> Option<(Asked, Vec<String>)> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut words = lines.first()?.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let headers = lines[1..]
        .iter()
        .filter_map(|line| {
            line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        })
        .collect();
    Some((Asked { nth: 0, method, path, headers }, lines))
}

/// Debian's docker-registry on a port of its own; it ends with this value.
#[derive(Debug)]
pub struct DockerRegistry {
    child: Child,
    address: SocketAddr,
}

impl DockerRegistry {
    /// Serves what is under `dir`, which is made.
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, "", "")
    }

    /// The same over TLS, with this certificate and key.
    pub fn start_tls(dir: &Path, certificate: &Path, key: &Path) -> Self {
        let tls = format!(", tls: {{certificate: {}, key: {}}}", certificate.display(), key.display());
        Self::start_with(dir, &tls, "")
    }

    /// The same with more in the section `http` of its configuration, and with more sections.
    pub fn start_with(dir: &Path, http: &str, sections: &str) -> Self {
        let program = needs::program("docker-registry", "docker-registry");
        std::fs::create_dir_all(dir).expect("directory of the registry");
        let config = dir.join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}/data}}}}\n\
             http: {{addr: \"127.0.0.1:0\"{http}}}\n{sections}\n",
            dir.display()
        );
        std::fs::write(&config, text).expect("configuration of the registry");
        let mut child = Command::new(&program)
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start docker-registry");
        let mut lines = events::Lines::new(child.stderr.take().expect("its standard error"));
        // msg="listening on 127.0.0.1:40123, tls"
        let line = lines.until("listening on ");
        let rest = line.split_once("listening on ").expect("what was waited for").1;
        let address = rest.split(['"', ',']).next().expect("a first part").trim();
        let address = address.parse().unwrap_or_else(|error| panic!("{line}: {error}"));
        // It logs each request; a full pipe would stop it.
        std::thread::spawn(move || lines.drain());
        Self { child, address }
    }

    /// `host:port`
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
