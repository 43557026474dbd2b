//! This project's own guests: they have no firmware that measures, so only what they extend themselves.

use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use super::{Expectation, Part, Prediction};
use crate::eventlog::Register;
use td_image::digest::Digest384;

/// The bytes with which `hello-td` extends RTMR3, taken as they are for the digest.
pub const HELLO_TD_EVENT: Digest384 = Digest384(*b"hello-td was here, and extended RTMR 3 with this");

/// What the registers of a guest will have seen when it prints its TDREPORT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guest {
    /// `hello-td`: one extension of RTMR3.
    HelloTd,
    /// A guest that extends nothing.
    Silent,
}

impl Guest {
    /// The events.
    #[must_use]
    pub fn prediction(self) -> Prediction {
        let mut prediction = Prediction { events: Vec::new(), silent: vec![] };
        if self == Self::HelloTd {
            let part = Part::Runtime("hello-td".to_string());
            prediction.push(Register::Rtmr3, part, Expectation::Exactly(HELLO_TD_EVENT));
        }
        prediction
    }
}
