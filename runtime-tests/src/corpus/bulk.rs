//! Very many of something, and bombs: rows 36 and 37.

use super::{Case, Corpus, Media, Verdict, empty, entry};
use crate::header::Header;
use crate::image::Tar;
use sha2::{Digest as _, Sha256};
use std::io::Write;

/// A stream that is never in memory whole: packed and hashed as it is made.
struct Stream<W: Write> {
    packer: W,
    hash: Sha256,
}

impl<W: Write> Stream<W> {
    fn new(packer: W) -> Self {
        Self { packer, hash: Sha256::new() }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.packer.write_all(bytes).expect("pack");
    }

    fn zeros(&mut self, count: usize) {
        let block = vec![0; 1 << 20];
        for _ in 0..count / block.len() {
            self.write(&block);
        }
        self.write(&block[..count % block.len()]);
    }

    fn finish(mut self) -> (W, String) {
        self.write(&[0; 1024]);
        let hex: String = self.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        (self.packer, format!("sha256:{hex}"))
    }
}

pub(super) fn cases(corpus: &mut Corpus) {
    many(corpus);
    bombs(corpus);
}

impl Corpus {
    fn packed(
        &mut self,
        label: &str,
        verdict: Verdict,
        fill: impl FnOnce(&mut dyn FnMut(&[u8])),
    ) -> &mut Case {
        let mut stream = Stream::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best()));
        fill(&mut |bytes| stream.write(bytes));
        let (packer, diff_id) = stream.finish();
        let blob = packer.finish().expect("gzip");
        assert!(blob.len() <= 1 << 20, "{label}: a blob of {} bytes", blob.len());
        let case = self.add(label, Vec::new(), verdict).packed(Media::Gzip, blob);
        case.diff_id = diff_id;
        case
    }

    fn bomb(
        &mut self,
        label: &str,
        words: &[&'static str],
        fill: impl FnOnce(&mut dyn FnMut(&[u8])),
    ) -> &mut Case {
        self.packed(label, Verdict::Refused(words.to_vec()), fill)
    }
}

fn many(corpus: &mut Corpus) {
    corpus.family(36, "many_entries");
    corpus.packed("10,000 hard links", Verdict::Paths(10_001), |write| {
        write(&empty("a").unfinished());
        for at in 0..10_000 {
            write(&entry(b'1', format!("l{at}")).link("a").sum());
        }
    });
    corpus.packed("5,000 files in a directory", Verdict::Paths(5001), |write| {
        for at in 0..5000 {
            write(&entry(b'0', format!("d/{at}")).sum());
        }
    });
    corpus.packed("10,000 entries of one name", Verdict::Paths(1), |write| {
        let header = entry(b'0', "a").sum();
        (0..10_000).for_each(|_| write(&header));
    });
    corpus.packed("5,000 directories", Verdict::Paths(5000), |write| {
        for at in 0..5000 {
            write(&entry(b'5', format!("d{at}/")).sum());
        }
    });
    corpus.packed("a directory and a file by turns", Verdict::Paths(1), |write| {
        for _ in 0..2500 {
            write(&entry(b'5', "a/").sum());
            write(&entry(b'0', "a/b").sum());
            write(&entry(b'0', "a").sum());
        }
    });
    corpus.packed("20,000 whiteouts", Verdict::Paths(0), |write| {
        (0..20_000).for_each(|at| write(&entry(b'0', format!(".wh.{at}")).sum()));
    });
    corpus.family(36, "memory_for_names");
    let name = |at: usize| format!("{at:04}{}", "n".repeat(240));
    corpus.bomb(
        "whiteouts with long names",
        &["the names of the layer's directories take more than"],
        |write| {
            let parent = vec!["p".repeat(250); 14].join("/");
            for at in 0..16_000 {
                write(
                    &Tar::new()
                        .pax(&[("path", format!("{parent}/.wh.{}", name(at)).as_bytes())])
                        .node(b'0', "x")
                        .unfinished(),
                );
            }
        },
    );
    corpus.bomb("hard links that wait", &["the names of the layer's directories take more than"], |write| {
        let parent = vec!["p".repeat(250); 14].join("/");
        for at in 0..16_000 {
            let path = format!("{}/l", name(at));
            let records: &[(&str, &[u8])] = &[("path", path.as_bytes()), ("linkpath", parent.as_bytes())];
            write(&Tar::new().pax(records).node(b'1', "x").unfinished());
        }
    });
}

fn bombs(corpus: &mut Corpus) {
    corpus.family(37, "bombs");
    let words = &["200 times the size of its blob"];
    // What is free and what the ratio gives to so small a blob are less.
    const SIZE: usize = 96 << 20;
    let zeros = |write: &mut dyn FnMut(&[u8]), count: usize| {
        let block = vec![0; 1 << 20];
        (0..count >> 20).for_each(|_| write(&block));
    };
    corpus.bomb("a file of zeros", words, |write| {
        write(&Header::new(b'0', "zeros", SIZE).sum());
        zeros(write, SIZE);
    });
    corpus.bomb("zeros after the end", words, |write| {
        write(&empty("a").finish());
        zeros(write, SIZE);
    });
    corpus.bomb("a long name in the way", words, |write| {
        write(
            &Tar::new().pax(&[("path", &[b'a'; 255])]).raw(Header::new(b'0', "zeros", 0), b"").unfinished(),
        );
        write(&Header::new(b'0', "zeros", SIZE).sum());
        zeros(write, SIZE);
    });
    corpus.bomb("nested extended headers", words, |write| {
        let one = Tar::new().pax(&[("comment", &vec![b'c'; (1 << 20) - 100])]).node(b'0', "a").unfinished();
        (0..SIZE >> 20).for_each(|_| write(&one));
    });
    corpus.bomb("global headers", words, |write| {
        let body = crate::header::record("comment", vec![b'c'; (1 << 20) - 100]);
        let one = Tar::new().extension(b'g', body).unfinished();
        (0..SIZE >> 20).for_each(|_| write(&one));
    });
    corpus.bomb("1 TiB claimed", words, |write| {
        write(&entry(b'0', "zeros").binary(124, 12, 1 << 40).sum());
        zeros(write, SIZE);
    });
    let zstd = zstd::stream::write::Encoder::new(Vec::new(), 3).expect("zstd");
    let mut stream = Stream::new(zstd);
    stream.write(&Header::new(b'0', "zeros", SIZE).sum());
    stream.zeros(SIZE);
    let (packer, diff_id) = stream.finish();
    let blob = packer.finish().expect("zstd");
    let verdict = Verdict::Refused(words.to_vec());
    corpus.add("zstd", Vec::new(), verdict).packed(Media::Zstd, blob).diff_id = diff_id;
    // Members of a file of zeros, one after the other.
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(&vec![0; 1 << 20]).expect("gzip");
    let member = packer.finish().expect("gzip");
    let mut blob = crate::image::gzip(&Header::new(b'0', "zeros", SIZE).sum());
    (0..SIZE >> 20).for_each(|_| blob.extend_from_slice(&member));
    let verdict = Verdict::Refused(words.to_vec());
    corpus.add("gzip in many members", Vec::new(), verdict).packed(Media::Gzip, blob);
}
