//! The two sides against each other, and what the confined side can still do: each probe is this test program again, in a
//! process of its own.
use super::confine::confine;
use super::*;
use crate::image::unpack::testing::Tar;
use crate::image::unpack::{unpack_apart, unpack_file_apart};
use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::process::Command;

fn root(top: &std::path::Path, name: &str) -> OwnedFd {
    super::super::root(&File::open(top).unwrap(), name).unwrap()
}

fn layer() -> Vec<u8> {
    Tar::new().dir("d").file("d/f", "content").hard_link("d/g", "d/f").symlink("l", "d/f").end()
}

#[test]
fn a_worker_makes_the_same_tree_from_a_reader_a_file_and_a_pipe() {
    let top = tempfile::tempdir().unwrap();
    let limits = Limits::default();
    let stream = layer();
    let one = unpack_apart(&stream[..], Compression::None, root(top.path(), "1"), None, &limits).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&stream).unwrap();
    file.rewind().unwrap();
    let two =
        unpack_file_apart(file.into(), Compression::None, root(top.path(), "2"), None, &limits).unwrap();
    let (theirs, ours) = crate::image::unpack::pipe().unwrap();
    let three = std::thread::scope(|scope| {
        scope.spawn(|| File::from(ours).write_all(&stream).unwrap());
        unpack_file_apart(theirs, Compression::None, root(top.path(), "3"), None, &limits).unwrap()
    });
    for (name, unpacked) in [("1", one), ("2", two), ("3", three)] {
        assert_eq!(*unpacked.diff_id(), Digest::of(&stream));
        let summary = unpacked.settle(&[]).unwrap();
        assert_eq!((summary.size, summary.entries, summary.opaque_root), (7, 4, false));
        let tree = top.path().join(name);
        assert_eq!(std::fs::read(tree.join("l")).unwrap(), b"content");
        assert_eq!(std::fs::metadata(tree.join("d/g")).unwrap().nlink(), 2);
    }
}

#[test]
fn settling_reads_more_layers_than_one_message_carries() {
    let top = tempfile::tempdir().unwrap();
    std::fs::create_dir(top.path().join("below")).unwrap();
    std::fs::write(top.path().join("below/f"), b"from below").unwrap();
    let mut lowers: Vec<File> = (0..20)
        .map(|number| {
            let path = top.path().join(number.to_string());
            std::fs::create_dir(&path).unwrap();
            File::open(path).unwrap()
        })
        .collect();
    lowers.push(File::open(top.path().join("below")).unwrap());
    let stream = Tar::new().hard_link("copy", "f").end();
    let below = File::open(top.path()).unwrap();
    let root = root(top.path(), "root");
    let unpacked =
        unpack_apart(&stream[..], Compression::None, root, Some(&below), &Limits::default()).unwrap();
    unpacked.settle(&lowers).unwrap();
    assert_eq!(std::fs::read(top.path().join("root/copy")).unwrap(), b"from below");
}

#[test]
fn errors_come_back_with_kind_and_chain() {
    let top = tempfile::tempdir().unwrap();
    let stream = Tar::new().file("../escape", "").end();
    let root = root(top.path(), "root");
    let error = unpack_apart(&stream[..], Compression::None, root, None, &Limits::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let chain = crate::error::chain(&error);
    assert_eq!(chain, "cannot unpack \"../escape\": its name leads out of the layer");
}

#[test]
fn what_a_hostile_worker_says_is_bounded() {
    let (ours, theirs) = socket::pair().unwrap();
    // Larger than a message may be.
    let long = Reply::Failed { kind: ErrorKind::Corrupt, chain: vec!["x".repeat(MESSAGE_MAX)] };
    say(&theirs, &long, &[]).unwrap();
    assert!(matches!(hear::<Reply>(&ours), Err(WorkerError::Talk(_))));
    socket::send(&theirs, b"{\"Settled\":{}}", &[]).unwrap();
    assert!(matches!(hear::<Reply>(&ours), Err(WorkerError::Nonsense)));
    drop(theirs);
    assert!(hear::<Reply>(&ours).unwrap().is_none());

    let chain = (0..100).map(|number| format!("\x1b[31m{number}{}", "y".repeat(5000))).collect();
    let told = Told::new(ErrorKind::Corrupt, chain);
    let text = crate::error::chain(&told);
    assert!(!text.contains('\x1b') && text.chars().count() <= CHAIN_MAX * (LINK_MAX + 2), "{text}");
    assert_eq!(
        Told::new(ErrorKind::System, Vec::new()).to_string(),
        "the unpacking process does not say why"
    );
}

#[test]
fn the_longest_chain_fits_a_message() {
    let link = "\u{1}".repeat(2 * LINK_MAX);
    let mut told = Told { kind: ErrorKind::Corrupt, text: link.clone(), source: None };
    for _ in 0..2 * CHAIN_MAX {
        told = Told { kind: ErrorKind::Corrupt, text: link.clone(), source: Some(Box::new(told)) };
    }
    let reply = Reply::failed(&UnpackError::Told(told));
    assert!(serde_json::to_vec(&reply).unwrap().len() <= MESSAGE_MAX);
}

/// Names the probe for the process that is to run it, and its directory.
const PROBE: &str = "CORTEN_TEST_CONFINED_PROBE";

/// Runs `name` in a process of its own that is confined to `<top>/layer` and may read `<top>/below`.
fn probe(top: &std::path::Path, name: &str) -> String {
    let output = Command::new("/proc/self/exe")
        .args(["--exact", "--nocapture", "image::unpack::worker::tests::confined_process"])
        .env(PROBE, format!("{name}:{}", top.display()))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    match text.lines().find_map(|line| line.strip_prefix("probe: ")) {
        Some(line) => line.to_owned(),
        None => panic!("{name}: {output:?}"),
    }
}

/// What a probe does; in the test run itself there is nothing to do.
#[test]
fn confined_process() {
    let Ok(asked) = std::env::var(PROBE) else { return };
    let (name, top) = asked.split_once(':').unwrap();
    let open = |name: &str| OwnedFd::from(File::open(format!("{top}/{name}")).unwrap());
    let (root, below) = (open("layer"), open("below"));
    let status = File::open("/proc/thread-self/status").unwrap();
    let namespaces = || {
        ["mnt", "net", "ipc", "uts"].map(|kind| std::fs::read_link(format!("/proc/thread-self/ns/{kind}")))
    };
    let before = namespaces().map(|link| link.unwrap());
    let self_ns = File::open("/proc/thread-self/ns").unwrap();
    let root = match confine(root, Some(&below)) {
        Ok(root) => root,
        Err(error) => {
            eprintln!("probe: cannot confine: {}", crate::error::chain(&error));
            return;
        }
    };
    let answer = match name {
        "status" => read_all(status),
        "namespaces" => {
            let now = ["mnt", "net", "ipc", "uts"].map(|kind| nix::fcntl::readlinkat(&self_ns, kind));
            let same = before
                .iter()
                .zip(&now)
                .filter(|(old, new)| new.as_ref().is_ok_and(|new| new == old.as_os_str()));
            format!("{} of 4 stayed", same.count())
        }
        "host file" => told(File::open("/etc/passwd").map(drop)),
        "parent" => told(File::open("..").and_then(|dir| dir.metadata()).map(|meta| {
            assert_eq!(meta.ino(), File::from(root).metadata().unwrap().ino(), ".. leads out");
        })),
        "write below" => {
            let made =
                nix::sys::stat::mkdirat(&below, "made", nix::sys::stat::Mode::from_bits_truncate(0o755));
            told(made.map_err(std::io::Error::from))
        }
        "read below" => {
            let flags = nix::fcntl::OFlag::O_RDONLY;
            let file = nix::fcntl::openat(&below, "f", flags, nix::sys::stat::Mode::empty());
            told(file.map(drop).map_err(std::io::Error::from))
        }
        "socket" => told(std::net::TcpListener::bind("127.0.0.1:0").map(drop)),
        "exec" => told(Command::new("/bin/true").status().map(drop)),
        "device" => {
            use nix::sys::stat::{Mode, SFlag, makedev, mknodat};
            let made = mknodat(&root, "null", SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3));
            let opened = File::open("/null");
            format!("{}, {}", told(made.map_err(std::io::Error::from)), told(opened.map(drop)))
        }
        "mount" => {
            use crate::sys::mount::{Propagation, Scope, set_root_propagation};
            let changed = set_root_propagation(Propagation::Private, Scope::Mount);
            told(changed.map_err(|error| std::io::Error::from(error.errno)))
        }
        "signal" => {
            let parent = nix::unistd::getppid();
            told(nix::sys::signal::kill(parent, None).map_err(std::io::Error::from))
        }
        _ => "unknown probe".into(),
    };
    eprintln!("probe: {}", answer.replace('\n', ";").replace('\t', " "));
}

fn told(result: std::io::Result<()>) -> String {
    match result {
        Ok(()) => "done".into(),
        Err(error) => error
            .raw_os_error()
            .map_or_else(|| error.to_string(), |errno| nix::errno::Errno::from_raw(errno).to_string()),
    }
}

fn read_all(mut file: File) -> String {
    let mut text = String::new();
    std::io::Read::read_to_string(&mut file, &mut text).unwrap();
    text
}

#[test]
fn a_confined_process_has_what_unpacking_needs_and_no_more() {
    let top = tempfile::tempdir().unwrap();
    for name in ["layer", "below"] {
        std::fs::create_dir(top.path().join(name)).unwrap();
    }
    std::fs::write(top.path().join("below/f"), b"x").unwrap();
    let status = probe(top.path(), "status");
    for field in ["NoNewPrivs: 1;", "Seccomp: 2;", "CapInh: 0000000000000000;", "CapAmb: 0000000000000000;"] {
        assert!(status.contains(field), "{field} {status}");
    }
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SYS_ADMIN, MKNOD, SETFCAP.
    let kept = 1_u64 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 21 | 1 << 27 | 1 << 31;
    for field in ["CapEff: ", "CapPrm: "] {
        let at = status.find(field).unwrap() + field.len();
        let set = u64::from_str_radix(&status[at..at + 16], 16).unwrap();
        assert_eq!(set & !kept, 0, "{status}");
    }
    assert_eq!(probe(top.path(), "namespaces"), "0 of 4 stayed");
    assert_eq!(probe(top.path(), "host file"), "ENOENT: No such file or directory");
    assert_eq!(probe(top.path(), "parent"), "done");
    assert_eq!(probe(top.path(), "read below"), "done");
    let write = probe(top.path(), "write below");
    match crate::sys::landlock::version() {
        Some(2..) => assert_eq!(write, "EACCES: Permission denied"),
        _ => assert_eq!(write, "done"),
    }
    let refused = "EPERM: Operation not permitted";
    for name in ["socket", "exec", "mount", "signal"] {
        assert_eq!(probe(top.path(), name), refused, "{name}");
    }
    if nix::unistd::geteuid().is_root() {
        assert_eq!(probe(top.path(), "device"), "done, EACCES: Permission denied");
    }
}
