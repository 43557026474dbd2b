//! The service at a TCP port, as clients of other machines see it: TLS and the token, or nothing.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tdvisor_service::http::{Limits, Remote, Running, Server, Token};
use tdvisor_service::td_api::TdApi;

use crate::tds::{LONG, Tds, hello};

/// Certificates for 127.0.0.1 and their keys, of a test.
const TLS_CERT: &[u8] = include_bytes!("../../../attest-serve/tests/fixtures/tls-cert.pem");
const TLS_KEY: &[u8] = include_bytes!("../../../attest-serve/tests/fixtures/tls-key.pem");
const OTHER_CERT: &[u8] = include_bytes!("../../../attest-serve/tests/fixtures/signing-cert.pem");
const OTHER_KEY: &[u8] = include_bytes!("../../../attest-serve/tests/fixtures/signing-key.pem");

const TOKEN: &str = "5f0c6a2e9b7d41c8";

fn token(folder: &Path) -> Token {
    let path = folder.join("token");
    fs::write(&path, format!("{TOKEN}\n")).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a file of ours");
    Token::read(&path).expect("a token")
}

/// The TDs of a service at a port too.
fn at_port(tds: &Tds, limits: Limits) -> (SocketAddr, Running) {
    let remote = Remote::new(TLS_CERT, TLS_KEY, token(&tds.folder)).expect("they belong together");
    let server = Server::listen(([127, 0, 0, 1], 0).into(), remote).expect("a port");
    let address = server.address().expect("of TCP");
    (address, server.start(limits, Arc::new(TdApi::new(tds.fleet.clone()))).expect("a thread"))
}

/// A client that trusts these certificates and no others.
fn connect(address: SocketAddr, trusted: &[u8]) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted).expect("a certificate")).expect("a root");
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let session = ClientConnection::new(Arc::new(config), address.ip().into()).expect("a session");
    let socket = TcpStream::connect(address).expect("somebody listens");
    socket.set_read_timeout(Some(LONG)).expect("a socket");
    StreamOwned::new(session, socket)
}

/// What is answered to a request whose connection is the last, with these fields.
fn ask(address: SocketAddr, method: &Method, path: &str, fields: &str, body: &str) -> String {
    let mut stream = connect(address, TLS_CERT);
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    // TLS that ends without its last word would be an error.
    stream.read_to_string(&mut answer).expect("an answer and its end");
    answer
}

fn with_token() -> String {
    format!("Authorization: Bearer {TOKEN}\r\n")
}

#[test]
fn whoever_knows_the_token_does_over_tls_what_the_owner_does() {
    let tds = Tds::new("remote");
    let (address, running) = at_port(&tds, Limits::default());
    let fields = with_token();
    let answer = ask(address, &Method::POST, "/td/v1/tds", &fields, &hello("one").to_string());
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    let answer = ask(address, &Method::PUT, "/td/v1/tds/one/boot", &fields, "");
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    let events = ask(address, &Method::GET, "/td/v1/tds/one/events", &fields, "");
    assert!(events.contains("\"booted\"") && events.contains("\"powered-off\""), "{events}");
    assert_eq!(tds.get("one")["report"]["ending"]["code"], 0, "it is the same TD at the socket");
    let metrics = ask(address, &Method::GET, "/metrics", &fields, "");
    let boots = "tdvisor_http_requests_total{method=\"PUT\",route=\"/td/v1/tds/{td}/boot\",status=\"204\"} 1";
    assert!(metrics.contains(boots), "{metrics}");
    running.stop(LONG);
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}

#[test]
fn many_requests_and_large_answers_go_over_one_connection() {
    let tds = Tds::new("remote-many");
    let (address, _running) = at_port(&tds, Limits::default());
    let mut stream = connect(address, TLS_CERT);
    for _ in 0..20 {
        let fields = with_token();
        let request = format!("GET /td/v1/openapi.json HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a head");
            head.extend(byte);
        }
        let head = String::from_utf8(head).expect("text");
        let length = head.split_once("Content-Length: ").and_then(|(_, rest)| rest.split_once("\r\n"));
        let mut body = vec![0; length.expect("a length").0.parse().expect("a number")];
        stream.read_exact(&mut body).expect("a body");
        assert!(serde_json::from_slice::<serde_json::Value>(&body).expect("JSON")["paths"].is_object());
    }
}

#[test]
fn without_the_token_nothing_is_answered_but_401_in_the_form_of_all_errors() {
    let tds = Tds::new("token");
    let (address, _running) = at_port(&tds, Limits::default());
    let twice = format!("{}{}", with_token(), with_token());
    for fields in [
        "",
        "Authorization: Bearer\r\n",
        "Authorization: Bearer 5f0c6a2e9b7d41c9\r\n",
        "Authorization: Basic 5f0c6a2e9b7d41c8\r\n",
        "X-Token: 5f0c6a2e9b7d41c8\r\n",
        &twice,
    ] {
        for path in ["/td/v1/tds", "/td/v1/openapi.json", "/metrics", "/nowhere"] {
            let answer = ask(address, &Method::GET, path, fields, "");
            assert!(answer.starts_with("HTTP/1.1 401 \r\n"), "{fields}{answer}");
            assert!(answer.contains("\r\nWWW-Authenticate: Bearer\r\n"), "{answer}");
            let body = answer.split_once("\r\n\r\n").expect("a body").1;
            let sentences: Vec<String> = serde_json::from_str(body).expect("an array of sentences");
            assert!(sentences.len() == 1 && !answer.contains(TOKEN), "{answer}");
        }
    }
    // The body of whoever may not ask is not waited for.
    let mut stream = connect(address, TLS_CERT);
    stream.write_all(b"POST /td/v1/tds HTTP/1.1\r\nContent-Length: 4000000\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer and its end");
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    let all = tds.ask(&Method::GET, "/td/v1/tds", None).json().expect("JSON");
    assert_eq!(all["tds"], serde_json::json!([]));
}

#[test]
fn tcp_without_tls_is_no_connection() {
    let tds = Tds::new("plain");
    let (address, _running) = at_port(&tds, Limits::default());
    let mut stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(LONG)).expect("a socket");
    let request = format!("GET /td/v1/tds HTTP/1.1\r\nHost: x\r\n{}\r\n", with_token());
    stream.write_all(request.as_bytes()).expect("written");
    let mut answer = Vec::new();
    // A reset is an end too.
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.windows(4).any(|bytes| bytes == b"HTTP"), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn a_client_that_trusts_another_certificate_sends_nothing() {
    let tds = Tds::new("untrusted");
    let (address, _running) = at_port(&tds, Limits::default());
    let mut stream = connect(address, OTHER_CERT);
    let error = stream.write_all(with_token().as_bytes()).expect_err("the certificate is not trusted");
    assert!(error.to_string().contains("certificate"), "{error}");
    let folder = tds.folder.join("other");
    fs::create_dir(&folder).expect("a folder");
    assert!(Remote::new(TLS_CERT, OTHER_KEY, token(&folder)).is_err(), "another's key");
    assert!(Remote::new(b"", TLS_KEY, token(&folder)).is_err(), "no certificate");
    assert!(Remote::new(TLS_CERT, TLS_CERT, token(&folder)).is_err(), "no key");
}

#[test]
fn who_does_not_finish_the_handshake_is_given_up() {
    let tds = Tds::new("handshake");
    let limits = Limits { arrival: Duration::from_millis(50), ..Limits::default() };
    let (address, _running) = at_port(&tds, limits);
    let mut stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(LONG)).expect("a socket");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty());
}
