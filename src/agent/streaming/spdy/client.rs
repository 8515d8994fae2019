//! The client's side, for tests.
use super::frame::{Control, HEADER, Header, data, ping};
use super::headers::{Deflater, Inflater};
use std::collections::BTreeMap;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A connection.
#[derive(Debug)]
pub(in super::super) struct Client<Io> {
    pub(in super::super) io: Io,
    deflater: Deflater,
    next: u32,
    /// What came on each stream, and whether it has ended.
    pub(in super::super) streams: BTreeMap<u32, (Vec<u8>, bool)>,
    pub(in super::super) resets: Vec<u32>,
    pub(in super::super) pongs: Vec<u32>,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Client<Io> {
    pub(in super::super) fn new(io: Io) -> Self {
        let deflater = Deflater::new().unwrap();
        Self { io, deflater, next: 1, streams: BTreeMap::new(), resets: Vec::new(), pongs: Vec::new() }
    }

    /// Opens a stream; its number.
    pub(in super::super) async fn open(&mut self, headers: &[(&str, &str)]) -> u32 {
        let stream = self.next;
        self.next += 2;
        let mut payload = stream.to_be_bytes().to_vec();
        payload.extend_from_slice(&[0; 6]);
        payload.extend_from_slice(&self.deflater.write(headers).unwrap());
        let mut frame = b"\x80\x03\0\x01".to_vec();
        frame.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(&payload);
        self.io.write_all(&frame).await.unwrap();
        stream
    }

    pub(in super::super) async fn send(&mut self, stream: u32, bytes: &[u8], fin: bool) {
        self.io.write_all(&data(stream, fin, bytes.len())).await.unwrap();
        self.io.write_all(bytes).await.unwrap();
    }

    pub(in super::super) async fn ping(&mut self, id: u32) {
        self.io.write_all(&ping(id)).await.unwrap();
    }

    pub(in super::super) async fn reset(&mut self, stream: u32) {
        self.io.write_all(&super::frame::reset(stream, super::frame::Status::Cancel)).await.unwrap();
    }

    /// Reads one frame; false at the end.
    pub(in super::super) async fn receive(&mut self) -> bool {
        let mut header = [0; HEADER];
        if self.io.read_exact(&mut header).await.is_err() {
            return false;
        }
        let header = Header::parse(header).unwrap();
        let (Header::Control { length, .. } | Header::Data { length, .. }) = header;
        let mut payload = vec![0; length];
        self.io.read_exact(&mut payload).await.unwrap();
        match header {
            Header::Data { stream, fin, .. } => {
                let (bytes, ended) = self.streams.entry(stream).or_default();
                assert!(!*ended, "bytes behind the end of stream {stream}");
                bytes.extend_from_slice(&payload);
                *ended = fin;
            }
            // Nothing that is compressed is read: a new window does.
            Header::Control { kind: 2, .. } => {}
            Header::Control { kind, flags, .. } => {
                match Control::parse(kind, flags, &payload, &mut Inflater::new()).unwrap() {
                    Control::Reset { stream } => self.resets.push(stream),
                    Control::Ping { id } => self.pongs.push(id),
                    _ => {}
                }
            }
        }
        true
    }

    /// Reads until a stream has ended; what came on it.
    pub(in super::super) async fn all_of(&mut self, stream: u32) -> Vec<u8> {
        while !self.streams.get(&stream).is_some_and(|(_, ended)| *ended) {
            assert!(self.receive().await, "the connection ended before stream {stream}");
        }
        self.streams[&stream].0.clone()
    }
}
