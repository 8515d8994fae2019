//! What the files of registries.conf mean.
use super::super::endpoint::Security;
use super::*;
use std::sync::Arc;

fn access(text: &str) -> Access {
    let mut registries = Registries::default();
    registries.add(Path::new("registries.conf"), text).unwrap();
    Access { registries: Arc::new(registries), ..Access::default() }
}

fn places(access: &Access, reference: &str) -> Vec<String> {
    let sources = access.sources(&reference.parse().unwrap()).unwrap();
    sources.iter().map(Endpoint::name).collect()
}

const MIRRORS: &str = r#"
[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "mirror.example/hub/"
[[registry.mirror]]
location = "127.0.0.1:5000"
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "tags.example"
insecure = true
pull-from-mirror = "tag-only"
"#;

#[test]
fn mirrors_come_first() {
    let access = access(MIRRORS);
    assert_eq!(
        places(&access, "busybox"),
        ["mirror.example/hub/library/busybox", "tags.example/library/busybox", "docker.io/library/busybox"]
    );
    let digest = format!("busybox@sha256:{}", "0".repeat(64));
    assert_eq!(
        places(&access, &digest),
        ["mirror.example/hub/library/busybox", "127.0.0.1:5000/library/busybox", "docker.io/library/busybox"]
    );
    let sources = access.sources(&"busybox".parse().unwrap()).unwrap();
    let how: Vec<_> = sources.iter().map(|source| (source.security, source.mirror)).collect();
    assert_eq!(how, [(Security::Verified, true), (Security::Any, true), (Security::Verified, false)]);
    assert_eq!(access.primary(&"busybox".parse().unwrap()).unwrap().name(), "docker.io/library/busybox");
    assert_eq!(places(&access, "quay.io/a/b"), ["quay.io/a/b"]);
}

#[test]
fn prefixes_are_rewritten_and_the_longest_wins() {
    let access = access(
        r#"
        [[registry]]
        prefix = "example.com"
        location = "internal.example:8443/all"
        [[registry]]
        prefix = "example.com/team"
        location = "team.example"
        [[registry]]
        prefix = "*.example.org"
        location = "org.example"
        [[registry]]
        prefix = "example.com/only/this"
        location = "this.example/that"
        "#,
    );
    for (reference, want) in [
        ("example.com/app:1", "internal.example:8443/all/app"),
        ("example.com/team/app", "team.example/app"),
        ("example.com/teams/app", "internal.example:8443/all/teams/app"),
        ("example.com/only/this", "this.example/that"),
        ("a.example.org/app", "org.example/app"),
        ("a.b.example.org/x/y", "org.example/x/y"),
        ("example.org/app", "example.org/app"),
        ("example.com:5000/app", "example.com:5000/app"),
        ("notexample.com/app", "notexample.com/app"),
    ] {
        assert_eq!(places(&access, reference), [want], "{reference}");
    }
    let error = access.sources(&"example.com/team".parse().unwrap()).unwrap_err();
    assert!(matches!(error, RegistriesError::Location { .. }), "{error}");
}

#[test]
fn blocked() {
    let access = access("[[registry]]\nprefix = \"evil.example\"\nblocked = true");
    for error in [
        access.sources(&"evil.example/a".parse().unwrap()).unwrap_err(),
        access.primary(&"evil.example/a".parse().unwrap()).unwrap_err(),
        access.check_registry("evil.example").unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(text.contains("evil.example") && text.contains("registries.conf"), "{text}");
    }
    access.check_registry("good.example").unwrap();
}

#[test]
fn insecure_is_for_that_registry_alone() {
    let access = access("[[registry]]\nlocation = \"lab.example:5000\"\ninsecure = true");
    let security = |access: &Access, name: &str| access.primary(&name.parse().unwrap()).unwrap().security;
    assert_eq!(security(&access, "lab.example:5000/a"), Security::Any);
    assert_eq!(security(&access, "lab.example/a"), Security::Verified);
    assert_eq!(security(&access, "localhost:5000/a"), Security::Plain);
    let strict = Access { verify: super::super::TlsVerify::Always, ..access.clone() };
    assert_eq!(security(&strict, "lab.example:5000/a"), Security::Verified);
    assert_eq!(security(&strict, "localhost:5000/a"), Security::Verified);
    let lax = Access { verify: super::super::TlsVerify::Never, ..access };
    assert_eq!(security(&lax, "quay.io/a"), Security::Any);
}

#[test]
fn short_names() {
    let names = |text: &str, name: &str| -> Vec<String> {
        let candidates = access(text).registries.candidates(name).unwrap();
        candidates.iter().map(ToString::to_string).collect()
    };
    assert_eq!(names("", "busybox"), ["docker.io/library/busybox:latest"]);
    let search = "unqualified-search-registries = [\"a.example\", \"docker.io\"]\n";
    assert_eq!(names(search, "busybox:1"), ["a.example/busybox:1", "docker.io/library/busybox:1"]);
    assert_eq!(names(search, "team/app"), ["a.example/team/app:latest", "docker.io/team/app:latest"]);
    assert_eq!(names(search, "quay.io/app"), ["quay.io/app:latest"]);
    let alias =
        format!("{search}[aliases]\n\"fedora\" = \"registry.example/fedora\"\n\"x/y\" = \"quay.io/x/z\"");
    assert_eq!(names(&alias, "fedora"), ["registry.example/fedora:latest"]);
    assert_eq!(names(&alias, "fedora:40"), ["registry.example/fedora:40"]);
    assert_eq!(names(&alias, "x/y"), ["quay.io/x/z:latest"]);
    let strict = format!("short-name-mode = \"enforcing\"\n{search}");
    let error = access(&strict).registries.candidates("busybox").unwrap_err().to_string();
    assert!(error.contains("a.example/busybox") && error.contains("enforcing"), "{error}");
    let one = "short-name-mode = \"enforcing\"\nunqualified-search-registries = [\"a.example\"]";
    assert_eq!(names(one, "busybox"), ["a.example/busybox:latest"]);
    assert!(matches!(access("").registries.candidates("Bad Name"), Err(NameError::Reference(_))));
}

#[test]
fn what_no_file_may_say() {
    for (text, want) in [
        ("[registries.search]\nregistries = []", "version 1"),
        ("[[registry]]\ninsecure = true", "wants a prefix or a location"),
        ("[[registry]]\nprefix = \"https://a.example\"", "want HOST"),
        ("[[registry]]\nprefix = \"a.*.example\"", "wildcard"),
        ("short-name-mode = \"maybe\"", "want enforcing"),
        (
            "[[registry]]\nlocation = \"a.example\"\n[[registry.mirror]]\nlocation = \"b\"\npull-from-mirror = \"x\"",
            "digest-only",
        ),
        ("[[registry", "no registries.conf of version 2"),
    ] {
        let error = Registries::default().add(Path::new("file.conf"), text).unwrap_err().to_string();
        assert!(error.contains(want) && error.contains("file.conf"), "{text}: {error}");
    }
}

#[test]
fn later_files_win() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    for name in ["system/registries.conf.d", "user"] {
        std::fs::create_dir_all(path(name)).unwrap();
    }
    let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
    write("system/registries.conf", "unqualified-search-registries = [\"system.example\"]");
    write("system/registries.conf.d/b.conf", "[aliases]\na = \"b.example/a\"\nz = \"\"");
    write("system/registries.conf.d/a.conf", "[aliases]\na = \"a.example/a\"\nz = \"a.example/z\"");
    write("system/registries.conf.d/ignored", "not toml");
    let mut files = Files { chosen: None, user: Some(path("user")), system: path("system") };
    let name = |files: &Files, name: &str| {
        Registries::read(files).unwrap().candidates(name).unwrap()[0].registry().to_owned()
    };
    assert_eq!(name(&files, "a"), "b.example");
    assert_eq!(name(&files, "z"), "system.example");
    write("user/registries.conf", "unqualified-search-registries = [\"user.example\"]");
    assert_eq!(name(&files, "z"), "user.example");
    assert_eq!(name(&files, "a"), "b.example");
    files.chosen = Some(path("chosen"));
    assert!(matches!(Registries::read(&files), Err(RegistriesError::Read { .. })));
    write("chosen", "");
    assert_eq!(name(&files, "a"), "docker.io");
}

#[test]
fn an_agents_mirror_is_asked_alone() {
    let mirror = Mirror::parse("http://127.0.0.1:5000").unwrap();
    let registries = Registries::default().replaced("gcr.io", &mirror);
    let access = Access { registries: Arc::new(registries), ..Access::default() };
    let sources = access.sources(&"gcr.io/a/b".parse().unwrap()).unwrap();
    assert_eq!(sources.len(), 1);
    assert_eq!((sources[0].name().as_str(), sources[0].mirror), ("127.0.0.1:5000/a/b", true));
    let mirror = Mirror::parse("https://127.0.0.1:5000").unwrap();
    let access = Access {
        registries: Arc::new(Registries::default().replaced("gcr.io", &mirror)),
        ..Access::default()
    };
    assert_eq!(access.sources(&"gcr.io/a".parse().unwrap()).unwrap()[0].security, Security::Verified);
    for bad in ["mirror:5000", "http://mirror/path", "ftp://mirror"] {
        assert!(Mirror::parse(bad).is_err(), "{bad}");
    }
}
