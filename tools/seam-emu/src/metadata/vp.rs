//! The fields of one VCPU: its VMCS and its TDVPS.

use tdvisor_base::PAGE_SIZE;
use tdx_module_iface::metadata::{Field, Place, Transform, VCPU, vmcs, vp};
use tdx_module_iface::{Release, Status, StatusCode};
use x86_arch::cpuid::{feature, leaf};

use super::td::{native_tsc, scaled_tsc};
use super::{Accessor, Element, Fields, NOT_WRITABLE, VALUE_NOT_VALID, Write};
use crate::fields::layout::{tdcs, tdvps};
use crate::fields::{FieldStore, Width, vmcs as place};
use crate::l2::Vm;
use crate::l2::fields::{L2Field, load_msr_bitmap, store_msr_bitmap};
use crate::machine::Machine;
use crate::td::{Tdcs, Tdr, Tdvps};
use crate::vcpu::control::OwnedControls;
use crate::vcpu::registers::is_xcr0;

/// The value of an address field that nobody set yet.
pub const ADDRESS_NOT_SET: u64 = u64::MAX;
/// The value of the posted-interrupt notification vector that nobody set yet.
pub const VECTOR_NOT_SET: u64 = 0xffff;
/// Pin-based control: process posted interrupts.
const PROCESS_POSTED_INTERRUPTS: u64 = 1 << 7;
/// Secondary control: enable PML.
const ENABLE_PML: u64 = 1 << 17;

/// Pin-based controls: external interrupts and NMIs exit, virtual NMIs; posted interrupts off.
const INITIAL_PINBASED: u64 = 0x29;
/// CR4.LAM_SUP: a release that lets a guest have it knows LAM.
const CR4_LAM_SUP: u64 = 1 << 28;

/// Writes the controls that a VMM may set, as TDH.VP.INIT leaves them, but for those of CR0 and CR4.
pub fn initial_controls(tdvps: &dyn FieldStore, num_l2_vms: u16) {
    let set = |field: Field, value| {
        if let Some(offset) = place::offset(field.id.code()) {
            tdvps.store_u64(offset, value);
        }
    };
    set(vmcs::POSTED_INTERRUPT_NOTIFICATION_VECTOR, VECTOR_NOT_SET);
    set(vmcs::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, ADDRESS_NOT_SET);
    set(vmcs::SHARED_EPTP, ADDRESS_NOT_SET);
    set(vmcs::PML_ADDRESS, ADDRESS_NOT_SET);
    set(vmcs::PIN_BASED_CONTROLS, INITIAL_PINBASED);
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

/// A VCPU's control structures as metadata.
#[derive(Clone, Copy)]
pub struct VpFields<'a> {
    /// The TDVPS pages.
    pub tdvps: &'a dyn FieldStore,
    /// The TDCS pages of its TD.
    pub tdcs: &'a dyn FieldStore,
    /// The release of the module.
    pub release: Release,
    /// The machine, which knows what memory the host may name.
    pub machine: &'a Machine,
    /// The TD's key id where a physical address carries it: pages are shown with it.
    pub key_bits: u64,
    /// The TD's page of zeros.
    pub zero_page: u64,
    /// Who asks: L1 and the host see different things of L2 VMs.
    pub who: Accessor,
}

/// VMCS fields that name a page and begin as all ones, which counts as no bit outside the writable ones.
const ADDRESSES: [u32; 5] = [
    vmcs::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS.id.code(),
    vmcs::SHARED_EPTP.id.code(),
    vmcs::PML_ADDRESS.id.code(),
    vmcs::VIRTUAL_APIC_ADDRESS.id.code(),
    vmcs::HLAT_POINTER.id.code(),
];

/// Bytes of a posted-interrupt descriptor, and its alignment.
const POSTED_INTERRUPT_DESCRIPTOR_BYTES: u64 = 64;

/// Which TDCX page is the one of zeros.
const ZERO_PAGE: u32 = 4;

impl<'a> VpFields<'a> {
    /// The fields of a VCPU of this machine.
    pub(crate) fn new(
        machine: &'a Machine,
        tdr: &Tdr<'_>,
        tdvps: &'a Tdvps<'_>,
        tdcs: &'a Tdcs<'_>,
        who: Accessor,
    ) -> Self {
        let config = machine.config();
        Self {
            tdvps,
            tdcs,
            release: config.profile.release(),
            machine,
            key_bits: super::td::key_bits(config, tdr),
            zero_page: tdr.tdcx(ZERO_PAGE).get(),
            who,
        }
    }
}

impl VpFields<'_> {
    fn vmcs(&self, field: &Field) -> u64 {
        self.vmcs_at(field.id.code())
    }

    fn vmcs_at(&self, encoding: u32) -> u64 {
        place::offset(encoding).map_or(0, |offset| self.tdvps.load_u64(offset))
    }

    fn set_vmcs_at(&self, encoding: u32, value: u64) {
        if let Some(offset) = place::offset(encoding) {
            self.tdvps.store_u64(offset, value);
        }
    }

    /// Bits that the guest/host mask gives to the host must be written as the guest reads them; they keep their
    /// real value.
    fn control_register(&self, register: &Field, mask: u64, shadow: u64, new: u64) -> Result<u64, Status> {
        if (new ^ shadow) & mask != 0 {
            return Err(VALUE_NOT_VALID);
        }
        Ok(self.vmcs(register) & mask | new & !mask)
    }

    /// The checks of VMCS fields that a VMM may write; gives the value to store.
    fn checked_vmcs_value(&self, write: &Write) -> Result<u64, Status> {
        let new = write.new;
        match *write.element.field {
            vmcs::SHARED_EPTP | vmcs::PML_ADDRESS if !self.is_shared(new, PAGE_SIZE) => Err(VALUE_NOT_VALID),
            vmcs::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS
                if new != ADDRESS_NOT_SET && !self.is_shared(new, POSTED_INTERRUPT_DESCRIPTOR_BYTES) =>
            {
                Err(VALUE_NOT_VALID)
            }
            vmcs::POSTED_INTERRUPT_NOTIFICATION_VECTOR if new > 0xff => Err(VALUE_NOT_VALID),
            vmcs::PIN_BASED_CONTROLS if new & PROCESS_POSTED_INTERRUPTS != 0 => {
                match self.missing_for_posted_interrupts() {
                    Some(field) => {
                        Err(Status::with_details(StatusCode::TD_VMCS_FIELD_NOT_INITIALIZED, field.id.code()))
                    }
                    None => Ok(new),
                }
            }
            vmcs::GUEST_CR3 if !self.is_page_table_base(new) => Err(VALUE_NOT_VALID),
            vmcs::PROCBASED_CONTROLS2 if new & ENABLE_PML != 0 && !self.may_log_writes() => {
                Err(VALUE_NOT_VALID)
            }
            vmcs::IA32_DEBUGCTL if new & 0xc0 == 0x40 && !self.is_debuggable() => Err(VALUE_NOT_VALID),
            vmcs::GUEST_CR0 => {
                let mask = self.vmcs(&vmcs::CR0_GUEST_HOST_MASK);
                let shadow = self.vmcs(&vmcs::CR0_READ_SHADOW);
                self.control_register(&vmcs::GUEST_CR0, mask, shadow, new)
            }
            vmcs::GUEST_CR4 => {
                let mask = self.vmcs(&vmcs::CR4_GUEST_HOST_MASK);
                let shadow = self.vmcs(&vmcs::CR4_READ_SHADOW);
                self.control_register(&vmcs::GUEST_CR4, mask, shadow, new)
            }
            _ => Ok(new),
        }
    }

    /// Whether a value of CR3 names a private page table: bits 61 and 62 turn on LAM, where the processor has it.
    fn is_page_table_base(&self, value: u64) -> bool {
        const LAM: u64 = 3 << 61;
        const RESERVED: u64 = 0x1ff << 52 | 1 << 63;
        let config = self.machine.config();
        let has_lam = config.rules().cr4_reserved & CR4_LAM_SUP == 0
            && config.native_cpuid(leaf::FEATURES, 1).has(feature::LAM);
        let reserved = if has_lam { RESERVED } else { RESERVED | LAM };
        let wide = self.tdcs.load(tdcs::GPAW, Width::B1) != 0;
        let shared_bit: u64 = if wide { 1 << 51 } else { 1 << 47 };
        value & reserved == 0 && value & !LAM < shared_bit
    }

    /// The first field that posted interrupts need and that nobody set.
    fn missing_for_posted_interrupts(&self) -> Option<Field> {
        [
            (vmcs::POSTED_INTERRUPT_NOTIFICATION_VECTOR, VECTOR_NOT_SET),
            (vmcs::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, ADDRESS_NOT_SET),
        ]
        .into_iter()
        .find(|(field, not_set)| self.vmcs(field) == *not_set)
        .map(|(field, _)| field)
    }

    /// Whether the module asks on behalf of a TD that migrates: registers are what the guest reads in them.
    const fn migrates(&self) -> bool {
        matches!(self.who, Accessor::Exporter(_) | Accessor::Importer(_))
    }

    /// Whether the host may hand `bytes` bytes at `pa`, aligned to their size, to a VCPU.
    fn is_shared(&self, pa: u64, bytes: u64) -> bool {
        self.machine.shared_hpa(pa, bytes).is_some()
    }

    /// Whether the host has said where page-modification logging writes to, and may see it.
    fn may_log_writes(&self) -> bool {
        self.is_debuggable() && self.vmcs(&vmcs::PML_ADDRESS) >> 63 == 0
    }

    fn is_debuggable(&self) -> bool {
        self.tdcs.load_u64(tdcs::ATTRIBUTES) & tdx_module_iface::td_params::attributes::DEBUG != 0
    }

    /// The checks of TDVPS fields; gives the value to store.
    fn checked_value(&self, write: &Write) -> Result<u64, Status> {
        match *write.element.field {
            // Recorded as not writable even by the host of a debuggable TD.
            vp::XFAM => Err(NOT_WRITABLE),
            vp::XCR0 if !is_xcr0(self.machine.config(), self.tdcs.load_u64(tdcs::XFAM), write.new) => {
                Err(VALUE_NOT_VALID)
            }
            _ if self.migrates() => Ok(write.new),
            vp::TSC_DEADLINE => self.set_deadline(write.element.index, write.new).map(|()| write.new),
            // The XSAVE header, and what follows it up to the extended region, belongs to the module.
            vp::XBUFF if (512 / 8..576 / 8).contains(&write.element.index) => Err(NOT_WRITABLE),
            // So does the image of IA32_RTIT_CTL, with which the processor-trace component begins.
            vp::XBUFF if self.processor_trace() == Some(write.element.index) => Err(NOT_WRITABLE),
            _ => Ok(write.new),
        }
    }

    /// L1 wants its L2 VM back at a time of its clock. A time that is over comes at once; all ones is none.
    fn set_deadline(&self, vm: u32, deadline: u64) -> Result<(), Status> {
        const NONE: u64 = u64::MAX;
        if vm == 0 || vm > u32::from(self.num_l2_vms()) || deadline == NONE {
            return Ok(());
        }
        let (multiplier, offset) =
            (self.tdcs.load_u64(tdcs::TSC_MULTIPLIER), self.tdcs.load_u64(tdcs::TSC_OFFSET));
        let now = self.machine.tsc();
        let native = if deadline <= scaled_tsc(now, multiplier).wrapping_add(offset) {
            now
        } else {
            // A time that the processor's clock reaches only after it has wrapped is none.
            native_tsc(deadline, multiplier, offset)
                .filter(|native| *native != 0 && native.wrapping_sub(now) as i64 >= 0)
                .ok_or(Status::new(StatusCode::OPERAND_INVALID))?
        };
        if let Some(offset) = vp::SHADOW_TSC_DEADLINE.offset() {
            self.tdvps.store_u64(offset + 8 * vm, native);
        }
        Ok(())
    }

    /// The element of XBUFF with which the processor-trace component begins, where the TD has one.
    fn processor_trace(&self) -> Option<u32> {
        const COMPONENT: u32 = 8;
        let has = self.tdcs.load_u64(tdcs::XFAM) >> COMPONENT & 1 != 0;
        let offset = self.tdcs.load(tdcs::XBUFF_OFFSETS + 4 * COMPONENT, Width::B4) as u32;
        has.then_some(offset / 8)
    }

    fn computed_value(&self, field: &Field) -> u64 {
        match *field {
            vp::VCPU_STATE_DETAILS => self.interrupt_pending(),
            _ => 0,
        }
    }
}

const fn is_vmcs(field: &Field) -> bool {
    matches!(field.place, Place::Vmcs)
}

impl Fields for VpFields<'_> {
    fn tables(&self) -> &'static [&'static [Field]] {
        VCPU
    }

    fn release(&self) -> Release {
        self.release
    }

    fn num_l2_vms(&self) -> u16 {
        self.tdcs.load(tdcs::NUM_L2_VMS, Width::B2) as u16
    }

    fn load(&self, element: &Element) -> Result<u64, Status> {
        if let Some(vm) = Vm::l2(element.field.l2_vm) {
            return Ok(self.load_of_l2(vm, element));
        }
        if is_vmcs(element.field) {
            let value = self.vmcs_at(element.id.code());
            // Before a host sets one, the shared EPT is the TD's zero page.
            return Ok(match *element.field {
                vmcs::SHARED_EPTP if value == ADDRESS_NOT_SET => self.zero_page | self.key_bits,
                vmcs::GUEST_CR0 if self.migrates() => OwnedControls::load(self.tdvps).cr0.seen(value),
                vmcs::GUEST_CR4 if self.migrates() => OwnedControls::load(self.tdvps).cr4.seen(value),
                _ => value,
            });
        }
        let stored = element.offset().map_or(0, |offset| self.tdvps.load(offset, element.width()));
        Ok(match element.field.transform {
            Transform::Computed => self.computed_value(element.field),
            Transform::PageAddress if stored != 0 => stored | self.key_bits,
            _ => stored,
        })
    }

    fn store(&self, write: &Write) -> Result<(), Status> {
        let field = write.element.field;
        if let Some(vm) = Vm::l2(field.l2_vm) {
            return self.store_of_l2(vm, write);
        }
        let value = match field.transform {
            Transform::Stored => write.new,
            Transform::Checked if is_vmcs(field) => self.checked_vmcs_value(write)?,
            Transform::Checked => self.checked_value(write)?,
            _ => return Err(NOT_WRITABLE),
        };
        if is_vmcs(field) {
            self.set_vmcs_at(write.element.id.code(), value);
        } else if let Some(offset) = write.element.offset() {
            self.tdvps.store(offset, write.element.width(), value);
        }
        Ok(())
    }

    fn value_to_write_over(&self, element: &Element, old: u64, writable: u64) -> u64 {
        let is_address = is_vmcs(element.field) && ADDRESSES.contains(&element.id.code());
        if is_address && old >> 63 != 0 { old & writable } else { old }
    }
}

impl VpFields<'_> {
    fn l2_field(&self, vm: Vm, element: &Element) -> L2Field<'_> {
        L2Field { tdvps: self.tdvps, tdcs: self.tdcs, vm, encoding: element.id.code(), who: self.who }
    }

    fn load_of_l2(&self, vm: Vm, element: &Element) -> u64 {
        if is_vmcs(element.field) {
            self.l2_field(vm, element).load()
        } else if self.is_l1_bitmap(element) {
            load_msr_bitmap(self.tdvps, vm, element.index)
        } else {
            element.offset().map_or(0, |offset| self.tdvps.load(offset, element.width()))
        }
    }

    fn store_of_l2(&self, vm: Vm, write: &Write) -> Result<(), Status> {
        let element = &write.element;
        if is_vmcs(element.field) {
            let encoding = element.id.code();
            let is_shared_page =
                encoding == vmcs::SHARED_EPTP.id.code() || encoding == vmcs::PML_ADDRESS.id.code();
            if is_shared_page && !self.is_shared(write.new, PAGE_SIZE) {
                return Err(VALUE_NOT_VALID);
            }
            return self.l2_field(vm, element).store(write.old, write.new);
        }
        if self.is_l1_bitmap(element) {
            store_msr_bitmap(self.tdvps, self.tdcs, vm, element.index, write.new);
        } else if let Some(offset) = element.offset() {
            self.tdvps.store(offset, element.width(), write.new);
        }
        Ok(())
    }

    /// Whether this is L1's own version of the MSR bitmaps.
    fn is_l1_bitmap(&self, element: &Element) -> bool {
        let bitmaps = [vp::L2_MSR_BITMAPS_1, vp::L2_MSR_BITMAPS_2, vp::L2_MSR_BITMAPS_3];
        self.who == Accessor::Guest && bitmaps.contains(element.field)
    }

    /// VCPU_STATE_DETAILS bit 0: a virtual interrupt could be delivered.
    fn interrupt_pending(&self) -> u64 {
        /// Offset of the processor-priority register in the virtual APIC page.
        const PPR: u32 = 0xa0;
        let status = self.vmcs(&vmcs::GUEST_INTERRUPT_STATUS);
        let priority = self.tdvps.load(tdvps::VAPIC + PPR, Width::B4);
        u64::from(status & 0xf0 > priority & 0xf0)
    }
}
