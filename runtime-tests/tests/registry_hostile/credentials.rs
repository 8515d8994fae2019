//! Who is told the user's credentials.

use crate::{Host, expect_error, image};
use runtime_tests::registry::{Answer, Registry, blob_path, site};
use serde_json::json;

#[test]
fn a_token_is_fetched_with_credentials_for_the_registry_alone() {
    let image = image();
    let honest = site("t/app", "v", &image);
    let registry = Registry::answering(move |asked| {
        let authorization = asked.headers.get("authorization").map(String::as_str);
        match (asked.path.starts_with("/token?"), authorization) {
            // user:pass
            (true, Some("Basic dXNlcjpwYXNz")) => Answer::new("application/json", r#"{"token":"abc"}"#),
            (false, Some("Bearer abc")) => honest.get(&asked.path).cloned().unwrap_or_else(|| Answer::status(404)),
            _ => Answer::status(401).header(format!(
                r#"Www-Authenticate: Bearer realm="http://{}/token",service="test",scope="repository:t/app:pull""#,
                asked.headers["host"]
            )),
        }
    });
    let reference = format!("{}/t/app:v", registry.address());
    let host = Host::new();
    expect_error(&host.pull(&reference).exits(125), &[&reference, "unauthorized"]);
    expect_error(
        &host.pull_with(&["--creds", "user:wrong"], &reference).exits(125),
        &[&reference, "unauthorized"],
    );
    host.is_empty();
    host.pull_with(&["--creds", "user:pass"], &reference).ok();

    let stored = Host::new();
    std::fs::create_dir(stored.dir.path().join(".docker")).expect("directory");
    let auths = json!({"auths": {registry.address().to_string(): {"auth": "dXNlcjpwYXNz"}}});
    std::fs::write(stored.dir.path().join(".docker/config.json"), auths.to_string()).expect("config.json");
    stored.pull(&reference).ok();
    let token = registry
        .asked()
        .into_iter()
        .find(|asked| asked.path.starts_with("/token?"))
        .expect("a token request");
    assert_eq!(token.path, "/token?scope=repository:t/app:pull&service=test");
}

#[test]
fn cve_2020_15157_no_credentials_for_another_origin() {
    let image = image();
    let layer = blob_path("t/app", &image, 0);
    let honest = site("t/app", "v", &image);
    // Serves anything to anybody, and writes down who came.
    let files = honest.clone();
    let other = Registry::answering(move |asked| match asked.path.starts_with("/token") {
        true => Answer::new("application/json", r#"{"token":"abc"}"#),
        false => files.get(&asked.path).cloned().unwrap_or_else(|| Answer::status(404)),
    });
    let address = other.address();
    let registry = Registry::answering(move |asked| {
        if asked.headers.get("authorization").is_none_or(|value| value != "Bearer abc") {
            return Answer::status(401)
                .header(format!(r#"Www-Authenticate: Bearer realm="http://{address}/token""#));
        }
        if asked.path == layer {
            return Answer::status(307).header(format!("Location: http://{address}{layer}"));
        }
        honest.get(&asked.path).cloned().unwrap_or_else(|| Answer::status(404))
    });
    let host = Host::new();
    host.pull_with(&["--creds", "user:pass"], &format!("{}/t/app:v", registry.address())).ok();
    let asked = other.asked();
    assert_eq!(asked.len(), 2, "the token and the layer: {asked:?}");
    assert!(asked.iter().all(|asked| !asked.headers.contains_key("authorization")), "{asked:?}");
}
