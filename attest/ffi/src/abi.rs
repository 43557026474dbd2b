//! The border to C.
//!
//! # Why it is sound
//! Every pointer that comes in is checked for NULL before it is used, and is used as the header says: a request and the bytes
//! that it names are lent for the time of the call, are read only, and stay where they are until it returns; `answer` may be
//! written. Lengths beyond what Rust allows for one object are refused before a slice is made. A pointer that goes out was
//! made by [`CString::into_raw`], and comes back to [`tdvisor_free`] once. No panic leaves: it would be
//! [`Outcome::Fault`]. What the caller passes otherwise (a pointer that is not NULL and not to what it says) is the caller's
//! fault, as in every C interface.

#![expect(unsafe_code, reason = "the border to C; the paragraph above is the proof")]

use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::Value;
use tdvisor_attest::UnixSeconds;

use crate::call::{self, Outcome, Request};

/// Version of the interface: `TDVISOR_ATTEST_ABI` of the header.
pub const ABI: u32 = 1;

/// Bytes that C lends: `tdvisor_bytes`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Bytes {
    /// The first; NULL for nothing at all.
    pub bytes: *const u8,
    /// How many.
    pub length: usize,
}

/// A request as C has it: `tdvisor_verify_request`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct VerifyRequest {
    /// The quote, in any form.
    pub quote: Bytes,
    /// The collateral.
    pub collateral: Bytes,
    /// The root; nothing for Intel's.
    pub root: Bytes,
    /// The policy; nothing for the default.
    pub policy: Bytes,
    /// What REPORTDATA must be; nothing if it is not looked at.
    pub report_data: Bytes,
    /// The time, seconds since 1970.
    pub at: u64,
}

impl Bytes {
    /// The bytes; `Ok(None)` for nothing.
    ///
    /// # Safety
    /// The pointer is NULL, or leads to `length` bytes that nobody writes while `'a` lasts.
    unsafe fn get<'a>(self) -> Result<Option<&'a [u8]>, TooLong> {
        if self.bytes.is_null() {
            return Ok(None);
        }
        if isize::try_from(self.length).is_err() {
            return Err(TooLong);
        }
        // SAFETY: the caller's promise, and no object is longer than isize::MAX.
        Ok(Some(unsafe { std::slice::from_raw_parts(self.bytes, self.length) }))
    }
}

/// A length that no object has.
struct TooLong;

impl VerifyRequest {
    /// The request in Rust's terms.
    ///
    /// # Safety
    /// Every pointer in it keeps the promise of [`Bytes::get`].
    unsafe fn get<'a>(&self) -> Result<Request<'a>, TooLong> {
        // SAFETY: the caller's promise, for each.
        unsafe {
            Ok(Request {
                quote: self.quote.get()?,
                collateral: self.collateral.get()?,
                root: self.root.get()?,
                policy: self.policy.get()?,
                report_data: self.report_data.get()?,
                at: UnixSeconds(self.at),
            })
        }
    }
}

/// Calls `function` for C.
///
/// # Safety
/// `request` is NULL or leads to a request whose pointers keep their promise; `answer` is NULL or may be written.
unsafe fn for_c(
    request: *const VerifyRequest,
    answer: *mut *mut c_char,
    function: fn(&Request<'_>) -> (Outcome, Value),
) -> i32 {
    let called = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the caller's promise; NULL becomes `None`.
        let Some(request) = (unsafe { request.as_ref() }) else { return (Outcome::Unusable, None) };
        // SAFETY: the caller's promise.
        let Ok(request) = (unsafe { request.get() }) else { return (Outcome::Unusable, None) };
        let (outcome, answer) = function(&request);
        // JSON has no NUL in it.
        (outcome, CString::new(answer.to_string()).ok())
    }));
    let (outcome, text) = called.unwrap_or((Outcome::Fault, None));
    if !answer.is_null() {
        let text = text.map_or(std::ptr::null_mut(), CString::into_raw);
        // SAFETY: it is not NULL, and the caller says that it may be written.
        unsafe { answer.write(text) };
    }
    outcome as i32
}

/// The version of this interface.
#[unsafe(no_mangle)]
pub extern "C" fn tdvisor_attest_abi() -> u32 {
    ABI
}

/// Verifies a quote and holds the policy against it; the header has the details.
///
/// # Safety
/// `request` is NULL or leads to a request, each pointer in which is NULL or leads to as many bytes as it says; `answer` is
/// NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tdvisor_verify(request: *const VerifyRequest, answer: *mut *mut c_char) -> i32 {
    // SAFETY: the caller's promise is the same.
    unsafe { for_c(request, answer, call::verify) }
}

/// Verifies a quote, and gives the claims of Intel's library; the header has the details.
///
/// # Safety
/// `request` is NULL or leads to a request, each pointer in which is NULL or leads to as many bytes as it says; `answer` is
/// NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tdvisor_intel_dcap_claims(
    request: *const VerifyRequest,
    answer: *mut *mut c_char,
) -> i32 {
    // SAFETY: the caller's promise is the same.
    unsafe { for_c(request, answer, call::claims) }
}

/// Gives an answer back.
///
/// # Safety
/// `answer` is NULL, or came from a function of this library and has not been given back yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tdvisor_free(answer: *mut c_char) {
    if !answer.is_null() {
        // SAFETY: it came from `CString::into_raw`, and comes back once.
        drop(unsafe { CString::from_raw(answer) });
    }
}
