//! Tar streams as corten reads them, compared with Python's tarfile and GNU tar: the same entries, or refused by corten.
//!
//! A stream that two readers take for different things smuggles entries past whoever looked first (CVE-2025-62518,
//! RUSTSEC-2026-0068). The streams are those of the corpus, and some thousand that differ from one in a few bytes.

use crate::store::Store;
use corten::image::unpack::tar::{Entry, Event, Kind, Parser};
use runtime_tests::corpus::{self, Media};
use runtime_tests::image::Tar;
use runtime_tests::needs;
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// The entries of a stream, or none if corten refuses it.
fn by_corten(mut stream: &[u8]) -> Option<Vec<Entry>> {
    let (mut parser, mut entries) = (Parser::new(), Vec::new());
    loop {
        match parser.next(&mut stream) {
            Ok(Some(Event::Entry(entry))) => entries.push(*entry),
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(_) => return None,
        }
    }
    parser.finish().ok()?;
    Some(entries)
}

/// One character for each byte.
fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn letter(kind: &Kind) -> char {
    match kind {
        Kind::File => 'f',
        Kind::HardLink { .. } => 'h',
        Kind::Symlink { .. } => 'l',
        Kind::CharDevice { .. } => 'c',
        Kind::BlockDevice { .. } => 'b',
        Kind::Directory => 'd',
        Kind::Fifo => 'p',
    }
}

/// What tells entries apart, as `tar_entries.py` writes it.
fn as_python(entry: &Entry) -> Value {
    let target = match &entry.kind {
        Kind::HardLink { target } | Kind::Symlink { target } => text(target),
        _ => String::new(),
    };
    let device = match entry.kind {
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => json!([major, minor]),
        _ => Value::Null,
    };
    // tarfile keeps times as floating-point numbers, and no slash at the end of a name.
    let mtime = (entry.mtime.seconds.unsigned_abs() < 1 << 53).then_some(entry.mtime.seconds);
    json!({
        "kind": letter(&entry.kind), "path": text(&entry.path).trim_end_matches('/'), "target": target,
        "size": entry.size, "mode": entry.mode, "uid": entry.uid, "gid": entry.gid, "mtime": mtime, "device": device,
    })
}

/// Python's lists of all streams: null where it refuses one.
fn by_python(streams: &[(String, Vec<u8>)]) -> Vec<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/tar_entries.py");
    let mut python = Command::new(needs::packaged("/usr/bin/python3", "python3"))
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = python.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            for (_, stream) in streams {
                input.write_all(&(stream.len() as u64).to_le_bytes()).unwrap();
                input.write_all(stream).unwrap();
            }
        });
        python.wait_with_output().unwrap()
    });
    assert!(output.status.success());
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// `--quoting-style=escape` in the locale C.
fn escaped(bytes: &[u8]) -> String {
    let mut shown = String::new();
    for &byte in bytes {
        match byte {
            b'\\' => shown += "\\\\",
            7 => shown += "\\a",
            8 => shown += "\\b",
            9 => shown += "\\t",
            10 => shown += "\\n",
            11 => shown += "\\v",
            12 => shown += "\\f",
            13 => shown += "\\r",
            0x20..=0x7e => shown.push(char::from(byte)),
            other => shown += &format!("\\{other:03o}"),
        }
    }
    shown
}

/// Where others are known to read something else, which is no fault of corten's.
fn explained(stream: &[u8], entries: &[Entry]) -> bool {
    // tar puts a dot in the place of a hard link's empty target; corten refuses such an entry when it makes the tree.
    let empty =
        entries.iter().any(|entry| matches!(&entry.kind, Kind::HardLink { target } if target.is_empty()));
    // tarfile takes what GNU has in the place of ustar's prefix for a prefix (CPython's `TarInfo.frombuf`).
    let prefix = stream.chunks(512).any(|block| {
        block.len() == 512
            && block[345..500].iter().any(|byte| *byte != 0)
            && block[257..265] != *b"ustar\x0000"
    });
    empty || prefix
}

/// tarfile's times are floating-point numbers, which are rounded to the next second too.
fn with_times_of(python: &Value, ours: &Value) -> Value {
    let mut python = python.clone();
    for (theirs, ours) in
        python.as_array_mut().into_iter().flatten().zip(ours.as_array().into_iter().flatten())
    {
        if let (Some(left), Some(right)) = (theirs["mtime"].as_i64(), ours["mtime"].as_i64())
            && left.abs_diff(right) <= 1
        {
            theirs["mtime"] = ours["mtime"].clone();
        }
    }
    python
}

/// What differs between an entry and the line that GNU tar lists it by.
fn differs_from_tar(entry: &Entry, line: &str) -> bool {
    let letter = match letter(&entry.kind) {
        'f' => '-',
        other => other,
    };
    let path = escaped(&entry.path);
    let tail = match &entry.kind {
        Kind::Symlink { target } => format!(" {path} -> {}", escaped(target)),
        Kind::HardLink { target } => format!(" {path} link to {}", escaped(target)),
        Kind::Directory => format!(" {}", path.trim_end_matches('/')),
        _ => format!(" {path}"),
    };
    let line = if entry.kind == Kind::Directory { line.trim_end_matches('/') } else { line };
    let mut fields = line.split_whitespace();
    // A contiguous file is a file.
    let permissions = fields.next().unwrap_or_default().replacen('C', "-", 1);
    let owner = fields.next().unwrap_or_default();
    let size = fields.next().unwrap_or_default();
    let size_differs = match entry.kind {
        Kind::File => size != entry.size.to_string(),
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            size != format!("{major},{minor}")
        }
        _ => false,
    };
    !permissions.starts_with(letter)
        || owner != format!("{}/{}", entry.uid, entry.gid)
        || size_differs
        || !line.ends_with(&tail)
}

/// What GNU tar says of a stream that corten reads as `entries`; nothing if it says the same.
fn against_tar(store: &Store, stream: &[u8], entries: &[Entry]) -> Option<String> {
    let archive = store.file("archive.tar", stream);
    let output = Command::new("/usr/bin/tar")
        .args([
            "--list",
            "--verbose",
            "--numeric-owner",
            "--full-time",
            "--quoting-style=escape",
            "--absolute-names",
            "-f",
            &archive,
        ])
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = stdout.lines().collect();
    let same = lines.len() == entries.len()
        && entries.iter().zip(&lines).all(|(entry, line)| !differs_from_tar(entry, line));
    (!same).then(|| format!("{stdout}{}", String::from_utf8_lossy(&output.stderr)))
}

/// Streams that are nearly one of the corpus: one byte of a header is another, and its sum is right again.
fn mutated(streams: &[(String, Vec<u8>)]) -> Vec<(String, Vec<u8>)> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |end: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 16).expect("48 bits") % end
    };
    let mut made = Vec::new();
    for (name, stream) in streams.iter().filter(|(_, stream)| (1024..8192).contains(&stream.len())) {
        for _ in 0..4 {
            let mut changed = stream.clone();
            let header = next(stream.len() / 512) * 512;
            for _ in 0..=next(2) {
                let at = header + next(512);
                changed[at] = *[0, b' ', b'0', b'7', b'8', b'/', b'.', b'\n', 0x80, 0xff, changed[at] ^ 1]
                    .get(next(11))
                    .expect("one of them");
            }
            // Where it was no header it is data that is nearly one.
            let block = &mut changed[header..header + 512];
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            made.push((format!("{name}, changed"), changed));
        }
    }
    made
}

#[test]
fn what_corten_accepts_others_read_as_the_same() {
    let mut streams: Vec<(String, Vec<u8>)> = corpus::all("/outside")
        .into_iter()
        .filter(|case| case.media == Media::Plain && case.blob.len() < 4 << 20)
        .map(|case| (case.name(), case.blob))
        .collect();
    let one_of_each = Tar::new()
        .dir("d/")
        .file("d/f", 0o644, b"content")
        .hardlink("d/h", "d/f")
        .symlink("l", "d")
        .node(b'6', "p");
    streams.push(("one of each".to_owned(), one_of_each.finish()));
    let more = mutated(&streams);
    streams.extend(more);
    let python = by_python(&streams);
    assert_eq!(python.len(), streams.len());
    let (mut accepted, mut failures) = (0, Vec::new());
    let store = Store::new();
    for ((name, stream), python) in streams.iter().zip(&python) {
        let Some(entries) = by_corten(stream) else { continue };
        accepted += 1;
        let ours = Value::Array(entries.iter().map(as_python).collect());
        if explained(stream, &entries) {
            continue;
        }
        if ours != with_times_of(python, &ours) {
            let bytes = stream.escape_ascii().to_string().replace("\\x00", "");
            failures.push(format!("{name}: corten reads {ours}\n  Python reads {python}\n  of {bytes}"));
        }
        if let Some(theirs) = against_tar(&store, stream, &entries) {
            failures.push(format!("{name}: corten reads {ours}\n  tar lists {theirs}"));
        }
    }
    println!("{} streams, {accepted} accepted", streams.len());
    assert!(accepted > 200, "{accepted} accepted");
    assert!(failures.is_empty(), "{} differences:\n{}", failures.len(), failures.join("\n"));
}
