//! The components of the XSAVE area (SDM volume 1, "XSAVE-Managed State").

/// Bytes before the extended components: legacy region and header.
const LEGACY_BYTES: u32 = 576;

/// Size of a component in bytes, and whether it is aligned to 64 bytes in the compacted form. Components that
/// do not exist have size zero.
pub const fn component(bit: u32) -> (u32, bool) {
    match bit {
        2 => (256, false),
        5 => (64, false),
        6 => (512, false),
        7 => (1024, false),
        8 => (128, false),
        9 => (8, false),
        11 => (16, false),
        12 => (24, false),
        15 => (808, false),
        17 => (64, true),
        18 => (8192, true),
        _ => (0, false),
    }
}

/// Offset of a component in the standard form; zero for supervisor components, which have none.
const fn standard_offset(bit: u32) -> u32 {
    match bit {
        2 => 576,
        5 => 1088,
        6 => 1152,
        7 => 1664,
        9 => 2688,
        17 => 2752,
        18 => 2816,
        _ => 0,
    }
}

/// Offset and size that CPUID leaf 0DH reports for a component, and its flags (ECX).
pub(crate) const fn enumerate(bit: u32) -> (u32, u32, u32) {
    let (size, aligned) = component(bit);
    let offset = standard_offset(bit);
    let supervisor = size != 0 && offset == 0;
    (size, offset, supervisor as u32 | (aligned as u32) << 1)
}

/// Size of the standard-form area that holds these components.
pub fn area_size(components: u64) -> u32 {
    (2..=18)
        .filter(|bit| components >> bit & 1 != 0 && standard_offset(*bit) != 0)
        .map(|bit| standard_offset(bit) + component(bit).0)
        .max()
        .unwrap_or(LEGACY_BYTES)
}

/// Size of the compacted area that holds these components: what XSAVEC and XSAVES write.
pub fn compacted_size(components: u64) -> u32 {
    (2..=18).filter(|bit| components >> bit & 1 != 0).fold(LEGACY_BYTES, |end, bit| {
        let (size, aligned) = component(bit);
        let begin = if aligned && size != 0 { end.next_multiple_of(64) } else { end };
        begin + size
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_area_without_extended_components_is_legacy_region_and_header() {
        assert_eq!(area_size(3), 576);
        assert_eq!(area_size(7), 832);
        assert_eq!(area_size(0xe7), 2688);
    }

    #[test]
    fn a_compacted_area_has_no_gaps_but_those_of_alignment() {
        assert_eq!(compacted_size(3), 576);
        assert_eq!(compacted_size(0x203), 584, "PKRU directly behind the header");
        assert_eq!(area_size(0x203), 2696);
        assert_eq!(compacted_size(1 << 9 | 1 << 17), 640 + 64);
    }
}
