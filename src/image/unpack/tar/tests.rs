use super::super::testing::{Header as Raw, Tar, record};
use super::*;

/// Entries with their data.
fn read(stream: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>> {
    read_in_steps(stream, stream.len().max(1))
}

fn read_in_steps(stream: &[u8], step: usize) -> Result<Vec<(Entry, Vec<u8>)>> {
    let mut parser = Parser::new();
    let mut entries: Vec<(Entry, Vec<u8>)> = Vec::new();
    let mut ended = 0;
    for chunk in stream.chunks(step) {
        let mut input = chunk;
        while let Some(event) = parser.next(&mut input)? {
            match event {
                Event::Entry(entry) => entries.push((*entry, Vec::new())),
                Event::Data(data) => entries.last_mut().unwrap().1.extend_from_slice(data),
                Event::EndOfFile => ended += 1,
            }
        }
        assert!(input.is_empty());
    }
    parser.finish()?;
    assert_eq!(entries.iter().filter(|(entry, _)| entry.kind == Kind::File).count(), ended);
    Ok(entries)
}

fn one(tar: Tar) -> Result<Entry> {
    let entries = read(&tar.end())?;
    assert_eq!(entries.len(), 1);
    Ok(entries.into_iter().next().unwrap().0)
}

fn paths(tar: Tar) -> Vec<String> {
    read(&tar.end()).unwrap().into_iter().map(|(entry, _)| show(&entry.path)).collect()
}

#[test]
fn the_same_entries_whatever_the_input_is_cut_into() {
    let long = "d/".repeat(80) + "file";
    let stream = Tar::new()
        .dir("a/")
        .file("a/empty", b"")
        .file("a/small", b"hello")
        .file("a/block", [7; 512])
        .pax(b'x', &[("path", long.as_bytes()), ("mtime", b"12.5")])
        .file("short", [1; 700])
        .symlink("l", "../t")
        .end();
    let whole = read(&stream).unwrap();
    assert_eq!(whole.len(), 6);
    assert_eq!(whole[4].0.path, long.as_bytes());
    assert_eq!(whole[4].0.mtime, Time { seconds: 12, nanoseconds: 500_000_000 });
    assert_eq!(whole[4].1, [1; 700]);
    for step in [1, 3, 511, 512, 513, 1000] {
        assert_eq!(read_in_steps(&stream, step).unwrap(), whole);
    }
}

#[test]
fn row_40_truncated_at_every_byte() {
    let stream = Tar::new()
        .pax(b'x', &[("path", b"a")])
        .file("short", b"data")
        .extension(b'L', b"long\0")
        .file("b", b"")
        .dir("c")
        .end();
    assert!(read(&stream).is_ok());
    for length in 0..stream.len() {
        assert_eq!(read(&stream[..length]), Err(TarError::Truncated), "{length}");
    }
}

#[test]
fn row_40_after_the_end_only_zeros() {
    let mut stream = Tar::new().file("a", b"x").end();
    stream.extend_from_slice(&[0; 10_000]);
    assert!(read(&stream).is_ok());
    stream.push(1);
    assert_eq!(read(&stream), Err(TarError::TrailingData));
    let again = [Tar::new().file("a", b"x").end(), Tar::new().file("b", b"y").end()].concat();
    assert_eq!(read(&again), Err(TarError::TrailingData));
    let mut lone = Tar::new().file("a", b"x");
    lone.0.extend_from_slice(&[0; 512]);
    assert_eq!(read(&lone.file("b", b"").end()), Err(TarError::LoneZeroBlock { at: 1024 }));
    assert_eq!(read(b""), Err(TarError::Truncated));
}

#[test]
fn checksums_and_formats() {
    let good = Tar::new().file("a", b"").end();
    for at in 0..512 {
        let mut bad = good.clone();
        bad[at] ^= 0x41;
        assert!(read(&bad).is_err(), "byte {at}");
    }
    // The sum of signed bytes, as SunOS wrote it.
    let mut signed = Raw::new(b'0', b"\xff\xfe", 0).sum();
    let sum: i64 = (0..512)
        .map(|at| if (148..156).contains(&at) { 32 } else { i64::from(signed[at].cast_signed()) })
        .sum();
    signed[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert!(read(&[&signed[..], &[0; 1024]].concat()).is_ok());

    let mut star = Raw::new(b'0', b"a", 0);
    star.put(508, b"tar\0");
    assert!(matches!(one(Tar::new().raw(star, b"")), Err(TarError::Format { at: 0 })));
    let mut odd = Raw::new(b'0', b"a", 0);
    odd.put(257, b"ustar\x0011");
    assert!(matches!(one(Tar::new().raw(odd, b"")), Err(TarError::Format { at: 0 })));
}

#[test]
fn names_of_each_format() {
    let mut ustar = Raw::new(b'0', b"file", 0);
    ustar.put(345, b"some/dir");
    assert_eq!(paths(Tar::new().raw(ustar, b"")), ["some/dir/file"]);
    let mut gnu = Raw::new(b'0', b"file", 0);
    gnu.put(257, b"ustar  \0").put(345, b"00000000000");
    assert_eq!(paths(Tar::new().raw(gnu, b"")), ["file"]);
    let mut old = Raw::new(0, b"dir/", 0);
    old.put(257, &[0; 8]);
    assert_eq!(one(Tar::new().raw(old, b"")).unwrap().kind, Kind::Directory);
    let full = [b'n'; 100];
    assert_eq!(one(Tar::new().file(full, b"")).unwrap().path, full);
    assert_eq!(one(Tar::new().extension(b'L', b"long name\0").file("x", b"")).unwrap().path, b"long name");
    let link = one(Tar::new().extension(b'K', b"long target\0").symlink("x", "y")).unwrap();
    assert_eq!(link.kind, Kind::Symlink { target: b"long target".to_vec() });
    let both = Tar::new().extension(b'K', b"t\0").extension(b'L', b"n\0").hard_link("x", "y");
    assert_eq!(one(both).unwrap().path, b"n");
}

#[test]
fn row_27_sizes() {
    let sized = |bytes: &[u8]| {
        let mut header = Raw::new(b'0', b"a", 0);
        header.put(124, bytes);
        let mut stream = header.sum().to_vec();
        stream.extend_from_slice(&[0; 1024]);
        read(&stream)
    };
    let invalid = |result: Result<_>| matches!(result, Err(TarError::Field { field: "size", .. }));
    assert!(sized(b"00000000000\0").is_ok());
    assert!(sized(b"           \0").is_ok());
    // 8 EiB, all of 64 bits, beyond 64 bits, negative.
    assert!(invalid(sized(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff")));
    assert!(invalid(sized(b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff")));
    assert!(invalid(sized(b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")));
    assert!(invalid(sized(&[0xff; 12])));
    for junk in [b"0000000000x\0", b"-0000000001\0", b"8\0\0\0\0\0\0\0\0\0\0\0", b"1 1\0\0\0\0\0\0\0\0\0"] {
        assert!(invalid(sized(junk)), "{junk:?}");
    }
    let mut binary = Raw::new(b'0', b"a", 0);
    binary.put(124, b"\x80\0\0\0\0\0\0\0\0\0\0\x03");
    assert_eq!(read(&Tar::new().raw(binary, b"abc").end()).unwrap()[0].1, b"abc");
}

#[test]
fn row_27_only_files_have_data() {
    for kind in *b"123456" {
        let mut header = Raw::new(kind, b"a", 3);
        header.link(b"t");
        let result = one(Tar::new().raw(header, b"abc"));
        assert!(matches!(result, Err(TarError::UnexpectedData { size: 3, .. })), "{kind}: {result:?}");
    }
    assert!(one(Tar::new().file("a/", b"")).is_err());
}

#[test]
fn row_28_pax_size_is_honoured_and_never_contradicts() {
    let sized = |pax: &[u8], header: u64, data: &[u8]| {
        read(&Tar::new().pax(b'x', &[("size", pax)]).raw(Raw::new(b'0', b"a", header), data).end())
    };
    assert_eq!(sized(b"3", 3, b"abc").unwrap()[0].1, b"abc");
    for (pax, header) in [(&b"3"[..], 0), (b"0", 3), (b"1024", 512), (b"512", 1024)] {
        let result = sized(pax, header, &[b'x'; 1024]);
        assert!(matches!(result, Err(TarError::SizeConflict { .. })), "{result:?}");
    }
    // Beyond the octal field the header's value says nothing: the data is awaited.
    assert_eq!(sized(b"8589934592", 0, b""), Err(TarError::Truncated));
    for bad in [&b""[..], b"-1", b"+1", b" 1", b"1 ", b"0x1", b"18446744073709551616", b"1.0"] {
        assert!(sized(bad, 0, b"").is_err());
    }
    assert!(sized(b"9223372036854775807", 0, b"").is_err());
}

#[test]
fn row_28_malformed_records() {
    let body = |body: &[u8]| one(Tar::new().extension(b'x', body).file("a", b""));
    assert!(body(b"").is_ok());
    let bad: [&[u8]; 16] = [
        b"x",
        b"5",
        b"0 a=b\n",
        b"6 a=b\n1",
        b"7 a=b\n",
        b"5 a=b\n",
        b"06 a=b\n",
        b" 6 a=b\n",
        b"-6 a=b\n",
        b"6 a=b\0",
        b"5 ab\n",
        b"5 =b\n",
        b"99999999999999999999 a=b\n",
        b"2 ",
        b"8 path=\n",
        b"12 linkpath=\n",
    ];
    for text in bad {
        assert!(matches!(body(text), Err(TarError::Pax(_))), "{:?}", String::from_utf8_lossy(text));
    }
    let nul = record("path", b"a\0b");
    assert!(matches!(body(&nul), Err(TarError::Pax(pax::PaxError::Value { .. }))));
    let twice = [record("mtime", b"1"), record("mtime", b"2")].concat();
    assert!(matches!(body(&twice), Err(TarError::Pax(pax::PaxError::Duplicate { .. }))));
    assert!(body(&record("hdrcharset", b"EBCDIC")).is_err());
    assert!(body(&record("comment", b"a=b\nc")).is_ok());
}

#[test]
fn row_28_one_extension_for_each_entry() {
    let x = |tar: Tar| tar.pax(b'x', &[("path", b"p")]);
    let l = |tar: Tar| tar.extension(b'L', b"l\0");
    let k = |tar: Tar| tar.extension(b'K', b"k\0");
    for tar in [
        x(x(Tar::new())),
        l(x(Tar::new())),
        x(l(Tar::new())),
        k(x(Tar::new())),
        x(k(Tar::new())),
        l(l(Tar::new())),
        k(k(Tar::new())),
    ] {
        assert!(matches!(one(tar.file("a", b"")), Err(TarError::ExtensionConflict { .. })));
    }
    // What an extended header says holds for the next entry alone.
    assert_eq!(paths(x(Tar::new()).file("a", b"").file("b", b"")), ["p", "b"]);
}

#[test]
fn row_29_global_headers_change_nothing() {
    assert_eq!(paths(Tar::new().pax(b'g', &[("comment", b"of git archive")]).file("a", b"")), ["a"]);
    for key in ["path", "size", "linkpath", "uid", "mtime", "GNU.sparse.major", "SCHILY.xattr.user.a"] {
        let result = one(Tar::new().pax(b'g', &[(key, b"1")]).file("a", b""));
        assert!(matches!(result, Err(TarError::Pax(pax::PaxError::Global { .. }))), "{key}");
    }
    // A global header between an extended header and its entry takes nothing from either.
    let between = Tar::new().pax(b'x', &[("path", b"p")]).pax(b'g', &[("comment", b"c")]).file("a", b"");
    assert_eq!(paths(between), ["p"]);
}

#[test]
fn row_30_long_names_are_bounded() {
    let long = vec![b'a'; 70 << 10];
    let result = one(Tar::new().extension(b'L', &long).file("a", b""));
    assert!(matches!(result, Err(TarError::ExtensionTooLarge { .. })));
    let huge = vec![b'a'; (1 << 20) + 1];
    let result = one(Tar::new().extension(b'x', &huge).file("a", b""));
    assert!(matches!(result, Err(TarError::ExtensionTooLarge { .. })));
    // Refused by its size field, before any of it is read.
    let mut claims = Raw::new(b'x', b"x", 0);
    claims.put(124, b"\x80\0\0\0\x7f\0\0\0\0\0\0\0");
    assert!(matches!(read(&claims.sum()), Err(TarError::ExtensionTooLarge { .. })));
    for empty in [&b""[..], b"\0", b"a\0b\0", b"a\0\0"] {
        assert_eq!(one(Tar::new().extension(b'L', empty).file("a", b"")), Err(TarError::LongName));
    }
    for kind in *b"xLK" {
        let body: &[u8] = if kind == b'x' { b"6 a=b\n" } else { b"n\0" };
        assert_eq!(read(&Tar::new().extension(kind, body).end()), Err(TarError::ExtensionAlone));
    }
}

#[test]
fn row_26_sparse_files_are_refused() {
    assert!(matches!(one(Tar::new().raw(Raw::new(b'S', b"a", 0), b"")), Err(TarError::Sparse { .. })));
    for key in ["GNU.sparse.major", "GNU.sparse.map", "GNU.sparse.size", "SCHILY.realsize"] {
        let result = one(Tar::new().pax(b'x', &[(key, b"1")]).file("a", b""));
        assert!(matches!(result, Err(TarError::Sparse { .. })), "{key}");
    }
    let spans = vec![b'0'; 1 << 20];
    let map = Tar::new().pax(b'x', &[("GNU.sparse.map", &spans[..(1 << 20) - 30])]).file("a", b"");
    assert!(matches!(one(map), Err(TarError::Sparse { .. })));
}

#[test]
fn unknown_types_are_refused() {
    for kind in *b"8VMNADZXs" {
        assert!(matches!(one(Tar::new().raw(Raw::new(kind, b"a", 0), b"")), Err(TarError::Type { .. })));
    }
    assert_eq!(one(Tar::new().raw(Raw::new(b'7', b"a", 0), b"")).unwrap().kind, Kind::File);
}

#[test]
fn row_34_owners() {
    let owned = |value: &[u8]| one(Tar::new().pax(b'x', &[("uid", value)]).file("a", b""));
    assert_eq!(owned(b"4294967294").unwrap().uid, u32::MAX - 1);
    assert_eq!(owned(b"2147483648").unwrap().uid, 1 << 31);
    for bad in [&b"4294967295"[..], b"4294967296", b"-1", b"-2147483648", b""] {
        assert!(owned(bad).is_err());
    }
    let raw = |field: &[u8]| {
        let mut header = Raw::new(b'0', b"a", 0);
        header.put(116, field);
        one(Tar::new().raw(header, b"")).map(|entry| entry.gid)
    };
    assert_eq!(raw(b"\x80\0\0\0\xff\xff\xff\xfe"), Ok(u32::MAX - 1));
    assert!(raw(b"\x80\0\0\0\xff\xff\xff\xff").is_err());
    assert!(raw(&[0xff; 8]).is_err());
}

#[test]
fn row_35_times_are_clamped() {
    let at = |value: &str| {
        one(Tar::new().pax(b'x', &[("mtime", value.as_bytes())]).file("a", b""))
            .map(|entry| (entry.mtime.seconds, entry.mtime.nanoseconds))
    };
    assert_eq!(at("1.25"), Ok((1, 250_000_000)));
    assert_eq!(at("-1.25"), Ok((-2, 750_000_000)));
    assert_eq!(at("-3"), Ok((-3, 0)));
    assert_eq!(at("0.9999999999"), Ok((0, 999_999_999)));
    assert_eq!(at("5."), Ok((5, 0)));
    assert_eq!(at("9223372036854775808"), Ok((i64::MAX, 0)));
    assert_eq!(at("-99999999999999999999.5"), Ok((i64::MIN, 500_000_000)));
    for bad in ["", "-", ".5", "1e9", "1.-5", "1.5.5", "+1", "1_0"] {
        assert!(at(bad).is_err(), "{bad}");
    }
    let mut negative = Raw::new(b'0', b"a", 0);
    negative.put(136, &[0xff; 12]);
    assert_eq!(one(Tar::new().raw(negative, b"")).unwrap().mtime.seconds, -1);
}

#[test]
fn row_17_device_numbers() {
    let device = |major, minor| one(Tar::new().node(b'3', "a", major, minor)).map(|entry| entry.kind);
    assert_eq!(device(1, 3), Ok(Kind::CharDevice { major: 1, minor: 3 }));
    assert!(device(0o7777, 0o3_777_777).is_ok());
    assert!(device(0o10000, 0).is_err());
    assert!(device(0, 0o7_777_777).is_err());
    let block = one(Tar::new().node(b'4', "a", 8, 0)).unwrap();
    assert_eq!(block.kind, Kind::BlockDevice { major: 8, minor: 0 });
}

#[test]
fn row_25_attributes() {
    let with = |records: &[(&str, &[u8])]| {
        one(Tar::new().pax(b'x', records).file("a", b"")).map(|entry| entry.xattrs)
    };
    let value: &[u8] = b"a=b\n\0\xff";
    assert_eq!(with(&[("SCHILY.xattr.user.a", value)]).unwrap(), [(b"user.a".to_vec(), value.to_vec())]);
    assert!(with(&[("SCHILY.xattr.user.a", b"1"), ("SCHILY.xattr.user.a", b"2")]).is_err());
    assert!(with(&[("SCHILY.xattr.", b"1")]).is_err());
    let large = vec![b'x'; (64 << 10) + 1];
    assert!(with(&[("SCHILY.xattr.user.a", &large)]).is_err());
    let name = format!("SCHILY.xattr.user.{}", "n".repeat(251));
    assert!(with(&[(name.as_str(), b"1")]).is_err());
    assert!(with(&[(&name[..name.len() - 1], b"1")]).is_ok());
    assert!(with(&[("SCHILY.xattr.user.a\0b", b"1")]).is_err());
}

#[test]
fn row_32_names_are_bytes() {
    let name = b"\xff\xfe\n\\ -rf";
    assert_eq!(one(Tar::new().file(name, b"")).unwrap().path, name);
    assert_eq!(one(Tar::new().pax(b'x', &[("path", name)]).file("a", b"")).unwrap().path, name);
}

#[test]
fn mode_keeps_twelve_bits() {
    let mut header = Raw::new(b'0', b"a", 0);
    header.mode(0o104_755);
    assert_eq!(one(Tar::new().raw(header, b"")).unwrap().mode, 0o4755);
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..3000), step in 1_usize..600) {
        let _ = read_in_steps(&bytes, step);
    }

    #[test]
    fn changed_bytes_never_panic(changes in proptest::collection::vec((0_usize..4096, proptest::num::u8::ANY), 0..8)) {
        let mut stream = Tar::new()
            .pax(b'x', &[("path", b"a"), ("SCHILY.xattr.user.a", b"v")])
            .file("short", b"data")
            .extension(b'L', b"long\0")
            .file("b", b"x")
            .end();
        for (at, byte) in changes {
            let at = at % stream.len();
            stream[at] = byte;
        }
        let whole = read(&stream);
        proptest::prop_assert_eq!(&read_in_steps(&stream, 7), &whole);
    }
}
