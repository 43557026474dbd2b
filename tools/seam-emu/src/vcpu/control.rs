//! Which bits of CR0 and CR4 the module keeps to itself, and what the guest reads of them.
//!
//! The two masks and read shadows are fields of the VMCS. A MOV to CR0 or CR4 exits if it would give a bit of the
//! mask another value than that of its shadow (SDM volume 3, "Guest/Host Masks and Read Shadows").

use tdx_module_iface::metadata::vp;
use tdx_module_iface::td_params::attributes;
use x86_arch::{cr0, cr4, xcr0, xss};

use crate::config::MachineConfig;
use crate::fields::layout::tdcs;
use crate::fields::{FieldStore, vmcs};
use crate::processor::msr;

/// Bits of CR0 that do not exist: 28 to 19, 17, 15 to 6. They keep their value whatever is written.
pub(crate) const CR0_IGNORED: u64 = 0x1ff8_0000 | 1 << 17 | 0xffc0;
const UPPER_HALF: u64 = 0xffff_ffff << 32;

/// VMX encodings.
const CR0_MASK: u32 = 0x6000;
const CR4_MASK: u32 = 0x6002;
const CR0_SHADOW: u32 = 0x6004;
const CR4_SHADOW: u32 = 0x6006;

/// Mask and read shadow of one register.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Owned {
    /// Bits that the module owns.
    pub(crate) mask: u64,
    /// What the guest reads of them.
    pub(crate) shadow: u64,
}

impl Owned {
    /// Whether the processor leaves the guest for a write of this value.
    pub(crate) const fn intercepts(self, value: u64) -> bool {
        (value ^ self.shadow) & self.mask != 0
    }

    /// What the guest reads in a register that holds this value.
    pub(crate) const fn seen(self, value: u64) -> u64 {
        value & !self.mask | self.shadow & self.mask
    }
}

/// CR0 and CR4 as far as the module owns their bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct OwnedControls {
    pub(crate) cr0: Owned,
    pub(crate) cr4: Owned,
}

impl OwnedControls {
    /// The controls of a new vCPU.
    pub(crate) fn initial(config: &MachineConfig, td: &dyn FieldStore) -> Self {
        let cr0 = config.fixed_bits(msr::VMX_CR0_FIXED0, msr::VMX_CR0_FIXED1);
        let cr4 = config.fixed_bits(msr::VMX_CR4_FIXED0, msr::VMX_CR4_FIXED1);
        let always = cr0::PE | cr0::NE;
        let reserved = cr4::MCE | cr4::VMXE | cr4::SMXE | config.profile.rules().cr4_reserved;
        Self {
            cr0: Owned {
                mask: always | cr0::NW | cr0::CD | UPPER_HALF | CR0_IGNORED | cr0.fixed() & !cr0::PG,
                shadow: always | cr0.ones & !cr0::PG,
            },
            cr4: Owned {
                mask: reserved | refused_features(td) | cr4.fixed(),
                // VMXE is one, and hidden.
                shadow: (cr4::MCE | cr4.ones) & !cr4::VMXE,
            },
        }
    }

    /// The controls in a vCPU's VMCS.
    pub(crate) fn load(tdvps: &dyn FieldStore) -> Self {
        let get = |encoding| vmcs::offset(encoding).map_or(0, |offset| tdvps.load_u64(offset));
        Self {
            cr0: Owned { mask: get(CR0_MASK), shadow: get(CR0_SHADOW) },
            cr4: Owned { mask: get(CR4_MASK), shadow: get(CR4_SHADOW) },
        }
    }

    /// Writes them to a vCPU's VMCS, and what its L2 VMs begin with: there, protected mode may be left.
    pub(crate) fn store(&self, tdvps: &dyn FieldStore) {
        let base_l2 = [
            (vp::BASE_L2_CR0_GUEST_HOST_MASK, self.cr0.mask & !cr0::PE),
            (vp::BASE_L2_CR0_READ_SHADOW, self.cr0.shadow & !cr0::PE),
            (vp::BASE_L2_CR4_GUEST_HOST_MASK, self.cr4.mask),
            (vp::BASE_L2_CR4_READ_SHADOW, self.cr4.shadow | cr4::VMXE),
        ];
        for (field, value) in base_l2 {
            if let Some(offset) = field.offset() {
                tdvps.store_u64(offset, value);
            }
        }
        let fields = [
            (CR0_MASK, self.cr0.mask),
            (CR0_SHADOW, self.cr0.shadow),
            (CR4_MASK, self.cr4.mask),
            (CR4_SHADOW, self.cr4.shadow),
        ];
        for (encoding, value) in fields {
            if let Some(offset) = vmcs::offset(encoding) {
                tdvps.store_u64(offset, value);
            }
        }
    }
}

/// CR4 bits of features that XFAM and ATTRIBUTES do not give to a TD.
pub(crate) fn refused_features(td: &dyn FieldStore) -> u64 {
    let xfam = td.load_u64(tdcs::XFAM);
    let td_attributes = td.load_u64(tdcs::ATTRIBUTES);
    let without = |has: bool, bit: u64| if has { 0 } else { bit };
    cr4::KL
        | without(xfam & xcr0::PKRU != 0, cr4::PKE)
        | without(xfam & xss::CET == xss::CET, cr4::CET)
        | without(xfam & xss::UINTR != 0, cr4::UINTR)
        | without(td_attributes & attributes::PKS != 0, cr4::PKS)
        | without(td_attributes & attributes::LASS != 0, cr4::LASS)
}
