//! The page through TLS, on real processes and with a real client: who is served, what becomes of renewed and of unusable
//! files, and that nobody who shakes no hands keeps others out.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    io::{self, BufReader, Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use nursery_tests::{
    http::{Client, Response, free_port, read_response},
    service::{Service, camera, config, nursery, put_config},
    temp_dir::TempDir,
    wait::{self, PATIENCE, until},
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, ServerName},
};
use serde_json::{Value, json};

const PASSWORD: &str = "open sesame";

/// A certificate with its key, in files of a directory.
struct Files {
    dir: TempDir,
}

impl Files {
    fn new() -> (Self, CertificateDer<'static>) {
        let files = Self { dir: TempDir::new() };
        let certificate = files.renew();
        (files, certificate)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Another certificate in the same places.
    fn renew(&self) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        write(&self.path("chain.pem"), &made.cert.pem(), 0o644);
        write(&self.path("key.pem"), &made.signing_key.serialize_pem(), 0o600);
        made.cert.der().clone()
    }

    fn tls(&self) -> Value {
        json!({"certificate": self.path("chain.pem"), "key": self.path("key.pem")})
    }
}

fn write(path: &Path, text: &str, mode: u32) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(mode)).unwrap();
    fs::rename(new, path).unwrap();
}

/// A client that trusts this certificate and no other.
fn trusting(certificate: &CertificateDer<'static>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

fn ask(tls: &Arc<ClientConfig>, port: u16, request: &str) -> io::Result<Response> {
    let stream = Client::new(port).connect()?;
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    stream.write_all(request.as_bytes())?;
    read_response(&mut BufReader::new(stream), false)
}

fn get(path: &str, cookie: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nCookie: {cookie}\r\n\r\n")
}

fn log_in() -> String {
    let body = json!({ "password": PASSWORD }).to_string();
    let length = body.len();
    format!(
        "POST /api/login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

fn with_tls(files: &Files, port: u16) -> Value {
    let mut config = config([camera("crib", "synthetic:noise")], []);
    config["web"] = json!({"listen": format!("127.0.0.1:{port}"), "password": PASSWORD, "tls": files.tls()});
    config
}

fn wait_for_page(tls: &Arc<ClientConfig>, port: u16) {
    until("the page is there", PATIENCE, || {
        ask(tls, port, &get("/healthz", "")).ok().filter(|answer| answer.status == 200)
    });
}

#[test]
fn whoever_trusts_the_certificate_is_served_and_a_renewed_one_is_taken_up() {
    let (files, certificate) = Files::new();
    let port = free_port();
    let config = with_tls(&files, port);
    let service = Service::start(&config);
    let trusted = trusting(&certificate);
    wait_for_page(&trusted, port);
    let welcome = ask(&trusted, port, &log_in()).unwrap();
    let cookie = welcome.header("set-cookie").to_owned();
    assert!(cookie.contains("; Secure"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap().to_owned();
    assert_eq!(ask(&trusted, port, &get("/api/status", &cookie)).unwrap().status, 200);
    assert_eq!(ask(&trusted, port, &get("/api/status", "")).unwrap().status, 401);
    // Without TLS nothing is said.
    let mut plain = Client::new(port).connect().unwrap();
    plain.write_all(get("/healthz", "").as_bytes()).unwrap();
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said);
    assert!(!String::from_utf8_lossy(&said).contains("HTTP/1.1"), "{said:?}");
    // The same paths with other files: the page starts anew, nobody else does.
    let crib = service.process_of("capture:crib");
    let unchanged = service.must(["reload"]);
    assert!(!unchanged.contains("web"), "{unchanged}");
    let renewed = files.renew();
    let page = service.process_of("web");
    let told = service.must(["reload"]);
    assert!(told.contains("web.tls"), "{told}");
    service.wait_replaced("web", page);
    wait_for_page(&trusting(&renewed), port);
    assert!(ask(&trusted, port, &get("/healthz", "")).is_err(), "the old one is gone");
    assert_eq!(ask(&trusting(&renewed), port, &get("/api/status", &cookie)).unwrap().status, 200);
    assert_eq!(service.process_of("capture:crib").pid, crib.pid);
    let key = fs::read_to_string(files.path("key.pem")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    assert!(!service.log().join("\n").contains(secret));
}

#[test]
fn files_that_cannot_be_used_are_refused_in_one_line_and_what_runs_goes_on() {
    let (files, certificate) = Files::new();
    let (other, _) = Files::new();
    let port = free_port();
    let config = with_tls(&files, port);
    let service = Service::start(&config);
    let trusted = trusting(&certificate);
    wait_for_page(&trusted, port);
    let page = service.process_of("web");
    let key = |path: PathBuf| {
        let mut wrong = config.clone();
        wrong["web"]["tls"]["key"] = path.display().to_string().into();
        wrong
    };
    write(&files.path("nothing.pem"), "no PEM at all\n", 0o600);
    write(&files.path("broken.pem"), "-----BEGIN PRIVATE KEY-----\n!!!\n-----END PRIVATE KEY-----\n", 0o600);
    write(&files.path("copy.pem"), &fs::read_to_string(files.path("chain.pem")).unwrap(), 0o600);
    let mut no_chain = config.clone();
    no_chain["web"]["tls"]["certificate"] = files.path("nothing.pem").display().to_string().into();
    for (wrong, words) in [
        (key(other.path("key.pem")), "web.tls.key: "),
        (key(other.path("key.pem")), "does not belong to the certificate in"),
        (key(files.path("missing.pem")), "no such file beside the configuration"),
        (key(files.path("nothing.pem")), "holds no private key"),
        (key(files.path("broken.pem")), "is no sound PEM file"),
        (key(files.path("copy.pem")), "holds no private key"),
        (no_chain, "holds no certificate"),
    ] {
        service.write_config(&wrong);
        for out in [service.cli(["reload"]), service.check()] {
            let why = String::from_utf8_lossy(&out.stderr).into_owned();
            assert!(why.contains(words) && why.lines().count() == 1, "{words}: {why}");
            assert_eq!(out.status.code(), Some(2), "{why}");
        }
    }
    assert_eq!(service.process_of("web").pid, page.pid);
    assert_eq!(ask(&trusted, port, &get("/healthz", "")).unwrap().status, 200);
    service.write_config(&config);
    let out = service.check();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn as_root_a_key_that_everybody_may_read_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        nursery_tests::skip!("not root");
    }
    let (files, _) = Files::new();
    fs::set_permissions(files.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(files.path("key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    let path = files.path("cameras.json");
    put_config(&path, &with_tls(&files, 1));
    let out = wait::output(nursery(["check", "--config"]).arg(&path), Duration::from_secs(30));
    let why = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(2), "{why}");
    assert!(why.contains("web.tls.key: ") && why.contains("may be read by everybody (mode 644)"), "{why}");
}

#[test]
fn whoever_shakes_no_hands_keeps_nobody_out() {
    let (files, certificate) = Files::new();
    let port = free_port();
    let service = Service::start(&with_tls(&files, port));
    let trusted = trusting(&certificate);
    wait_for_page(&trusted, port);
    // More than there are places, all silent.
    let silent: Vec<TcpStream> = (0..750).filter_map(|_| Client::new(port).connect().ok()).collect();
    assert!(silent.len() > 660);
    let begin = Instant::now();
    assert_eq!(ask(&trusted, port, &get("/healthz", "")).unwrap().status, 200);
    let took = begin.elapsed();
    eprintln!("FIGURE a browser was served {} ms after 750 silent connections", took.as_millis());
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(service.process_of("web").descriptors() < 1024);
    // They are not waited for without end.
    let mut last = silent.last().unwrap();
    last.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut byte = [0];
    assert!(
        matches!(last.read(&mut byte), Ok(0))
            || last.read(&mut byte).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionReset)
    );
}
