//! Where the TD's quotes come from: the test issuer, or a real quote-generation service.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use seam_emu::Machine;
use tdvisor_attest::issue::{Issued, PlatformSpec, TestPlatform};
use tdvisor_attest::qgs;
use vmm_core::quote::{QuoteSource, QuoteUnavailable, TDREPORT_BYTES};

use crate::commands::verify::inputs::now;
use crate::outcome::Failure;

/// Seed of the PKI that quotes of emulated TDs are issued under: the same root in every run.
const SEED: [u8; 32] = *b"tdvisor run: test issuer, v1    ";

/// Version of the quotes that are issued: what today's guests and verifiers all read.
const QUOTE_VERSION: u16 = 4;

/// How long a quote-generation service may take.
const QGS_TIMEOUT: Duration = Duration::from_secs(30);

/// Issues test quotes for reports of this machine.
pub struct TestIssuer {
    machine: Arc<Machine>,
    platform: TestPlatform,
    last: LastQuote,
}

/// The last quote that was issued.
#[derive(Clone, Default)]
pub struct LastQuote(Arc<Mutex<Option<Issued>>>);

impl TestIssuer {
    /// An issuer for reports of `machine`.
    pub fn new(machine: Arc<Machine>, last: LastQuote) -> Self {
        Self { machine, platform: TestPlatform::new(SEED, PlatformSpec::default()), last }
    }
}

impl QuoteSource for TestIssuer {
    fn quote(&self, report: &[u8; TDREPORT_BYTES]) -> Result<Vec<u8>, QuoteUnavailable> {
        let signed = report.first_chunk().ok_or(QuoteUnavailable::BadReport)?;
        if !self.machine.everifyreport2(signed) {
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

impl LastQuote {
    /// Writes the quote to `path`, and beside it what verifies it.
    ///
    /// # Errors
    /// No quote was issued, or a file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Failure> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let issued =
            last.as_ref().ok_or_else(|| Failure::input("--quote", "the guest asked for no quote"))?;
        let beside = |suffix: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        let (collateral, root) = (beside(".collateral.json"), beside(".root.pem"));
        let write = |path: &Path, bytes: &[u8]| {
            std::fs::write(path, bytes).map_err(|error| Failure::input(path.display(), error))
        };
        write(path, &issued.quote)?;
        write(&collateral, issued.collateral.to_json().as_bytes())?;
        write(&root, issued.root_pem.as_bytes())?;
        eprintln!(
            "quote: tdvisor verify {} --collateral {} --test-root {}",
            path.display(),
            collateral.display(),
            root.display()
        );
        Ok(())
    }
}

/// Asks a quote-generation service on a Unix socket.
pub struct QgsSocket {
    path: PathBuf,
}

impl QgsSocket {
    /// The service at `path`.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }
}

impl QuoteSource for QgsSocket {
    fn quote(&self, report: &[u8; TDREPORT_BYTES]) -> Result<Vec<u8>, QuoteUnavailable> {
        let connect = || {
            let stream = UnixStream::connect(&self.path)?;
            stream.set_read_timeout(Some(QGS_TIMEOUT))?;
            stream.set_write_timeout(Some(QGS_TIMEOUT))?;
            Ok::<_, std::io::Error>(stream)
        };
        let mut stream = connect().map_err(|error| {
            eprintln!("tdvisor: {}: {error}", self.path.display());
            QuoteUnavailable::Service
        })?;
        qgs::stream::get_quote(&mut stream, report).map_err(|error| {
            eprintln!("tdvisor: {}: {error}", self.path.display());
            QuoteUnavailable::Service
        })
    }
}
