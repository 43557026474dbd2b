//! SMBIOS for firmware to publish: whose machine this is, and nothing else.
//!
//! Source: SMBIOS reference specification 3.7, sections 5.2.2 (entry point) and 7.2 (system information).

/// The file of the entry point.
pub(super) const ANCHOR: &str = "etc/smbios/smbios-anchor";
/// The file of the structures.
pub(super) const TABLES: &str = "etc/smbios/smbios-tables";

const ENTRY_BYTES: u8 = 24;
const ENTRY_CHECKSUM: usize = 5;
const VERSION: [u8; 3] = [3, 7, 0];
const SYSTEM_INFORMATION: u8 = 1;
const END_OF_TABLE: u8 = 127;
/// Wake-up type: power switch.
const POWER_SWITCH: u8 = 6;

pub(super) struct SmbiosFiles {
    pub(super) anchor: Vec<u8>,
    pub(super) tables: Vec<u8>,
}

/// Entry point, with the structures' address left to firmware, and structures.
pub(super) fn files() -> SmbiosFiles {
    // Manufacturer and product are strings 1 and 2; there is no version, serial number, UUID, SKU or family.
    let mut system = vec![SYSTEM_INFORMATION, 27, 0, 1, 1, 2, 0, 0];
    system.extend([0; 16]);
    system.extend([POWER_SWITCH, 0, 0]);
    let mut tables = system;
    tables.extend(b"tdvisor\0TD on a Q35 board\0\0");
    tables.extend([END_OF_TABLE, 4, 0, 2, 0, 0]);
    let mut anchor = b"_SM3_\0".to_vec();
    anchor.push(ENTRY_BYTES);
    anchor.extend(VERSION);
    // Revision of the entry point, and a byte of nothing.
    anchor.extend([1, 0]);
    anchor.extend(u32::try_from(tables.len()).unwrap_or(u32::MAX).to_le_bytes());
    anchor.extend(0u64.to_le_bytes());
    let sum = anchor.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
    if let Some(checksum) = anchor.get_mut(ENTRY_CHECKSUM) {
        *checksum = sum;
    }
    SmbiosFiles { anchor, tables }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_point_counts_the_structures_and_its_checksum_holds() {
        let SmbiosFiles { anchor, tables } = files();
        assert_eq!(anchor.len(), usize::from(anchor[6]));
        assert_eq!(anchor.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        assert_eq!(anchor[12..16], (tables.len() as u32).to_le_bytes());
        let strings = usize::from(tables[1]);
        let end = strings + tables[strings..].windows(2).position(|two| two == [0, 0]).unwrap() + 2;
        assert_eq!(tables[end..], [127, 4, 0, 2, 0, 0]);
    }
}
