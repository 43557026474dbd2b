//! Which fields a TD takes along when it migrates (Intel, TD Migration Architecture Specification; the module's own
//! tables, and the recorded lists of 1.5.01).
//!
//! The state of a TD crosses in three metadata lists: the *immutable* state of module and TD before its memory, the
//! *mutable* state of the TD once it is paused, and that of each VCPU. The lists follow the field tables: what a field
//! says here is all that an exporter needs to write them and an importer to read them.

use super::field::Field;
use super::id::Context;
use super::{td, vp};
use crate::release::Release;

/// Which list a field is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StateList {
    /// What does not change while a TD runs, with the module's own fields before it.
    Immutable,
    /// What changes while a TD runs: state of the TD, or of one VCPU.
    Mutable,
}

/// What an importer does about a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Demand {
    /// A field without which a list is refused.
    Required,
    /// A field that is taken where it is there.
    Optional,
    /// A field that is read over.
    Ignored,
}

/// How a field crosses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Carried {
    /// The list that the field is in.
    pub list: StateList,
    /// The bits that are written to the list.
    pub exported: u64,
    /// The bits that are taken from the list.
    pub imported: u64,
    /// What an importer does about the field.
    pub demand: Demand,
}

const ALL: u64 = u64::MAX;

impl Carried {
    const fn new(list: StateList, demand: Demand) -> Self {
        let imported = if let Demand::Ignored = demand { 0 } else { ALL };
        Self { list, exported: ALL, imported, demand }
    }

    /// This row with only `bits` of the field taken by an importer.
    const fn importing(mut self, bits: u64) -> Self {
        self.imported = bits;
        self
    }

    /// This row with only `bits` of the field crossing.
    const fn only(mut self, bits: u64) -> Self {
        (self.exported, self.imported) = (bits, bits);
        self
    }
}

const IMMUTABLE: Carried = Carried::new(StateList::Immutable, Demand::Required);
const IMMUTABLE_OPTIONAL: Carried = Carried::new(StateList::Immutable, Demand::Optional);
const IMMUTABLE_IGNORED: Carried = Carried::new(StateList::Immutable, Demand::Ignored);
const MUTABLE: Carried = Carried::new(StateList::Mutable, Demand::Required);
const MUTABLE_OPTIONAL: Carried = Carried::new(StateList::Mutable, Demand::Optional);
const MUTABLE_IGNORED: Carried = Carried::new(StateList::Mutable, Demand::Ignored);

/// EPTP without the address of the root page.
const EPTP_CONTROLS: u64 = 0xfff0_0000_0000_0fff;

impl Field {
    /// How the field crosses in a release; `None`: not at all.
    pub fn carried(&self, release: Release) -> Option<Carried> {
        // A TD that migrates has no L2 VMs.
        if self.l2_vm != 0 {
            return None;
        }
        match self.id.context()? {
            Context::System => of_system(self),
            Context::Td => of_td(self, release),
            Context::Vcpu if self.id.class() == 0 => of_vmcs(self.id.code()),
            Context::Vcpu => of_vcpu(self),
        }
    }
}

/// What an importer may want to know of the exporter; nothing of it is taken.
fn of_system(field: &Field) -> Option<Carried> {
    use super::sys;
    match *field {
        sys::PKG_FMS
        | sys::VENDOR_ID
        | sys::BUILD_DATE
        | sys::BUILD_NUM
        | sys::MINOR_VERSION
        | sys::MAJOR_VERSION
        | sys::UPDATE_VERSION
        | sys::INTERNAL_VERSION
        | sys::SYS_ATTRIBUTES
        | sys::NUM_TDX_FEATURES
        | sys::TDX_FEATURES0 => Some(IMMUTABLE_OPTIONAL),
        _ => None,
    }
}

fn of_td(field: &Field, release: Release) -> Option<Carried> {
    /// Class of the capability MSRs of VMX as the TD reads them.
    const VIRTUAL_MSRS: u8 = td::VIRTUAL_IA32_VMX_BASIC.id.class();
    Some(match *field {
        td::TD_UUID
        | td::NUM_VCPUS
        | td::NUM_L2_VMS
        | td::ATTRIBUTES
        | td::XFAM
        | td::MAX_VCPUS
        | td::GPAW
        | td::TSC_FREQUENCY
        | td::NUM_CPUID_VALUES
        | td::TOPOLOGY_ENUM_CONFIGURED
        | td::MRTD
        | td::MRCONFIGID
        | td::MROWNER
        | td::MROWNERCONFIG
        | td::EXPORT_COUNT
        | td::SERVTD_HASH
        | td::SERVTD_NUM
        | td::X2APIC_IDS => IMMUTABLE,
        td::EPTP => IMMUTABLE.only(EPTP_CONTROLS),
        td::CONFIG_FLAGS | td::CPUID_VALUES => IMMUTABLE_OPTIONAL,
        // It follows from XFAM.
        td::XBUFF_SIZE => IMMUTABLE_IGNORED,
        td::VIRTUAL_TSC | td::HP_LOCK_TIMEOUT | td::RTMR | td::IMPORT_COUNT => MUTABLE,
        td::NOTIFY_ENABLES | td::VM_CTLS => MUTABLE.importing(1),
        td::TD_CTLS => MUTABLE_OPTIONAL.importing(field.masks_in(release).guest.wr),
        td::SERVTD_BINDINGS_TABLE => MUTABLE_OPTIONAL,
        _ if field.id.class() == VIRTUAL_MSRS => IMMUTABLE,
        _ => return None,
    })
}

/// By VMCS encoding.
fn of_vmcs(encoding: u32) -> Option<Carried> {
    Some(match encoding {
        // 16 bits: all but what the host or the module owns.
        0x0800..=0x0810 | 0x0814 => MUTABLE,
        // Controls that the importer sets anew.
        0x2034 | 0x204a | 0x204c | 0x280a | 0x4000..=0x4008 | 0x400c | 0x6006 => MUTABLE_IGNORED,
        0x2802 => Carried { exported: !(1 << 13), ..MUTABLE.importing(0xffc7) },
        0x2804..=0x2808 | 0x2814..=0x2818 => MUTABLE,
        // IA-32e mode guest.
        0x4012 => MUTABLE.importing(0x200),
        0x401e => MUTABLE.importing(0),
        0x4016..=0x401a | 0x4020..=0x4024 | 0x4800..=0x4826 | 0x482a | 0x482e => MUTABLE,
        0x6800..=0x682c => MUTABLE,
        _ => return None,
    })
}

fn of_vcpu(field: &Field) -> Option<Carried> {
    /// Classes of VCPU management and of the log of EPT violations.
    const MANAGEMENT: u8 = vp::VCPU_STATE.id.class();
    const VIOLATIONS: u8 = vp::LAST_EPF_GPA_LIST.id.class();
    Some(match *field {
        vp::DR6 => MUTABLE.importing(0xffff_ffff),
        vp::IA32_UARCH_MISC_CTL => MUTABLE.importing(1),
        vp::CPUID_CONTROL => MUTABLE.importing(3),
        vp::VCPU_STATE_DETAILS => return None,
        vp::VCPU_STATE
        | vp::VCPU_INDEX
        | vp::CPUID_SUPERVISOR_VE
        | vp::CPUID_USER_VE
        | vp::PEND_NMI
        | vp::LAST_TD_EXIT
        | vp::NMI_UNBLOCKING_DUE_TO_IRET
        | vp::CURR_VM
        | vp::L2_EXIT_HOST_ROUTING
        | vp::TSC_DEADLINE => MUTABLE,
        vp::L2_CTLS | vp::L2_DEBUG_CTLS => MUTABLE.importing(7),
        // It is the TD's.
        vp::XFAM => MUTABLE_IGNORED,
        _ if matches!(field.id.class(), MANAGEMENT | VIOLATIONS) => return None,
        _ => MUTABLE,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{SYS, TD, VMCS, VP, vmcs};
    use super::*;

    #[test]
    fn an_importer_takes_nothing_of_what_it_reads_over() {
        for field in [SYS, TD, VP, VMCS].into_iter().flatten() {
            for carried in Release::ALL.into_iter().filter_map(|release| field.carried(release)) {
                assert_ne!(carried.exported, 0, "{} is in a list", field.name);
                assert!(carried.demand != Demand::Ignored || carried.imported == 0, "{}", field.name);
            }
        }
    }

    #[test]
    fn addresses_of_the_host_never_cross() {
        for field in [vmcs::SHARED_EPTP, vmcs::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, vmcs::MSR_BITMAP_ADDRESS]
        {
            assert_eq!(field.carried(Release::V1_5_01), None, "{}", field.name);
        }
        assert_eq!(td::TDCX_PA.carried(Release::V1_5_01), None);
        assert_eq!(vp::TDVPS_PAGE_PA.carried(Release::V1_5_01), None);
        assert_eq!(td::MIG_ENC_KEY.carried(Release::V1_5_05), None, "nor do keys");
    }
}
