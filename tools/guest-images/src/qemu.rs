//! An image as QEMU takes it.
//!
//! QEMU (11.1, `hw/i386/tdvf.c`) refuses sections other than BFV, CFV, TD_HOB and TEMP_MEM, and firmware files that are
//! not a multiple of 64 KiB long. The guests' reserved memory (PERM_MEM) is memory like any other in their TD HOB where no
//! section names it, so its section can go; in front of the volume there is room for zeros that no section loads.

use crate::pack::PackError;

/// Firmware files are whole multiples of this.
const UNIT: usize = 64 << 10;

/// Where the distance of the descriptor from the image's end is, from that end (`pack` has checked it).
const POINTER_FROM_END: usize = 0x20 + 40;
const HEADER: usize = 16;
const SECTION: usize = 32;
/// In the header: length, number of sections. In a section: offset of its data, its type.
const LENGTH: usize = 4;
const COUNT: usize = 12;
const TYPE: usize = 24;
const BFV: u32 = 0;
const CFV: u32 = 1;
const TEMP_MEM: u32 = 3;

/// The image for QEMU's `-bios`.
///
/// # Errors
/// [`PackError::Metadata`]: it is no image that this crate has packed.
pub fn image(packed: &[u8]) -> Result<Vec<u8>, PackError> {
    let cut_off = PackError::Metadata("it is cut off");
    let padding = packed.len().next_multiple_of(UNIT) - packed.len();
    let mut image = vec![0; padding];
    image.extend_from_slice(packed);

    let pointer = image.len().checked_sub(POINTER_FROM_END);
    let from_end = pointer.and_then(|at| word(&image, at));
    let descriptor = from_end.and_then(|bytes| image.len().checked_sub(bytes as usize));
    let descriptor = descriptor.ok_or(PackError::Metadata("its offset is outside the image"))?;
    let count = word(&image, descriptor + COUNT).ok_or(PackError::Metadata("it has no sections"))? as usize;
    let sections = image.get(descriptor + HEADER..).and_then(|rest| rest.get(..count.checked_mul(SECTION)?));
    let mut kept = Vec::new();
    for section in sections.ok_or(cut_off)?.chunks_exact(SECTION) {
        let mut section = section.to_vec();
        let kind = word(&section, TYPE).unwrap_or(u32::MAX);
        if kind > TEMP_MEM {
            continue;
        }
        if matches!(kind, BFV | CFV) {
            let offset = word(&section, 0).unwrap_or_default().wrapping_add(padding as u32);
            set_word(&mut section, 0, offset);
        }
        kept.push(section);
    }
    let length = HEADER + kept.len() * SECTION;
    set_word(&mut image, descriptor + LENGTH, length as u32);
    set_word(&mut image, descriptor + COUNT, kept.len() as u32);
    kept.resize(count, vec![0; SECTION]);
    for (place, section) in image[descriptor + HEADER..].chunks_exact_mut(SECTION).zip(kept) {
        place.copy_from_slice(&section);
    }
    Ok(image)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_le_bytes(*word))
}

fn set_word(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *place = value.to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GUESTS;

    #[test]
    fn the_image_has_sections_that_qemu_knows_and_the_same_volume_at_the_same_place() {
        for guest in GUESTS {
            let for_qemu = image(guest.image).unwrap();
            assert!(for_qemu.len().is_multiple_of(UNIT), "{}", guest.name);
            let (before, after) =
                (td_image::tdvf::TdvfImage::parse(guest.image), td_image::tdvf::TdvfImage::parse(&for_qemu));
            let (before, after) = (before.unwrap(), after.unwrap());
            let places = |image: &td_image::tdvf::TdvfImage<'_>| {
                let known = image.sections().filter(|section| section.kind.0 <= TEMP_MEM);
                known.map(|section| (section.kind, section.gpa, section.mem_size)).collect::<Vec<_>>()
            };
            let (ours, theirs) = (places(&before), places(&after));
            assert_eq!(ours, theirs, "{}", guest.name);
            assert!(after.sections().len() == theirs.len(), "{}: nothing else is left", guest.name);
        }
    }

    #[test]
    fn what_is_no_image_is_refused() {
        assert!(image(&[]).is_err());
        assert!(image(&[0xff; 4096]).is_err());
        assert!(image(&GUESTS[0].image[4096..4200]).is_err());
    }
}
