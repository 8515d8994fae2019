//! A blob as it arrives, put together again where the connection breaks.
use super::Client;
use super::error::{RegistryError, Subject};
use super::http::{Body, Request};
use super::origin::Url;
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
    url: Url,
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
    pub(super) fn new(client: &'a Client, subject: Arc<Subject>, url: Url, size: u64) -> BlobReader<'a> {
        BlobReader { client, subject, url, size, offset: 0, body: None, failures: 0, failed_at: 0 }
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
        self.client.back_off(&self.subject, self.failures)
    }

    fn open(&self) -> Result<Body> {
        let request = Request {
            subject: self.subject.clone(),
            url: self.url.clone(),
            accept: None,
            from: (self.offset > 0).then_some(self.offset),
        };
        let mut response = self.client.authorized(&request)?;
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
