//! A tar writer: ustar headers (POSIX.1-2024 pax(1)), with a pax extended header where one field does not fit.
//!
//! What [`unpack::tar`](crate::image::unpack::tar) reads is what was written; the same entries always give the same
//! bytes.

use crate::image::unpack::tar::{Entry, Kind, Time};
use std::io::{self, Write};

const BLOCK: usize = 512;
/// The largest extended header that the reader takes.
pub const PAX_MAX: usize = 1 << 20;
/// The largest numbers of fields with 7 and 11 octal digits.
const OCTAL_7: u64 = 0o7_777_777;
const OCTAL_11: u64 = 0o77_777_777_777;

/// Writes entries one after the other.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    /// Bytes of the current file that are still to come.
    left: u64,
    /// Zeros that follow them.
    padding: usize,
}

impl<W: Write> Writer<W> {
    /// A stream that has nothing yet.
    pub fn new(out: W) -> Writer<W> {
        Writer { out, left: 0, padding: 0 }
    }

    /// Writes the header of an entry; a directory's path may end with a slash or not. `entry.size` bytes of data
    /// follow.
    ///
    /// # Errors
    /// InvalidInput where the entry cannot be written: an extended header above [`PAX_MAX`], an attribute whose name
    /// has a `=`, or data of the entry before that are missing. Those of writing.
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        if self.left > 0 {
            return Err(invalid("the data of the last entry are not complete"));
        }
        let mut path = entry.path.clone();
        if entry.kind == Kind::Directory && !path.ends_with(b"/") {
            path.push(b'/');
        }
        let (flag, target, device) = match &entry.kind {
            Kind::File => (b'0', &[][..], (0, 0)),
            Kind::HardLink { target } => (b'1', target.as_slice(), (0, 0)),
            Kind::Symlink { target } => (b'2', target.as_slice(), (0, 0)),
            Kind::CharDevice { major, minor } => (b'3', &[][..], (*major, *minor)),
            Kind::BlockDevice { major, minor } => (b'4', &[][..], (*major, *minor)),
            Kind::Directory => (b'5', &[][..], (0, 0)),
            Kind::Fifo => (b'6', &[][..], (0, 0)),
        };
        let records = records(entry, &path, target)?;
        if !records.is_empty() {
            let mut header = Header::new(b"././@PaxHeader", b'x');
            header.number(100, 8, 0o644).number(108, 8, 0).number(116, 8, 0);
            header.number(124, 12, records.len() as u64).number(136, 12, 0);
            self.out.write_all(&header.sum())?;
            self.out.write_all(&records)?;
            self.zeros(padding(records.len() as u64))?;
        }
        let size = if entry.kind == Kind::File { entry.size } else { 0 };
        let mut header = Header::new(&path, flag);
        header.text(157, 100, target);
        header.number(100, 8, u64::from(entry.mode & 0o7777));
        header.number(108, 8, entry.uid.into()).number(116, 8, entry.gid.into());
        header.number(124, 12, size).number(136, 12, u64::try_from(entry.mtime.seconds).unwrap_or(0));
        header.number(329, 8, device.0.into()).number(337, 8, device.1.into());
        self.out.write_all(&header.sum())?;
        self.left = size;
        self.padding = padding(size);
        Ok(())
    }

    /// Writes some of the data of the last file.
    ///
    /// # Errors
    /// InvalidInput beyond its size; those of writing.
    pub fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or_else(|| invalid("more data than the entry's size"))?;
        self.out.write_all(bytes)?;
        if self.left == 0 {
            let padding = std::mem::take(&mut self.padding);
            self.zeros(padding)?;
        }
        Ok(())
    }

    /// Bytes of the last file that are still to come.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Writes the end mark, and gives back what was written to.
    pub fn finish(mut self) -> io::Result<W> {
        if self.left > 0 {
            return Err(invalid("the data of the last entry are not complete"));
        }
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    fn zeros(&mut self, count: usize) -> io::Result<()> {
        self.out.write_all(&[0; BLOCK][..count])
    }
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}

/// Zeros up to the next block.
fn padding(size: u64) -> usize {
    // Below 512.
    usize::try_from(size.next_multiple_of(BLOCK as u64) - size).unwrap_or(0)
}

/// What the header cannot say, in the order of the keys.
fn records(entry: &Entry, path: &[u8], target: &[u8]) -> io::Result<Vec<u8>> {
    let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut add = |key: &str, value: Vec<u8>| records.push((key.as_bytes().to_vec(), value));
    if path.len() > 100 {
        add("path", path.to_vec());
    }
    if target.len() > 100 {
        add("linkpath", target.to_vec());
    }
    if entry.kind == Kind::File && entry.size > OCTAL_11 {
        add("size", entry.size.to_string().into_bytes());
    }
    for (key, id) in [("uid", entry.uid), ("gid", entry.gid)] {
        if u64::from(id) > OCTAL_7 {
            add(key, id.to_string().into_bytes());
        }
    }
    let Time { seconds, nanoseconds } = entry.mtime;
    if nanoseconds != 0 || u64::try_from(seconds).map_or(true, |seconds| seconds > OCTAL_11) {
        add("mtime", time(entry.mtime).into_bytes());
    }
    for (name, value) in &entry.xattrs {
        if name.contains(&b'=') {
            return Err(invalid("an attribute's name has a '='"));
        }
        records.push(([b"SCHILY.xattr.", name.as_slice()].concat(), value.clone()));
    }
    records.sort();
    let body: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
    if body.len() > PAX_MAX { Err(invalid("the extended header is too large")) } else { Ok(body) }
}

/// `LENGTH KEY=VALUE\n`; the length counts its own digits.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// `[-]SECONDS[.FRACTION]` without zeros at the end.
fn time(time: Time) -> String {
    let Time { seconds, nanoseconds } = time;
    // The nanoseconds count forward: -2 and 0.75 are -1.25.
    let (sign, seconds, nanoseconds) = match (seconds < 0, nanoseconds) {
        (false, _) => ("", seconds.unsigned_abs(), nanoseconds),
        (true, 0) => ("-", seconds.unsigned_abs(), 0),
        (true, _) => ("-", seconds.unsigned_abs() - 1, 1_000_000_000 - nanoseconds),
    };
    if nanoseconds == 0 {
        return format!("{sign}{seconds}");
    }
    let fraction = format!("{nanoseconds:09}");
    format!("{sign}{seconds}.{}", fraction.trim_end_matches('0'))
}

struct Header([u8; BLOCK]);

impl Header {
    fn new(name: &[u8], flag: u8) -> Header {
        let mut header = Header([0; BLOCK]);
        header.text(0, 100, name);
        header.0[156] = flag;
        header.0[257..265].copy_from_slice(b"ustar\x0000");
        header
    }

    /// As much of a text as fits; an extended header has the rest.
    fn text(&mut self, offset: usize, length: usize, text: &[u8]) -> &mut Header {
        let text = &text[..text.len().min(length)];
        self.0[offset..offset + text.len()].copy_from_slice(text);
        self
    }

    /// Octal digits and a NUL byte; zero for what only the extended header can say.
    fn number(&mut self, offset: usize, length: usize, number: u64) -> &mut Header {
        let most = if length == 8 { OCTAL_7 } else { OCTAL_11 };
        let number = if number > most { 0 } else { number };
        self.text(offset, length, format!("{number:0width$o}\0", width = length - 1).as_bytes())
    }

    fn sum(mut self) -> [u8; BLOCK] {
        self.0[148..156].fill(b' ');
        let sum: u64 = self.0.iter().map(|&byte| u64::from(byte)).sum();
        self.0[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::unpack::tar::{Event, Parser};
    use proptest::prelude::*;

    fn read(stream: &[u8]) -> Vec<(Entry, Vec<u8>)> {
        let mut parser = Parser::new();
        let mut input = stream;
        let mut found: Vec<(Entry, Vec<u8>)> = Vec::new();
        while let Some(event) = parser.next(&mut input).unwrap() {
            match event {
                Event::Entry(entry) => found.push((*entry, Vec::new())),
                Event::Data(data) => found.last_mut().unwrap().1.extend_from_slice(data),
                Event::EndOfFile => {}
            }
        }
        parser.finish().unwrap();
        found
    }

    fn write(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for (entry, data) in entries {
            writer.entry(entry).unwrap();
            writer.data(data).unwrap();
        }
        writer.finish().unwrap()
    }

    fn name(most: usize) -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(1_u8.., 1..most)
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        prop_oneof![
            3 => Just(Kind::File),
            2 => Just(Kind::Directory),
            1 => Just(Kind::Fifo),
            2 => name(300).prop_map(|target| Kind::Symlink { target }),
            1 => name(300).prop_map(|target| Kind::HardLink { target }),
            1 => (0..0x1000_u32, 0..0x10_0000_u32).prop_map(|(major, minor)| Kind::CharDevice { major, minor }),
            1 => (0..0x1000_u32, 0..0x10_0000_u32).prop_map(|(major, minor)| Kind::BlockDevice { major, minor }),
        ]
    }

    fn entries() -> impl Strategy<Value = (Entry, Vec<u8>)> {
        let ids = || prop_oneof![0..5_000_000_u32, Just(u32::MAX - 1)];
        let time = (any::<i32>(), prop_oneof![Just(0), 0..1_000_000_000_u32]);
        let attributes = proptest::collection::btree_map(
            "user\\.[a-z]{1,9}",
            proptest::collection::vec(any::<u8>(), 0..40),
            0..3,
        );
        let data = proptest::collection::vec(any::<u8>(), 0..1500);
        (name(300), kinds(), 0..0o10000_u32, ids(), ids(), time, attributes, data).prop_map(
            |(mut path, kind, mode, uid, gid, (seconds, nanoseconds), attributes, mut data)| {
                path.retain(|&byte| byte != b'/');
                path.push(b'x');
                if kind == Kind::Directory {
                    path.push(b'/');
                }
                if kind != Kind::File {
                    data.clear();
                }
                let xattrs = attributes.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect();
                let mtime = Time { seconds: seconds.into(), nanoseconds };
                let size = data.len() as u64;
                (Entry { path, kind, size, mode, uid, gid, mtime, xattrs }, data)
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_is_read(entries in proptest::collection::vec(entries(), 0..6)) {
            let stream = write(&entries);
            prop_assert_eq!(write(&entries), stream.as_slice());
            prop_assert_eq!(read(&stream), entries);
        }
    }

    #[test]
    fn a_large_size_stands_in_the_extended_header() {
        let entry = Entry {
            path: b"large".to_vec(),
            kind: Kind::File,
            size: 9 << 30,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            xattrs: Vec::new(),
        };
        let mut writer = Writer::new(Vec::new());
        writer.entry(&entry).unwrap();
        let mut parser = Parser::new();
        let mut input = writer.out.as_slice();
        assert_eq!(parser.next(&mut input).unwrap(), Some(Event::Entry(Box::new(entry))));
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        let mut entry = Entry {
            path: b"a".to_vec(),
            kind: Kind::File,
            size: 1,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            xattrs: vec![(b"user.a=b".to_vec(), Vec::new())],
        };
        let mut writer = Writer::new(Vec::new());
        assert!(writer.entry(&entry).is_err());
        entry.xattrs = vec![(b"user.a".to_vec(), vec![0; PAX_MAX])];
        assert!(writer.entry(&entry).is_err());
        entry.xattrs.clear();
        writer.entry(&entry).unwrap();
        assert!(writer.data(b"ab").is_err());
        assert!(writer.entry(&entry).is_err(), "data are missing");
        assert!(writer.finish().is_err());
    }

    #[test]
    fn times() {
        let text = |seconds, nanoseconds| time(Time { seconds, nanoseconds });
        assert_eq!(text(5, 0), "5");
        assert_eq!(text(5, 250_000_000), "5.25");
        assert_eq!(text(-2, 750_000_000), "-1.25");
        assert_eq!(text(-3, 0), "-3");
        assert_eq!(text(-1, 999_999_999), "-0.000000001");
    }
}
