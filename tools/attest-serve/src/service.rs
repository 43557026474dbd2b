//! The gRPC service: a path to a method, a message to an answer.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tdvisor_attest::UnixSeconds;
use tokio::sync::Semaphore;
use tonic::body::Body;
use tonic::server::{Grpc, UnaryService};
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::appraisal::{Appraiser, Refusal};
use crate::ear::Signer;
use crate::messages::{
    AttestationRequest, AttestationResponse, ChallengeRequest, ChallengeResponse, SERVICE, SetPolicyRequest,
    SetPolicyResponse,
};
use crate::metrics::Metrics;
use crate::question::{Question, questions};

/// The largest message that is read, in bytes: evidence of eight attesters with their logs.
pub const MAX_MESSAGE: usize = 4 << 20;
/// Requests that may be read, or wait, for each worker; more are told to come back.
const WAITING_PER_WORKER: usize = 16;
/// How long a request may take, with everything that it waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// The service.
#[derive(Debug)]
pub struct Service {
    appraiser: Appraiser,
    signer: Signer,
    metrics: Arc<Metrics>,
    workers: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

impl Service {
    /// A service that verifies on `workers` threads at a time.
    #[must_use]
    pub fn new(appraiser: Appraiser, signer: Signer, metrics: Arc<Metrics>, workers: usize) -> Self {
        let workers = workers.max(1);
        Self {
            appraiser,
            signer,
            metrics,
            workers: Arc::new(Semaphore::new(workers)),
            places: Arc::new(Semaphore::new(workers * (WAITING_PER_WORKER + 1))),
        }
    }

    /// Answers one HTTP request.
    ///
    /// # Errors
    /// None: what fails is an answer too.
    pub async fn answer<B>(
        self: Arc<Self>,
        request: http::Request<B>,
    ) -> Result<http::Response<Body>, Infallible>
    where
        B: hyper::body::Body + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        // Before anything of a message is read: that is what takes memory, and time where a client is slow.
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.metrics.answered("any", Code::ResourceExhausted);
            return Ok(Status::resource_exhausted("too many requests at a time").into_http());
        };
        let metrics = Arc::clone(&self.metrics);
        let answered = tokio::time::timeout(PATIENCE, self.call(request)).await;
        drop(place);
        Ok(answered.unwrap_or_else(|_| {
            metrics.answered("any", Code::DeadlineExceeded);
            Status::deadline_exceeded("not done in time").into_http()
        }))
    }

    async fn call<B>(self: Arc<Self>, request: http::Request<B>) -> http::Response<Body>
    where
        B: hyper::body::Body + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let method = request.uri().path().strip_prefix('/').and_then(|path| path.split_once('/'));
        match method {
            Some((SERVICE, "AttestationEvaluate")) => grpc().unary(Evaluate(self), request).await,
            Some((SERVICE, "SetAttestationPolicy")) => grpc().unary(SetPolicy(self), request).await,
            Some((SERVICE, "GetAttestationChallenge")) => grpc().unary(Challenge(self), request).await,
            _ => Status::unimplemented("no such method").into_http(),
        }
    }

    async fn evaluate(self: Arc<Self>, request: AttestationRequest) -> Result<AttestationResponse, Status> {
        let questions = questions(&request).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let worker = Arc::clone(&self.workers).acquire_owned().await;
        let worker = worker.map_err(|_| Status::unavailable("ending"))?;
        // The worker is busy until the work is done, whoever still waits for it.
        let token = tokio::task::spawn_blocking(move || {
            let token = self.token(&questions);
            drop(worker);
            token
        });
        let token = token.await.map_err(|_| Status::internal("the worker ended"))??;
        Ok(AttestationResponse { attestation_token: token })
    }

    /// The token of all evidence, if all of it is accepted.
    fn token(&self, questions: &[Question]) -> Result<String, Status> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let at = UnixSeconds(since.map_err(|_| Status::internal("the clock is before 1970"))?.as_secs());
        let mut appraisals = Vec::new();
        for question in questions {
            match self.appraiser.appraise(question, at) {
                Ok(appraisal) => {
                    self.metrics.judged("accepted", appraisal.tcb_status.name());
                    appraisals.push(appraisal);
                }
                Err(refusal) => {
                    self.metrics.judged(refusal.code(), "");
                    return Err(status(&refusal));
                }
            }
        }
        self.signer
            .token(&appraisals, self.appraiser.root, at)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

/// A refusal as gRPC says it.
fn status(refusal: &Refusal) -> Status {
    let code = match refusal {
        Refusal::Quote(_) | Refusal::Log(_) => Code::InvalidArgument,
        refusal if refusal.is_ours() => Code::Unavailable,
        _ => Code::PermissionDenied,
    };
    Status::new(code, format!("refused: {refusal}"))
}

fn grpc<T, U>() -> Grpc<ProstCodec<T, U>>
where
    T: prost::Message + Send + 'static,
    U: prost::Message + Default + Send + 'static,
{
    Grpc::new(ProstCodec::default()).max_decoding_message_size(MAX_MESSAGE)
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;

/// A method of the service, as tonic calls it.
macro_rules! method {
    ($name:ident, $request:ty => $response:ty, $call:expr) => {
        struct $name(Arc<Service>);

        impl UnaryService<$request> for $name {
            type Response = $response;
            type Future = Answer<$response>;

            fn call(&mut self, request: Request<$request>) -> Self::Future {
                let service = Arc::clone(&self.0);
                Box::pin(async move {
                    let metrics = Arc::clone(&service.metrics);
                    let answer: Result<$response, Status> = $call(service, request.into_inner()).await;
                    let code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
                    metrics.answered(stringify!($name), code);
                    answer.map(Response::new)
                })
            }
        }
    };
}

method!(Evaluate, AttestationRequest => AttestationResponse, Service::evaluate);
method!(SetPolicy, SetPolicyRequest => SetPolicyResponse, set_policy);
method!(Challenge, ChallengeRequest => ChallengeResponse, challenge);

/// Policies are the operator's, from a file: nobody sets one over the network.
async fn set_policy(_: Arc<Service>, _: SetPolicyRequest) -> Result<SetPolicyResponse, Status> {
    Err(Status::unimplemented("policies are not set over the network: the policy is the operator's file"))
}

/// TDX needs no challenge beyond the key broker's own nonce.
async fn challenge(_: Arc<Service>, request: ChallengeRequest) -> Result<ChallengeResponse, Status> {
    match request.inner.get("tee").map(String::as_str) {
        Some("tdx") => Ok(ChallengeResponse { attestation_challenge: String::new() }),
        Some(other) => Err(Status::unimplemented(format!("evidence of `{other}` is not verified here"))),
        None => Err(Status::invalid_argument("tee: missing")),
    }
}
