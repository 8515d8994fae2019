//! Which entry of a file is meant.
use super::*;

fn lookup(reference: &str, json: &str) -> Result<Found, CredentialsError> {
    let reference: crate::image::reference::Reference = reference.parse().unwrap();
    let (registry, repository) = (reference.registry(), reference.repository());
    Environment::default().find_in(registry, repository, Path::new("auth.json"), json.as_bytes())
}

fn entry(user: &str) -> String {
    format!(r#"{{"auth":"{}"}}"#, BASE64.encode(format!("{user}:p:w")))
}

#[test]
fn the_most_specific_entry_wins() {
    let json = format!(
        r#"{{"auths":{{"https://index.docker.io/v1/":{},"quay.io":{},"quay.io/team":{},"localhost:5000":{}}}}}"#,
        entry("hub"),
        entry("quay"),
        entry("team"),
        entry("local")
    );
    for (reference, user) in [
        ("busybox", "hub"),
        ("quay.io/other/app", "quay"),
        ("quay.io/team/app", "team"),
        ("quay.io/teams/app", "quay"),
        ("localhost:5000/app", "local"),
    ] {
        let want = Found::Credentials(Credentials::new(user, "p:w"));
        assert_eq!(lookup(reference, &json).unwrap(), want, "{reference}");
    }
    for reference in ["ghcr.io/a/b", "localhost:5001/app", "localhost/app", "evilquay.io/a"] {
        assert_eq!(lookup(reference, &json).unwrap(), Found::Nothing, "{reference}");
    }
}

#[test]
fn other_forms() {
    let plain = r#"{"auths":{"a.io":{"username":"u","password":"p"},"b.io":{}}}"#;
    assert_eq!(lookup("a.io/x", plain).unwrap(), Found::Credentials(Credentials::new("u", "p")));
    assert_eq!(lookup("b.io/x", plain).unwrap(), Found::Nothing);
    let helper = r#"{"auths":{"a.io":{}},"credsStore":"desktop"}"#;
    assert!(matches!(lookup("a.io/x", helper).unwrap(), Found::Helper { .. }));
    for bad in [r#"{"auths":{"a.io":{"auth":"!"}}}"#, r#"{"auths":{"a.io":{"auth":"eA=="}}}"#] {
        assert!(matches!(lookup("a.io/x", bad), Err(CredentialsError::Auth { .. })));
    }
    assert!(matches!(lookup("a.io/x", "[]"), Err(CredentialsError::Json { .. })));
    let token = r#"{"auths":{"a.io":{"auth":"eDp5","identitytoken":"t"}}}"#;
    assert_eq!(lookup("a.io/x", token).unwrap(), Found::Credentials(Credentials::identity("t")));
    let token = r#"{"auths":{"a.io":{"registrytoken":"t"}}}"#;
    assert_eq!(lookup("a.io/x", token).unwrap(), Found::Credentials(Credentials::registry_token("t")));
}

#[test]
fn passwords_are_not_printed() {
    let text = format!("{:?}", Credentials::new("user", "secret"));
    assert!(text.contains("user") && !text.contains("secret"), "{text}");
}

#[test]
fn a_chosen_file_must_exist() {
    let directory = tempfile::tempdir().unwrap();
    let mut environment = Environment { home: Some(directory.path().to_owned()), ..Environment::default() };
    environment.runtime_dir = Some(directory.path().to_owned());
    assert_eq!(environment.find("a.io", "x").unwrap(), Found::Nothing);
    environment.auth_file = Some(directory.path().join("absent"));
    assert!(matches!(environment.find("a.io", "x"), Err(CredentialsError::Read { .. })));
}
