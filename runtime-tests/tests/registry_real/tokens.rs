//! Registries that want a token, and services that give them.
use super::access::openssl;
use super::*;
use runtime_tests::fault_proxy::{Fault, FaultProxy};
use runtime_tests::registry::{Answer, Asked, Registry};
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes without padding (RFC 4648, section 5), or with the other alphabet and padding (section 4).
fn base64(bytes: &[u8], url: bool) -> String {
    let rest = if url { "-_" } else { "+/" };
    let letters: Vec<char> = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(rest.chars()).collect();
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let mut value = [0; 4];
        value[1..=group.len()].copy_from_slice(group);
        let value = u32::from_be_bytes(value);
        let digit = |at: u32| letters[(value >> (18 - 6 * at) & 63) as usize];
        text.extend((0..=group.len() as u32).map(digit));
        if !url {
            text.extend(std::iter::repeat_n('=', 3 - group.len()));
        }
    }
    text
}

/// Signs tokens as distribution's `spec/auth/jwt.md` says.
struct Signer {
    dir: PathBuf,
}

impl Signer {
    fn new(dir: PathBuf) -> Self {
        std::fs::create_dir_all(&dir).expect("directory");
        let (key, pem, der) = (dir.join("key.pem"), dir.join("cert.pem"), dir.join("cert.der"));
        let (key, pem, der) =
            (key.display().to_string(), pem.display().to_string(), der.display().to_string());
        openssl(&[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=tokens",
            "-days",
            "2",
            "-keyout",
            &key,
            "-out",
            &pem,
        ]);
        openssl(&["x509", "-in", &pem, "-outform", "DER", "-out", &der]);
        Self { dir }
    }

    fn token(&self, repository: &str) -> String {
        let certificate = std::fs::read(self.dir.join("cert.der")).expect("certificate");
        let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [base64(&certificate, false)]});
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("clock").as_secs();
        let claims = json!({"iss": "tester", "aud": "here", "sub": "", "jti": "1", "nbf": now - 10, "iat": now,
            "exp": now + 300, "access": [{"type": "repository", "name": repository, "actions": ["pull"]}]});
        let signed = [header, claims].map(|part| base64(part.to_string().as_bytes(), true)).join(".");
        let mut file = tempfile::NamedTempFile::new().expect("temporary file");
        file.write_all(signed.as_bytes()).expect("token");
        let mut openssl = Command::new(needs::program("openssl", "openssl"));
        openssl.args(["dgst", "-sha256", "-sign"]).arg(self.dir.join("key.pem")).arg(file.path());
        let signature = openssl.output().expect("openssl");
        assert!(signature.status.success(), "{signature:?}");
        format!("{signed}.{}", base64(&signature.stdout, true))
    }
}

#[test]
fn a_token_service_that_the_registry_trusts() {
    let world = World::new();
    world.fill(&image("corten"), "t/app:v");
    let signer = Signer::new(world.path("tokens"));
    let bundle = world.path("tokens/cert.pem");
    let service = Registry::answering(move |asked| {
        assert!(
            asked.path.contains("service=here") && asked.path.contains("scope=repository:t/app:pull"),
            "{asked:?}"
        );
        Answer::new("application/json", json!({"token": signer.token("t/app")}).to_string())
    });
    let auth = format!(
        "auth: {{token: {{realm: \"http://{}/token\", service: here, issuer: tester, rootcertbundle: {}}}}}",
        service.address(),
        bundle.display()
    );
    let registry = DockerRegistry::start_with(&world.path("registry"), "", &auth);
    world.corten("root", &["pull", &format!("{}/t/app:v", registry.address())]).ok();
    assert_eq!(service.asked().len(), 1, "one token for the manifest, the configuration and two layers");
}

/// Wants a token that is good for `uses` requests, and gives it to whoever has the right password.
fn guarded(world: &World, uses: usize) -> FaultProxy {
    let (issued, used) = (AtomicUsize::new(0), AtomicUsize::new(0));
    FaultProxy::start(world.registry.address(), move |asked: &Asked| {
        if asked.path.starts_with("/token") {
            // me:s3:cret
            if asked.headers.get("authorization").map(String::as_str) != Some("Basic bWU6czM6Y3JldA==") {
                return Fault::Answer(Answer::status(401));
            }
            used.store(0, Ordering::SeqCst);
            let token = issued.fetch_add(1, Ordering::SeqCst) + 1;
            return Fault::Answer(Answer::new(
                "application/json",
                json!({"token": format!("t{token}")}).to_string(),
            ));
        }
        let current = format!("Bearer t{}", issued.load(Ordering::SeqCst));
        let good = asked.headers.get("authorization") == Some(&current);
        if good && used.fetch_add(1, Ordering::SeqCst) < uses {
            return if asked.path.contains("/blobs/") { Fault::Cut(30_000) } else { Fault::Pass };
        }
        let challenge = format!(
            "Www-Authenticate: Bearer realm=\"http://{}/token\",service=\"here\",scope=\"repository:t/app:pull\"",
            asked.headers["host"]
        );
        Fault::Answer(Answer::status(401).header(challenge))
    })
}

#[test]
fn tokens_that_expire_in_the_middle_of_a_pull_and_of_a_blob() {
    let world = World::new();
    world.fill(&resume::large(1, 100_000), "t/app:v");
    let proxy = guarded(&world, 1);
    let reference = format!("{}/t/app:v", proxy.address());
    world.corten("root", &["pull", "--creds", "me:no", &reference]).exits(125).says("unauthorized");
    let before = proxy.asked().len();
    world.corten("root", &["pull", "--creds", "me:s3:cret", &reference]).ok();
    let tokens = proxy.asked()[before..].iter().filter(|asked| asked.path.starts_with("/token")).count();
    assert!(tokens >= 5, "each token was good for one request: {tokens}");
    for asked in proxy.asked() {
        let basic = asked.headers.get("authorization").is_some_and(|value| value.starts_with("Basic"));
        assert!(
            !basic || asked.path.starts_with("/token"),
            "the password is for the token service: {asked:?}"
        );
    }
}
