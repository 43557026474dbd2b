//! The fields of one VCPU: its VMCS and its TDVPS.

use tdx_module_iface::metadata::{Field, VMCS, VP};
use tdx_module_iface::{Status, StatusCode};

use super::{Element, Fields, NOT_WRITABLE, VALUE_NOT_VALID, Write};
use crate::fields::layout::{tdcs, tdvps};
use crate::fields::{FieldStore, Width, vmcs};
use crate::machine::Machine;
use crate::td::{Tdcs, Tdr, Tdvps};

/// The value of an address field that nobody set yet.
pub const ADDRESS_NOT_SET: u64 = u64::MAX;
/// The value of the posted-interrupt notification vector that nobody set yet.
pub const VECTOR_NOT_SET: u64 = 0xffff;
/// Pin-based control: process posted interrupts.
const PROCESS_POSTED_INTERRUPTS: u64 = 1 << 7;
/// Secondary control: enable PML.
const ENABLE_PML: u64 = 1 << 17;

/// Pin-based controls: external interrupts and NMIs exit, virtual NMIs; posted interrupts off (SDM, default-1 bits set).
const INITIAL_PINBASED: u64 = 0x3f;
const CR0_NE: u64 = 1 << 5;
/// CR0.NE, NW, CD, and the reserved upper half.
pub(crate) const CR0_HOST_OWNED: u64 = CR0_NE | 3 << 29 | 0xffff_ffff << 32;
/// What a guest reads of them.
pub(crate) const CR0_INITIAL_SHADOW: u64 = CR0_NE;
const CR4_MCE: u64 = 1 << 6;
/// CR4.MCE, VMXE, SMXE, and the reserved upper half.
pub(crate) const CR4_HOST_OWNED: u64 = CR4_MCE | 3 << 13 | 0xffff_ffff << 32;
/// What a guest reads of them: VMXE is one, and hidden.
pub(crate) const CR4_INITIAL_SHADOW: u64 = CR4_MCE;

/// VMCS encodings of the fields whose writes do more than storing.
mod encoding {
    pub const NOTIFICATION_VECTOR: u32 = 0x0002;
    pub const PML_ADDRESS: u32 = 0x200e;
    pub const PID_ADDRESS: u32 = 0x2016;
    pub const SHARED_EPTP: u32 = 0x203c;
    pub const DEBUGCTL: u32 = 0x2802;
    pub const PINBASED: u32 = 0x4000;
    pub const PROCBASED2: u32 = 0x401e;
    pub const CR0_MASK: u32 = 0x6000;
    pub const CR4_MASK: u32 = 0x6002;
    pub const CR0_SHADOW: u32 = 0x6004;
    pub const CR4_SHADOW: u32 = 0x6006;
    pub const CR0: u32 = 0x6800;
    pub const CR4: u32 = 0x6804;
}

/// Writes the controls that a VMM may set, as TDH.VP.INIT leaves them.
pub fn initial_controls(tdvps: &dyn FieldStore, num_l2_vms: u16) {
    let set = |encoding, value| {
        if let Some(offset) = vmcs::offset(encoding) {
            tdvps.store_u64(offset, value);
        }
    };
    set(encoding::NOTIFICATION_VECTOR, VECTOR_NOT_SET);
    set(encoding::PID_ADDRESS, ADDRESS_NOT_SET);
    set(encoding::SHARED_EPTP, ADDRESS_NOT_SET);
    set(encoding::PINBASED, INITIAL_PINBASED);
    set(encoding::CR0_MASK, CR0_HOST_OWNED);
    set(encoding::CR0_SHADOW, CR0_NE);
    set(encoding::CR4_MASK, CR4_HOST_OWNED);
    set(encoding::CR4_SHADOW, CR4_MCE);
    for vm in 0..=u32::from(num_l2_vms.min(MAX_L2_VMS)) {
        for array in PER_VM_NOT_SET {
            tdvps.store_u64(array + 8 * vm, ADDRESS_NOT_SET);
        }
    }
}

/// Most L2 VMs of a TD.
const MAX_L2_VMS: u16 = 3;

/// Fields of each VM that begin as all ones: addresses that nobody set, and no TSC deadline.
const PER_VM_NOT_SET: [u32; 6] = [
    tdvps::SHADOW_SHARED_EPTP,
    tdvps::L2_ENTER_GUEST_STATE_GPA,
    tdvps::L2_ENTER_GUEST_STATE_HPA,
    tdvps::L2_VAPIC_GPA,
    tdvps::L2_VAPIC_HPA,
    tdvps::TSC_DEADLINE,
];

/// Decides whether an address with key-id bits is host memory that a VMM may hand to a VCPU.
pub trait SharedMemory {
    /// Whether `bytes` bytes at `pa`, aligned to their size, lie in shared memory outside the module's range.
    fn is_shared(&self, pa: u64, bytes: u64) -> bool;
}

/// A VCPU's control structures as metadata.
#[derive(Clone, Copy)]
pub struct VpFields<'a> {
    /// The TDVPS pages.
    pub tdvps: &'a dyn FieldStore,
    /// The TDCS pages of its TD.
    pub tdcs: &'a dyn FieldStore,
    /// What memory the host may name.
    pub memory: &'a dyn SharedMemory,
    /// The TD's key id where a physical address carries it: pages are shown with it.
    pub key_bits: u64,
    /// The TD's page of zeros.
    pub zero_page: u64,
}

/// Which TDCX page is the one of zeros.
const ZERO_PAGE: u32 = 4;

impl SharedMemory for Machine {
    fn is_shared(&self, pa: u64, bytes: u64) -> bool {
        let config = self.config();
        let (hpa, key) = self.split_pa(pa);
        let range = config.seam_range;
        let in_module = hpa.get() >= range.base && hpa.get() - range.base < range.size;
        let too_wide = config.max_pa < 64 && pa >> config.max_pa != 0;
        pa.is_multiple_of(bytes) && !too_wide && !in_module && key.get() < *config.private_hkids.start()
    }
}

impl<'a> VpFields<'a> {
    /// The fields of a VCPU of this machine.
    pub(crate) fn new(machine: &'a Machine, tdr: &Tdr<'_>, tdvps: &'a Tdvps<'_>, tdcs: &'a Tdcs<'_>) -> Self {
        let key_bits = super::td::key_bits(machine.config(), tdr);
        Self { tdvps, tdcs, memory: machine, key_bits, zero_page: tdr.tdcx(ZERO_PAGE).get() }
    }
}

impl VpFields<'_> {
    fn vmcs(&self, encoding: u32) -> u64 {
        vmcs::offset(encoding).map_or(0, |offset| self.tdvps.load_u64(offset))
    }

    fn set_vmcs(&self, encoding: u32, value: u64) {
        if let Some(offset) = vmcs::offset(encoding) {
            self.tdvps.store_u64(offset, value);
        }
    }

    /// Bits that the guest/host mask gives to the host must be written as the guest reads them; they keep their
    /// real value.
    fn control_register(&self, register: u32, mask: u64, shadow: u64, new: u64) -> Result<u64, Status> {
        if (new ^ shadow) & mask != 0 {
            return Err(VALUE_NOT_VALID);
        }
        Ok(self.vmcs(register) & mask | new & !mask)
    }

    /// The checks of VMCS fields that a VMM may write; gives the value to store.
    fn checked_vmcs_value(&self, write: &Write) -> Result<u64, Status> {
        let new = write.new;
        match write.element.id.code() {
            encoding::SHARED_EPTP | encoding::PML_ADDRESS if !self.memory.is_shared(new, 4096) => {
                Err(VALUE_NOT_VALID)
            }
            encoding::PID_ADDRESS if new != ADDRESS_NOT_SET && !self.memory.is_shared(new, 64) => {
                Err(VALUE_NOT_VALID)
            }
            encoding::NOTIFICATION_VECTOR if new > 0xff => Err(VALUE_NOT_VALID),
            encoding::PINBASED if new & PROCESS_POSTED_INTERRUPTS != 0 => {
                let missing = if self.vmcs(encoding::NOTIFICATION_VECTOR) == VECTOR_NOT_SET {
                    Some(encoding::NOTIFICATION_VECTOR)
                } else if self.vmcs(encoding::PID_ADDRESS) == ADDRESS_NOT_SET {
                    Some(encoding::PID_ADDRESS)
                } else {
                    None
                };
                match missing {
                    Some(field) => {
                        Err(Status::with_details(StatusCode::TD_VMCS_FIELD_NOT_INITIALIZED, field))
                    }
                    None => Ok(new),
                }
            }
            encoding::PROCBASED2 if new & ENABLE_PML != 0 => Err(VALUE_NOT_VALID),
            encoding::DEBUGCTL if new & 0xc0 == 0x40 && !self.is_debuggable() => Err(VALUE_NOT_VALID),
            encoding::CR0 => {
                let (mask, shadow) = (self.vmcs(encoding::CR0_MASK), self.vmcs(encoding::CR0_SHADOW));
                self.control_register(encoding::CR0, mask, shadow, new)
            }
            encoding::CR4 => {
                // The guest may choose what it reads in CR4.MCE; the processor's own bit stays one.
                let shadow = self.vmcs(encoding::CR4_SHADOW) & !CR4_MCE | new & CR4_MCE;
                let mask = self.vmcs(encoding::CR4_MASK) & !CR4_MCE;
                let value = self.control_register(encoding::CR4, mask, shadow, new | CR4_MCE)?;
                self.set_vmcs(encoding::CR4_SHADOW, shadow);
                Ok(value)
            }
            _ => Ok(new),
        }
    }

    fn is_debuggable(&self) -> bool {
        self.tdcs.load_u64(tdcs::ATTRIBUTES) & tdx_module_iface::td_params::attributes::DEBUG != 0
    }

    /// The checks of TDVPS fields; gives the value to store.
    fn checked_value(&self, write: &Write) -> Result<u64, Status> {
        match write.element.field.name {
            // Recorded as not writable even by the host of a debuggable TD.
            "XFAM" => Err(NOT_WRITABLE),
            "XCR0" if write.new & !self.tdcs.load_u64(tdcs::XFAM) != 0 => Err(VALUE_NOT_VALID),
            // The XSAVE header, and what follows it up to the extended region, belongs to the module.
            "XBUFF" if (512 / 8..576 / 8).contains(&write.element.index) => Err(NOT_WRITABLE),
            _ => Ok(write.new),
        }
    }
}

const fn is_vmcs(field: &Field) -> bool {
    field.id.class() == 0
}

impl Fields for VpFields<'_> {
    fn tables(&self) -> &'static [&'static [Field]] {
        &[VMCS, VP]
    }

    fn exists(&self, field: &Field) -> bool {
        // VMCS, MSR bitmaps and shadow MSR bitmaps of L2 VM 1, 2 and 3.
        let vm = match field.id.class() {
            36..=38 => 1,
            44..=46 => 2,
            52..=54 => 3,
            _ => return true,
        };
        vm <= self.tdcs.load(tdcs::NUM_L2_VMS, Width::B2)
    }

    fn load(&self, element: &Element) -> Result<u64, Status> {
        if is_vmcs(element.field) {
            let value = self.vmcs(element.id.code());
            // Before a host sets one, the shared EPT is the TD's zero page.
            let is_unset = element.id.code() == encoding::SHARED_EPTP && value == ADDRESS_NOT_SET;
            return Ok(if is_unset { self.zero_page | self.key_bits } else { value });
        }
        if element.is("VCPU_STATE_DETAILS") {
            return Ok(self.interrupt_pending());
        }
        let value = element.offset().map_or(0, |offset| self.tdvps.load(offset, element.width()));
        Ok(if element.is("TDVPS_PAGE_PA") && value != 0 { value | self.key_bits } else { value })
    }

    fn store(&self, write: &Write) -> Result<(), Status> {
        if is_vmcs(write.element.field) {
            let value = self.checked_vmcs_value(write)?;
            self.set_vmcs(write.element.id.code(), value);
            return Ok(());
        }
        let value = self.checked_value(write)?;
        if let Some(offset) = write.element.offset() {
            self.tdvps.store(offset, write.element.width(), value);
        }
        Ok(())
    }

    fn value_to_write_over(&self, element: &Element, old: u64, writable: u64) -> u64 {
        let is_address = is_vmcs(element.field)
            && matches!(
                element.id.code(),
                encoding::PID_ADDRESS | encoding::SHARED_EPTP | encoding::PML_ADDRESS
            );
        if is_address && old >> 63 != 0 { old & writable } else { old }
    }
}

impl VpFields<'_> {
    /// VCPU_STATE_DETAILS bit 0: a virtual interrupt could be delivered.
    fn interrupt_pending(&self) -> u64 {
        /// Offset of the processor-priority register in the virtual APIC page.
        const PPR: u32 = 0xa0;
        let status = self.vmcs(0x0810);
        let priority = self.tdvps.load(tdvps::VAPIC + PPR, Width::B4);
        u64::from(status & 0xf0 > priority & 0xf0)
    }
}
