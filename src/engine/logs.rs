//! The log of a container, in the format of CRI: `TIME stdout|stderr F|P TEXT`, one line for each line
//! that the container wrote. `P` is a part of a line that goes on in the next record of its stream.
//!
//! The time is always 30 bytes and the streams' names have six letters, so that the tag of a record is at
//! a fixed place: a reader can go backwards.
use super::attach::Output;
use super::error::EngineError;
use super::timestamp::Timestamp;
use crate::sys::SysError;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

/// Where the tag of a record is.
const TAG_AT: usize = 30 + 1 + 6 + 1;
/// Where its text begins.
const TEXT_AT: usize = TAG_AT + 2;
/// The writer keeps at most about this much before it calls write(2).
const WRITE_AT: usize = 16 * 1024;
/// No record of ours is longer; a longer one is cut by the reader.
const MAX_RECORD: u64 = 64 * 1024;

/// Appends records to a log. Nothing is kept between calls: a line without its end is written as a part
/// at once, so that no byte is lost when the writer is killed.
#[derive(Debug)]
pub struct Writer {
    file: File,
    /// A full disk must not stop the container: what could not be written is dropped and counted.
    dropped: u64,
    /// The last record was written in part, so that the next one must begin a new line.
    torn: bool,
}

impl Writer {
    /// Appends to `file`, opened with `O_APPEND`.
    pub fn new(file: File) -> Self {
        Self { file, dropped: 0, torn: false }
    }

    /// Appends to another file from now on.
    pub fn replace(&mut self, file: File) {
        self.file = file;
        self.torn = false;
    }

    /// Bytes of output that could not be written.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Appends what the container wrote now.
    pub fn append(&mut self, stream: Output, bytes: &[u8]) {
        self.append_at(Timestamp::now(), stream, bytes);
    }

    fn append_at(&mut self, time: Timestamp, stream: Output, bytes: &[u8]) {
        let stamp = time.to_string();
        let name: &[u8] = match stream {
            Output::Stdout => b" stdout ",
            Output::Stderr => b" stderr ",
        };
        let mut records = Vec::with_capacity(bytes.len().min(WRITE_AT) + 2 * TEXT_AT);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            records.extend_from_slice(stamp.as_bytes());
            records.extend_from_slice(name);
            if line.ends_with(b"\n") {
                records.extend_from_slice(b"F ");
                records.extend_from_slice(line);
            } else {
                records.extend_from_slice(b"P ");
                records.extend_from_slice(line);
                records.push(b'\n');
            }
            if records.len() >= WRITE_AT {
                self.write(&mut records);
            }
        }
        self.write(&mut records);
    }

    fn write(&mut self, records: &mut Vec<u8>) {
        if self.torn && !records.is_empty() {
            records.insert(0, b'\n');
        }
        let mut rest = records.as_slice();
        while !rest.is_empty() {
            match self.file.write(rest) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
                Ok(written) => {
                    // What was torn before is a line of its own as soon as one byte is written.
                    self.torn = rest[written - 1] != b'\n';
                    rest = &rest[written..];
                }
            }
        }
        self.dropped = self.dropped.saturating_add(u64::try_from(rest.len()).unwrap_or(u64::MAX));
        records.clear();
    }
}

/// One record.
#[derive(Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// When it was written, as in the file.
    pub time: &'a str,
    /// Which stream.
    pub stream: Output,
    /// Whether the line goes on in the next record of this stream.
    pub partial: bool,
    /// The text without the end of the line.
    pub text: &'a [u8],
}

/// Reads one line of the file, without its `\n`; `None` if it is damaged, as after a power loss.
pub fn parse(line: &[u8]) -> Option<Record<'_>> {
    let (head, text) = (line.get(..TEXT_AT)?, line.get(TEXT_AT..)?);
    let time = std::str::from_utf8(&head[..30]).ok()?;
    let stream = match &head[30..TAG_AT] {
        b" stdout " => Output::Stdout,
        b" stderr " => Output::Stderr,
        _ => return None,
    };
    let partial = match &head[TAG_AT..] {
        b"F " => false,
        b"P " => true,
        _ => return None,
    };
    Some(Record { time, stream, partial, text })
}

/// Which part of a log is wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Selection {
    /// Only this many lines from the end.
    pub tail: Option<u64>,
    /// Only records from this time on.
    pub since: Option<Timestamp>,
}

/// Reads a log from one place on, as it grows.
#[derive(Debug)]
pub struct Reader {
    file: BufReader<File>,
    since: Option<Timestamp>,
    /// A record whose end has not been written yet.
    unfinished: Vec<u8>,
}

impl Reader {
    /// Goes to where `selection` begins.
    pub fn new(mut file: File, selection: Selection) -> Result<Self, EngineError> {
        let start = match selection.tail {
            Some(lines) => tail_offset(&file, lines)?,
            None => 0,
        };
        file.seek(SeekFrom::Start(start)).map_err(SysError::io("lseek", "log"))?;
        Ok(Self {
            file: BufReader::with_capacity(32 * 1024, file),
            since: selection.since,
            unfinished: Vec::new(),
        })
    }

    /// Gives every record up to the present end to `sink`; `false` from it ends the reading.
    pub fn read(
        &mut self,
        mut sink: impl FnMut(&Record<'_>) -> Result<bool, EngineError>,
    ) -> Result<bool, EngineError> {
        loop {
            let room = MAX_RECORD.saturating_sub(u64::try_from(self.unfinished.len()).unwrap_or(MAX_RECORD));
            let got = (&mut self.file)
                .take(room.max(1))
                .read_until(b'\n', &mut self.unfinished)
                .map_err(SysError::io("read", "log"))?;
            if got == 0 {
                return Ok(true);
            }
            let whole = self.unfinished.ends_with(b"\n");
            if !whole && u64::try_from(self.unfinished.len()).unwrap_or(MAX_RECORD) < MAX_RECORD {
                continue;
            }
            let line =
                if whole { &self.unfinished[..self.unfinished.len() - 1] } else { &self.unfinished[..] };
            let wanted = parse(line).filter(|record| {
                self.since.is_none_or(|since| Timestamp::parse(record.time).is_none_or(|time| time >= since))
            });
            let go_on = wanted.map_or(Ok(true), |record| sink(&record))?;
            self.unfinished.clear();
            if !go_on {
                return Ok(false);
            }
        }
    }
}

/// Where the last `lines` lines begin: counted backwards by the ends of records whose tag is `F`.
fn tail_offset(file: &File, lines: u64) -> Result<u64, EngineError> {
    const BLOCK: u64 = 64 * 1024;
    let failed = || SysError::io("pread", "log");
    let end = file.metadata().map_err(SysError::io("fstat", "log"))?.len();
    if lines == 0 {
        return Ok(end);
    }
    let mut block = vec![0; usize::try_from(BLOCK).unwrap_or(0)];
    let (mut upper, mut begin_of_later, mut found) = (end, end, 0);
    // Every record from the last to the first; a record begins after a `\n` or at the file's begin.
    while upper > 0 {
        let lower = upper.saturating_sub(BLOCK);
        let part = &mut block[..usize::try_from(upper - lower).unwrap_or(0)];
        file.read_exact_at(part, lower).map_err(failed())?;
        let newlines = part.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
        let mut begins: Vec<u64> = newlines
            .map(|at| lower + u64::try_from(at).unwrap_or(0) + 1)
            .filter(|begin| *begin < end)
            .collect();
        if lower == 0 {
            begins.push(0);
        }
        for begin in begins {
            let mut tag = [0];
            let tag_at = begin + u64::try_from(TAG_AT).unwrap_or(0);
            let full = tag_at < end && {
                file.read_exact_at(&mut tag, tag_at).map_err(failed())?;
                tag[0] == b'F'
            };
            if full {
                if found == lines {
                    return Ok(begin_of_later);
                }
                found += 1;
            } else if found == 0 && begin_of_later == end {
                // An unfinished last line counts as a line.
                found = 1;
            }
            begin_of_later = begin;
        }
        upper = lower;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(writes: &[(Output, &[u8])]) -> File {
        let file = tempfile::tempfile().unwrap();
        let mut writer = Writer::new(file.try_clone().unwrap());
        for (at, (stream, bytes)) in writes.iter().enumerate() {
            let seconds = u64::try_from(at).unwrap();
            writer.append_at(Timestamp::from_unix(std::time::Duration::from_secs(seconds)), *stream, bytes);
        }
        assert_eq!(writer.dropped(), 0);
        file
    }

    fn read(file: File, selection: Selection) -> String {
        let mut reader = Reader::new(file, selection).unwrap();
        let mut text = Vec::new();
        let all = reader.read(|record| {
            text.extend_from_slice(record.text);
            if !record.partial {
                text.push(b'\n');
            }
            Ok(true)
        });
        assert!(all.unwrap());
        String::from_utf8(text).unwrap()
    }

    const LINES: [(Output, &[u8]); 4] = [
        (Output::Stdout, b"one\ntwo\nthr"),
        (Output::Stdout, b"ee\n"),
        (Output::Stderr, b"four\n"),
        (Output::Stdout, b"five"),
    ];

    #[test]
    fn format_is_cri() {
        let mut text = String::new();
        let mut file = log(&LINES[..1]);
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_string(&mut text).unwrap();
        let time = "1970-01-01T00:00:00.000000000Z";
        assert_eq!(text, format!("{time} stdout F one\n{time} stdout F two\n{time} stdout P thr\n"));
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(read(log(&LINES), Selection::default()), "one\ntwo\nthree\nfour\nfive");
    }

    #[test]
    fn tail_counts_lines_and_not_records() {
        for (lines, text) in [
            (0, ""),
            (1, "five"),
            (2, "four\nfive"),
            (3, "three\nfour\nfive"),
            (4, "two\nthree\nfour\nfive"),
            (9, "one\ntwo\nthree\nfour\nfive"),
        ] {
            assert_eq!(read(log(&LINES), Selection { tail: Some(lines), since: None }), text, "{lines}");
        }
        assert_eq!(read(log(&[]), Selection { tail: Some(2), since: None }), "");
        assert_eq!(read(log(&LINES[..2]), Selection { tail: Some(1), since: None }), "three\n");
    }

    #[test]
    fn tail_of_a_log_of_many_blocks() {
        let line = [b'x'; 1000].iter().chain(b"\n").copied().collect::<Vec<_>>();
        let many: Vec<(Output, &[u8])> = (0..300).map(|_| (Output::Stdout, line.as_slice())).collect();
        assert_eq!(read(log(&many), Selection { tail: Some(250), since: None }).lines().count(), 250);
    }

    #[test]
    fn since_leaves_out_what_is_older() {
        let since = Some(Timestamp::from_unix(std::time::Duration::from_secs(2)));
        assert_eq!(read(log(&LINES), Selection { tail: None, since }), "four\nfive");
    }

    #[test]
    fn damaged_records_are_passed_over() {
        let mut file = log(&LINES[..2]);
        file.write_all(b"\0\0\0\0garbage\nxx\n").unwrap();
        assert_eq!(read(file, Selection::default()), "one\ntwo\nthree\n");
    }
}
