//! A tar stream, as events: the same however it is cut into pieces. The first byte is the length of the pieces.
#![no_main]
use corten::image::unpack::tar::{Event, Kind, Parser};
use libfuzzer_sys::fuzz_target;

/// All events but for where data is cut, and how it ended.
fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<String>, Vec<u8>, String) {
    let (mut parser, mut events, mut data) = (Parser::new(), Vec::new(), Vec::new());
    for mut piece in pieces {
        loop {
            match parser.next(&mut piece) {
                Ok(None) => break,
                Ok(Some(Event::Data(bytes))) => data.extend_from_slice(bytes),
                Ok(Some(Event::EndOfFile)) => events.push("end of file".to_owned()),
                Ok(Some(Event::Entry(entry))) => {
                    assert!(entry.size == 0 || entry.kind == Kind::File);
                    assert!(entry.mode <= 0o7777 && entry.uid != u32::MAX && entry.gid != u32::MAX);
                    assert!(entry.mtime.nanoseconds < 1_000_000_000);
                    assert!(!entry.path.contains(&0));
                    events.push(format!("{entry:?}"));
                }
                Err(error) => return (events, data, error.to_string()),
            }
        }
    }
    let end = parser.finish().err().map_or_else(String::new, |error| error.to_string());
    (events, data, end)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((length, stream)) = bytes.split_first() else { return };
    let whole = read(std::iter::once(stream));
    assert_eq!(whole, read(stream.chunks(usize::from(*length) + 1)));
});
