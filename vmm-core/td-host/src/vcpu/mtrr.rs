//! Memory-type range registers.
//!
//! A TD's memory is write-back whatever these say: the module fixes it. They exist because CPUID says so, and
//! because firmware and kernels read them before they believe anything else. They start as after reset, switched
//! off, hold what the guest writes where hardware would hold it, and have no other effect.

use mirror_ept::{BadNumbers, Numbers, Reader};

/// IA32_MTRRCAP.
const CAP: u32 = 0xfe;
/// Eight variable ranges, fixed ranges, write combining.
const CAP_VALUE: u64 = 0x508;
/// The first IA32_MTRR_PHYSBASE.
const VARIABLE_FIRST: u32 = 0x200;
const VARIABLE: usize = 16;
/// IA32_MTRR_FIX64K_00000, FIX16K_80000 and A0000, FIX4K_C0000 to F8000.
const FIXED: [u32; 11] = [0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f];
/// IA32_MTRR_DEF_TYPE.
const DEFAULT_TYPE: u32 = 0x2ff;

/// One vCPU's registers.
#[derive(Clone, Debug, Default)]
pub struct Mtrrs {
    variable: [u64; VARIABLE],
    fixed: [u64; FIXED.len()],
    default_type: u64,
}

impl Mtrrs {
    /// Writes the registers.
    pub(crate) fn save(&self, out: &mut Numbers) {
        let Self { variable, fixed, default_type } = self;
        variable.iter().chain(fixed).chain([default_type]).for_each(|register| out.put(*register));
    }

    /// Reads what [`Self::save`] wrote.
    pub(crate) fn restore(reader: &mut Reader<'_>) -> Result<Self, BadNumbers> {
        Ok(Self { variable: reader.array()?, fixed: reader.array()?, default_type: reader.number()? })
    }

    /// RDMSR; `None` where the number is not one of these.
    pub fn read(&self, msr: u32) -> Option<u64> {
        match msr {
            CAP => Some(CAP_VALUE),
            DEFAULT_TYPE => Some(self.default_type),
            _ => match variable(msr) {
                Some(index) => self.variable.get(index).copied(),
                None => self.fixed.get(fixed(msr)?).copied(),
            },
        }
    }

    /// WRMSR; `None` where the number is not one of these, or cannot be written.
    pub fn write(&mut self, msr: u32, value: u64) -> Option<()> {
        let register = match msr {
            DEFAULT_TYPE => &mut self.default_type,
            _ => match variable(msr) {
                Some(index) => self.variable.get_mut(index)?,
                None => self.fixed.get_mut(fixed(msr)?)?,
            },
        };
        *register = value;
        Some(())
    }
}

fn variable(msr: u32) -> Option<usize> {
    msr.checked_sub(VARIABLE_FIRST).map(|index| index as usize).filter(|index| *index < VARIABLE)
}

fn fixed(msr: u32) -> Option<usize> {
    FIXED.iter().position(|number| *number == msr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_start_switched_off_and_keep_what_is_written() {
        let mut mtrrs = Mtrrs::default();
        assert_eq!(mtrrs.read(DEFAULT_TYPE), Some(0));
        for msr in [0x200, 0x20f, 0x250, 0x26f, 0x2ff] {
            assert_eq!(mtrrs.write(msr, u64::from(msr)), Some(()));
            assert_eq!(mtrrs.read(msr), Some(u64::from(msr)));
        }
        for msr in [0x1ff, 0x210, 0x251, 0x270] {
            assert_eq!((mtrrs.read(msr), mtrrs.write(msr, 1)), (None, None), "{msr:#x}");
        }
        assert_eq!((mtrrs.read(CAP), mtrrs.write(CAP, 1)), (Some(0x508), None));
    }
}
