//! A gRPC client for tests: tonic's client on one HTTP/2 connection.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tdvisor_attest_serve::messages::SERVICE;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

/// A connection to a service.
#[derive(Clone)]
pub struct Client {
    connection: SendRequest<Body>,
    address: SocketAddr,
}

impl tower_service::Service<http::Request<Body>> for Client {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.connection.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.connection.send_request(request))
    }
}

impl Client {
    /// Connects without TLS.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.expect("a listener"), address).await
    }

    /// Speaks over a stream that is there.
    pub async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        address: SocketAddr,
    ) -> Self {
        let (connection, driver) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .expect("HTTP/2");
        // It ends when the test drops the connection.
        tokio::spawn(async move { drop(driver.await) });
        Self { connection, address }
    }

    /// Calls a method.
    pub async fn call<Q, A>(&self, method: &str, message: Q) -> Result<A, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let origin = format!("http://{}", self.address).parse().expect("an address");
        let mut grpc = Grpc::with_origin(self.clone(), origin);
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = format!("/{SERVICE}/{method}").parse().expect("a path");
        grpc.unary(Request::new(message), path, ProstCodec::<Q, A>::default())
            .await
            .map(tonic::Response::into_inner)
    }
}
