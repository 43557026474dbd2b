//! Quotes that the service fetches for its workers, which are confined and reach nobody else.
//!
//! # Protocol
//! The thread that listens to a worker hands each wish to the worker's [`Fetcher`], whose thread asks one after the other and brings
//! back what came of it. It ends when nobody listens to the worker any more.
//!
//! # Bounds
//! As many wishes wait as the TD has vCPUs, each of which asks for one at a time; one more is answered at once, with none. So is
//! one whose vCPU has given up meanwhile ([`QUOTE_PATIENCE`]): where the service is slow, the first to ask have their quotes.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tdvisor_monitor::{QuoteSource, TDREPORT_BYTES};

use super::worker::Worker;
use crate::worker::QUOTE_PATIENCE;
use crate::worker::protocol::Told;

/// Where the quotes of TDs come from: a source for each time that a TD is booted.
#[derive(Clone)]
pub struct QuoteService(Arc<dyn Fn() -> Box<dyn QuoteSource> + Send + Sync>);

impl QuoteService {
    /// One whose sources this makes.
    pub fn new(source: impl Fn() -> Box<dyn QuoteSource> + Send + Sync + 'static) -> Self {
        Self(Arc::new(source))
    }
}

impl fmt::Debug for QuoteService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QuoteService")
    }
}

struct Wish {
    number: u64,
    /// In base64.
    report: String,
    since: Instant,
}

/// What fetches the quotes of one worker.
pub(super) struct Fetcher {
    worker: Arc<Worker>,
    wishes: Option<SyncSender<Wish>>,
}

impl Fetcher {
    /// One that fetches from this service, or has none.
    pub(super) fn start(worker: Arc<Worker>, service: Option<&QuoteService>, vcpus: u32) -> io::Result<Self> {
        let Some(service) = service else { return Ok(Self { worker, wishes: None }) };
        let (source, to) = ((service.0)(), worker.clone());
        let (wishes, wanted) = sync_channel::<Wish>(usize::try_from(vcpus).unwrap_or(usize::MAX));
        std::thread::Builder::new().name("td-quotes".to_owned()).spawn(move || {
            for Wish { number, report, since } in wanted {
                let quote = if since.elapsed() < QUOTE_PATIENCE { fetch(&*source, &report) } else { None };
                bring(&to, number, quote);
            }
        })?;
        Ok(Self { worker, wishes: Some(wishes) })
    }

    /// Has a quote fetched for a report in base64, which the worker is brought under the number.
    pub(super) fn wish(&self, number: u64, report: String) {
        let wish = Wish { number, report, since: Instant::now() };
        let is_taken = self.wishes.as_ref().is_some_and(|wishes| wishes.try_send(wish).is_ok());
        if !is_taken {
            bring(&self.worker, number, None);
        }
    }
}

/// Brings a worker what came of its wish. One that has gone needs it no more.
fn bring(worker: &Worker, number: u64, quote: Option<String>) {
    let _ = worker.tell(&Told::Quote { number, quote });
}

/// The quote for a report, both in base64. A worker that sends no report gets no quote.
fn fetch(source: &dyn QuoteSource, report: &str) -> Option<String> {
    let report: [u8; TDREPORT_BYTES] = STANDARD.decode(report).ok()?.try_into().ok()?;
    Some(STANDARD.encode(source.quote(&report).ok()?))
}

#[cfg(test)]
mod tests {
    use tdvisor_monitor::QuoteUnavailable;

    use super::*;

    struct Echo;

    impl QuoteSource for Echo {
        fn quote(&self, report: &[u8; TDREPORT_BYTES]) -> Result<Vec<u8>, QuoteUnavailable> {
            if report[0] == 0 { Err(QuoteUnavailable::BadReport) } else { Ok(vec![report[0]; 2]) }
        }
    }

    #[test]
    fn a_report_has_its_quote_and_what_is_no_report_has_none() {
        let report = |first| STANDARD.encode([first; TDREPORT_BYTES]);
        assert_eq!(fetch(&Echo, &report(7)), Some(STANDARD.encode([7, 7])));
        assert_eq!(fetch(&Echo, &report(0)), None, "refused");
        for bad in [String::new(), "?".to_owned(), report(7)[4..].to_owned(), STANDARD.encode([7; 1023])] {
            assert_eq!(fetch(&Echo, &bad), None, "{bad}");
        }
    }
}
