//! Block device figures, which v1 and v2 write differently.
use super::{Block, BlockEntry};

/// v1: `8:0 Read 1282048` or `8:0 6792` lines; the `Total` of all devices is left out.
pub(super) fn v1(text: &str) -> Option<Vec<BlockEntry>> {
    let mut entries = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split([' ', ':']).collect();
        let (major, minor, op, value) = match words[..] {
            ["Total", _] => continue,
            [major, minor, value] => (major, minor, "", value),
            [major, minor, op, value] => (major, minor, op, value),
            _ => return None,
        };
        let value = value.parse().ok()?;
        entries.push(BlockEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op: op.into(),
            value,
        });
    }
    Some(entries)
}

/// v2's `io.stat`: `8:0 rbytes=180224 wbytes=0 rios=3 wios=0 dbytes=0 dios=0`, in v1's tables.
pub(super) fn v2(text: &str) -> Option<Block> {
    let mut block = Block::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some((major, minor)) = words.next().and_then(|device| device.split_once(':')) else { continue };
        let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (table, op) = match key {
                "rbytes" => (&mut block.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut block.io_service_bytes_recursive, "Write"),
                "rios" => (&mut block.io_serviced_recursive, "Read"),
                "wios" => (&mut block.io_serviced_recursive, "Write"),
                _ => continue,
            };
            table.push(BlockEntry { major, minor, op: op.into(), value: value.parse().ok()? });
        }
    }
    Some(block)
}
