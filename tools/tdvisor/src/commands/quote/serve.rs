//! `tdvisor quote serve`: a quote-generation service of the test PKI, on a Unix socket.

use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tdvisor_attest::qgs::{GetQuote, QgsError, Quoted, stream};
use tdvisor_monitor::{QuoteSource, QuoteUnavailable};

use crate::commands::run::quotes::{Genuine, LastQuote, QuoteFiles, TestIssuer};
use crate::outcome::{Failure, Status};
use crate::streams::print;

/// Answer requests for quotes from the test PKI, as Intel's quote-generation service does from a platform's.
///
/// It speaks that service's protocol on a Unix socket: `tdvisor run --qgs SOCKET` and QEMU's `quote-generation-socket` ask
/// it. Nothing but a verifier that is told to (`tdvisor verify --test-root`) trusts what it gives: nobody checks the MAC of a
/// report here, as only an enclave can.
///
/// Exit status: 0 all requests were answered, 2 the socket cannot be made, or a file cannot be written.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to listen. Nothing may be there yet; it is removed at the end.
    #[arg(value_name = "SOCKET")]
    socket: PathBuf,
    /// End after so many requests; 0 is never.
    #[arg(long, value_name = "N", default_value_t = 0)]
    requests: u64,
    /// Write each quote to FILE, in place of the one before; FILE.collateral.json and FILE.root.pem verify it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// How long a peer may be silent.
const PATIENCE: Duration = Duration::from_secs(10);

/// Error codes of the protocol: a report that cannot be quoted, and whatever else there is.
mod refusal {
    pub(super) const INVALID_PARAMETER: u32 = 0x1_2003;
    pub(super) const UNEXPECTED: u32 = 0x1_2001;
}

/// The socket's place in the file system.
struct Place<'p>(&'p Path);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0);
    }
}

/// Runs the command.
pub fn run(args: Args) -> Result<Status, Failure> {
    let listener =
        UnixListener::bind(&args.socket).map_err(|error| Failure::input(args.socket.display(), error))?;
    let _place = Place(&args.socket);
    let last = LastQuote::default();
    let issuer = TestIssuer::new(Genuine::Unchecked, last.clone());
    print(&format!("{}: ready for requests\n", args.socket.display()))?;
    let mut answered = 0;
    while args.requests == 0 || answered < args.requests {
        let Ok((peer, _)) = listener.accept() else { continue };
        // Who hangs up, is silent or speaks something else harms itself only.
        if !matches!(answer(peer, &issuer), Ok(Answered::Quote)) {
            continue;
        }
        answered += 1;
        if let Some(path) = &args.out {
            QuoteFiles::open(path)?.save(&last)?;
        }
    }
    Ok(Status::Success)
}

/// What a peer was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answered {
    Quote,
    Refusal,
}

/// Answers one request.
fn answer(mut peer: UnixStream, issuer: &TestIssuer) -> Result<Answered, QgsError> {
    peer.set_read_timeout(Some(PATIENCE))?;
    peer.set_write_timeout(Some(PATIENCE))?;
    let message = stream::read(&mut peer)?;
    let request = GetQuote::decode(&message)?;
    let quote = match request.report.try_into() {
        Ok(report) => issuer.quote(report),
        Err(_) => Err(QuoteUnavailable::BadReport),
    };
    match quote {
        Ok(quote) => {
            stream::write(&mut peer, &Quoted { id: &[], quote: &quote }.encode()?)?;
            Ok(Answered::Quote)
        }
        Err(reason) => {
            let code = match reason {
                QuoteUnavailable::BadReport => refusal::INVALID_PARAMETER,
                QuoteUnavailable::Service => refusal::UNEXPECTED,
            };
            stream::write(&mut peer, &Quoted::refusal(code)?)?;
            Ok(Answered::Refusal)
        }
    }
}
