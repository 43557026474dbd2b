//! One order carried out, from the first word to the key in the module.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use tdvisor_attest::collateral::{Bundle, CollateralError};
use tdvisor_attest::report::TdInfo;

use crate::configuration::{Configuration, NotMeasured};
use crate::handshake::{Refused, Start};
use crate::hello::{BadHello, Hello, Role};
use crate::mailbox::{Outcome, Target};
use crate::seal::{MigrationKey, Sealed};
use crate::trust::{Trust, Untrusting};

/// What a migration TD has around it. Nothing that a host says through it is believed.
pub trait Surroundings {
    /// Why something could not be had.
    type Error;

    /// Fills a buffer with random bytes; says whether it could.
    fn random(&mut self, out: &mut [u8]) -> bool;

    /// What this TD is, from its own TDREPORT.
    ///
    /// # Errors
    /// The module makes no report.
    fn own(&mut self) -> Result<TdInfo, Self::Error>;

    /// The bytes that the host says are the configuration.
    ///
    /// # Errors
    /// The host has none.
    fn configuration(&mut self) -> Result<Vec<u8>, Self::Error>;

    /// A quote of this TD over 64 bytes; `None` if there is no quoting service.
    ///
    /// # Errors
    /// The module makes no report.
    fn quote(&mut self, report_data: &[u8; 64]) -> Result<Option<Vec<u8>>, Self::Error>;

    /// Collateral for a quote, as one JSON file.
    ///
    /// # Errors
    /// The host has none.
    fn collateral(&mut self, quote: &[u8]) -> Result<String, Self::Error>;

    /// Says something to the peer.
    ///
    /// # Errors
    /// The host does not pass it on.
    fn send(&mut self, message: &[u8]) -> Result<(), Self::Error>;

    /// Waits for the peer's next word.
    ///
    /// # Errors
    /// The host has none.
    fn receive(&mut self) -> Result<Vec<u8>, Self::Error>;

    /// The key that this side's module will send with (TDG.SERVTD.RD of MIG_ENC_KEY; each time a new one).
    ///
    /// # Errors
    /// The module refuses.
    fn sending_key(&mut self, target: &Target) -> Result<MigrationKey, Self::Error>;

    /// Gives this side's module the key that it will receive with, and the version of the session (TDG.SERVTD.WR).
    ///
    /// # Errors
    /// The module refuses.
    fn set_receiving_key(&mut self, target: &Target, key: &MigrationKey) -> Result<(), Self::Error>;
}

/// Why an order was not carried out. No key has left this TD in clear, whatever it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unfinished<E> {
    /// The host did not do its part.
    Host(E),
    /// The module refused something.
    Module(E),
    /// There is no quoting service.
    NoQuote,
    /// The configuration is not the measured one.
    Configuration(NotMeasured),
    /// This TD cannot trust anybody.
    Untrusting(Untrusting),
    /// The peer's first word is none.
    Hello(BadHello),
    /// The collateral is none.
    Collateral(CollateralError),
    /// The peer is not trusted.
    Refused(Refused),
}

impl<E> Unfinished<E> {
    /// What the host learns of it.
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::Host(_) => Outcome::Host,
            Self::Module(_) => Outcome::Module,
            Self::NoQuote => Outcome::NoQuote,
            Self::Configuration(_) | Self::Untrusting(_) => Outcome::Untrusting,
            Self::Hello(_) | Self::Refused(Refused::Reflected | Refused::BadKey) => Outcome::Peer,
            Self::Collateral(_) | Self::Refused(Refused::Quote(_)) => Outcome::Quote,
            Self::Refused(Refused::Policy(_)) => Outcome::Policy,
            Self::Refused(Refused::NotSealed) => Outcome::NotSealed,
            Self::Refused(Refused::NoEntropy) => Outcome::NoEntropy,
        }
    }
}

impl<E: fmt::Display> fmt::Display for Unfinished<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(error) => write!(f, "the host did not do its part: {error}"),
            Self::Module(error) => write!(f, "the module refused: {error}"),
            Self::NoQuote => f.write_str("there is no quote"),
            Self::Configuration(error) => error.fmt(f),
            Self::Untrusting(error) => error.fmt(f),
            Self::Hello(error) => error.fmt(f),
            Self::Collateral(error) => write!(f, "the collateral is not valid: {error}"),
            Self::Refused(refused) => refused.fmt(f),
        }
    }
}

/// Hands this side's key over to the peer, and takes the peer's: the whole order of a host.
///
/// # Errors
/// [`Unfinished`]: the conversation is over, and the module has no new key to receive with.
pub fn hand_over<S: Surroundings>(
    around: &mut S,
    role: Role,
    target: &Target,
) -> Result<(), Unfinished<S::Error>> {
    let own = around.own().map_err(Unfinished::Module)?;
    let configuration = around.configuration().map_err(Unfinished::Host)?;
    let configuration = Configuration::measured(&configuration, &own).map_err(Unfinished::Configuration)?;
    let trust = Trust::in_twins(&own, &configuration).map_err(Unfinished::Untrusting)?;

    let start = Start::new(role, target.subject(), |out| around.random(out)).map_err(Unfinished::Refused)?;
    around.send(start.hello().bytes()).map_err(Unfinished::Host)?;
    let peer = around.receive().map_err(Unfinished::Host)?;
    let peer = Hello::from_bytes(&peer).map_err(Unfinished::Hello)?;
    let met = start.meet(&peer).map_err(Unfinished::Refused)?;

    let quote = around.quote(&met.report_data()).map_err(Unfinished::Module)?.ok_or(Unfinished::NoQuote)?;
    around.send(&quote).map_err(Unfinished::Host)?;
    let quote = around.receive().map_err(Unfinished::Host)?;
    let collateral = around.collateral(&quote).map_err(Unfinished::Host)?;
    let collateral = Bundle::from_json(&collateral).map_err(Unfinished::Collateral)?;
    let mut trusted = met.trust(&quote, &collateral, &trust).map_err(Unfinished::Refused)?;

    let key = around.sending_key(target).map_err(Unfinished::Module)?;
    let sealed = trusted.seal(&key).ok_or(Unfinished::Refused(Refused::NotSealed))?;
    drop(key);
    around.send(sealed.bytes()).map_err(Unfinished::Host)?;
    let sealed = around.receive().map_err(Unfinished::Host)?;
    let sealed = Sealed::from_bytes(&sealed).ok_or(Unfinished::Refused(Refused::NotSealed))?;
    let key = trusted.open(&sealed).map_err(Unfinished::Refused)?;
    around.set_receiving_key(target, &key).map_err(Unfinished::Module)
}
