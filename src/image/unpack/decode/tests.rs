use super::*;
use std::io::Write;

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn zstd(data: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(data, 1).unwrap()
}

fn decode(blob: &[u8], compression: Compression) -> Result<Vec<u8>, DecodeError> {
    decode_within(blob, compression, Growth::default())
}

/// With each inflate that there is, which must agree.
fn decode_within(
    blob: impl Read + Clone,
    compression: Compression,
    growth: Growth,
) -> Result<Vec<u8>, DecodeError> {
    let portable = || -> Box<dyn Inflate> { Box::new(gzip::Portable::new()) };
    let second = drain(Decoder::with(blob.clone(), compression, growth, portable));
    let first = drain(Decoder::with(blob, compression, growth, gzip::fastest));
    match (&first, &second) {
        (Ok(first), Ok(second)) => assert!(first == second),
        (Err(first), Err(second)) => assert_eq!(first.to_string(), second.to_string()),
        _ => panic!("{first:?}, {second:?}"),
    }
    first
}

fn drain(decoder: Result<Decoder<impl Read>, DecodeError>) -> Result<Vec<u8>, DecodeError> {
    let mut decoder = decoder?;
    let (mut out, mut buffer) = (Vec::new(), vec![0; 1000]);
    loop {
        let count = decoder.fill(&mut buffer)?;
        out.extend_from_slice(&buffer[..count]);
        if count < buffer.len() {
            return Ok(out);
        }
    }
}

/// Gives one byte at a time.
#[derive(Clone)]
struct Slow<'a>(&'a [u8]);

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(1);
        self.0.read(&mut buffer[..count])
    }
}

fn sample() -> Vec<u8> {
    (0..50_000_u32).flat_map(|n| (n.wrapping_mul(2_654_435_761) >> 20).to_le_bytes()).collect()
}

#[test]
fn each_packing() {
    let data = sample();
    for (blob, compression) in [
        (data.clone(), Compression::None),
        (gzip(&data), Compression::Gzip),
        (zstd(&data), Compression::Zstd),
    ] {
        assert!(decode(&blob, compression).unwrap() == data);
        assert!(decode_within(Slow(&blob), compression, Growth::default()).unwrap() == data);
    }
    assert_eq!(decode(b"", Compression::None).unwrap(), b"");
    assert_eq!(decode(&gzip(b""), Compression::Gzip).unwrap(), b"");
    assert_eq!(decode(&zstd(b""), Compression::Zstd).unwrap(), b"");
}

#[test]
fn row_39_the_magic_must_match_the_media_type() {
    let (plain, gz, zs) = (b"plain".to_vec(), gzip(b"x"), zstd(b"x"));
    for (blob, compression) in [
        (&plain, Compression::Gzip),
        (&plain, Compression::Zstd),
        (&gz, Compression::None),
        (&gz, Compression::Zstd),
        (&zs, Compression::None),
        (&zs, Compression::Gzip),
        (&Vec::new(), Compression::Gzip),
        (&Vec::new(), Compression::Zstd),
    ] {
        assert!(matches!(decode(blob, compression), Err(DecodeError::Magic { .. })));
    }
}

#[test]
fn row_38_members_and_garbage() {
    let members = [gzip(b"one"), gzip(b""), gzip(b"two")].concat();
    assert_eq!(decode(&members, Compression::Gzip).unwrap(), b"onetwo");
    for garbage in [&b"x"[..], b"\0", b"garbage", &[0; 512]] {
        let blob = [&gzip(b"one")[..], garbage].concat();
        assert!(matches!(decode(&blob, Compression::Gzip), Err(DecodeError::Garbage)));
    }
    let half = [&gzip(b"one")[..], &gzip(b"two")[..5]].concat();
    assert!(matches!(decode(&half, Compression::Gzip), Err(DecodeError::Truncated)));
    let one = [&gzip(b"one")[..], &b"\x1f"[..]].concat();
    assert!(matches!(decode(&one, Compression::Gzip), Err(DecodeError::Truncated)));
}

/// A member with all fields that a header may have.
fn with_header(data: &[u8]) -> Vec<u8> {
    let plain = gzip(data);
    let mut blob = vec![0x1f, 0x8b, 8, 0b1_1111, 1, 2, 3, 4, 0, 3];
    blob.extend_from_slice(&[3, 0, b'a', b'b', b'c']);
    blob.extend_from_slice(b"name\0comment\0");
    let mut crc = flate2::Crc::new();
    crc.update(&blob);
    blob.extend_from_slice(&crc.sum().to_le_bytes()[..2]);
    blob.extend_from_slice(&plain[10..]);
    blob
}

#[test]
fn row_38_headers() {
    let data = sample();
    let blob = [with_header(&data), with_header(b""), with_header(b"end")].concat();
    let want = [&data[..], b"end"].concat();
    assert!(decode(&blob, Compression::Gzip).unwrap() == want);
    assert!(decode_within(Slow(&blob), Compression::Gzip, Growth::default()).unwrap() == want);
    let good = with_header(b"x");
    // Every bit of the header but those of the magic number, which make it no gzip data at all.
    for bit in 16..30 * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&bad, Compression::Gzip).is_err(), "bit {bit}");
    }
    let mut empty_extra = with_header(b"x")[..10].to_vec();
    empty_extra[3] = 4;
    empty_extra.extend_from_slice(&[0, 0]);
    empty_extra.extend_from_slice(&gzip(b"x")[10..]);
    assert_eq!(decode(&empty_extra, Compression::Gzip).unwrap(), b"x");
}

#[test]
fn each_kind_of_block() {
    for level in [0, 1, 6, 9] {
        for data in [sample(), vec![7; 300_000], b"ab".repeat(100_000)] {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
            encoder.write_all(&data).unwrap();
            let blob = encoder.finish().unwrap();
            assert!(decode(&blob, Compression::Gzip).unwrap() == data, "{level}");
            assert!(decode_within(Slow(&blob), Compression::Gzip, Growth::default()).unwrap() == data);
        }
    }
}

#[test]
fn row_38_checksum_and_length_are_checked() {
    let good = gzip(&sample());
    for from_end in 1..=8 {
        let mut bad = good.clone();
        let at = bad.len() - from_end;
        bad[at] ^= 1;
        assert!(matches!(decode(&bad, Compression::Gzip), Err(DecodeError::Gzip(_))), "{from_end}");
    }
}

#[test]
fn row_40_truncated_at_every_byte() {
    let data = b"hello hello hello".repeat(20);
    for (blob, compression) in [(gzip(&data), Compression::Gzip), (zstd(&data), Compression::Zstd)] {
        for length in 4..blob.len() {
            let error = decode(&blob[..length], compression).unwrap_err();
            assert!(matches!(error, DecodeError::Truncated), "{compression:?} {length}: {error:?}");
        }
    }
}

#[test]
fn row_39_zstd_frames() {
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
    let blob = [&skippable[..], &zstd(b"one"), &skippable, &zstd(b"two")].concat();
    assert_eq!(decode(&blob, Compression::Zstd).unwrap(), b"onetwo");
    let garbage = [&zstd(b"one")[..], b"garbage"].concat();
    assert!(matches!(decode(&garbage, Compression::Zstd), Err(DecodeError::Zstd(_))));
    // A frame header that asks for a window of 2^28 bytes (RFC 8878, 3.1.1.1.2): exponent 18.
    let bomb = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 18 << 3, 1, 0, 0];
    assert!(matches!(decode(&bomb, Compression::Zstd), Err(DecodeError::Zstd(_))));
    let fits = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 17 << 3, 1, 0, 0];
    assert_eq!(decode(&fits, Compression::Zstd).unwrap(), b"");
    // A dictionary that nobody has.
    let dictionary = [0x28, 0xb5, 0x2f, 0xfd, 0x01, 0, 7, 1, 0, 0];
    assert!(decode(&dictionary, Compression::Zstd).is_err());
}

#[test]
fn row_37_bombs() {
    let zeros = vec![0; 4 << 20];
    let growth = Growth { bytes: u64::MAX, ratio: 100, free: 1 << 20 };
    for (blob, compression) in [(gzip(&zeros), Compression::Gzip), (zstd(&zeros), Compression::Zstd)] {
        let error = decode_within(&blob[..], compression, growth).err().unwrap();
        assert!(matches!(error, DecodeError::Ratio { ratio: 100 }), "{error:?}");
        let free = Growth { free: 8 << 20, ..growth };
        assert_eq!(decode_within(&blob[..], compression, free).unwrap().len(), zeros.len());
        let small = Growth { bytes: 1 << 20, ratio: u64::MAX, free: 0 };
        let error = decode_within(&blob[..], compression, small).err().unwrap();
        assert!(matches!(error, DecodeError::TooLarge { .. }));
    }
    let small = Growth { bytes: 1000, ratio: 1, free: 0 };
    assert!(matches!(
        decode_within(&[0; 2000][..], Compression::None, small),
        Err(DecodeError::TooLarge { .. })
    ));
}

#[test]
fn errors_of_the_blob_are_told_from_errors_in_it() {
    #[derive(Clone)]
    struct BreaksOff<'a>(&'a [u8]);
    impl Read for BreaksOff<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() { Err(io::Error::other("gone")) } else { self.0.read(buffer) }
        }
    }
    let data = sample();
    for (blob, compression) in [
        (data.clone(), Compression::None),
        (gzip(&data), Compression::Gzip),
        (zstd(&data), Compression::Zstd),
    ] {
        let error = decode_within(BreaksOff(&blob[..blob.len() / 2]), compression, Growth::default());
        assert!(matches!(error, Err(DecodeError::Read(_))), "{compression:?}: {error:?}");
    }
}

proptest::proptest! {
    #[test]
    fn damaged_blobs_never_panic(at in 0_usize..2000, byte in proptest::num::u8::ANY, gz in proptest::bool::ANY) {
        let data = sample();
        let (mut blob, compression) =
            if gz { (gzip(&data[..4000]), Compression::Gzip) } else { (zstd(&data[..4000]), Compression::Zstd) };
        let at = at % blob.len();
        blob[at] = byte;
        let _ = decode(&blob, compression);
    }
}
