//! Quotes, and the last of them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use seam_emu::Machine;
use serde_json::{Value, json};
use tdvisor_monitor::{QuoteSource, QuoteUnavailable, TDREPORT_BYTES};

/// Quotes that are kept.
const KEPT: usize = 16;

/// Where the quotes of a TD come from, given the module under it.
pub type Issue = dyn Fn(Arc<Machine>) -> Box<dyn Issuer> + Send + Sync;

/// A quote, and what it is verified with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// The quote.
    pub quote: Vec<u8>,
    /// Unless who issues it publishes that elsewhere.
    pub verified_with: Option<VerifiedWith>,
}

/// What a quote is verified with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedWith {
    /// The quote's collateral, in the form that `tdvisor verify --collateral` takes.
    pub collateral: String,
    /// The root that it is issued under, as PEM.
    pub root: String,
}

/// What issues quotes. It may open nothing: the worker is confined.
pub trait Issuer: Send + Sync {
    /// The quote for a report.
    ///
    /// # Errors
    /// [`QuoteUnavailable`].
    fn issue(&self, report: &[u8; TDREPORT_BYTES]) -> Result<Quoted, QuoteUnavailable>;
}

/// The last quotes of a TD.
#[derive(Clone, Default)]
pub(super) struct Quotes(Arc<Mutex<VecDeque<Quoted>>>);

impl Quotes {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Quoted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn to_json(&self) -> Value {
        let one = |quoted: &Quoted| {
            json!({
                "quote": STANDARD.encode(&quoted.quote),
                "collateral": quoted.verified_with.as_ref().map(|with| &with.collateral),
                "root": quoted.verified_with.as_ref().map(|with| &with.root),
            })
        };
        json!({"quotes": self.lock().iter().map(one).collect::<Vec<_>>()})
    }

    /// A source whose quotes are kept.
    pub(super) fn of(&self, issuer: Box<dyn Issuer>) -> Box<dyn QuoteSource> {
        Box::new(Keeping { issuer, quotes: self.clone() })
    }
}

struct Keeping {
    issuer: Box<dyn Issuer>,
    quotes: Quotes,
}

impl QuoteSource for Keeping {
    fn quote(&self, report: &[u8; TDREPORT_BYTES]) -> Result<Vec<u8>, QuoteUnavailable> {
        let quoted = self.issuer.issue(report)?;
        let quote = quoted.quote.clone();
        let mut kept = self.quotes.lock();
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(quoted);
        Ok(quote)
    }
}
