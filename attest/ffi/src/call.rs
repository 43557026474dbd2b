//! What the functions do, once their arguments are slices.

use serde_json::{Value, json};
use tdvisor_attest::UnixSeconds;
use tdvisor_attest::collateral::{Parts, Wanted};
use tdvisor_attest::evidence::{self, Evidence};
use tdvisor_attest::policy::{Context, Policy};
use tdvisor_attest::quote::Quote;
use tdvisor_attest::trustee::intel_dcap::{self, NoClaims};
use tdvisor_attest::verdict::Report;
use tdvisor_attest::verify::{TrustAnchor, Verifier};

/// The most bytes that REPORTDATA has.
const REPORT_DATA: usize = 64;

/// The arguments; `None` is what C calls nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// The quote, in any form.
    pub quote: Option<&'a [u8]>,
    /// The collateral.
    pub collateral: Option<&'a [u8]>,
    /// The root; `None` for Intel's.
    pub root: Option<&'a [u8]>,
    /// The policy; `None` for the default.
    pub policy: Option<&'a [u8]>,
    /// What REPORTDATA must be.
    pub report_data: Option<&'a [u8]>,
    /// The time.
    pub at: UnixSeconds,
}

/// How a call ended; the numbers are those of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Outcome {
    /// Valid, and accepted.
    Accepted = 0,
    /// Not valid, or not accepted.
    Rejected = 1,
    /// An argument that cannot be used.
    Unusable = 2,
    /// A fault of this library.
    Fault = 4,
}

/// An argument that cannot be used: its name, and why.
struct Unusable(&'static str, String);

fn unusable<E: ToString>(argument: &'static str) -> impl FnOnce(E) -> Unusable {
    move |problem| Unusable(argument, problem.to_string())
}

impl Unusable {
    fn answer(self) -> (Outcome, Value) {
        let Self(argument, text) = self;
        (Outcome::Unusable, json!({ "error": { "code": "unusable", "argument": argument, "text": text } }))
    }
}

/// What both calls need.
struct Inputs {
    quote: Vec<u8>,
    collateral: tdvisor_attest::collateral::Bundle,
    anchor: TrustAnchor,
}

impl Inputs {
    fn of(request: &Request<'_>) -> Result<Self, Unusable> {
        let missing = |argument| Unusable(argument, "missing".to_owned());
        let quote = request.quote.ok_or_else(|| missing("quote"))?;
        let quote = match evidence::open(quote).map_err(unusable("quote"))?.evidence {
            Evidence::Quote(quote) => quote,
            _ => return Err(Unusable("quote", "not a quote".to_owned())),
        };
        let mut parts = Parts::default();
        let collateral = request.collateral.ok_or_else(|| missing("collateral"))?;
        parts.add(collateral).map_err(unusable("collateral"))?;
        let collateral = match Quote::parse(&quote) {
            Ok(parsed) => parts.build_for(&Wanted::of(&parsed)),
            // What is wrong with the quote is said by the verdict.
            Err(_) => parts.build(),
        };
        let anchor = request.root.map(TrustAnchor::from_bytes).transpose().map_err(unusable("root"))?;
        Ok(Self {
            quote,
            collateral: collateral.map_err(unusable("collateral"))?,
            anchor: anchor.unwrap_or_else(TrustAnchor::intel),
        })
    }
}

fn policy(request: &Request<'_>) -> Result<Policy, Unusable> {
    let mut policy = match request.policy {
        Some(text) => {
            let text = std::str::from_utf8(text).map_err(unusable("policy"))?;
            Policy::from_text(text).map_err(unusable("policy"))?
        }
        None => Policy::default(),
    };
    if let Some(wanted) = request.report_data {
        if wanted.is_empty() || wanted.len() > REPORT_DATA {
            return Err(Unusable("report_data", format!("wanted: 1 to {REPORT_DATA} bytes")));
        }
        if policy.report_data.as_deref().is_some_and(|stated| stated != wanted) {
            return Err(Unusable("report_data", "the policy states another one".to_owned()));
        }
        policy.report_data = Some(wanted.to_vec());
    }
    Ok(policy)
}

/// Verifies a quote and holds the policy against it.
pub fn verify(request: &Request<'_>) -> (Outcome, Value) {
    let inputs = Inputs::of(request).and_then(|inputs| Ok((inputs, policy(request)?)));
    let (Inputs { quote, collateral, anchor }, policy) = match inputs {
        Ok(inputs) => inputs,
        Err(unusable) => return unusable.answer(),
    };
    let mut verifier = Verifier::new(anchor);
    let verified = verifier
        .add_collateral(&collateral)
        .and_then(|()| verifier.verify(&quote, request.at))
        .map_err(Box::new);
    let verdict = verified.as_ref().ok().map(|verified| policy.evaluate(verified, &Context::default()));
    let is_accepted = verdict.as_ref().is_some_and(|verdict| verdict.is_accepted());
    let report = Report {
        verified: verified.as_ref().map_err(|error| **error),
        policy: verdict.as_ref(),
        at: request.at,
        // Which root is a test's, only the caller knows.
        test_root: false,
    };
    let mut answer = report.to_json();
    if let Some(members) = answer.as_object_mut() {
        members.remove("test_root");
    }
    (if is_accepted { Outcome::Accepted } else { Outcome::Rejected }, answer)
}

/// Verifies a quote, and gives the claims of Intel's library.
pub fn claims(request: &Request<'_>) -> (Outcome, Value) {
    let superfluous = [("policy", request.policy), ("report_data", request.report_data)];
    if let Some((argument, _)) = superfluous.into_iter().find(|(_, given)| given.is_some()) {
        return Unusable(argument, "no policy has a part in this call".to_owned()).answer();
    }
    let Inputs { quote, collateral, anchor } = match Inputs::of(request) {
        Ok(inputs) => inputs,
        Err(unusable) => return unusable.answer(),
    };
    match intel_dcap::verify(&quote, &collateral, &anchor, request.at) {
        Ok(claims) => (Outcome::Accepted, Value::Object(claims)),
        Err(error) => {
            let code = match &error {
                NoClaims::Invalid(error) => error.code(),
                _ => "tcb-terminal",
            };
            (Outcome::Rejected, json!({ "error": { "code": code, "text": error.to_string() } }))
        }
    }
}
