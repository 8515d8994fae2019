//! Who is asked, and what proves who we are: TLS, credentials, tokens, helpers, registries.conf and proxies.
use super::*;
use runtime_tests::fault_proxy::{ConnectProxy, Fault, FaultProxy};
use runtime_tests::registry::{Answer, Asked, Registry, blob_path, site, with_manifest};
use runtime_tests::terminal::OnTerminal;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};

fn openssl(args: &[&str]) {
    run(Command::new(needs::program("openssl", "openssl")).args(args)).ok();
}

/// An authority of its own, and certificates that it signed for `registry.test` and this machine.
struct Authority {
    dir: PathBuf,
}

impl Authority {
    fn new(dir: PathBuf) -> Self {
        std::fs::create_dir_all(&dir).expect("directory of certificates");
        let authority = Self { dir };
        let (key, certificate) = (authority.file("ca.key"), authority.file("ca.crt"));
        openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            "/CN=test CA",
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-days",
            "2",
            "-keyout",
            &key,
            "-out",
            &certificate,
        ]);
        authority
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// Makes `NAME.cert` and `NAME.key`.
    fn sign(&self, name: &str, usage: &str) {
        let (key, request) = (self.file(&format!("{name}.key")), self.file(&format!("{name}.csr")));
        openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            "/CN=registry.test",
            "-keyout",
            &key,
            "-out",
            &request,
        ]);
        let extensions = self.file("extensions");
        let text = format!(
            "subjectAltName=DNS:registry.test,DNS:localhost,IP:127.0.0.1\nextendedKeyUsage={usage}\n"
        );
        std::fs::write(&extensions, text).expect("extensions");
        openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &self.file("ca.crt"),
            "-CAkey",
            &self.file("ca.key"),
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            &extensions,
            "-out",
            &self.file(&format!("{name}.cert")),
        ]);
    }
}

/// A world with one image, and a second registry over TLS with the same content.
fn encrypted(http: &str, sections: &str) -> (World, Authority, DockerRegistry) {
    let world = World::new();
    world.fill(&image("corten"), "t/app:v");
    let authority = Authority::new(world.path("ca"));
    authority.sign("server", "serverAuth");
    authority.sign("client", "clientAuth");
    let http = http.replace("CA", &authority.file("ca.crt"));
    let tls = format!(
        ", tls: {{certificate: {}, key: {}{http}}}",
        authority.file("server.cert"),
        authority.file("server.key")
    );
    let registry = DockerRegistry::start_with(&world.path("registry"), &tls, sections);
    (world, authority, registry)
}

fn htpasswd(world: &World) -> String {
    let line =
        run(Command::new(needs::program("htpasswd", "apache2-utils")).args(["-Bbn", "me", "s3:cret"])).ok();
    let file = world.path("htpasswd");
    std::fs::write(&file, line.stdout).expect("htpasswd");
    format!("auth: {{htpasswd: {{realm: here, path: {}}}}}", file.display())
}

/// Runs a command with this on its standard input.
fn told(mut command: Command, text: &str) -> Outcome {
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    std::fs::write(file.path(), text).expect("input");
    command.stdin(Stdio::from(std::fs::File::open(file.path()).expect("input")));
    runtime_tests::command::run_with_stdin(&mut command, runtime_tests::events::patience())
}

#[test]
fn a_private_authority_and_a_client_certificate() {
    let (world, authority, registry) = encrypted(", clientcas: [CA]", "");
    let name = format!("localhost:{}", registry.address().port());
    let reference = format!("{name}/t/app:v");
    let certs = world.path(&format!(".config/containers/certs.d/{name}"));
    std::fs::create_dir_all(&certs).expect("certs.d");
    let put =
        |from: &str, to: &str| std::fs::copy(authority.file(from), certs.join(to)).map(drop).expect("copy");

    // The directory says that there is TLS, but nobody is trusted.
    let error = world.corten("root", &["pull", &reference]).exits(125).stderr;
    assert!(error.contains("there is no secure connection") && error.contains(&reference), "{error}");
    // The registry wants a certificate.
    put("ca.crt", "ca.crt");
    world.corten("root", &["pull", &reference]).exits(125);
    put("client.cert", "client.cert");
    let error = world.corten("root", &["pull", &reference]).exits(125).stderr;
    assert!(error.contains("client.key"), "{error}");
    put("server.key", "client.key");
    let error = world.corten("root", &["pull", &reference]).exits(125).stderr;
    assert!(error.contains("cannot be used with its certificate"), "{error}");
    put("client.key", "client.key");
    world.corten("root", &["pull", &reference]).ok();

    let elsewhere = world.path("elsewhere");
    std::fs::rename(&certs, &elsewhere).expect("move the certificates");
    world.corten("other", &["pull", "--cert-dir", &elsewhere.display().to_string(), &reference]).ok();
}

#[test]
fn a_registry_is_trusted_blindly_on_request_alone() {
    let (world, _, registry) = encrypted("", "");
    let reference = format!("localhost:{}/t/app:v", registry.address().port());
    world
        .corten("root", &["pull", "--tls-verify", &reference])
        .exits(125)
        .says("there is no secure connection");
    world.corten("root", &["pull", &reference]).exits(125);
    world.corten("root", &["pull", "--tls-verify=false", &reference]).ok();
    let conf =
        format!("[[registry]]\nlocation = \"localhost:{}\"\ninsecure = true\n", registry.address().port());
    std::fs::write(world.path("registries.conf"), conf).expect("registries.conf");
    world.corten("other", &["pull", &reference]).ok();
    // One that does not speak TLS at all is spoken to in the clear.
    world.corten("third", &["pull", "--tls-verify=false", &world.reference("t/app:v")]).ok();
}

#[test]
fn login_and_logout() {
    let world = World::new();
    world.fill(&image("corten"), "t/app:v");
    let registry = DockerRegistry::start_with(&world.path("registry"), "", &htpasswd(&world));
    let (name, file) = (registry.address().to_string(), world.path("auth/auth.json"));
    let reference = format!("{name}/t/app:v");
    world.corten("root", &["pull", &reference]).exits(125).says("unauthorized");
    world.corten("root", &["pull", "--creds", "me:wrong", &reference]).exits(125).says("unauthorized");
    world.corten("root", &["pull", "--creds", "me:s3:cret", &reference]).ok();

    let file_text = file.display().to_string();
    let login = ["login", "--authfile", &file_text, "-u", "me", "--password-stdin", &name];
    let error = told(world.command("root", &login), "wrong\n").exits(125).stderr;
    assert!(error.contains(&format!("cannot log in to {name}")) && !error.contains("wrong"), "{error}");
    assert!(!file.exists(), "what was not accepted is not kept");
    let outcome = told(world.command("root", &login), "s3:cret\n").ok();
    assert!(outcome.stdout.contains(&file_text) && !outcome.stdout.contains("s3"), "{}", outcome.stdout);
    let mode = file.metadata().expect("auth.json").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    world.corten("other", &["pull", "--authfile", &file_text, &reference]).ok();
    // podman's skopeo reads it too.
    let mut skopeo = Command::new(needs::program("skopeo", "skopeo"));
    run(skopeo
        .args(["inspect", "--tls-verify=false", "--authfile", &file_text])
        .arg(format!("docker://{reference}")))
    .ok();
    world.corten("root", &["logout", "--authfile", &file_text, &name]).ok();
    world.corten("third", &["pull", "--authfile", &file_text, &reference]).exits(125).says("unauthorized");
    world.corten("root", &["logout", "--authfile", &file_text, &name]).exits(125).says("no credentials");
}

#[test]
fn login_asks_on_the_terminal_and_shows_no_password() {
    let world = World::new();
    let registry = DockerRegistry::start_with(&world.path("registry"), "", &htpasswd(&world));
    let mut terminal =
        OnTerminal::new(&mut world.command("root", &["login", &registry.address().to_string()]));
    terminal.until("Username: ");
    terminal.types("me\n");
    terminal.until("Password: ");
    terminal.types("s3:cret\n");
    terminal.until("Login succeeded, kept in ");
    assert!(terminal.edits_lines());
    terminal.child.wait().expect("end");
    let text = std::fs::read_to_string(world.path("run/containers/auth.json")).expect("podman's place");
    assert!(text.contains("bWU6czM6Y3JldA=="), "{text}");

    let mut terminal = OnTerminal::new(&mut world.command("root", &["login", "-u", "me", "localhost:1"]));
    terminal.until("Password: ");
    terminal.types("half\x03");
    terminal.until("interrupted");
    assert_eq!(terminal.child.wait().expect("end").code(), Some(125));
}

#[test]
fn a_credential_helper_is_asked_and_told() {
    let world = World::new();
    world.fill(&image("corten"), "t/app:v");
    let registry = DockerRegistry::start_with(&world.path("registry"), "", &htpasswd(&world));
    let (name, kept) = (registry.address().to_string(), world.path("kept"));
    let helper = world.path("docker-credential-test");
    let script = format!(
        "#!/bin/sh\nf={}\ncase $1 in\nstore) cat > $f;;\nerase) rm $f;;\n\
         get) [ -e $f ] && exec cat $f; echo credentials not found in native keychain; exit 1;;\nesac\n",
        kept.display()
    );
    std::fs::write(&helper, script).expect("helper");
    std::fs::set_permissions(&helper, PermissionsExt::from_mode(0o755)).expect("mode");
    std::fs::create_dir(world.path(".docker")).expect("directory");
    let config = json!({"credHelpers": {&name: "test"}}).to_string();
    std::fs::write(world.path(".docker/config.json"), &config).expect("config.json");
    let path = format!("{}:{}", world.dir.path().display(), std::env::var("PATH").expect("PATH"));
    let command = |args: &[&str]| {
        let mut command = world.command("root", args);
        command.env("PATH", &path);
        command
    };
    let reference = format!("{name}/t/app:v");
    run(&mut command(&["pull", &reference])).exits(125).says("unauthorized");
    let outcome = told(command(&["login", "-u", "me", "--password-stdin", &name]), "s3:cret").ok();
    assert!(outcome.stdout.contains("docker-credential-test"), "{}", outcome.stdout);
    assert!(!world.path("run/containers/auth.json").exists(), "no second copy");
    run(&mut command(&["pull", &reference])).ok();
    run(&mut command(&["logout", &name])).ok();
    assert!(!kept.exists());
    // Without the helper the error names it.
    world.corten("other", &["pull", &reference]).exits(125).says("docker-credential-test");
    assert_eq!(std::fs::read_to_string(world.path(".docker/config.json")).expect("config.json"), config);
}

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

#[test]
fn mirrors_are_asked_first_and_the_registry_last() {
    let world = World::new();
    world.fill(&image("corten"), "mirrored/t/app:v");
    let mirror = world.registry.address();
    let conf = |text: &str| std::fs::write(world.path("registries.conf"), text).expect("registries.conf");
    let origin = Registry::answering(|_| Answer::status(500));
    let location = origin.address();
    conf(&format!(
        "[[registry]]\nprefix = \"registry.test\"\nlocation = \"{location}\"\n[[registry.mirror]]\nlocation = \"{mirror}/mirrored\"\n"
    ));
    world.corten("root", &["pull", "registry.test/t/app:v"]).ok();
    assert!(origin.asked().is_empty());
    let names = world.corten("root", &["images", "--format", "json"]).ok().json();
    assert_eq!(names[0]["names"][0], json!("registry.test/t/app:v"), "it has the name that was asked for");

    // A mirror that fails, and one that does not have it.
    let dead = Registry::answering(|_| Answer::status(403));
    conf(&format!(
        "[[registry]]\nprefix = \"registry.test\"\nlocation = \"{mirror}/mirrored\"\n\
         [[registry.mirror]]\nlocation = \"{}\"\n[[registry.mirror]]\nlocation = \"{mirror}/absent\"\n",
        dead.address()
    ));
    let outcome = world.corten("other", &["pull", "--creds", "me:secret", "registry.test/t/app:v"]).ok();
    assert!(outcome.stderr.contains(&dead.address().to_string()), "{}", outcome.stderr);
    assert!(
        dead.asked().iter().all(|asked| !asked.headers.contains_key("authorization")),
        "not for a mirror"
    );

    conf("[[registry]]\nprefix = \"registry.test\"\nblocked = true\n");
    world.corten("other", &["pull", "registry.test/t/app:v"]).exits(125).says("registry.test is blocked");
}

#[test]
fn short_names_go_by_registries_conf() {
    let world = World::new();
    world.fill(&image("corten"), "team/app:v");
    let here = world.registry.address();
    let other = Registry::answering(|_| Answer::status(404));
    let conf = |text: String| std::fs::write(world.path("registries.conf"), text).expect("registries.conf");
    conf(format!("unqualified-search-registries = [\"{}\", \"{here}\"]\n", other.address()));
    let pulled = world.corten("root", &["pull", "--format", "json", "team/app:v"]).ok().json();
    assert_eq!(pulled["reference"], json!(format!("{here}/team/app:v")));
    assert_eq!(other.asked().len(), 1);
    conf(format!(
        "unqualified-search-registries = [\"{}\", \"{here}\"]\nshort-name-mode = \"enforcing\"\n\
         [aliases]\n\"known\" = \"{here}/team/app\"\n",
        other.address()
    ));
    let outcome = world.corten("root", &["pull", "team/app:v"]).exits(125);
    assert!(outcome.stderr.contains("enforcing"), "{}", outcome.stderr);
    world.corten("root", &["pull", "known:v"]).ok();
}

#[test]
fn registries_elsewhere_are_reached_through_a_proxy() {
    let (world, authority, registry) = encrypted("", "");
    let proxy = ConnectProxy::start();
    let reference = format!("registry.test:{}/t/app:v", registry.address().port());
    let pull = |variables: &[(&str, String)], root: &str, reference: &str| {
        let mut command = world.command(root, &["pull", reference]);
        run(command.envs(variables.iter().cloned()).env("SSL_CERT_FILE", authority.file("ca.crt")))
    };
    let address = format!("http://{}", proxy.address());
    pull(&[("HTTPS_PROXY", address.clone())], "root", &reference).ok();
    assert!(proxy.asked().iter().all(|asked| asked.starts_with("registry.test:")), "{:?}", proxy.asked());
    let count = proxy.asked().len();
    assert!(count > 0);
    // This machine itself is not.
    pull(&[("HTTPS_PROXY", address.clone()), ("HTTP_PROXY", address)], "other", &world.reference("t/app:v"))
        .ok();
    assert_eq!(proxy.asked().len(), count);
    pull(&[("HTTPS_PROXY", "ftp://x".to_owned())], "third", &reference).exits(125).says("HTTPS_PROXY");
}

#[test]
fn foreign_layers_come_from_elsewhere_on_request() {
    let (world, authority, registry) = encrypted("", "");
    let blobs = image("corten").blobs();
    let layer = blobs.blobs[0].0.clone();
    let manifest = |url: String| {
        let foreign = with_manifest(blobs.clone(), |manifest| {
            let layer = &mut manifest["layers"][0];
            layer["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip".into();
            layer["urls"] = json!(["https://localhost:1/gone", url]);
        });
        let mut site = site("t/app", "v", &foreign);
        site.remove(&blob_path("t/app", &foreign, 0));
        Registry::serving(site)
    };
    let place = format!("localhost:{}/v2/t/app/blobs/{layer}", registry.address().port());
    let pull = |root: &str, args: &[&str], from: &Registry| {
        let reference = format!("{}/t/app:v", from.address());
        let mut command = world.command(root, &[&["pull"], args, &[reference.as_str()]].concat());
        run(command.env("SSL_CERT_FILE", authority.file("ca.crt")))
    };
    let encrypted = manifest(format!("https://{place}"));
    let error = pull("root", &[], &encrypted).exits(125).stderr;
    assert!(error.contains("is foreign") && error.contains("--foreign-layers"), "{error}");
    pull("root", &["--foreign-layers"], &encrypted).ok();
    assert_eq!(unpacked(&world.path("root")), ["corten", "word 12000"]);
    let clear = manifest(format!("http://{place}"));
    let error = pull("other", &["--foreign-layers"], &clear).exits(125).stderr;
    assert!(error.contains("is not encrypted") && error.contains("does not have it"), "{error}");
}
