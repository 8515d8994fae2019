use super::*;

const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn normalises_as_docker_does() {
    for (text, full, familiar) in [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("index.docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("user/app", "docker.io/user/app:latest", "user/app:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app:v1", "localhost:5000/app:v1", "localhost:5000/app:v1"),
        ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c:latest", "127.0.0.1:5000/a/b/c:latest"),
        ("[::1]:5000/a:t", "[::1]:5000/a:t", "[::1]:5000/a:t"),
        ("[::1]/a", "[::1]/a:latest", "[::1]/a:latest"),
        ("Host/a", "Host/a:latest", "Host/a:latest"),
        ("ghcr.io/a/b__c.d--e_f", "ghcr.io/a/b__c.d--e_f:latest", "ghcr.io/a/b__c.d--e_f:latest"),
        ("a:5000", "docker.io/library/a:5000", "a:5000"),
    ] {
        let reference: Reference = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(reference.to_string(), full, "{text}");
        assert_eq!(reference.familiar(), familiar, "{text}");
        assert_eq!(full.parse(), Ok(reference), "{text}: the full form means the same");
    }
}

#[test]
fn digests_pin() {
    let reference: Reference = format!("quay.io/a/b@{D}").parse().unwrap();
    assert_eq!(reference.tag(), None);
    assert_eq!(reference.digest().unwrap().to_string(), D);
    assert_eq!(reference.to_string(), format!("quay.io/a/b@{D}"));
    let both: Reference = format!("quay.io/a/b:t@{D}").parse().unwrap();
    assert_eq!(both.tag(), Some("t"));
    assert_eq!(both.to_string(), format!("quay.io/a/b:t@{D}"));
}

#[test]
fn refuses_what_is_no_reference() {
    use ReferenceError as E;
    let parse = |text: &str| text.parse::<Reference>().unwrap_err();
    assert_eq!(parse(""), E::Empty);
    for text in [
        "/a",
        "a/",
        "a//b",
        "A",
        "a/B",
        "..",
        "a/../b",
        "a_",
        "-a",
        "a..b",
        "a___b",
        "a._b",
        "é",
        "a b",
        "a\n",
        "a/b\0",
        ":tag",
        "localhost:5000/",
    ] {
        assert!(matches!(parse(text), E::Repository { .. }), "{text:?}: {:?}", parse(text));
    }
    for text in [
        "host:/a",
        "host:0/a",
        "host:65536/a",
        "host:+80/a",
        "host:x/a",
        "-h.io/a",
        "h-.io/a",
        "h..io/a",
        ".io/a",
        "[::1/a",
        "[::g]/a",
        "[::1]5/a",
        "[::1]:/a",
        "user@x/a",
    ] {
        let error = parse(text);
        assert!(matches!(error, E::Registry { .. } | E::Digest { .. }), "{text:?}: {error:?}");
    }
    for text in ["a:", "a:.t", "a:-t", "a:t/u", "a:t:u", "a:é", &format!("a:{}", "t".repeat(129))] {
        assert!(matches!(parse(text), E::Tag { .. } | E::Registry { .. }), "{text:?}: {:?}", parse(text));
    }
    for text in ["a@", "a@sha256:../../x", "a@md5:00", &format!("a@{D}@{D}"), &format!("a@{D}:t")] {
        assert!(matches!(parse(text), E::Digest { .. }), "{text:?}");
    }
    assert!(matches!(parse(&"a".repeat(256)), E::NameTooLong { .. }));
    assert!(matches!(parse(&"a".repeat(1000)), E::TooLong { length: 1000 }));
    assert!(matches!(parse(&"a".repeat(64)), E::ImageId { .. }));
}

#[test]
fn longest_parts_fit() {
    let name = "a".repeat(NAME_MAX - "docker.io/library/".len());
    let text = format!("docker.io/library/{name}:{}@{D}", "t".repeat(TAG_MAX));
    assert_eq!(text.len(), REFERENCE_MAX);
    text.parse::<Reference>().unwrap();
}

proptest::proptest! {
    #[test]
    fn any_text_is_refused_or_survives_a_round_trip(text in "[a-zA-Z0-9.:/@_\\[\\]-]{0,40}") {
        if let Ok(reference) = text.parse::<Reference>() {
            proptest::prop_assert_eq!(reference.to_string().parse::<Reference>(), Ok(reference));
        }
    }
}

#[test]
fn a_short_form_means_the_same_image() {
    for (text, short) in [
        ("docker.io/library/busybox", "busybox:latest"),
        ("user/app:1", "user/app:1"),
        ("docker.io/127.0.0.1/x:y", "docker.io/127.0.0.1/x:y"),
        ("docker.io/localhost/x", "docker.io/localhost/x:latest"),
    ] {
        let reference: Reference = text.parse().expect(text);
        assert_eq!(reference.familiar(), short);
        assert_eq!(short.parse::<Reference>().expect(short), reference);
    }
}
