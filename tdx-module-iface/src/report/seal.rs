//! What SEAMREPORT does on hardware: hashes and MAC of a report, under a key that is known.
//!
//! On real processors the MAC key never leaves the CPU, so only it can check a report; an emulated platform has a
//! key of its own, given here by the caller.

use core::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha384};
use zerocopy::IntoBytes;

use super::{Measurement, REPORT_TYPE_TDX, ReportError, ReportMac, ReportType, TdReport};

/// Key of a report MAC. Real processors never give theirs out; this is for emulated ones.
#[derive(Clone, PartialEq, Eq)]
pub struct ReportKey(pub [u8; 32]);

impl fmt::Debug for ReportKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReportKey(..)")
    }
}

impl ReportMac {
    /// The MAC of an emulated processor: HMAC-SHA-256 over the 224 bytes before the MAC.
    #[must_use]
    pub fn mac_with(&self, key: &ReportKey) -> [u8; 32] {
        hmac(key, self.signed()).finalize().into_bytes().into()
    }

    /// Checks the MAC, in constant time.
    ///
    /// # Errors
    /// [`ReportError::Mac`].
    pub fn check(&self, key: &ReportKey) -> Result<(), ReportError> {
        hmac(key, self.signed()).verify_slice(&self.mac).map_err(|_| ReportError::Mac)
    }
}

impl TdReport {
    /// SHA-384 of TEE_TCB_INFO.
    #[must_use]
    pub fn tee_tcb_info_hash(&self) -> Measurement {
        Sha384::digest(self.tee_tcb_info.as_bytes()).into()
    }

    /// SHA-384 of TDINFO.
    #[must_use]
    pub fn td_info_hash(&self) -> Measurement {
        Sha384::digest(self.td_info.as_bytes()).into()
    }

    /// The MAC of an emulated processor: HMAC-SHA-256 over the 224 bytes before the MAC.
    #[must_use]
    pub fn mac_with(&self, key: &ReportKey) -> [u8; 32] {
        self.mac.mac_with(key)
    }

    /// Checks that both lower structures are what the MAC'd part says.
    ///
    /// # Errors
    /// The hash that differs.
    pub fn check_hashes(&self) -> Result<(), ReportError> {
        if self.tee_tcb_info_hash() != self.mac.tee_tcb_info_hash {
            return Err(ReportError::TeeTcbInfoHash);
        }
        if self.td_info_hash() != self.mac.tee_info_hash {
            return Err(ReportError::TdInfoHash);
        }
        Ok(())
    }

    /// Checks hashes and MAC; the MAC in constant time.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check(&self, key: &ReportKey) -> Result<(), ReportError> {
        self.check_hashes()?;
        self.mac.check(key)
    }

    /// Fills in type, hashes and MAC: what an emulated processor does last.
    pub fn seal(&mut self, key: &ReportKey) {
        let version = u8::from(self.td_info.servtd_hash != [0; 48]);
        self.mac.report_type = ReportType { kind: REPORT_TYPE_TDX, subtype: 0, version, reserved: 0 };
        self.mac.tee_tcb_info_hash = self.tee_tcb_info_hash();
        self.mac.tee_info_hash = self.td_info_hash();
        self.mac.mac = self.mac_with(key);
    }
}

/// HMAC-SHA-256 over `data`, not finished.
fn hmac(key: &ReportKey, data: &[u8]) -> Hmac<Sha256> {
    // HMAC takes keys of any length; the block-sized form cannot fail.
    let mut block = [0; 64];
    for (place, byte) in block.iter_mut().zip(key.0) {
        *place = byte;
    }
    let mut mac = <Hmac<Sha256> as KeyInit>::new(&block.into());
    mac.update(data);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_report_holds_and_any_changed_bit_shows() {
        let key = ReportKey([7; 32]);
        let mut report = TdReport::zeroed();
        report.td_info.mr_td = [3; 48];
        report.mac.report_data = [9; 64];
        report.seal(&key);
        assert_eq!(report.check(&key), Ok(()));
        assert_eq!(report.check(&ReportKey([8; 32])), Err(ReportError::Mac));
        for bit in 0..TdReport::SIZE * 8 {
            let mut bytes = [0; TdReport::SIZE];
            bytes.copy_from_slice(report.as_bytes());
            bytes[bit / 8] ^= 1 << (bit % 8);
            let holds = TdReport::from_bytes(&bytes).is_ok_and(|report| report.check(&key).is_ok());
            // Bytes 495..512 lie between the hashed structures and are covered by nothing.
            assert_eq!(holds, (495..512).contains(&(bit / 8)), "bit {bit}");
        }
    }

    #[test]
    fn the_mac_is_hmac_sha256_as_rfc_4231_computes_it() {
        // Test case 2 has a key shorter than 32 bytes; zero padding is what HMAC does itself.
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        let mac = hmac(&ReportKey(key), b"what do ya want for nothing?").finalize().into_bytes();
        assert_eq!(mac[..8], [0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e]);
    }
}
