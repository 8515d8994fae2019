//! Pushing to a server that misbehaves in one way at a time.
use super::super::push::Uploaded;
use super::*;

const DATA: &[u8] = &[9; 100_000];

/// Takes uploads as distribution does; `broken` answers in its place where it wants to.
fn taking(broken: impl Fn(&Asked, usize) -> Option<u16> + Send + Sync + 'static) -> Server {
    let held = Mutex::new(Vec::new());
    Server::start(move |asked, stream| {
        let mut held = lock(&held);
        if let Some(status) = broken(asked, held.len()) {
            return answer(stream, status, &[], b"");
        }
        let state = |length: usize| format!("Range: 0-{}", length.max(1) - 1);
        let location = "Location: /v2/a/b/blobs/uploads/1?_state=x";
        match (asked.method.as_str(), asked.path.as_str()) {
            ("HEAD", _) => answer(stream, 404, &[], b""),
            ("POST", _) => {
                held.clear();
                answer(stream, 202, &[location], b"");
            }
            ("GET", _) => answer(stream, 204, &[location, &state(held.len())], b""),
            ("PATCH", path) => {
                assert!(path.ends_with("_state=x"), "{path}");
                let range = format!("{}-{}", held.len(), held.len() + asked.body.len() - 1);
                assert_eq!(asked.header("content-range"), Some(range.as_str()));
                held.extend_from_slice(&asked.body);
                answer(stream, 202, &[location, &state(held.len())], b"");
            }
            ("PUT", path) => {
                held.extend_from_slice(&asked.body);
                let want = format!("&digest={}", Digest::of(DATA));
                let status = if path.ends_with(&want) && **held == *DATA { 201 } else { 400 };
                answer(stream, status, &[], b"");
            }
            _ => answer(stream, 405, &[], b""),
        }
    })
}

fn upload(server: &Server, from: &[&str]) -> Result<Uploaded> {
    client(&server.reference("a/b:t")).upload_blob(&descriptor(DATA), from, &DATA, &|_| {})
}

fn methods(server: &Server) -> Vec<String> {
    server.asked().into_iter().map(|asked| asked.method).collect()
}

#[test]
fn a_blob_is_sent_once() {
    let server = taking(|_, _| None);
    let count = AtomicUsize::new(0);
    let sent = |bytes: u64| {
        count.fetch_add(usize::try_from(bytes).unwrap(), Ordering::SeqCst);
    };
    let uploaded =
        client(&server.reference("a/b:t")).upload_blob(&descriptor(DATA), &[], &DATA, &sent).unwrap();
    assert_eq!((uploaded, count.load(Ordering::SeqCst)), (Uploaded::Sent, DATA.len()));
    assert_eq!(methods(&server), ["HEAD", "POST", "PUT"]);
    assert_eq!(server.asked()[1].header("content-length"), Some("0"));
}

#[test]
fn a_blob_that_is_there_or_in_another_repository() {
    let there = taking(|asked, _| (asked.method == "HEAD").then_some(200));
    assert_eq!(upload(&there, &[]).unwrap(), Uploaded::Present);
    assert_eq!(methods(&there), ["HEAD"]);

    let mounting = taking(|asked, _| (asked.method == "POST").then_some(201));
    assert_eq!(upload(&mounting, &["a/b", "other/repo"]).unwrap(), Uploaded::Mounted);
    let want = format!("/v2/a/b/blobs/uploads/?mount={}&from=other/repo", Digest::of(DATA));
    assert_eq!(mounting.asked()[1].path, want);

    // It does not have it, and has begun an upload.
    let server = taking(|_, _| None);
    assert_eq!(upload(&server, &["other/repo"]).unwrap(), Uploaded::Sent);
    assert_eq!(methods(&server), ["HEAD", "POST", "PUT"]);
}

#[test]
fn a_blob_that_did_not_get_through_whole_goes_in_chunks() {
    for status in [503, 413] {
        let server = taking(move |asked, _| (asked.method == "PUT" && asked.nth == 2).then_some(status));
        assert_eq!(upload(&server, &[]).unwrap(), Uploaded::Sent);
        assert_eq!(methods(&server), ["HEAD", "POST", "PUT", "GET", "POST", "PATCH", "PUT"], "{status}");
    }
    let dead = taking(|asked, _| matches!(asked.method.as_str(), "PUT" | "PATCH").then_some(500));
    let error = upload(&dead, &[]).unwrap_err();
    assert!(matches!(error, RegistryError::Status { status: 500, .. }), "{error}");
    assert!(error.to_string().contains(&format!("cannot push the blob {}", Digest::of(DATA))), "{error}");
    let full = taking(|asked, _| (asked.method == "PUT").then_some(403));
    assert!(matches!(upload(&full, &[]), Err(RegistryError::Denied { .. })));
}

#[test]
fn a_source_with_fewer_bytes() {
    let server = taking(|_, _| None);
    let short = Descriptor { size: 200_000, ..descriptor(DATA) };
    let reference = server.reference("a/b:t");
    let mut client = client(&reference);
    client.patience.retries = 0;
    assert!(client.upload_blob(&short, &[], &DATA, &|_| {}).is_err());
}

#[test]
fn manifests() {
    let server = Server::start(|asked, stream| {
        assert_eq!((asked.method.as_str(), asked.body.as_slice()), ("PUT", &b"{}"[..]));
        assert_eq!(asked.header("content-type"), Some("x/y"));
        let lies = asked.path.ends_with("lie");
        let digest = Digest::of(if lies { b"other" } else { b"{}" });
        answer(stream, 201, &[&format!("Docker-Content-Digest: {digest}")], b"");
    });
    let client = client(&server.reference("a/b:t"));
    assert_eq!(client.put_manifest("t", "x/y", b"{}").unwrap(), Digest::of(b"{}"));
    assert_eq!(server.asked()[0].path, "/v2/a/b/manifests/t");
    assert!(matches!(client.put_manifest("lie", "x/y", b"{}"), Err(RegistryError::WrongDigest { .. })));
}

#[test]
fn uploads_go_where_they_may_be_seen() {
    let server = Server::start(|asked, stream| match asked.method.as_str() {
        "HEAD" => answer(stream, 404, &[], b""),
        _ => answer(stream, 202, &["Location: http://192.0.2.1/upload"], b""),
    });
    assert!(matches!(upload(&server, &[]), Err(RegistryError::Downgrade { .. })));
    let silent = Server::start(|asked, stream| match asked.method.as_str() {
        "HEAD" => answer(stream, 404, &[], b""),
        _ => answer(stream, 202, &[], b""),
    });
    let error = upload(&silent, &[]).unwrap_err().to_string();
    assert!(error.contains("no Location"), "{error}");
}

#[test]
fn a_token_with_the_scope_that_the_registry_names() {
    let server = Server::start(|asked, stream| {
        if asked.path.starts_with("/token") {
            let token = if asked.path.contains("push") { "push" } else { "pull" };
            return answer(stream, 200, &[], format!(r#"{{"token":"{token}"}}"#).as_bytes());
        }
        let scope = if asked.method == "HEAD" { "pull" } else { "pull,push" };
        let accepted = match asked.header("authorization") {
            Some("Bearer push") => true,
            Some("Bearer pull") => scope == "pull",
            _ => false,
        };
        let host = asked.header("host").unwrap();
        let challenge = format!(
            "Www-Authenticate: Bearer realm=\"http://{host}/token\",scope=\"repository:a/b:{scope} repository:c:pull\""
        );
        match (accepted, asked.method.as_str()) {
            (false, _) => answer(stream, 401, &[&challenge], b""),
            (true, "HEAD") => answer(stream, 404, &[], b""),
            (true, "POST") => answer(stream, 202, &["Location: /upload"], b""),
            (true, _) => answer(stream, 201, &[], b""),
        }
    });
    assert_eq!(upload(&server, &[]).unwrap(), Uploaded::Sent);
    let tokens: Vec<String> = server
        .asked()
        .into_iter()
        .map(|asked| asked.path)
        .filter(|path| path.starts_with("/token"))
        .collect();
    assert_eq!(
        tokens,
        [
            "/token?scope=repository:a/b:pull&scope=repository:c:pull",
            "/token?scope=repository:a/b:pull,push&scope=repository:c:pull"
        ]
    );
}
