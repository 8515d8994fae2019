use super::*;

fn parse(options: &str) -> MountOptions {
    MountOptions::parse(options.split(' ').filter(|option| !option.is_empty()))
}

#[test]
fn the_list_of_names_is_sorted_and_known() {
    assert!(KNOWN.is_sorted());
    for name in KNOWN {
        assert!(parse(name).data.is_empty(), "{name}");
    }
}

#[test]
fn flags_of_a_fresh_mount() {
    let table = [
        ("", Attr::empty()),
        ("defaults", Attr::empty()),
        ("ro", Attr::RDONLY),
        ("ro rw", Attr::empty()),
        ("rw ro", Attr::RDONLY),
        ("nosuid noexec nodev", Attr::NOSUID | Attr::NOEXEC | Attr::NODEV),
        ("nodev dev", Attr::empty()),
        ("nosymfollow", Attr::NOSYMFOLLOW),
        ("nosymfollow symfollow", Attr::empty()),
        ("relatime", Attr::RELATIME),
        ("noatime", Attr::NOATIME),
        ("noatime atime", Attr::RELATIME),
        ("strictatime", Attr::STRICTATIME),
        ("noatime strictatime", Attr::STRICTATIME),
        ("strictatime nostrictatime", Attr::RELATIME),
        ("nodiratime noatime", Attr::NODIRATIME | Attr::NOATIME),
        ("nodiratime diratime", Attr::RELATIME),
    ];
    for (options, expected) in table {
        assert_eq!(parse(options).attr(), expected, "{options}");
    }
}

#[test]
fn flags_of_the_superblock() {
    let names = |options| parse(options).superblock.names().collect::<Vec<_>>();
    assert_eq!(
        names("sync dirsync lazytime mand iversion silent acl"),
        ["sync", "dirsync", "lazytime", "mand"]
    );
    assert!(names("sync async lazytime nolazytime mand nomand noiversion loud noacl").is_empty());
}

#[test]
fn a_bind_keeps_the_flags_of_its_source_unless_one_is_given() {
    for options in ["bind", "rbind", "rbind rprivate", "bind rro"] {
        assert!(parse(options).bind_change().is_empty(), "{options}");
    }
    let change = parse("bind ro").bind_change();
    assert_eq!(change.set, Attr::RDONLY);
    assert_eq!(change.clear, FLAGS & !Attr::RDONLY);
    // Only a clearing flag: everything is cleared, as in runc.
    let change = parse("bind dev").bind_change();
    assert_eq!((change.set, change.clear), (Attr::empty(), FLAGS));
    let change = parse("bind noatime").bind_change();
    assert_eq!((change.set, change.clear), (Attr::NOATIME, FLAGS | Attr::ATIME | Attr::NODIRATIME));
    let change = parse("bind ro nosuid dev").bind_change_locked();
    assert_eq!((change.set, change.clear), (Attr::RDONLY | Attr::NOSUID, Attr::NODEV));
}

#[test]
fn kinds() {
    assert_eq!(parse("bind").bind, Some(Scope::Mount));
    assert_eq!(parse("rbind bind").bind, Some(Scope::Tree));
    assert!(parse("remount").remount);
    assert!(parse("tmpcopyup").copy_up);
    assert_eq!(parse("idmap").idmap, Some(Scope::Mount));
    assert_eq!(parse("ridmap").idmap, Some(Scope::Tree));
}

#[test]
fn recursive_attributes() {
    let table = [
        ("rro", Attr::RDONLY, Attr::empty()),
        ("rro rrw", Attr::empty(), Attr::RDONLY),
        ("rnosuid rnodev rnoexec", Attr::NOSUID | Attr::NODEV | Attr::NOEXEC, Attr::empty()),
        ("rsuid rdev rexec", Attr::empty(), Attr::NOSUID | Attr::NODEV | Attr::NOEXEC),
        ("rnoatime", Attr::NOATIME, Attr::ATIME),
        ("rnoatime rstrictatime", Attr::STRICTATIME, Attr::ATIME),
        ("rnoatime rrelatime", Attr::empty(), Attr::ATIME),
        ("ratime", Attr::empty(), Attr::ATIME),
        ("rnodiratime", Attr::NODIRATIME, Attr::empty()),
        ("rnosymfollow", Attr::NOSYMFOLLOW, Attr::empty()),
    ];
    for (options, set, clear) in table {
        let change = parse(options).recursive;
        assert_eq!((change.set, change.clear), (set, clear), "{options}");
    }
}

#[test]
fn propagation_in_order() {
    assert_eq!(
        parse("rslave shared").propagation,
        [(Propagation::Slave, Scope::Tree), (Propagation::Shared, Scope::Mount)]
    );
    for name in ["private", "shared", "slave", "unbindable"] {
        assert!(matches!(propagation(name), Some((_, Scope::Mount))), "{name}");
        assert!(matches!(propagation(&format!("r{name}")), Some((_, Scope::Tree))), "{name}");
    }
    assert_eq!(propagation("rrprivate"), None);
}

#[test]
fn the_rest_is_for_the_file_system() {
    let options = parse("nosuid mode=755 size=65536k newinstance a=1,b,,c=2");
    assert_eq!(options.data, ["mode=755", "size=65536k", "newinstance", "a=1", "b", "c=2"]);
    assert!(options.has_data("mode") && options.has_data("newinstance") && !options.has_data("mod"));
}
