//! TDG.MR.REPORT (4): RCX buffer for the TDREPORT, RDX 64 bytes of report data, R8 subtype (0).
//!
//! SEAMREPORT, which makes TEE_TCB_INFO, CPUSVN and the MAC on hardware, is the platform's; ours has values and
//! a MAC key of its own and says so by MRSEAM and MRSIGNERSEAM of zero.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha384};
use tdx_module_iface::Operand;
use tdx_module_iface::report::REPORT_TYPE_TDX;
use tdx_module_iface::tdg::align;

use super::memory::{Use, check_operand, locate};
use super::{Call, End, Step, rtmr};
use crate::fields::layout::tdcs;
use crate::guest::GuestState;
use crate::host::invalid;
use crate::lock::Mode;
use crate::machine::Machine;
use crate::td::Tdcs;

/// Layout of a TDREPORT (Intel 348551, TDREPORT_STRUCT).
pub(super) const REPORT_BYTES: usize = 1024;
pub(super) const MAC_STRUCT_BYTES: usize = 256;
pub(super) const MAC_OFFSET: usize = 224;
pub(super) const CPUSVN: core::ops::Range<usize> = 16..32;
const TCB_INFO_HASH: core::ops::Range<usize> = 32..80;
const TD_INFO_HASH: core::ops::Range<usize> = 80..128;
const REPORT_DATA: core::ops::Range<usize> = 128..192;
/// TEE_TCB_INFO is 239 bytes; the hash covers these and not the 17 reserved ones behind (as real reports show).
const TCB_INFO: core::ops::Range<usize> = 256..495;
const TD_INFO: core::ops::Range<usize> = 512..1024;
/// TEE_TCB_INFO.VALID: TEE_TCB_SVN, MRSEAM, MRSIGNERSEAM and ATTRIBUTES are valid.
const TCB_INFO_VALID: u64 = 0x301ff;

/// The security version of the emulated processor.
pub(super) const EMULATED_CPUSVN: [u8; 16] = [1; 16];

pub(super) fn report(call: &Call<'_, '_, '_>, state: &mut GuestState) -> Step {
    let (rcx, rdx, subtype) = (state.gprs.rcx, state.gprs.rdx, state.gprs.r8);
    let buffer = check_operand(call, rcx, align::REPORT, Operand::RCX)?;
    let data = check_operand(call, rdx, align::REPORT_DATA, Operand::RDX)?;
    let data = locate(call, state, data, Use::Read)?;
    if subtype != 0 {
        return Err(invalid(Operand::R8).into());
    }
    let _lock = rtmr::lock(call, Mode::Shared)?;
    let buffer = locate(call, state, buffer, Use::ReadWrite)?;
    let report_data: [u8; 64] = call.read(data)?;
    if call.vcpu.env.interrupt_pending() {
        return Err(End::Again);
    }
    call.write(buffer, &build(call.vcpu.machine, call.vcpu.tdcs, &report_data))
}

/// Puts a TDREPORT together.
fn build(machine: &Machine, td: &Tdcs<'_>, report_data: &[u8; 64]) -> [u8; REPORT_BYTES] {
    let mut report = [0; REPORT_BYTES];
    let mut put = |range: core::ops::Range<usize>, bytes: &[u8]| {
        if let Some(target) = report.get_mut(range)
            && target.len() == bytes.len()
        {
            target.copy_from_slice(bytes);
        }
    };
    let td_info = td_info(td);
    let mut tcb_info = [0; 239];
    for (to, from) in tcb_info.iter_mut().zip(TCB_INFO_VALID.to_le_bytes()) {
        *to = from;
    }
    put(0..1, &[REPORT_TYPE_TDX]);
    put(CPUSVN, &EMULATED_CPUSVN);
    put(TCB_INFO_HASH, &Sha384::digest(tcb_info));
    put(TD_INFO_HASH, &Sha384::digest(td_info));
    put(REPORT_DATA, report_data);
    put(TCB_INFO, &tcb_info);
    put(TD_INFO, &td_info);
    let mac = mac(machine, report.get(..MAC_OFFSET).unwrap_or_default());
    if let Some(target) = report.get_mut(MAC_OFFSET..MAC_STRUCT_BYTES) {
        target.copy_from_slice(&mac);
    }
    report
}

/// The 512 bytes of TDINFO.
fn td_info(td: &Tdcs<'_>) -> [u8; 512] {
    let mut info = [0; 512];
    let fields: [(usize, u32, usize); 7] = [
        (0, tdcs::ATTRIBUTES, 8),
        (8, tdcs::XFAM, 8),
        (16, tdcs::MRTD, 48),
        (64, tdcs::MRCONFIGID, 48),
        (112, tdcs::MROWNER, 48),
        (160, tdcs::MROWNERCONFIG, 48),
        (208, tdcs::RTMR, 4 * 48),
    ];
    for (at, offset, length) in fields {
        if let Some(target) = info.get_mut(at..at + length) {
            td.load_bytes(offset, target);
        }
    }
    if let Some(target) = info.get_mut(400..448) {
        td.load_bytes(tdcs::SERVTD_HASH, target);
    }
    info
}

/// The MAC over the first 224 bytes of a report, under the platform's own key.
pub(super) fn mac(machine: &Machine, bytes: &[u8]) -> [u8; 32] {
    match Hmac::<Sha256>::new_from_slice(&machine.module.report_key) {
        Ok(mut mac) => {
            mac.update(bytes);
            mac.finalize().into_bytes().into()
        }
        // HMAC takes keys of every length.
        Err(_) => [0; 32],
    }
}
