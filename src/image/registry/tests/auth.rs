//! Tokens and how long they last, waiting for a busy registry, and logging in.
use super::*;

#[test]
fn a_busy_registry_is_waited_for() {
    let server = Server::start(|asked, stream| match asked.nth {
        0 => answer(stream, 429, &["Retry-After: 1"], b""),
        _ => answer(stream, 200, &[OCI], b"{}"),
    });
    let start = Instant::now();
    client(&server.reference("a")).manifest().unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));

    let server = Server::start(|_, stream| answer(stream, 429, &["Retry-After: 3600"], b""));
    let error = client(&server.reference("a")).manifest().unwrap_err();
    assert!(matches!(error, RegistryError::TooBusy { .. }), "{error}");
    assert_eq!(server.asked().len(), 1);

    let server =
        Server::start(|_, stream| answer(stream, 429, &["Retry-After: Mon, 01 Jan 2035 00:00:00 GMT"], b""));
    let error = client(&server.reference("a")).manifest().unwrap_err();
    assert!(matches!(error, RegistryError::Status { status: 429, .. }), "{error}");
    assert_eq!(server.asked().len(), 4);
}

/// A registry whose tokens are good for `uses` requests.
fn forgetful(uses: usize) -> Server {
    let issued = Mutex::new((0, 0));
    Server::start(move |asked, stream| {
        let mut issued = lock(&issued);
        if asked.path.starts_with("/token") {
            *issued = (issued.0 + 1, 0);
            return answer(stream, 200, &[], format!(r#"{{"token":"t{}"}}"#, issued.0).as_bytes());
        }
        let current = format!("Bearer t{}", issued.0);
        if asked.header("authorization") != Some(&current) || issued.1 == uses {
            let realm =
                format!("Www-Authenticate: Bearer realm=\"http://{}/token\"", asked.header("host").unwrap());
            return answer(stream, 401, &[&realm], b"");
        }
        issued.1 += 1;
        let from: usize =
            asked.header("range").map_or(0, |r| r["bytes=".len()..r.len() - 1].parse().unwrap());
        let head = format!(
            "HTTP/1.1 206 X\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{}\r\n\r\n",
            BLOB.len() - from,
            BLOB.len() - 1,
            BLOB.len()
        );
        let end = BLOB.len().min(from + 30_000);
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&BLOB[from..end]));
    })
}

#[test]
fn a_token_that_expires_in_the_middle_of_a_blob() {
    let server = forgetful(1);
    let reference = server.reference("a");
    assert_eq!(read_all(&mut client(&reference).blob(&descriptor(BLOB), 0)).unwrap(), BLOB);
    let tokens = server.asked().iter().filter(|asked| asked.path.starts_with("/token")).count();
    assert_eq!(tokens, 4, "one for each answer that broke off");

    // One that is never good for anything ends it.
    let server = forgetful(0);
    let error = read_all(&mut client(&server.reference("a")).blob(&descriptor(BLOB), 0)).unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error}");
}

#[test]
fn a_blob_from_the_middle_on() {
    let server = breaking(true);
    let reference = server.reference("a");
    let client = client(&reference);
    let rest = read_all(&mut client.blob(&descriptor(BLOB), 70_000)).unwrap();
    assert_eq!(rest.len(), 30_000);
    assert_eq!(server.asked()[0].header("range"), Some("bytes=70000-"));
    assert_eq!(read_all(&mut client.blob(&descriptor(BLOB), 100_000)).unwrap(), b"");
    assert_eq!(server.asked().len(), 1, "nothing is left to ask for");
}

#[test]
fn ranges_that_lie_are_not_asked_for_again() {
    let server = Server::start(|asked, stream| match (asked.header("range"), asked.nth) {
        (Some(_), 0) => answer(stream, 206, &["Content-Range: bytes 0-4/100000"], b"77777"),
        (Some(_), _) => answer(stream, 416, &[], b""),
        (None, _) => answer(stream, 200, &[], BLOB),
    });
    for _ in 0..2 {
        let reference = server.reference("a");
        let rest = read_all(&mut client(&reference).blob(&descriptor(BLOB), 99_990)).unwrap();
        assert_eq!(rest.len(), 10);
    }
    assert_eq!(server.asked().len(), 4);
}

#[test]
fn an_identity_token_goes_to_the_token_service() {
    let server = Server::start(|asked, stream| {
        if asked.path == "/token" {
            assert_eq!((asked.method.as_str(), asked.header("authorization")), ("POST", None));
            let want = "grant_type=refresh_token&client_id=corten&scope=repository:a:pull&service=s&refresh_token=i%26d";
            assert_eq!(String::from_utf8_lossy(&asked.body), want);
            return answer(stream, 200, &[], br#"{"access_token":"fresh"}"#);
        }
        match asked.header("authorization") {
            Some("Bearer fresh" | "Bearer own") => answer(stream, 200, &[OCI], b"{}"),
            _ => {
                let host = asked.header("host").unwrap();
                let realm = format!("Www-Authenticate: Bearer realm=\"http://{host}/token\",service=\"s\"");
                answer(stream, 401, &[&realm], b"");
            }
        }
    });
    let reference = server.reference("a");
    as_user(&reference, Keyring::Given(Credentials::identity("i&d"))).manifest().unwrap();
    as_user(&reference, Keyring::Given(Credentials::registry_token("own"))).manifest().unwrap();
    assert_eq!(server.asked().iter().filter(|asked| asked.path == "/token").count(), 1);
}

#[test]
fn an_identity_token_is_not_led_away() {
    let thief = Server::start(|_, stream| answer(stream, 200, &[], br#"{"access_token":"x"}"#));
    let address = thief.address;
    let server = Server::start(move |asked, stream| match asked.path.as_str() {
        "/token" => answer(stream, 307, &[&format!("Location: http://{address}/token")], b""),
        _ => {
            let host = asked.header("host").unwrap();
            answer(stream, 401, &[&format!("Www-Authenticate: Bearer realm=\"http://{host}/token\"")], b"");
        }
    });
    let keyring = Keyring::Given(Credentials::identity("secret"));
    let error = as_user(&server.reference("a"), keyring).manifest().unwrap_err();
    assert!(matches!(error, RegistryError::Status { status: 307, .. }), "{error}");
    assert!(thief.asked().is_empty());
}

#[test]
fn logging_in() {
    let server = Server::start(|asked, stream| match asked.header("authorization") {
        Some("Basic dXNlcjpwYXNz") => answer(stream, 200, &[], b"{}"),
        _ => answer(stream, 401, &["Www-Authenticate: Basic realm=\"x\""], b""),
    });
    let access = Access { patience: quick(), ..Access::default() };
    let registry = server.address.to_string();
    let log_in = |user: &str| Client::log_in(&registry, Credentials::new(user, "pass"), &access);
    assert_eq!(log_in("user").unwrap(), Login::Accepted);
    let error = log_in("other").unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error}");
    assert!(error.to_string().starts_with(&format!("cannot log in to {registry}: unauthorized")), "{error}");
    assert_eq!(server.asked()[0].path, "/v2/");
    let open = Server::start(|_, stream| answer(stream, 200, &[], b"{}"));
    let registry = open.address.to_string();
    assert_eq!(Client::log_in(&registry, Credentials::new("u", "p"), &access).unwrap(), Login::NotAsked);
}

#[test]
fn a_registry_that_may_be_spoken_to_in_the_clear() {
    let server = Server::start(|_, stream| answer(stream, 200, &[OCI], b"{}"));
    let reference = server.reference("a");
    let access = Access { verify: TlsVerify::Never, patience: quick(), ..Access::default() };
    let client = Client::new(&reference, Endpoint::of(&reference, &access), &access);
    assert_eq!(client.manifest().unwrap().bytes, b"{}");
    let access = Access { verify: TlsVerify::Always, ..access };
    let error = Client::new(&reference, Endpoint::of(&reference, &access), &access).manifest().unwrap_err();
    assert!(matches!(error, RegistryError::Tls { .. } | RegistryError::Broken { .. }), "{error}");
}
