//! Options of mounts: attributes of one mount and of a whole tree, of the superblock, and how links are taken.

use crate::{has, in_own_mounts, line_of, mount_of, report, words};
use runtime_tests::{Bundle, Fixture};
use serde_json::{Value, json};
use std::os::unix::fs::symlink;

/// The options of `/t` and of `/t/below` of a bind of a tree on the host: a tmpfs, and another one in it.
fn tree(fixture: &Fixture, options: &[&str]) -> [String; 2] {
    let seen = in_tree(fixture, options);
    [mount_of(&seen, "/t").0, mount_of(&seen, "/t/below").0]
}

/// What a container reports that has the tree on `/t`.
fn in_tree(fixture: &Fixture, options: &[&str]) -> Value {
    let source = fixture.path().join("tree");
    std::fs::create_dir_all(&source).unwrap();
    let bundle = fixture.bundle().mount("/t", "bind", &source, options).args(["/probe", "report"]);
    let script = format!(
        "mount -t tmpfs none {tree}; mkdir {tree}/below; mount -t tmpfs -o nodiratime none {tree}/below; exec {run}",
        tree = source.display(),
        run = words(&bundle.run_command(&[])),
    );
    in_own_mounts(fixture, &script).ok().json()
}

#[test]
fn recursive_attributes_reach_the_mounts_below() {
    let fixture = Fixture::new();
    for (options, present, absent) in [
        (&["rbind", "rro"][..], "ro", "rw"),
        (&["rbind", "rnosuid"], "nosuid", "suid"),
        (&["rbind", "rnodev"], "nodev", "dev"),
        (&["rbind", "rnoexec"], "noexec", "exec"),
        (&["rbind", "rnoatime"], "noatime", "relatime"),
        (&["rbind", "rrelatime"], "relatime", "noatime"),
        (&["rbind", "rnodiratime"], "nodiratime", "diratime"),
        (&["rbind", "rnosymfollow"], "nosymfollow", "symfollow"),
    ] {
        for seen in tree(&fixture, options) {
            assert!(has(&seen, present) && !has(&seen, absent), "{options:?}: {seen}");
        }
    }
    for seen in tree(&fixture, &["rbind", "rstrictatime"]) {
        assert!(!has(&seen, "relatime") && !has(&seen, "noatime"), "strict is shown as no other: {seen}");
    }
}

#[test]
fn recursive_attributes_can_be_taken_away() {
    let fixture = Fixture::new();
    for (options, absent) in [
        (&["rbind", "rro", "rrw"][..], "ro"),
        (&["rbind", "rnosuid", "rsuid"], "nosuid"),
        (&["rbind", "rnodev", "rdev"], "nodev"),
        (&["rbind", "rnoexec", "rexec"], "noexec"),
        (&["rbind", "rdiratime"], "nodiratime"),
        (&["rbind", "rnosymfollow", "rsymfollow"], "nosymfollow"),
        (&["rbind", "rnoatime", "ratime"], "noatime"),
        (&["rbind", "rstrictatime", "rnostrictatime", "rnoatime", "rnorelatime"], "noatime"),
    ] {
        for seen in tree(&fixture, options) {
            assert!(!has(&seen, absent), "{options:?}: {seen}");
        }
    }
}

#[test]
fn attributes_of_one_mount_stay_there() {
    let fixture = Fixture::new();
    let [top, below] = tree(&fixture, &["rbind", "ro", "nosuid", "nodev", "noexec", "nosymfollow"]);
    for option in ["ro", "nosuid", "nodev", "noexec", "nosymfollow"] {
        assert!(has(&top, option), "{option}: {top}");
        assert!(!has(&below, option), "{option}: {below}");
    }
    // Without any, those of the source stay.
    assert!(has(&tree(&fixture, &["rbind"])[1], "nodiratime"));
}

#[test]
fn bind_alone_leaves_the_mounts_below_behind() {
    let fixture = Fixture::new();
    let seen = in_tree(&fixture, &["bind"]);
    assert!(!seen["mountinfo"].as_str().unwrap().contains("/t/below"));
}

#[test]
fn links_are_not_followed_on_a_mount_that_says_so() {
    let fixture = Fixture::new();
    std::fs::create_dir(fixture.path().join("dir")).unwrap();
    fixture.file("dir/file", "content");
    symlink("file", fixture.path().join("dir/link")).unwrap();
    for (option, seen) in [("symfollow", "content"), ("nosymfollow", "refused")] {
        let bundle = fixture
            .bundle()
            .mount("/t", "bind", fixture.path().join("dir"), &["bind", option])
            .script("cat /t/link 2>/dev/null || echo refused");
        assert_eq!(bundle.run().ok().stdout.trim(), seen, "{option}");
    }
}

#[test]
fn options_of_the_superblock() {
    let fixture = Fixture::new();
    for (given, shown) in [("sync", true), ("dirsync", true), ("lazytime", true), ("mand", true)] {
        let seen = report(fixture.bundle().mount("/t", "tmpfs", "tmpfs", &[given]));
        assert_eq!(has(&mount_of(&seen, "/t").2, given), shown, "{given}: {}", line_of(&seen, "/t"));
    }
    for options in
        [&["lazytime", "nolazytime"][..], &["sync", "async"], &["nolazytime", "async", "noacl", "nomand"]]
    {
        let seen = report(fixture.bundle().mount("/t", "tmpfs", "tmpfs", options));
        let shown = mount_of(&seen, "/t").2;
        assert!(!has(&shown, "lazytime") && !has(&shown, "sync"), "{options:?}: {shown}");
    }
}

/// Nothing in a mount table tells of these: inode versions are counted for the kernel, `silent` spares its log.
#[test]
fn options_that_leave_no_trace_are_taken() {
    let fixture = Fixture::new();
    for option in ["iversion", "noiversion", "loud", "silent", "acl", "noacl", "nomand", "defaults"] {
        let seen = report(fixture.bundle().mount("/t", "tmpfs", "tmpfs", &[option]));
        assert!(!mount_of(&seen, "/t").2.contains(option), "{option} went to the file system");
    }
}

#[test]
fn an_unknown_option_is_named() {
    let fixture = Fixture::new();
    std::fs::create_dir(fixture.path().join("dir")).unwrap();
    // crun and runc 1.1 take it without a word.
    let bundle = fixture.bundle().mount("/t", "bind", fixture.path().join("dir"), &["rbind", "mode=755"]);
    bundle.create().ok().says("mode=755").says("/t");
    fixture.clean_up();
    let bundle = fixture.bundle().mount("/t", "tmpfs", "tmpfs", &["nosuchoption"]);
    bundle.create().exits(1).says("nosuchoption").says("/t");
    let bundle = fixture.bundle().mount("/t", "bind", fixture.path().join("dir"), &["bind", "tmpcopyup"]);
    bundle.create().exits(1).says("tmpcopyup");
    fixture.assert_clean();
}

#[test]
fn propagation_of_each_kind() {
    let fixture = Fixture::new();
    for (given, mark) in [
        ("shared", " shared:"),
        ("rshared", " shared:"),
        ("slave", ""),
        ("private", ""),
        ("rprivate", ""),
        ("unbindable", " unbindable "),
        ("runbindable", " unbindable "),
    ] {
        let seen = report(fixture.bundle().mount("/t", "tmpfs", "tmpfs", &[given]));
        let line = line_of(&seen, "/t");
        match mark {
            "" => assert!(!line.contains(" shared:") && !line.contains(" unbindable "), "{given}: {line}"),
            mark => assert!(line.contains(mark), "{given}: {line}"),
        }
    }
    // The last word counts: a shared one that becomes a slave of its peers is both.
    let seen = report(fixture.bundle().mount("/t", "tmpfs", "tmpfs", &["shared", "private"]));
    assert!(!line_of(&seen, "/t").contains(" shared:"));
}

#[test]
fn links_at_either_end_of_a_bind() {
    let fixture = Fixture::new();
    let target = fixture.file("target", "through the link");
    let link = fixture.path().join("link");
    symlink(&target, &link).unwrap();
    let run = |bundle: Bundle<'_>| bundle.run().ok().stdout;
    // Followed on the host, as ever.
    let bundle = fixture.bundle().mount("/f", "bind", &link, &["bind"]).args(["/bin/cat", "/f"]);
    assert_eq!(run(bundle), "through the link");
    // The link itself, as a mount, and as a copy.
    let text = target.to_str().unwrap();
    for option in ["src-nofollow", "copy-symlink"] {
        let options = ["bind", option];
        // A link can be mounted on a link alone, which must not be followed then either.
        let options = if option == "src-nofollow" {
            [&options[..], &["dest-nofollow"]].concat()
        } else {
            options.to_vec()
        };
        let bundle = fixture.bundle().mount("/d/f", "bind", &link, &options).args(["/bin/readlink", "/d/f"]);
        if option == "src-nofollow" {
            std::fs::create_dir(bundle.rootfs().join("d")).unwrap();
            symlink("/elsewhere", bundle.rootfs().join("d/f")).unwrap();
        }
        assert_eq!(run(bundle).trim(), text, "{option}");
    }
    // A destination that is a link: its target inside, or itself.
    for (options, of_link, of_target) in [
        (&["bind"][..], "through the link", "through the link"),
        (&["bind", "dest-nofollow"], "through the link", "image"),
    ] {
        let bundle = fixture
            .bundle()
            .file("/d/real", "image")
            .mount("/d/link", "bind", &target, options)
            .script("cat /d/link; echo; cat /d/real");
        symlink("real", bundle.rootfs().join("d/link")).unwrap();
        assert_eq!(run(bundle), format!("{of_link}\n{of_target}"), "{options:?}");
    }
    // A copied link does not replace what is there, unless it is the same.
    let bundle =
        fixture.bundle().file("/d/f", "image").mount("/d/f", "bind", &link, &["bind", "copy-symlink"]);
    bundle.create().exits(1).says("/d/f");
    fixture.clean_up();
    // What is no link is bound.
    let bundle =
        fixture.bundle().mount("/f", "bind", &target, &["bind", "copy-symlink"]).args(["/bin/cat", "/f"]);
    assert_eq!(run(bundle), "through the link");
}

#[test]
fn a_mount_label_is_left_out_where_there_is_no_selinux() {
    let fixture = Fixture::new();
    let label = "system_u:object_r:container_file_t:s0:c1,c2";
    let bundle = fixture.bundle().set("/linux/mountLabel", json!(label));
    if std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        let seen = report(bundle);
        assert!(mount_of(&seen, "/dev").2.contains(label), "{}", line_of(&seen, "/dev"));
    } else {
        let log = fixture.path().join("log.json");
        let dir = bundle.write().dir.to_str().unwrap();
        let words =
            ["--log", log.to_str().unwrap(), "--log-format", "json", "run", "--bundle", dir, &bundle.id];
        assert_eq!(fixture.run_oci(words).ok().stderr, "");
        let text = std::fs::read_to_string(log).unwrap();
        let record: Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(record["level"], "warning", "{text}");
        let message = record["msg"].as_str().unwrap();
        for word in ["linux.mountLabel", "SELinux", label] {
            assert!(message.contains(word), "{word}: {text}");
        }
        fixture.assert_clean();
    }
}

#[test]
fn every_option_is_listed_by_features() {
    let fixture = Fixture::new();
    let features: Value = fixture.run_oci(["features"]).ok().json();
    let options: Vec<_> =
        features["mountOptions"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for option in [
        "idmap",
        "ridmap",
        "rro",
        "rrw",
        "rnosuid",
        "rsuid",
        "rnodev",
        "rdev",
        "rnoexec",
        "rexec",
        "rnoatime",
        "ratime",
        "rrelatime",
        "rnorelatime",
        "rstrictatime",
        "rnostrictatime",
        "rnodiratime",
        "rdiratime",
        "rnosymfollow",
        "rsymfollow",
        "symfollow",
        "nosymfollow",
        "iversion",
        "noiversion",
        "lazytime",
        "nolazytime",
        "silent",
        "loud",
        "tmpcopyup",
        "shared",
        "rshared",
        "slave",
        "rslave",
        "private",
        "rprivate",
        "unbindable",
        "runbindable",
        "copy-symlink",
        "src-nofollow",
        "dest-nofollow",
        "sync",
        "async",
        "dirsync",
        "remount",
        "bind",
        "rbind",
    ] {
        assert!(options.contains(&option), "{option}");
    }
    assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], true);
    assert_eq!(features["linux"]["netDevices"]["enabled"], true);
}
