//! TDH.MR.*: the measurement of a TD that is being built (Intel 348549, TD measurement).

pub(super) mod extend;
pub(super) mod finalize;

use tdvisor_base::{Gpa, Hpa};

use super::Call;

/// The 128-byte record that begins each step of MRTD: a name and a guest address.
fn record(name: &[u8], gpa: Gpa) -> [u8; 128] {
    let mut bytes = [0; 128];
    for (to, from) in bytes.iter_mut().zip(name) {
        *to = *from;
    }
    for (to, from) in bytes.iter_mut().skip(16).zip(gpa.get().to_le_bytes()) {
        *to = from;
    }
    bytes
}

/// Adds a PAGE.ADD to MRTD. The page's contents are not part of it.
pub(super) fn measure_page_add(call: &Call<'_>, tdr: Hpa, gpa: Gpa) {
    call.machine.module.extend_mrtd(tdr, &[&record(b"MEM.PAGE.ADD", gpa)]);
}
