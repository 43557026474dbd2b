//! A server that plays a PCS or PCCS, with the faults that real ones have.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tdvisor_collateral::answer::Answer;
use tdvisor_collateral::store::{Reply, Store};

/// What the server does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers it.
    Good,
    /// Answers with what there is of that kind, whatever was asked for.
    WhateverThereIs,
    /// Answers with a status.
    Status(u16),
    /// Answers with a status for the first requests of a path, then well.
    BusyFor { status: u16, requests: usize },
    /// Asks to come back in an hour.
    RetryAfterAnHour,
    /// Sends the client elsewhere.
    Redirect,
    /// Never answers.
    Silent,
    /// Answers a byte at a time, and never ends.
    Trickle,
    /// Closes the connection in the middle of the body.
    Cut,
    /// A body that does not end.
    Endless,
    /// Leaves the issuer chain out.
    NoChain,
    /// Sends it twice.
    TwoChains,
    /// Sends what is no chain.
    GarbledChain,
}

/// The server; it ends with the process.
pub struct FaultServer {
    /// The server's address.
    pub url: String,
}

impl FaultServer {
    /// A server that has `store`, and does with each request (by its path) what `behaviour` says.
    pub fn start(store: &Store, behaviour: impl Fn(&str) -> Behaviour + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let shared = Arc::new((store.clone(), behaviour, Mutex::new(HashMap::<String, usize>::new())));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    let (store, behaviour, counts) = &*shared;
                    let Some(target) = read_request(&stream) else { return };
                    let before = {
                        let mut counts = counts.lock().expect("nobody panics");
                        let count = counts.entry(target.clone()).or_default();
                        *count += 1;
                        *count - 1
                    };
                    // A client that gives up is what these tests are about.
                    let _ = act(&stream, store, &target, behaviour(&target), before);
                });
            }
        });
        Self { url }
    }
}

/// The address of a good server that speaks TLS with this certificate (DER) and key (PKCS #8).
pub fn over_tls(store: &Store, certificate: Vec<u8>, key: Vec<u8>) -> String {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
    let config = rustls::ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(certificate)],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key)),
        )
        .expect("they belong together");
    let (config, store) = (Arc::new(config), store.clone());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (config, store) = (Arc::clone(&config), store.clone());
            std::thread::spawn(move || {
                let connection = rustls::ServerConnection::new(config).expect("a configuration");
                let mut stream = rustls::StreamOwned::new(connection, stream);
                // A client that does not trust the certificate ends the handshake.
                let Some(target) = read_request(&mut stream) else { return };
                if let Some(answer) = answer(&store, &target) {
                    let _ = stream.write_all(&respond(&answer));
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                }
            });
        }
    });
    url
}

fn read_request(stream: impl Read) -> Option<String> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    for line in lines {
        if line.ok()?.is_empty() {
            break;
        }
    }
    first.split(' ').nth(1).map(str::to_owned)
}

fn act(
    mut stream: &TcpStream,
    store: &Store,
    target: &str,
    behaviour: Behaviour,
    before: usize,
) -> std::io::Result<()> {
    let status = |code: u16, headers: &str| {
        format!("HTTP/1.1 {code} X\r\nContent-Length: 0\r\nConnection: close\r\n{headers}\r\n").into_bytes()
    };
    let good = || answer(store, target).map_or_else(|| status(404, ""), |answer| respond(&answer));
    match behaviour {
        Behaviour::Good => stream.write_all(&good()),
        Behaviour::WhateverThereIs => {
            let stand_in = [
                ("/tcb?", "/sgx/certification/v4/tcb?fmspc=4f5448455253"),
                ("qe/identity", "/sgx/certification/v4/qe/identity"),
                ("pckcrl", "/sgx/certification/v4/pckcrl?ca=processor&encoding=der"),
                ("rootcacrl", "/sgx/certification/v4/rootcacrl"),
            ]
            .into_iter()
            .find_map(|(part, stand_in)| target.contains(part).then_some(stand_in));
            let answer = stand_in.and_then(|target| answer(store, target));
            stream.write_all(&answer.map_or_else(|| status(404, ""), |answer| respond(&answer)))
        }
        Behaviour::Status(code) => stream.write_all(&status(code, "")),
        Behaviour::BusyFor { status: code, requests } if before < requests => {
            stream.write_all(&status(code, ""))
        }
        Behaviour::BusyFor { .. } => stream.write_all(&good()),
        Behaviour::RetryAfterAnHour => stream.write_all(&status(429, "Retry-After: 3600\r\n")),
        Behaviour::Redirect => stream.write_all(&status(302, "Location: http://127.0.0.1:9/\r\n")),
        // Until the client gives up.
        Behaviour::Silent => stream.read_to_end(&mut Vec::new()).map(drop),
        Behaviour::Trickle => {
            let whole = good();
            stream.set_read_timeout(Some(Duration::from_millis(20)))?;
            for byte in whole.iter().take(whole.len() / 2).chain(std::iter::repeat(&b' ')) {
                stream.write_all(&[*byte])?;
                // The pause ends early when the client is gone.
                if matches!(stream.read(&mut [0]), Ok(0)) {
                    return Ok(());
                }
            }
            Ok(())
        }
        Behaviour::Cut => {
            let whole = good();
            stream.write_all(whole.get(..whole.len() - 7).unwrap_or_default())
        }
        Behaviour::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            loop {
                stream.write_all(&[b'x'; 4096])?;
            }
        }
        Behaviour::NoChain | Behaviour::TwoChains | Behaviour::GarbledChain => {
            let Some(mut answer) = answer(store, target) else { return stream.write_all(&status(404, "")) };
            match behaviour {
                Behaviour::NoChain => answer.chains.clear(),
                Behaviour::TwoChains => answer.chains.extend(answer.chains.clone()),
                _ => answer.chains.iter_mut().for_each(|(_, value)| *value = "no%20chain".to_owned()),
            }
            stream.write_all(&respond(&answer))
        }
    }
}

fn answer(store: &Store, target: &str) -> Option<Answer> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    match store.answer(path, query) {
        Reply::Found { answer, .. } => Some(answer),
        _ => None,
    }
}

fn respond(answer: &Answer) -> Vec<u8> {
    let mut head =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n", answer.body.len());
    for (name, value) in &answer.chains {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    [head.as_bytes(), &answer.body].concat()
}

/// What a server answers to these bytes.
pub fn raw(url: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).expect("a server");
    // A server that has seen enough may close before all is sent.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}
