//! The listeners: gRPC over HTTP/2, with TLS or without, and metrics over HTTP/1.
//!
//! The number of connections, the time for a handshake, the streams of a connection and the size of its heads are bounded.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::metrics::Metrics;
use crate::service::Service;

/// Connections at a time, on each listener.
const MAX_CONNECTIONS: usize = 256;
/// Calls at a time on one connection.
const MAX_STREAMS: u32 = 64;
/// The largest heads of a request, in bytes.
const MAX_HEADERS: u32 = 16 << 10;
/// How long a TLS handshake, or a request of metrics, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// After that much silence a client is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// The age at which a connection takes no more calls; clients make another.
const LIFETIME: Duration = Duration::from_secs(600);
/// How long the calls that are then under way may take: longer than one may.
const LAST_CALLS: Duration = Duration::from_secs(90);

/// What cannot be used for TLS.
#[derive(Debug)]
pub struct TlsError(String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

/// TLS with certificates and a key (PKCS #8), all DER.
///
/// # Errors
/// They do not belong together, or are none.
pub fn tls(chain: Vec<Vec<u8>>, pkcs8: Vec<u8>) -> Result<TlsAcceptor, TlsError> {
    let problem = |error: tokio_rustls::rustls::Error| TlsError(error.to_string());
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(problem)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(problem)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Answers calls until the listener fails.
///
/// # Errors
/// The listener's. What a single connection does ends that connection only.
pub async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, service: Arc<Service>) -> io::Result<()> {
    accept(listener, move |stream| {
        let (service, tls) = (Arc::clone(&service), tls.clone());
        async move {
            match tls {
                Some(tls) => {
                    if let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, tls.accept(stream)).await {
                        calls(stream, service).await;
                    }
                }
                None => calls(stream, service).await,
            }
        }
    })
    .await
}

/// Answers `GET /metrics` until the listener fails.
///
/// # Errors
/// The listener's.
pub async fn serve_metrics(listener: TcpListener, metrics: Arc<Metrics>) -> io::Result<()> {
    accept(listener, move |stream| {
        let metrics = Arc::clone(&metrics);
        async move {
            let answer = service_fn(move |request: hyper::Request<Incoming>| {
                let response = metrics_response(&request, &metrics);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .max_buf_size(MAX_HEADERS as usize)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer);
            // A client that went away, or was too slow, needs no answer.
            let _ = tokio::time::timeout(PATIENCE, connection).await;
        }
    })
    .await
}

fn metrics_response(request: &hyper::Request<Incoming>, metrics: &Metrics) -> hyper::Response<Full<Bytes>> {
    let (status, body) = match (request.method(), request.uri().path()) {
        (&hyper::Method::GET, "/metrics") => (hyper::StatusCode::OK, metrics.to_text()),
        (_, "/metrics") => (hyper::StatusCode::METHOD_NOT_ALLOWED, String::new()),
        _ => (hyper::StatusCode::NOT_FOUND, String::new()),
    };
    let mut response = hyper::Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let text = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, text);
    response
}

/// One connection's calls.
async fn calls(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, service: Arc<Service>) {
    let answer = service_fn(move |request| Arc::clone(&service).answer(request));
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADERS)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), answer);
    let mut connection = pin!(connection);
    // What a client does wrong on its connection ends that connection, and so does age: one that only ever begins would keep
    // its place for good. Calls that are under way are finished.
    if tokio::time::timeout(LIFETIME, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(LAST_CALLS, connection).await;
    }
}

/// Takes connections, a bounded number at a time.
async fn accept<F>(listener: TcpListener, connection: impl Fn(TcpStream) -> F) -> io::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) if is_passing(&error) => continue,
            Err(error) => return Err(error),
        };
        // With every place taken the connection is closed: nobody waits for others here.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let connection = connection(stream);
        tokio::spawn(async move {
            connection.await;
            drop(place);
        });
    }
}

/// Whether the next connection may well come.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}
