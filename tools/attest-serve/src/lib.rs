//! Verification of TDX evidence as a service.
//!
//! It speaks the gRPC service `attestation.AttestationService` of Trustee (Confidential Containers), so that a key broker
//! of that project uses it in place of its own attestation service (`type = "coco_as_grpc"`). What comes out is a signed
//! attestation result (EAR, a JWT) with Trustee's claim names.
//!
//! A request passes through one module after the other: [`messages`] are its bytes, [`question`] what it asks,
//! [`binding`] what the quote must say to be the answer to *this* request, [`appraisal`] the verdict, [`ear`] the token.
//! [`service`] is these behind gRPC, [`server`] the listeners around it.
//!
//! What it is not: there is no policy language in it (`SetAttestationPolicy` answers UNIMPLEMENTED), the policy is the
//! operator's, from a file, and evidence that does not keep it gets no token; no reference values are taken over the
//! network; and it keeps no keys and no secrets of guests.

pub mod appraisal;
pub mod binding;
pub mod ear;
pub mod messages;
pub mod metrics;
pub mod question;
pub mod server;
pub mod service;

pub use appraisal::{Appraiser, CollateralSource};
pub use ear::Signer;
