//! The VMCS fields of an L2 VM as metadata: where they lie, what they begin with, and which values L1 may give them.
//!
//! What L1 says of the owners of control-register bits, of the virtual APIC page and of PAUSE-loop exiting lies apart
//! from the VMCS, where the module combines it with what the TD needs.

use tdx_module_iface::Status;
use tdx_module_iface::metadata::{Field, vmcs as own, vp};
use tdx_module_iface::td_params::attributes;

use super::Vm;
use super::store::{NOT_SET, l1_msr_bitmaps, msr_bitmaps, of_vm, vmcs_page};
use crate::fields::layout::{tdcs, tdvps};
use crate::fields::{FieldStore, Width, vmcs};
use crate::metadata::td::native_tsc;
use crate::metadata::{Accessor, VALUE_NOT_VALID};
use crate::td::{Tdcs, Tdvps};
use crate::td_params::vmx;
use crate::vcpu::control::refused_features;

/// Bytes of a page, as an offset.
const PAGE: u32 = 4096;

const fn code(field: &Field) -> u32 {
    field.id.code()
}

const VAPIC_ADDRESS: u32 = code(&own::VIRTUAL_APIC_ADDRESS);
const EPTP: u32 = code(&own::EPTP);
const HLAT_POINTER: u32 = code(&own::HLAT_POINTER);
const DEBUGCTL: u32 = code(&own::IA32_DEBUGCTL);
const PDPTE: u32 = code(&own::PDPTE);
const LAST_PDPTE: u32 = PDPTE + 6;
const PLE_GAP: u32 = code(&own::PLE_GAP);
const PLE_WINDOW: u32 = code(&own::PLE_WINDOW);
const CR0_MASK: u32 = code(&own::CR0_GUEST_HOST_MASK);
const CR4_MASK: u32 = code(&own::CR4_GUEST_HOST_MASK);
const CR0_SHADOW: u32 = code(&own::CR0_READ_SHADOW);
const CR4_SHADOW: u32 = code(&own::CR4_READ_SHADOW);
const CR3: u32 = code(&own::GUEST_CR3);
const CR0: u32 = code(&own::GUEST_CR0);
const CR4: u32 = code(&own::GUEST_CR4);
const PROCBASED: u32 = code(&own::PROCBASED_CONTROLS);
const PROCBASED2: u32 = code(&own::PROCBASED_CONTROLS2);

/// The array of values of each VM in which L1's value of a field lies, where that is not the VMCS.
fn apart(encoding: u32) -> Option<(u32, Width)> {
    let (field, width) = match encoding {
        VAPIC_ADDRESS => (vp::L2_VAPIC_GPA, Width::B8),
        CR0_MASK => (vp::SHADOW_CR0_GUEST_HOST_MASK, Width::B8),
        CR4_MASK => (vp::SHADOW_CR4_GUEST_HOST_MASK, Width::B8),
        CR0_SHADOW => (vp::SHADOW_CR0_READ_SHADOW, Width::B8),
        CR4_SHADOW => (vp::SHADOW_CR4_READ_SHADOW, Width::B8),
        PLE_GAP => (vp::SHADOW_PLE_GAP, Width::B4),
        PLE_WINDOW => (vp::SHADOW_PLE_WINDOW, Width::B4),
        _ => return None,
    };
    Some((field.offset()?, width))
}

/// Where a field of an L2 VM's VMCS lies in the TDVPS.
fn place(vm: Vm, encoding: u32) -> Option<u32> {
    Some(vmcs::offset(encoding)? - vmcs::PAGE + vmcs_page(vm))
}

fn set(tdvps: &dyn FieldStore, vm: Vm, encoding: u32, value: u64) {
    if let Some(offset) = place(vm, encoding) {
        tdvps.store_u64(offset, value);
    }
}

/// A field of an L2 VM.
pub(crate) struct L2Field<'a> {
    pub(crate) tdvps: &'a dyn FieldStore,
    pub(crate) tdcs: &'a dyn FieldStore,
    pub(crate) vm: Vm,
    pub(crate) encoding: u32,
    /// Who asks.
    pub(crate) who: Accessor,
}

impl L2Field<'_> {
    /// The value of the field.
    pub(crate) fn load(&self) -> u64 {
        match apart(self.encoding) {
            Some((array, width)) if self.who == Accessor::Guest || self.encoding == VAPIC_ADDRESS => {
                self.tdvps.load(self.element(array, width), width)
            }
            _ => {
                let stored = place(self.vm, self.encoding).map_or(0, |offset| self.tdvps.load_u64(offset));
                match self.owned() {
                    Some((mask, shadow)) if self.who == Accessor::Guest => stored & !mask | shadow & mask,
                    _ => stored,
                }
            }
        }
    }

    /// The bits of CR0 and CR4 that the module owns in every L2 VM, and what is read of them.
    fn owned(&self) -> Option<(u64, u64)> {
        let (mask, shadow) = match self.encoding {
            CR0 => (vp::BASE_L2_CR0_GUEST_HOST_MASK, vp::BASE_L2_CR0_READ_SHADOW),
            CR4 => (vp::BASE_L2_CR4_GUEST_HOST_MASK, vp::BASE_L2_CR4_READ_SHADOW),
            _ => return None,
        };
        Some((self.own(mask), self.own(shadow)))
    }

    fn own(&self, field: Field) -> u64 {
        field.offset().map_or(0, |offset| self.tdvps.load_u64(offset))
    }

    fn element(&self, array: u32, width: Width) -> u32 {
        array + width as u32 * u32::from(self.vm.number())
    }

    /// Gives it a value.
    ///
    /// # Errors
    /// `METADATA_FIELD_VALUE_NOT_VALID`.
    pub(crate) fn store(&self, old: u64, new: u64) -> Result<(), Status> {
        self.check(old, new)?;
        match apart(self.encoding) {
            Some((array, width)) if self.who == Accessor::Guest => {
                self.tdvps.store(self.element(array, width), width, new);
                return self.combine(new);
            }
            _ => set(self.tdvps, self.vm, self.encoding, self.with_owned_bits(new)),
        }
        Ok(())
    }

    /// A value of CR0 or CR4 with the real bits that the module owns.
    fn with_owned_bits(&self, new: u64) -> u64 {
        let Some((mask, _)) = self.owned() else { return new };
        let real = place(self.vm, self.encoding).map_or(0, |offset| self.tdvps.load_u64(offset));
        real & mask | new & !mask
    }

    /// What follows from a value of L1's that lies apart.
    fn combine(&self, new: u64) -> Result<(), Status> {
        match self.encoding {
            VAPIC_ADDRESS => self.tdvps.store_u64(of_vm(tdvps::L2_VAPIC_HPA, self.vm), NOT_SET),
            PLE_GAP | PLE_WINDOW => return self.set_pause_loop(new),
            CR0_MASK | CR0_SHADOW => self.combine_owners(&CR0_OWNERS),
            _ => self.combine_owners(&CR4_OWNERS),
        }
        Ok(())
    }

    /// The processor counts ticks of its own. The module takes L1's number of ticks for a time of its clock, and keeps it
    /// also where the processor's has too many bits for it (recorded: the value is read back).
    fn set_pause_loop(&self, ticks: u64) -> Result<(), Status> {
        let (multiplier, offset) =
            (self.tdcs.load_u64(tdcs::TSC_MULTIPLIER), self.tdcs.load_u64(tdcs::TSC_OFFSET));
        let native = native_tsc(ticks, multiplier, offset).and_then(|ticks| u32::try_from(ticks).ok());
        set(self.tdvps, self.vm, self.encoding, native.ok_or(VALUE_NOT_VALID)?.into());
        Ok(())
    }

    /// A bit belongs to L1 if L1 says so, otherwise to the module if it does in every L2 VM; what the VM reads of it is
    /// its owner's affair.
    fn combine_owners(&self, owners: &Owners) {
        let of_l1 = |field: Field| field.offset().map_or(0, |at| self.tdvps.load_u64(of_vm(at, self.vm)));
        let (l1_mask, l1_shadow) = (of_l1(owners.l1_mask), of_l1(owners.l1_shadow));
        let (base_mask, base_shadow) = (self.own(owners.base_mask), self.own(owners.base_shadow));
        set(self.tdvps, self.vm, owners.mask, base_mask | l1_mask);
        set(self.tdvps, self.vm, owners.shadow, base_mask & !l1_mask & base_shadow | l1_mask & l1_shadow);
    }

    /// What depends on the TD's configuration binds L1 and not a debugger.
    fn check(&self, old: u64, new: u64) -> Result<(), Status> {
        let is_l1 = self.who == Accessor::Guest;
        let valid = match self.encoding {
            VAPIC_ADDRESS | HLAT_POINTER => new < self.shared_bit(),
            EPTP => new & SUPERVISOR_SHADOW_STACK == 0 || self.may(EPT_VPID_CAP, 1 << 23),
            CR0 => self.keeps_owned_bits(new),
            DEBUGCTL => new & 0xc0 != 0x40 || self.is_debuggable(),
            PDPTE..=LAST_PDPTE => new & PDPTE_RESERVED == 0 && new < self.shared_bit(),
            CR3 => new < self.shared_bit(),
            CR4 => self.keeps_owned_bits(new) && new & refused_features(self.tdcs) == 0,
            PROCBASED => !is_l1 || (old ^ new) & !self.flexible(TRUE_PROCBASED) == 0,
            PROCBASED2 => !is_l1 || (old ^ new) & !self.flexible(PROCBASED_CTLS2) == 0,
            _ => true,
        };
        if valid { Ok(()) } else { Err(VALUE_NOT_VALID) }
    }

    fn keeps_owned_bits(&self, new: u64) -> bool {
        self.owned().is_none_or(|(mask, shadow)| (new ^ shadow) & mask == 0)
    }

    /// A capability MSR as the TD reads it.
    fn capability(&self, msr: u32) -> u64 {
        vmx::place(msr).map_or(0, |offset| self.tdcs.load_u64(offset))
    }

    fn may(&self, msr: u32, bits: u64) -> bool {
        self.capability(msr) & bits == bits
    }

    /// The controls that may be zero and may be one.
    fn flexible(&self, msr: u32) -> u64 {
        let capability = self.capability(msr);
        capability >> 32 & !capability & 0xffff_ffff
    }

    fn shared_bit(&self) -> u64 {
        if self.tdcs.load(tdcs::GPAW, Width::B1) != 0 { 1 << 51 } else { 1 << 47 }
    }

    fn is_debuggable(&self) -> bool {
        self.tdcs.load_u64(tdcs::ATTRIBUTES) & attributes::DEBUG != 0
    }
}

/// Fields that say who owns the bits of a control register.
struct Owners {
    mask: u32,
    shadow: u32,
    base_mask: Field,
    base_shadow: Field,
    l1_mask: Field,
    l1_shadow: Field,
}

const CR0_OWNERS: Owners = Owners {
    mask: CR0_MASK,
    shadow: CR0_SHADOW,
    base_mask: vp::BASE_L2_CR0_GUEST_HOST_MASK,
    base_shadow: vp::BASE_L2_CR0_READ_SHADOW,
    l1_mask: vp::SHADOW_CR0_GUEST_HOST_MASK,
    l1_shadow: vp::SHADOW_CR0_READ_SHADOW,
};

const CR4_OWNERS: Owners = Owners {
    mask: CR4_MASK,
    shadow: CR4_SHADOW,
    base_mask: vp::BASE_L2_CR4_GUEST_HOST_MASK,
    base_shadow: vp::BASE_L2_CR4_READ_SHADOW,
    l1_mask: vp::SHADOW_CR4_GUEST_HOST_MASK,
    l1_shadow: vp::SHADOW_CR4_READ_SHADOW,
};

const SUPERVISOR_SHADOW_STACK: u64 = 1 << 7;
const PDPTE_RESERVED: u64 = 0x1e6;
const EPT_VPID_CAP: u32 = 0x48c;
const PROCBASED_CTLS2: u32 = 0x48b;
const TRUE_PINBASED: u32 = 0x48d;
const TRUE_PROCBASED: u32 = 0x48e;
const TRUE_EXIT: u32 = 0x48f;
const TRUE_ENTRY: u32 = 0x490;

/// What the VMCS of an L2 VM begins with, by encoding; zero where nothing is said.
const INITIAL: [(u32, u64); 44] = [
    (0x0002, 0xffff),
    (0x2000, NOT_SET),
    (0x2002, NOT_SET),
    (0x200e, NOT_SET),
    (0x2012, NOT_SET),
    (0x2016, NOT_SET),
    (0x202a, NOT_SET),
    (0x202e, NOT_SET),
    (0x2036, NOT_SET),
    (0x203c, NOT_SET),
    (0x2804, 0x0007_0406_0007_0406),
    (0x2806, 0x901),
    (0x2808, 0xff),
    (0x280a, NOT_SET),
    (0x280c, NOT_SET),
    (0x280e, NOT_SET),
    (0x2810, NOT_SET),
    (0x4004, 0x40000),
    (0x4800, 0xffff_ffff),
    (0x4802, 0xffff_ffff),
    (0x4804, 0xffff_ffff),
    (0x4806, 0xffff_ffff),
    (0x4808, 0xffff_ffff),
    (0x480a, 0xffff_ffff),
    (0x480c, 0xffff),
    (0x480e, 0xffff),
    (0x4810, 0xffff),
    (0x4814, 0xc093),
    (0x4816, 0xc09b),
    (0x4818, 0xc093),
    (0x481a, 0xc093),
    (0x481c, 0xc093),
    (0x481e, 0xc093),
    (0x4820, 0x10082),
    (0x4822, 0x8b),
    // NE; MCE and VMXE, the latter hidden.
    (0x6800, 0x21),
    (0x6804, 0x2040),
    (0x681a, 0x400),
    (0x681e, 0xffff_fff0),
    (0x6820, 2),
    // Shadows of PE and NE, of MCE and VMXE; L1 owns every bit until it says otherwise.
    (0x6004, 0x21),
    (0x6006, 0x2040),
    (0x6000, NOT_SET),
    (0x6002, NOT_SET),
];

/// Writes what the L2 VMs of a new vCPU begin with. The fields of the TD's own VM are there already.
pub(crate) fn initialise(tdcs: &Tdcs<'_>, tdvps: &Tdvps<'_>) {
    for vm in (1..=tdcs.num_l2_vms()).filter_map(|number| Vm::l2(number as u8)) {
        for (encoding, value) in INITIAL {
            set(tdvps, vm, encoding, value);
        }
        let capability = |msr| vmx::place(msr).map_or(0, |offset| tdcs.load_u64(offset)) & 0xffff_ffff;
        for (field, msr) in [
            (own::PIN_BASED_CONTROLS, TRUE_PINBASED),
            (own::PROCBASED_CONTROLS, TRUE_PROCBASED),
            (own::PROCBASED_CONTROLS2, PROCBASED_CTLS2),
            (own::VM_EXIT_CONTROLS, TRUE_EXIT),
            (own::VM_ENTRY_CONTROLS, TRUE_ENTRY),
        ] {
            set(tdvps, vm, code(&field), capability(msr));
        }
        let root = tdcs.l2_sept_root(u16::from(vm.number())).map_or(0, |root| root.get());
        set(tdvps, vm, EPTP, root | tdcs.load_u64(tdcs::EPTP) & 0xfff);
        set(tdvps, vm, code(&own::TSC_OFFSET), tdcs.load_u64(tdcs::TSC_OFFSET));
        set(tdvps, vm, code(&own::TSC_MULTIPLIER), tdcs.load_u64(tdcs::TSC_MULTIPLIER));
        for word in (0..PAGE).step_by(8) {
            tdvps.store_u64(l1_msr_bitmaps(vm) + word, u64::MAX);
            tdvps.store_u64(msr_bitmaps(vm) + word, u64::MAX);
        }
        for mask in [vp::SHADOW_CR0_GUEST_HOST_MASK, vp::SHADOW_CR4_GUEST_HOST_MASK] {
            if let Some(offset) = mask.offset() {
                tdvps.store_u64(of_vm(offset, vm), u64::MAX);
            }
        }
    }
}

/// The MSR bitmaps of an L2 VM as L1 sees and writes them: word `index`.
pub(crate) fn load_msr_bitmap(tdvps: &dyn FieldStore, vm: Vm, index: u32) -> u64 {
    tdvps.load_u64(l1_msr_bitmaps(vm) + 8 * index)
}

/// Writes a word of them; the processor also exits for what the TD itself may not access.
pub(crate) fn store_msr_bitmap(
    tdvps: &dyn FieldStore,
    tdcs: &dyn FieldStore,
    vm: Vm,
    index: u32,
    value: u64,
) {
    tdvps.store_u64(l1_msr_bitmaps(vm) + 8 * index, value);
    let own = tdcs.load_u64(tdcs::MSR_BITMAPS + 8 * index);
    tdvps.store_u64(msr_bitmaps(vm) + 8 * index, value | own);
}
