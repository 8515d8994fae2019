//! Sending blobs and manifests (distribution-spec 1.1, "Push").
//!
//! ```text
//!             HEAD: there                      201: mounted from another repository
//! (start) ------------------> present   POST ---------------------------------------> mounted
//!    |                                   ^ |
//!    | HEAD: not there                   | | 202 Location
//!    +-----------------------------------+ v
//!                                       PUT whole blob --- 201 ---------------------> sent
//!                                          | broke off, or too large at once
//!                                          v
//!                  ask how far it came, or POST again; PATCH chunk by chunk; PUT ---> sent
//! ```
use super::error::{Object, RegistryError};
use super::http::{Part, Request, Response, Source};
use super::origin::Url;
use super::{Client, Result};
use crate::image::digest::Digest;
use crate::image::manifest::Descriptor;
use ureq::http::{Method, header};

/// Bytes of a chunk of a blob that did not get through whole.
const CHUNK: u64 = 32 << 20;
const EMPTY: &[u8] = &[];

/// How a blob came to be in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uploaded {
    /// It was there.
    Present,
    /// The registry took it from another repository of its own.
    Mounted,
    /// Its bytes were sent.
    Sent,
}

/// An upload that the registry has begun to take.
struct Session {
    url: Url,
    /// So many bytes are there.
    offset: u64,
    /// The registry takes no shorter chunk but the last (`OCI-Chunk-Min-Length`).
    least: u64,
}

impl Client {
    /// Whether the repository has a blob.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool> {
        let subject = self.subject(Object::PushedBlob(*digest));
        self.origin(&subject)?;
        let url = self.url("blobs", &digest.to_string());
        match self.persistent(&Request::new(Method::HEAD, subject, url)) {
            Ok(_) => Ok(true),
            Err(RegistryError::NotFound { .. } | RegistryError::NameUnknown { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes a blob present in the repository.
    ///
    /// `from` are repositories of the same registry that are known to have it, which the registry is asked to
    /// take it from; `source` gives its bytes otherwise, and gives them again where a connection broke. `sent`
    /// is told of each piece that goes out, twice of one that is sent twice.
    ///
    /// # Errors
    /// [`RegistryError::Source`] if the source cannot be read, or has fewer bytes than the descriptor says.
    pub fn upload_blob(
        &self,
        blob: &Descriptor,
        from: &[&str],
        source: &dyn Source,
        sent: &(dyn Fn(u64) + Sync),
    ) -> Result<Uploaded> {
        if self.has_blob(&blob.digest)? {
            return Ok(Uploaded::Present);
        }
        let mut session = None;
        for repository in from.iter().filter(|name| **name != self.endpoint.repository) {
            match self.begin(&blob.digest, Some(repository))? {
                None => return Ok(Uploaded::Mounted),
                // Most registries have begun an upload instead.
                begun => session = begun,
            }
        }
        self.send(blob, source, sent, session)?;
        Ok(Uploaded::Sent)
    }

    /// Puts a manifest or an index under a tag or its own digest; all that it refers to is there.
    ///
    /// # Errors
    /// [`RegistryError::WrongDigest`] if the registry says that it took something else.
    pub fn put_manifest(&self, name: &str, media_type: &str, bytes: &[u8]) -> Result<Digest> {
        let subject = self.subject(Object::PushedManifest);
        self.origin(&subject)?;
        let mut request = Request::new(Method::PUT, subject.clone(), self.url("manifests", name))
            .header(header::CONTENT_TYPE, media_type);
        let length = bytes.len() as u64;
        request.body = Some(Part { source: &bytes, from: 0, length, sent: &|_| {} });
        let response = self.persistent(&request)?;
        let want = Digest::of(bytes);
        let announced = response.header("docker-content-digest").and_then(|text| text.parse().ok());
        match announced.filter(|got| *got != want) {
            Some(got) => Err(RegistryError::WrongDigest { subject, want, got }),
            None => Ok(want),
        }
    }

    /// Starts an upload; nothing if the registry took the blob from `mount` instead.
    fn begin(&self, digest: &Digest, mount: Option<&str>) -> Result<Option<Session>> {
        let subject = self.subject(Object::PushedBlob(*digest));
        self.origin(&subject)?;
        let mut url = self.url("blobs", "uploads/");
        if let Some(from) = mount {
            url = url.with_query(&[("mount", &digest.to_string()), ("from", from)]);
        }
        let response = self.persistent(&Request::new(Method::POST, subject, url.clone()))?;
        if mount.is_some() && response.status == 201 {
            return Ok(None);
        }
        self.session(digest, &url, &response, 0).map(Some)
    }

    /// What an answer to a part of an upload says about how to go on.
    fn session(&self, digest: &Digest, asked: &Url, response: &Response, offset: u64) -> Result<Session> {
        let subject = self.subject(Object::PushedBlob(*digest));
        let wrong = |what| RegistryError::Upload { subject: subject.clone(), what };
        let location = response.header(header::LOCATION).ok_or_else(|| wrong("there is no Location"))?;
        let url =
            asked.join(location).map_err(|source| RegistryError::Url { subject: subject.clone(), source })?;
        // The content of a private image goes where the image's name says, or to where that leads encrypted.
        let origin = self.origin(&subject)?;
        if !self.may_be_told(&origin, &url.origin) {
            return Err(RegistryError::Downgrade { subject, from: origin, to: url.origin });
        }
        let least = response.header("oci-chunk-min-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        Ok(Session { url, offset, least })
    }

    fn send(
        &self,
        blob: &Descriptor,
        source: &dyn Source,
        sent: &(dyn Fn(u64) + Sync),
        session: Option<Session>,
    ) -> Result<()> {
        let mut failures = 0;
        let mut furthest = 0;
        let mut session = session;
        loop {
            let current = match session.take() {
                Some(session) => session,
                None => self.begin_upload(&blob.digest)?,
            };
            let mut at = Progress { url: current.url.clone(), offset: current.offset };
            // The first attempt is the quick one: not every registry takes chunks.
            let result = if failures == 0 {
                self.put(blob, &current, source, sent)
            } else {
                self.chunks(blob, current, source, sent, &mut at)
            };
            let error = match result {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if at.offset > furthest {
                (furthest, failures) = (at.offset, 1);
            } else {
                failures += 1;
            }
            let too_large = matches!(error, RegistryError::Status { status: 413, .. }) && failures == 1;
            if !(error.is_transient() || too_large) || failures > self.patience().retries {
                return Err(error);
            }
            self.back_off(&error, failures)?;
            session = self.resumed(blob, &at);
        }
    }

    fn begin_upload(&self, digest: &Digest) -> Result<Session> {
        let subject = self.subject(Object::PushedBlob(*digest));
        let what = "it took a blob that it was not given";
        self.begin(digest, None)?.ok_or(RegistryError::Upload { subject, what })
    }

    /// Sends the whole rest at once.
    fn put(
        &self,
        blob: &Descriptor,
        session: &Session,
        source: &dyn Source,
        sent: &(dyn Fn(u64) + Sync),
    ) -> Result<()> {
        let subject = self.subject(Object::PushedBlob(blob.digest));
        let url = session.url.clone().with_query(&[("digest", &blob.digest.to_string())]);
        let mut request =
            Request::new(Method::PUT, subject, url).header(header::CONTENT_TYPE, "application/octet-stream");
        let length = blob.size - session.offset;
        request.body = Some(Part { source, from: session.offset, length, sent });
        self.authorized(&request).map(drop)
    }

    fn chunks(
        &self,
        blob: &Descriptor,
        mut session: Session,
        source: &dyn Source,
        sent: &(dyn Fn(u64) + Sync),
        at: &mut Progress,
    ) -> Result<()> {
        let subject = self.subject(Object::PushedBlob(blob.digest));
        while session.offset < blob.size {
            let length = CHUNK.max(session.least).min(blob.size - session.offset);
            let end = session.offset + length;
            let mut request = Request::new(Method::PATCH, subject.clone(), session.url.clone())
                .header(header::CONTENT_TYPE, "application/octet-stream")
                .header(header::CONTENT_RANGE, format!("{}-{}", session.offset, end - 1));
            request.body = Some(Part { source, from: session.offset, length, sent });
            let response = self.authorized(&request)?;
            session = self.session(&blob.digest, &request.url, &response, end)?;
            *at = Progress { url: session.url.clone(), offset: end };
        }
        let whole: &dyn Source = &EMPTY;
        self.put(blob, &session, whole, &|_| {})
    }

    /// Where an upload that broke can go on, if the registry says so.
    fn resumed(&self, blob: &Descriptor, at: &Progress) -> Option<Session> {
        let subject = self.subject(Object::PushedBlob(blob.digest));
        let request = Request::get(subject, at.url.clone());
        let response = self.authorized(&request).ok()?;
        // `0-99` is a hundred bytes, and `0-0` is none of them or one: then it is begun again.
        let (_, last) = response.header(header::RANGE)?.trim_start_matches("bytes=").split_once('-')?;
        let last: u64 = last.parse().ok().filter(|last| (1..blob.size).contains(last))?;
        self.session(&blob.digest, &at.url, &response, last + 1).ok()
    }

    /// Sends a request again while it fails in passing.
    pub(super) fn persistent(&self, request: &Request<'_>) -> Result<Response> {
        let mut failures = 0;
        loop {
            match self.authorized(request) {
                Err(error) if error.is_transient() && failures < self.patience().retries => {
                    failures += 1;
                    self.back_off(&error, failures)?;
                }
                result => return result,
            }
        }
    }
}

/// How far an upload came before it broke.
struct Progress {
    url: Url,
    offset: u64,
}
