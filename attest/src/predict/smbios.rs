//! The SMBIOS tables as OVMF measures them (from edk2-stable202608 on, by a boot of it; edk2 SmbiosMeasurementDxe): as they
//! are, but for fields that differ from machine to machine of one kind, which are zero.
//!
//! Only what a boot of the emulated machine has shown is predicted: the firmware's own structure, the system's without a
//! serial number and UUID, and the end.

use alloc::vec::Vec;

const BIOS_INFORMATION: u8 = 0;
const SYSTEM_INFORMATION: u8 = 1;
const END_OF_TABLE: u8 = 127;
/// Offsets in the system's structure (SMBIOS 3.7, section 7.2).
const SERIAL_NUMBER: usize = 7;
const UUID: core::ops::Range<usize> = 8..24;
const WAKE_UP: usize = 24;
/// Bytes of every structure's head: type, length, handle.
const HEAD: usize = 4;

/// What is measured of these tables, as Linux shows them in /sys/firmware/dmi/tables/DMI; `None` where it cannot be told.
#[must_use]
pub fn measured(tables: &[u8]) -> Option<Vec<u8>> {
    let mut measured = tables.to_vec();
    let mut at = 0;
    loop {
        let structure = measured.get_mut(at..)?;
        let (kind, length) = (*structure.first()?, usize::from(*structure.get(1)?));
        let fields = structure.get_mut(..length).filter(|fields| fields.len() >= HEAD)?;
        match kind {
            BIOS_INFORMATION | END_OF_TABLE => {}
            SYSTEM_INFORMATION => {
                let is_nobodys = fields.get(SERIAL_NUMBER) == Some(&0) && fields.get(UUID)? == [0; 16];
                *fields.get_mut(WAKE_UP).filter(|_| is_nobodys)? = 0;
            }
            _ => return None,
        }
        let strings = measured.get(at + length..)?;
        at += length + strings.windows(2).position(|two| two == [0, 0])? + 2;
        if kind == END_OF_TABLE {
            return (at == measured.len()).then_some(measured);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use td_image::digest::Digest384;

    /// The tables of a boot of Debian's OVMF 2026.08 on the board of `tdvisor run --firmware`.
    fn tables() -> Vec<u8> {
        let mut tables = alloc::vec![1, 27, 0, 1, 1, 2, 0, 0];
        tables.extend([0; 16]);
        tables.extend([6, 0, 0]);
        tables.extend(b"tdvisor\0TD on a Q35 board\0\0");
        tables.extend([
            0, 26, 0, 0, 1, 2, 0, 0xe8, 3, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0x1c, 0, 0, 0xff, 0xff, 0, 0,
        ]);
        tables.extend(b"Debian distribution of EDK II\x002026.08+ds-2\x0009/26/2026\0\0");
        tables.extend([127, 4, 0xff, 0xfe, 0, 0]);
        tables
    }

    #[test]
    fn the_tables_have_the_digest_that_the_firmware_measured() {
        let digest = Digest384::of(&measured(&tables()).unwrap()).to_string();
        assert!(digest.starts_with("2585b1e1dd7ef4bf"), "{digest}");
    }

    #[test]
    fn what_a_boot_has_not_shown_is_not_predicted() {
        for (at, value) in [(0, 2), (7, 1), (8, 1), (23, 1), (1, 3), (1, 20)] {
            let mut other = tables();
            other[at] = value;
            assert_eq!(measured(&other), None, "byte {at}");
        }
        let whole = tables();
        for length in 0..whole.len() {
            assert_eq!(measured(&whole[..length]), None, "{length}");
        }
        assert_eq!(measured(&[whole, alloc::vec![0]].concat()), None);
    }
}
