//! Mount points and mounts in the corners: links of the image, copies into a tmpfs, read-only trees, a user
//! namespace.

use runtime_tests::Fixture;
use std::os::unix::fs::{PermissionsExt, symlink};

#[test]
fn tmpcopyup_starts_with_the_content_of_the_image() {
    let fixture = Fixture::new();
    let bundle = fixture
        .bundle()
        .file("/data/sub/file", "of the image")
        .mount("/data", "tmpfs", "tmpfs", &["tmpcopyup"])
        .script("cat /data/sub/file; echo; stat -c %a /data /data/link; readlink /data/link; echo new > /data/sub/file");
    std::fs::File::open(bundle.rootfs().join("data"))
        .unwrap()
        .set_permissions(PermissionsExt::from_mode(0o1750))
        .unwrap();
    symlink("/etc/shadow", bundle.rootfs().join("data/link")).unwrap();
    assert_eq!(bundle.run().ok().stdout, "of the image\n1750\n777\n/etc/shadow\n");
    assert_eq!(std::fs::read_to_string(bundle.rootfs().join("data/sub/file")).unwrap(), "of the image");
}

/// It becomes read-only when everything below is mounted.
#[test]
fn a_read_only_tmpfs_takes_mounts_below() {
    let fixture = Fixture::new();
    fixture.file("shared/file", "below");
    let bundle = fixture
        .bundle()
        .mount("/ro", "tmpfs", "tmpfs", &["ro"])
        .mount("/ro/deep/dir", "bind", fixture.path().join("shared"), &["rbind"])
        .script("cat /ro/deep/dir/file; echo; echo x > /ro/file || echo refused");
    assert_eq!(bundle.run().ok().stdout, "below\nrefused\n");
}

/// An image's /etc/resolv.conf is often a link to a file that only a running system has.
#[test]
fn a_file_is_bound_on_the_target_of_a_dangling_link() {
    let fixture = Fixture::new();
    let source = fixture.file("resolv.conf", "nameserver");
    let bundle = fixture
        .bundle()
        .mount("/etc/resolv.conf", "bind", source, &["bind", "ro"])
        .script("cat /etc/resolv.conf; echo; ls /run/resolve");
    std::fs::create_dir_all(bundle.rootfs().join("etc")).unwrap();
    symlink("../../../run/resolve/stub.conf", bundle.rootfs().join("etc/resolv.conf")).unwrap();
    assert_eq!(bundle.run().ok().stdout, "nameserver\nstub.conf\n");
}

/// The root of a user namespace may not walk to it; the runtime may.
#[test]
fn a_source_in_a_private_directory_reaches_a_user_namespace() {
    let fixture = Fixture::new();
    fixture.file("private/volume/file", "secret");
    let private = fixture.path().join("private");
    std::fs::File::open(&private).unwrap().set_permissions(PermissionsExt::from_mode(0o700)).unwrap();
    let bundle = fixture
        .bundle()
        .file("/mnt/here", "")
        .mount("/mnt", "bind", private.join("volume"), &["rbind", "ro"])
        .script("cat /mnt/file; echo; test -c /dev/null && echo > /dev/null && id -u")
        .user_namespace();
    assert_eq!(bundle.run().ok().stdout, "secret\n0\n");
}
