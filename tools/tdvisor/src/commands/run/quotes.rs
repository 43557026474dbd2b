//! Where the TD's quotes come from: the test issuer, or a real quote-generation service.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use seam_emu::Machine;
use tdvisor_attest::issue::{Issued, PlatformSpec, TestPlatform};
use tdvisor_attest::qgs;
use tdvisor_monitor::{QuoteSource, QuoteUnavailable, TDREPORT_BYTES};
use tdvisor_runtime::worker::{Overdue, StopFlag, Worker};
use tdvisor_service::worker::{Issuer, Quoted, VerifiedWith};

use crate::commands::verify::inputs::now;
use crate::files::Output;
use crate::outcome::Failure;
use crate::streams::Streams;

/// Seed of the PKI that quotes of emulated TDs are issued under: the same root in every run.
const SEED: [u8; 32] = *b"tdvisor run: test issuer, v1    ";

/// Version of the quotes that are issued: what today's guests and verifiers all read.
const QUOTE_VERSION: u16 = 4;

/// How long a quote-generation service may take, from the guest's request to the last byte of the answer. A guest kernel
/// complains about a CPU that is away for twice as long.
const QGS_PATIENCE: Duration = Duration::from_secs(10);

/// Issues test quotes. Nothing but a verifier that is told to trusts them.
pub struct TestIssuer {
    genuine: Genuine,
    platform: TestPlatform,
    last: LastQuote,
}

/// Who says that a report was made by a TDX module.
pub enum Genuine {
    /// The emulated machine, which has the key of its reports.
    Machine(Arc<Machine>),
    /// Nobody: on a processor only an enclave can ask (EVERIFYREPORT2). Whoever asks for a quote may have made its report up.
    Unchecked,
}

impl Genuine {
    fn is(&self, report: &[u8; TDREPORT_BYTES]) -> bool {
        match self {
            Self::Machine(machine) => {
                report.first_chunk().is_some_and(|signed| machine.everifyreport2(signed))
            }
            Self::Unchecked => true,
        }
    }
}

/// The last quote that was issued.
#[derive(Clone, Default)]
pub struct LastQuote(Arc<Mutex<Option<Issued>>>);

impl TestIssuer {
    /// An issuer, the same in every run.
    pub fn new(genuine: Genuine, last: LastQuote) -> Self {
        Self { genuine, platform: TestPlatform::new(SEED, PlatformSpec::default()), last }
    }
}

impl QuoteSource for TestIssuer {
    fn quote(&self, report: &[u8; TDREPORT_BYTES]) -> Result<Vec<u8>, QuoteUnavailable> {
        if !self.genuine.is(report) {
            return Err(QuoteUnavailable::BadReport);
        }
        let at = now().map_err(|_| QuoteUnavailable::Service)?;
        let issued = self
            .platform
            .quote_for_report(report, QUOTE_VERSION, at)
            .map_err(|_| QuoteUnavailable::BadReport)?;
        let quote = issued.quote.clone();
        *self.last.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(issued);
        Ok(quote)
    }
}

impl Issuer for TestIssuer {
    fn issue(&self, report: &[u8; TDREPORT_BYTES]) -> Result<Quoted, QuoteUnavailable> {
        let quote = self.quote(report)?;
        let last = self.last.0.lock().unwrap_or_else(PoisonError::into_inner);
        let issued = last.as_ref().ok_or(QuoteUnavailable::Service)?;
        let verified_with =
            VerifiedWith { collateral: issued.collateral.to_json(), root: issued.root_pem.clone() };
        Ok(Quoted { quote, verified_with: Some(verified_with) })
    }
}

/// Where `--quote` puts the last quote, and beside it what verifies it.
pub struct QuoteFiles {
    paths: [PathBuf; 3],
    files: [Output; 3],
}

impl QuoteFiles {
    /// Opens `path` and the two files beside it.
    ///
    /// # Errors
    /// One of them cannot be written.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let paths = paths(path);
        let [quote, collateral, root] = &paths;
        let files = [Output::open(quote)?, Output::open(collateral)?, Output::open(root)?];
        Ok(Self { paths, files })
    }

    /// Writes the last quote; gives the command that verifies it.
    ///
    /// # Errors
    /// No quote was issued, or a file cannot be written.
    pub fn save(self, last: &LastQuote) -> Result<String, Failure> {
        let last = last.0.lock().unwrap_or_else(PoisonError::into_inner);
        let issued =
            last.as_ref().ok_or_else(|| Failure::input("--quote", "the guest asked for no quote"))?;
        let contents =
            [&issued.quote[..], issued.collateral.to_json().as_bytes(), issued.root_pem.as_bytes()]
                .map(<[u8]>::to_vec);
        for (file, contents) in self.files.into_iter().zip(contents) {
            file.write(&contents)?;
        }
        let [quote, collateral, root] = self.paths.each_ref().map(|path| path.display());
        Ok(format!("quote: tdvisor verify {quote} --collateral {collateral} --test-root {root}"))
    }
}

/// The files of `--quote`: the quote, and beside it collateral and root.
pub fn paths(quote: &Path) -> [PathBuf; 3] {
    let beside = |suffix: &str| {
        let mut name = quote.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    [quote.to_owned(), beside(".collateral.json"), beside(".root.pem")]
}

/// Asks a quote-generation service on a Unix socket.
pub struct QgsSocket {
    worker: Worker<Box<[u8; TDREPORT_BYTES]>, Result<Vec<u8>, String>>,
    path: PathBuf,
    streams: Streams,
    /// Complaints that may still be shown: a guest may ask for quotes without end.
    complaints: AtomicU32,
}

/// Complaints about the service that are shown.
const MOST_COMPLAINTS: u32 = 8;

impl QgsSocket {
    /// The service at `path`, whose failures are said on standard error.
    pub fn new(path: PathBuf, streams: Streams, stop: StopFlag) -> Self {
        let socket = path.clone();
        let worker = Worker::new(stop, move |report: Box<[u8; TDREPORT_BYTES]>| {
            ask(&socket, &report).map_err(|error| error.to_string())
        });
        Self { worker, path, streams, complaints: AtomicU32::new(MOST_COMPLAINTS) }
    }

    fn complain(&self, problem: &str) {
        let shown = |left: u32| left.checked_sub(1);
        match self.complaints.fetch_update(Ordering::Relaxed, Ordering::Relaxed, shown) {
            Ok(1) => self.streams.say(format_args!(
                "tdvisor: {}: {problem}; further failures are not shown",
                self.path.display()
            )),
            Ok(_) => self.streams.say(format_args!("tdvisor: {}: {problem}", self.path.display())),
            Err(_) => {}
        }
    }
}

/// One connection, one question. Each read and write has a bound too, so that the thread comes back from a service that
/// is silent.
fn ask(socket: &Path, report: &[u8; TDREPORT_BYTES]) -> Result<Vec<u8>, qgs::QgsError> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(QGS_PATIENCE))?;
    stream.set_write_timeout(Some(QGS_PATIENCE))?;
    qgs::stream::get_quote(&mut stream, report)
}

impl QuoteSource for QgsSocket {
    fn quote(&self, report: &[u8; TDREPORT_BYTES]) -> Result<Vec<u8>, QuoteUnavailable> {
        let answer = self.worker.ask(Box::new(*report), QGS_PATIENCE);
        let answer = answer.unwrap_or_else(|Overdue| {
            Err(format!("no answer within {} s, or before the TD ended", QGS_PATIENCE.as_secs()))
        });
        answer.map_err(|problem| {
            self.complain(&problem);
            QuoteUnavailable::Service
        })
    }
}
