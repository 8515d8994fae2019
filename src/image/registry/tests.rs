//! The client against a server that misbehaves in one way at a time.
use super::*;
use crate::error::{ErrorKind, Kind};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

mod auth;
mod push;

/// What the server was asked: the request line and the headers, lower case.
#[derive(Debug, Clone)]
struct Asked {
    /// Counts from 0.
    nth: usize,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

struct Server {
    address: SocketAddr,
    log: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// Answers each request with what `handler` writes, then closes the connection.
    fn start(handler: impl Fn(&Asked, &mut TcpStream) + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (handler, count, seen) = (Arc::new(handler), AtomicUsize::new(0), log.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let Some(asked) = read_request(&stream, count.fetch_add(1, Ordering::SeqCst)) else {
                    continue;
                };
                lock(&seen).push(asked.clone());
                let handler = handler.clone();
                std::thread::spawn(move || handler(&asked, &mut stream));
            }
        });
        Server { address, log }
    }

    fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.address).parse().unwrap()
    }

    fn asked(&self) -> Vec<Asked> {
        lock(&self.log).clone()
    }
}

/// A server that says nothing more, until its client goes away.
fn await_hang_up(stream: &mut TcpStream) {
    // An error, a reset for one, is an end too.
    let _ = std::io::Read::read(stream, &mut [0]);
}

fn read_request(stream: &TcpStream, nth: usize) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let (method, rest) = lines.first()?.split_once(' ')?;
    let (method, path) = (method.to_owned(), rest.split(' ').next()?.to_owned());
    let headers: Vec<(String, String)> = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(": ").map(|(k, v)| (k.to_ascii_lowercase(), v.to_owned())))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length.map_or(0, |(_, value)| value.parse().unwrap())];
    std::io::Read::read_exact(&mut reader, &mut body).ok()?;
    Some(Asked { nth, method, path, headers, body })
}

fn answer(stream: &mut TcpStream, status: u16, headers: &[&str], body: &[u8]) {
    let mut text = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for header in headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    // A client that has seen enough may be gone.
    let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.write_all(body));
}

fn quick() -> Patience {
    Patience {
        connect: Duration::from_secs(5),
        header: Duration::from_millis(400),
        stall: Duration::from_millis(300),
        window: Duration::from_millis(500),
        pace: 1 << 10,
        retries: 3,
        backoff: Duration::from_millis(1),
    }
}

fn as_user(reference: &Reference, keyring: Keyring) -> Client {
    let access = Access { keyring, patience: quick(), ..Access::default() };
    Client::new(reference, Endpoint::of(reference, &access), &access)
}

fn client(reference: &Reference) -> Client {
    as_user(reference, Keyring::Anonymous)
}

fn with_credentials(reference: &Reference) -> Client {
    as_user(reference, Keyring::Given(Credentials::new("user", "pass")))
}

fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor { media_type: String::new(), digest: Digest::of(bytes), size: bytes.len() as u64 }
}

const OCI: &str = "Content-Type: application/vnd.oci.image.manifest.v1+json";

#[test]
fn a_manifest_by_tag_and_by_digest() {
    let server = Server::start(|_, stream| answer(stream, 200, &[OCI], b"{}"));
    let fetched = client(&server.reference("a/b:t")).manifest().unwrap();
    assert_eq!(fetched.bytes, b"{}");
    assert_eq!(fetched.digest, Digest::of(b"{}"));
    assert_eq!(fetched.media_type.as_deref(), Some("application/vnd.oci.image.manifest.v1+json"));
    let pinned = server.reference("a/b").with_digest(Digest::of(b"{}"));
    client(&pinned).manifest().unwrap();
    let other = server.reference("a/b").with_digest(Digest::of(b"other"));
    assert!(matches!(client(&other).manifest(), Err(RegistryError::WrongDigest { .. })));
    let asked = server.asked();
    assert_eq!(asked[0].path, "/v2/a/b/manifests/t");
    assert!(asked[0].header("accept").unwrap().contains("manifest.list.v2"));
    assert_eq!(asked[1].path, format!("/v2/a/b/manifests/{}", Digest::of(b"{}")));
}

#[test]
fn a_manifest_other_than_its_announced_digest() {
    let server = Server::start(|_, stream| {
        let announced = format!("Docker-Content-Digest: {}", Digest::of(b"other"));
        answer(stream, 200, &[OCI, &announced], b"{}");
    });
    assert!(matches!(client(&server.reference("a")).manifest(), Err(RegistryError::WrongDigest { .. })));
}

#[test]
fn refusals_have_names() {
    let body = |code: &str| format!(r#"{{"errors":[{{"code":"{code}","message":"sorry \u001b[31m"}}]}}"#);
    for (status, code, want) in [
        (404, "NAME_UNKNOWN", "no such repository"),
        (404, "MANIFEST_UNKNOWN", "does not have it"),
        (403, "DENIED", "access denied"),
        (401, "UNAUTHORIZED", "authentication that is not supported"),
        (418, "", "status 418"),
    ] {
        let text = body(code);
        let server = Server::start(move |_, stream| answer(stream, status, &[], text.as_bytes()));
        let error = client(&server.reference("a/b:t")).manifest().unwrap_err().to_string();
        assert!(error.contains(want) && error.contains("/a/b:t"), "{error}");
        assert!(!error.contains('\u{1b}'), "{error:?}");
        assert_eq!(server.asked().len(), 1, "a refusal is final");
    }
}

#[test]
fn server_errors_are_tried_again() {
    let server = Server::start(|asked, stream| match asked.nth {
        0 | 1 => answer(stream, 503, &[], b"busy"),
        _ => answer(stream, 200, &[OCI], b"{}"),
    });
    client(&server.reference("a")).manifest().unwrap();
    assert_eq!(server.asked().len(), 3);

    let server = Server::start(|_, stream| answer(stream, 500, &[], b"dead"));
    let error = client(&server.reference("a")).manifest().unwrap_err();
    assert!(matches!(error, RegistryError::Status { status: 500, .. }), "{error}");
    assert_eq!(server.asked().len(), 4);
}

#[test]
fn an_endless_manifest_is_bounded() {
    let server = Server::start(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[b' '; 64 << 10]).is_ok() {}
    });
    assert!(matches!(client(&server.reference("a")).manifest(), Err(RegistryError::TooLarge { .. })));
}

#[test]
fn silence_has_a_deadline() {
    let server = Server::start(|asked, stream| {
        match asked.path.as_str() {
            "/v2/head/manifests/latest" => {}
            "/v2/body/manifests/latest" => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{");
            }
            "/v2/trailers/manifests/latest" => {
                let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n";
                let _ = stream.write_all(head);
                while stream.write_all(b"X: x\r\n").is_ok() {
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
            // A byte now and then.
            _ => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{");
                while stream.write_all(b" ").is_ok() {
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
        await_hang_up(stream);
    });
    for name in ["head", "body", "drip", "trailers"] {
        let start = Instant::now();
        let error = client(&server.reference(name)).manifest().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{name}: {error}");
        assert!(start.elapsed() < Duration::from_secs(3), "{name}: {:?}", start.elapsed());
    }
}

#[test]
fn nobody_there() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let reference: Reference = format!("{}/a", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let error = client(&reference).manifest().unwrap_err();
    assert!(matches!(error, RegistryError::Connect { .. }), "{error}");
}

const BLOB: &[u8] = &[7; 100_000];

fn read_all(reader: &mut BlobReader<'_>) -> Result<Vec<u8>> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(bytes),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

/// Breaks off after 30,000 bytes of each answer.
fn breaking(ranges: bool) -> Server {
    Server::start(move |asked, stream| {
        let from: usize = match asked.header("range") {
            Some(range) if ranges => range["bytes=".len()..range.len() - 1].parse().unwrap(),
            _ => 0,
        };
        let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{}\r\n\r\n",
            BLOB.len() - from,
            BLOB.len() - 1,
            BLOB.len()
        );
        let part = if ranges { 30_000 } else { 30_000 * (asked.nth + 1) };
        let end = BLOB.len().min(from + part);
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&BLOB[from..end]));
    })
}

#[test]
fn a_broken_blob_is_resumed() {
    for ranges in [true, false] {
        let server = breaking(ranges);
        let reference = server.reference("a");
        let client = client(&reference);
        assert_eq!(read_all(&mut client.blob(&descriptor(BLOB), 0)).unwrap(), BLOB, "ranges: {ranges}");
        let asked = server.asked();
        assert_eq!(asked.len(), 4);
        assert_eq!(asked[0].header("range"), None);
        assert_eq!(asked[1].header("range"), Some("bytes=30000-"));
    }
}

#[test]
fn a_blob_of_the_wrong_length() {
    let short = Server::start(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nshort");
    });
    let reference = short.reference("a");
    let error = read_all(&mut client(&reference).blob(&descriptor(BLOB), 0)).unwrap_err();
    assert!(matches!(error, RegistryError::Truncated { got: 5, want: 100_000, .. }), "{error}");
    assert_eq!(short.asked().len(), 4);

    let lying = Server::start(|_, stream| answer(stream, 200, &[], b"honest"));
    let reference = lying.reference("a");
    let error = read_all(&mut client(&reference).blob(&descriptor(BLOB), 0)).unwrap_err();
    assert!(matches!(error, RegistryError::WrongSize { got: 6, .. }), "{error}");

    // Without a length the end of the blob is the end of the connection.
    let long = Server::start(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").and_then(|()| stream.write_all(BLOB));
        let _ = stream.write_all(b"more");
    });
    let reference = long.reference("a");
    let error = read_all(&mut client(&reference).blob(&descriptor(BLOB), 0)).unwrap_err();
    assert!(matches!(error, RegistryError::TooLong { .. }), "{error}");
    let exact = descriptor(&[BLOB, b"more"].concat());
    assert_eq!(read_all(&mut client(&reference).blob(&exact, 0)).unwrap().len(), 100_004);

    let cut = Server::start(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nshort");
    });
    let reference = cut.reference("a");
    let error = read_all(&mut client(&reference).blob(&descriptor(BLOB), 0)).unwrap_err();
    assert!(matches!(error, RegistryError::Truncated { .. }), "{error}");
}

#[test]
fn a_range_that_is_another_one() {
    let server = Server::start(|asked, stream| match asked.header("range") {
        Some(_) => {
            let head = "HTTP/1.1 206 X\r\nContent-Range: bytes 0-4/100000\r\nContent-Length: 5\r\n\r\n";
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(b"77777"));
        }
        None => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nabc");
        }
    });
    let reference = server.reference("a");
    let error = read_all(&mut client(&reference).blob(&descriptor(BLOB), 0)).unwrap_err();
    assert!(matches!(error, RegistryError::Truncated { got: 3, .. }), "{error}");
}

#[test]
fn tokens_are_fetched_once() {
    let server = Server::start(|asked, stream| {
        let realm = format!(
            r#"Www-Authenticate: Bearer realm="http://{}/token",service="s p""#,
            asked.header("host").unwrap()
        );
        match (asked.path.starts_with("/token"), asked.header("authorization")) {
            (true, Some("Basic dXNlcjpwYXNz")) => answer(stream, 200, &[], br#"{"access_token":"t1"}"#),
            (false, Some("Bearer t1")) => answer(stream, 200, &[OCI], b"{}"),
            _ => answer(stream, 401, &[&realm], b""),
        }
    });
    let reference = server.reference("a/b");
    let client = with_credentials(&reference);
    client.manifest().unwrap();
    client.manifest().unwrap();
    let paths: Vec<String> = server.asked().into_iter().map(|asked| asked.path).collect();
    assert_eq!(paths.len(), 4, "{paths:?}");
    assert_eq!(paths[1], "/token?scope=repository:a/b:pull&service=s%20p");
    let error = as_user(&reference, Keyring::Anonymous).manifest().unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error}");
}

#[test]
fn basic_authentication() {
    let server = Server::start(|asked, stream| match asked.header("authorization") {
        Some("Basic dXNlcjpwYXNz") => answer(stream, 200, &[OCI], b"{}"),
        _ => answer(stream, 401, &["Www-Authenticate: Basic realm=\"x\""], b""),
    });
    let reference = server.reference("a");
    with_credentials(&reference).manifest().unwrap();
    assert!(matches!(client(&reference).manifest(), Err(RegistryError::Unauthorized { .. })));
    // A helper that is not installed is told where it was missed.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.json");
    std::fs::write(&file, r#"{"credsStore":"desktop"}"#).unwrap();
    let environment = credentials::Environment { auth_file: Some(file), ..Default::default() };
    let error = as_user(&reference, Keyring::Files(environment)).manifest().unwrap_err().to_string();
    assert!(error.contains("docker-credential-desktop"), "{error}");
}

#[test]
fn cve_2020_15157_credentials_stay_with_their_origin() {
    let thief = Server::start(|asked, stream| match asked.path.starts_with("/token") {
        true => answer(stream, 200, &[], br#"{"token":"stolen"}"#),
        false => answer(stream, 200, &[OCI], b"{}"),
    });
    let address = thief.address;
    // A redirect to another port, after credentials were accepted.
    let redirecting = Server::start(move |asked, stream| match asked.header("authorization") {
        Some(_) => answer(stream, 307, &[&format!("Location: http://{address}/x")], b""),
        None => answer(stream, 401, &["Www-Authenticate: Basic realm=\"x\""], b""),
    });
    with_credentials(&redirecting.reference("a")).manifest().unwrap();
    // A token service on another port.
    let realm = Server::start(move |asked, stream| match asked.header("authorization") {
        Some("Bearer stolen") => answer(stream, 200, &[OCI], b"{}"),
        _ => {
            answer(
                stream,
                401,
                &[&format!("Www-Authenticate: Bearer realm=\"http://{address}/token\"")],
                b"",
            );
        }
    });
    with_credentials(&realm.reference("a")).manifest().unwrap();
    let asked = thief.asked();
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().all(|asked| asked.header("authorization").is_none()), "{asked:?}");
}

#[test]
fn where_a_registry_may_not_send_us() {
    for (header, want) in [
        ("Www-Authenticate: Bearer realm=\"http://192.0.2.1/token\"", "is not encrypted"),
        ("Www-Authenticate: Bearer realm=\"file:///etc/passwd\"", "bad URL"),
        ("Www-Authenticate: Bearer realm=\"http://u:p@127.0.0.1/\"", "bad URL"),
        ("Www-Authenticate: Negotiate", "not supported"),
    ] {
        let server = Server::start(move |_, stream| answer(stream, 401, &[header], b""));
        let error = with_credentials(&server.reference("a")).manifest().unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
    for (location, want) in [
        ("http://192.0.2.1/", "is not encrypted"),
        ("file:///etc/passwd", "bad URL"),
        ("", "more than 5 redirects"),
        ("/again", "more than 5 redirects"),
    ] {
        let server =
            Server::start(move |_, stream| answer(stream, 302, &[&format!("Location: {location}")], b""));
        let error = client(&server.reference("a")).manifest().unwrap_err().to_string();
        assert!(error.contains(want), "{location}: {error}");
    }
}

#[test]
fn a_huge_token_is_bounded() {
    let server = Server::start(|asked, stream| {
        if asked.path.starts_with("/token") {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            while stream.write_all(&[b' '; 64 << 10]).is_ok() {}
        } else {
            let realm =
                format!("Www-Authenticate: Bearer realm=\"http://{}/token\"", asked.header("host").unwrap());
            answer(stream, 401, &[&realm], b"");
        }
    });
    let error = client(&server.reference("a")).manifest().unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { limit: super::auth::TOKEN_MAX, .. }), "{error}");
}

#[test]
fn a_cancelled_client_gives_up_at_once() {
    let server = Server::start(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nabc");
        await_hang_up(stream);
    });
    let reference = server.reference("a");
    let mut patience = quick();
    patience.stall = Duration::from_secs(60);
    let access = Access { patience, ..Access::default() };
    let client = Client::new(&reference, Endpoint::of(&reference, &access), &access);
    let start = Instant::now();
    let (begun, wait) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let (client, begun) = (&client, begun);
        let reading = scope.spawn(move || {
            let mut reader = client.blob(&descriptor(BLOB), 0);
            let mut buffer = [0; 3];
            assert_eq!(reader.read(&mut buffer).unwrap(), 3);
            begun.send(()).unwrap();
            read_all(&mut reader)
        });
        wait.recv().unwrap();
        client.cancel();
        let error = reading.join().unwrap().unwrap_err();
        assert!(matches!(error, RegistryError::Cancelled { .. }), "{error}");
    });
    assert!(start.elapsed() < Duration::from_secs(4));
}
