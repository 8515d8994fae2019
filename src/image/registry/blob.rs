//! A blob as it arrives, put together again where the connection breaks.
use super::Client;
use super::error::{RegistryError, Subject};
use super::http::{Body, Request, Response};
use super::origin::Url;
use crate::image::digest::Digest;
use crate::image::manifest::Descriptor;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use ureq::http::header;

type Result<T> = std::result::Result<T, RegistryError>;

/// So many new bytes pay for another set of retries; without them a server that breaks off after each byte
/// would be asked for ever.
const PROGRESS: u64 = 1 << 20;

/// Reads a blob of known size; a broken connection is resumed where it broke.
///
/// ```text
///           open(0)                 read                    all bytes there
/// (start) ----------> streaming ----------> streaming -----------------------> done
///                        | broken                 ^
///                        v                        |
///                     closed -- wait, open(offset)+
///                        | no retry left
///                        v
///                      error
/// ```
pub struct BlobReader<'a> {
    client: &'a Client,
    subject: Arc<Subject>,
    /// Where it may be beside the registry; the first is asked, and dropped when it fails.
    elsewhere: VecDeque<String>,
    digest: Digest,
    /// A server that answers with another range is asked for the whole.
    ranges: bool,
    size: u64,
    offset: u64,
    body: Option<Body>,
    failures: u32,
    /// Where the last failure was.
    failed_at: u64,
}

impl fmt::Debug for BlobReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BlobReader { subject, size, offset, .. } = self;
        f.debug_struct("BlobReader")
            .field("subject", subject)
            .field("size", size)
            .field("offset", offset)
            .finish_non_exhaustive()
    }
}

impl<'a> BlobReader<'a> {
    pub(super) fn new(
        client: &'a Client,
        subject: Arc<Subject>,
        descriptor: &Descriptor,
        urls: &[String],
        offset: u64,
    ) -> BlobReader<'a> {
        BlobReader {
            client,
            subject,
            elsewhere: urls.iter().cloned().collect(),
            digest: descriptor.digest,
            ranges: true,
            size: descriptor.size,
            offset,
            body: None,
            failures: 0,
            failed_at: offset,
        }
    }

    /// Reads some of the next bytes; 0 is the end, which comes after exactly `size` bytes.
    ///
    /// # Errors
    /// [`RegistryError::Truncated`] and [`RegistryError::TooLong`] beside those of the connection.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            match self.step(buffer) {
                Err(error) if error.is_transient() => self.recover(error)?,
                result => return result,
            }
        }
    }

    fn step(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.offset == self.size && (self.body.is_none() || self.size == 0) {
            return Ok(0);
        }
        if self.body.is_none() {
            self.body = Some(self.open()?);
        }
        let Some(body) = &mut self.body else { return Ok(0) };
        let count = body.read(buffer)?;
        let left = self.size - self.offset;
        if count as u64 > left {
            return Err(RegistryError::TooLong { subject: self.subject.clone(), want: self.size });
        }
        self.offset += count as u64;
        if count == 0 {
            // At the end of a body the connection goes back to the pool.
            self.body = None;
            if left > 0 {
                return Err(self.truncated());
            }
        }
        Ok(count)
    }

    fn truncated(&self) -> RegistryError {
        RegistryError::Truncated { subject: self.subject.clone(), want: self.size, got: self.offset }
    }

    fn recover(&mut self, error: RegistryError) -> Result<()> {
        self.body = None;
        if self.offset == self.size {
            // All bytes were there before it broke.
            return Ok(());
        }
        if self.offset >= self.failed_at + PROGRESS {
            self.failures = 0;
        }
        self.failed_at = self.offset;
        self.failures += 1;
        if self.failures > self.client.patience().retries {
            // A reset or an early end in the middle is one thing to a user: the blob is not whole.
            return Err(match error {
                RegistryError::Broken { .. } if self.offset > 0 => self.truncated(),
                error => error,
            });
        }
        self.client.back_off(&error, self.failures)
    }

    /// Opens it where it is said to be, or at the registry.
    fn open(&mut self) -> Result<Body> {
        while let Some(url) = self.elsewhere.front() {
            let opened = self.open_elsewhere(url);
            match opened {
                Ok(body) => return Ok(body),
                Err(error @ RegistryError::Cancelled { .. }) => return Err(error),
                Err(error) => {
                    tracing::warn!("trying the next place: {}", crate::error::chain(&error));
                    self.elsewhere.pop_front();
                }
            }
        }
        self.client.origin(&self.subject)?;
        let url = self.client.url("blobs", &self.digest.to_string());
        let response = self.client.authorized(&self.request(url));
        match response {
            // Range Not Satisfiable, though it is.
            Err(RegistryError::Status { status: 416, .. }) if self.offset > 0 && self.ranges => {
                self.ranges = false;
                Err(self.truncated())
            }
            response => {
                let body = self.positioned(response?);
                // The next attempt asks for the whole.
                self.ranges &= !matches!(body, Err(RegistryError::Truncated { .. }));
                body
            }
        }
    }

    fn open_elsewhere(&self, url: &str) -> Result<Body> {
        let url =
            Url::parse(url).map_err(|source| RegistryError::Url { subject: self.subject.clone(), source })?;
        if !url.origin.is_encrypted() {
            return Err(RegistryError::Foreign { subject: self.subject.clone(), origin: url.origin });
        }
        let response = self.client.transport.send(&self.request(url), None)?;
        let response = self.client.check(&self.subject, response)?;
        self.positioned(response)
    }

    fn request(&self, url: Url) -> Request<'static> {
        let request = Request::get(self.subject.clone(), url);
        if self.offset > 0 && self.ranges {
            request.header(header::RANGE, format!("bytes={}-", self.offset))
        } else {
            request
        }
    }

    /// The body from where it is wanted on.
    fn positioned(&self, mut response: Response) -> Result<Body> {
        let wrong_size =
            |got| RegistryError::WrongSize { subject: self.subject.clone(), want: self.size, got };
        if response.status == 206 {
            let (start, total) = response
                .header(header::CONTENT_RANGE)
                .and_then(content_range)
                .ok_or_else(|| self.truncated())?;
            if let Some(total) = total.filter(|total| *total != self.size) {
                return Err(wrong_size(total));
            }
            if start != self.offset {
                return Err(self.truncated());
            }
            return Ok(response.body);
        }
        if let Some(length) = response.length().filter(|length| *length != self.size) {
            return Err(wrong_size(length));
        }
        // The server does not do ranges: what is here already comes again.
        let mut again = self.offset;
        let mut buffer = vec![0; 64 << 10];
        while again > 0 {
            let want = usize::try_from(again).unwrap_or(usize::MAX).min(buffer.len());
            let count = response.body.read(&mut buffer[..want])?;
            if count == 0 {
                return Err(self.truncated());
            }
            again -= count as u64;
        }
        Ok(response.body)
    }
}

/// `bytes 5-9/10` is `(5, Some(10))`.
fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.trim().parse().ok()?, total.trim().parse().ok()))
}
