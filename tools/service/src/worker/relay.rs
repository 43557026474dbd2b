//! Quotes that the service fetches for a worker, which is confined and reaches nobody but the service.
//!
//! # Protocol
//! A vCPU that asks for a quote has a number and waits ([`Relay::ask`]); the worker says the number and the report to the service
//! ([`Said::Quote`](super::protocol::Said::Quote)). The thread that reads orders hands what comes back to whoever has the number
//! ([`Relay::answer`]), also while an order is followed that waits for that vCPU. An answer that comes too late finds nobody.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tdvisor_monitor::{QuoteUnavailable, TDREPORT_BYTES};
use tdvisor_runtime::worker::StopFlag;

use super::Voice;
use super::protocol::Said;
use super::quotes::{Issuer, Quoted};

/// How long a vCPU waits: longer than one question of a quote-generation service may take, and shorter than a pause.
pub(crate) const QUOTE_PATIENCE: Duration = Duration::from_secs(15);
/// How long the end of the TD may go unnoticed.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

#[derive(Default)]
struct State {
    next: u64,
    askers: BTreeMap<u64, SyncSender<Option<String>>>,
}

/// Who waits for a quote, by number.
#[derive(Default)]
pub(super) struct Relay(Mutex<State>);

impl Relay {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the service fetched for this number, in base64.
    pub(super) fn answer(&self, number: u64, quote: Option<String>) {
        if let Some(asker) = self.lock().askers.remove(&number) {
            // Who asked may have given up.
            let _ = asker.try_send(quote);
        }
    }

    /// Where the answer for this number comes.
    pub(super) fn expect(&self, number: u64) -> Receiver<Option<String>> {
        let (asker, answer) = sync_channel(1);
        self.lock().askers.insert(number, asker);
        answer
    }

    /// The service's answer, unless it takes too long or the TD ends.
    fn ask(&self, voice: &Voice, stop: &StopFlag, report: &[u8; TDREPORT_BYTES]) -> Option<Vec<u8>> {
        let number = {
            let mut state = self.lock();
            state.next += 1;
            state.next
        };
        let answer = self.expect(number);
        voice.say(&Said::Quote { number, report: STANDARD.encode(report) });
        let deadline = Instant::now() + QUOTE_PATIENCE;
        let quote = loop {
            match answer.recv_timeout(LOOK_AGAIN) {
                Ok(quote) => break quote,
                Err(RecvTimeoutError::Timeout) if !stop.is_set() && Instant::now() < deadline => {}
                Err(_) => break None,
            }
        };
        self.lock().askers.remove(&number);
        STANDARD.decode(quote?).ok()
    }
}

/// The quotes of one TD, by way of the service.
pub(super) struct ByService {
    pub(super) relay: Arc<Relay>,
    pub(super) voice: Voice,
    pub(super) stop: StopFlag,
}

impl Issuer for ByService {
    fn issue(&self, report: &[u8; TDREPORT_BYTES]) -> Result<Quoted, QuoteUnavailable> {
        let quote = self.relay.ask(&self.voice, &self.stop, report).ok_or(QuoteUnavailable::Service)?;
        Ok(Quoted { quote, verified_with: None })
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::*;
    use crate::worker::protocol;

    const REPORT: [u8; TDREPORT_BYTES] = [7; TDREPORT_BYTES];

    /// A source of quotes, and what its service hears.
    fn source() -> (Arc<ByService>, BufReader<UnixStream>) {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let voice = Voice(Arc::new(Mutex::new(ours)));
        let source = ByService { relay: Arc::default(), voice, stop: StopFlag::default() };
        (Arc::new(source), BufReader::new(theirs))
    }

    fn heard(service: &mut BufReader<UnixStream>) -> (u64, Vec<u8>) {
        let said = protocol::next(service).expect("a line").expect("not the end");
        let Said::Quote { number, report } = said else { panic!("{said:?}") };
        (number, STANDARD.decode(report).expect("base64"))
    }

    #[test]
    fn each_of_two_that_ask_at_once_has_the_quote_for_its_report() {
        let (source, mut service) = source();
        let reports = [REPORT, [8; TDREPORT_BYTES]];
        thread::scope(|scope| {
            for report in reports {
                let source = source.clone();
                scope.spawn(move || {
                    let quoted = source.issue(&report).expect("a quote");
                    assert_eq!(quoted, Quoted { quote: vec![report[0]; 3], verified_with: None });
                });
            }
            let asked = [heard(&mut service), heard(&mut service)];
            for (number, report) in asked.into_iter().rev() {
                source.relay.answer(number, Some(STANDARD.encode(&report[..3])));
            }
        });
        assert!(source.relay.lock().askers.is_empty());
    }

    #[test]
    fn no_quote_is_one_that_the_service_has_not_and_one_that_is_none_and_one_of_a_td_that_ends() {
        let (source, mut service) = source();
        for answer in [None, Some("no base64!".to_owned())] {
            thread::scope(|scope| {
                let asking = scope.spawn(|| source.issue(&REPORT));
                let (number, report) = heard(&mut service);
                assert_eq!(report, REPORT);
                source.relay.answer(number + 1, Some(STANDARD.encode("of another")));
                source.relay.answer(number, answer);
                assert_eq!(asking.join().expect("no panic"), Err(QuoteUnavailable::Service));
            });
        }
        source.stop.set();
        assert_eq!(source.issue(&REPORT), Err(QuoteUnavailable::Service));
        assert!(source.relay.lock().askers.is_empty());
    }
}
