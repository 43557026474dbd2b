//! Offsets of the fields that the leaves themselves use: those of the metadata tables, as constants.
//!
//! What the tables give no place for is marked "own": it is reachable by field id only through code that names
//! it.

use tdx_module_iface::metadata::Field;

/// Where a field lies. Evaluated at compile time, so that a field without a place does not compile.
const fn offset(field: &Field) -> u32 {
    match field.offset() {
        Some(offset) => offset,
        None => panic!("the field has no place in a control structure"),
    }
}

/// Fields of the TDR page.
pub mod tdr {
    use tdx_module_iface::metadata::td;

    use super::offset;

    /// u8: the TD is dead.
    pub const FATAL: u32 = offset(&td::FATAL);
    /// u32: number of TDCX pages.
    pub const NUM_TDCX: u32 = offset(&td::NUM_TDCX);
    /// u64: pages that belong to the TD, TDR excluded.
    pub const CHLDCNT: u32 = offset(&td::CHLDCNT);
    /// u32: life-cycle state.
    pub const LIFECYCLE_STATE: u32 = offset(&td::LIFECYCLE_STATE);
    /// 9 × u64: addresses of the TDCX pages.
    pub const TDCX_PA: u32 = offset(&td::TDCX_PA);
    /// 4 × u64: identity of the TD.
    pub const TD_UUID: u32 = offset(&td::TD_UUID);
    /// u16: the TD's key id.
    pub const HKID: u32 = offset(&td::HKID);
    /// u64: packages on which the key is configured.
    pub const PKG_CONFIG_BITMAP: u32 = offset(&td::PKG_CONFIG_BITMAP);
}

/// Fields of the TDCS, across its TDCX pages.
pub mod tdcs {
    use tdx_module_iface::metadata::td;

    use super::offset;

    /// u32: vCPUs that were initialised.
    pub const NUM_VCPUS: u32 = offset(&td::NUM_VCPUS);
    /// u32: vCPUs associated with a logical processor.
    pub const NUM_ASSOC_VCPUS: u32 = offset(&td::NUM_ASSOC_VCPUS);
    /// u32: operation state.
    pub const OP_STATE: u32 = offset(&td::OP_STATE);
    /// u16: number of L2 VMs.
    pub const NUM_L2_VMS: u32 = offset(&td::NUM_L2_VMS);
    /// u64: ATTRIBUTES.
    pub const ATTRIBUTES: u32 = offset(&td::ATTRIBUTES);
    /// u64: XFAM.
    pub const XFAM: u32 = offset(&td::XFAM);
    /// u32: maximum number of vCPUs.
    pub const MAX_VCPUS: u32 = offset(&td::MAX_VCPUS);
    /// u8: guest-physical address width: 1 = 52 bits.
    pub const GPAW: u32 = offset(&td::GPAW);
    /// u64: EPT pointer.
    pub const EPTP: u32 = offset(&td::EPTP);
    /// u64: TSC offset.
    pub const TSC_OFFSET: u32 = offset(&td::TSC_OFFSET);
    /// u64: TSC multiplier.
    pub const TSC_MULTIPLIER: u32 = offset(&td::TSC_MULTIPLIER);
    /// u16: TSC frequency in 25 MHz units.
    pub const TSC_FREQUENCY: u32 = offset(&td::TSC_FREQUENCY);
    /// u32: bytes of the extended-state buffer in use.
    pub const XBUFF_SIZE: u32 = offset(&td::XBUFF_SIZE);
    /// u64: notifications that the guest enabled.
    pub const NOTIFY_ENABLES: u32 = offset(&td::NOTIFY_ENABLES);
    /// u64: host-priority lock time-out, in TSC ticks.
    pub const HP_LOCK_TIMEOUT: u32 = offset(&td::HP_LOCK_TIMEOUT);
    /// 4 × u64: per-VM controls.
    pub const VM_CTLS: u32 = offset(&td::VM_CTLS);
    /// u64: CONFIG_FLAGS.
    pub const CONFIG_FLAGS: u32 = offset(&td::CONFIG_FLAGS);
    /// u64: TD_CTLS.
    pub const TD_CTLS: u32 = offset(&td::TD_CTLS);
    /// u8: every VCPU so far has an x2APIC id that the host chose.
    pub const TOPOLOGY_ENUM_CONFIGURED: u32 = offset(&td::TOPOLOGY_ENUM_CONFIGURED);
    /// 80 × u8: which CPUID values are valid.
    pub const CPUID_VALID: u32 = offset(&td::CPUID_VALID);
    /// 19 × u32: offsets of the extended-state components.
    pub const XBUFF_OFFSETS: u32 = offset(&td::XBUFF_OFFSETS);
    /// u64: TD epoch.
    pub const TD_EPOCH: u32 = offset(&td::TD_EPOCH);
    /// 2 × u16: vCPUs running in even and odd epochs.
    pub const REFCOUNT: u32 = offset(&td::REFCOUNT);
    /// 48 bytes: MRTD.
    pub const MRTD: u32 = offset(&td::MRTD);
    /// 48 bytes: MRCONFIGID.
    pub const MRCONFIGID: u32 = offset(&td::MRCONFIGID);
    /// 48 bytes: MROWNER.
    pub const MROWNER: u32 = offset(&td::MROWNER);
    /// 48 bytes: MROWNERCONFIG.
    pub const MROWNERCONFIG: u32 = offset(&td::MROWNERCONFIG);
    /// 4 × 48 bytes: RTMRs.
    pub const RTMR: u32 = offset(&td::RTMR);
    /// u64: virtual IA32_ARCH_CAPABILITIES.
    pub const VIRTUAL_ARCH_CAPABILITIES: u32 = offset(&td::VIRTUAL_IA32_ARCH_CAPABILITIES);
    /// 80 × 2 × u64: CPUID values.
    pub const CPUID_VALUES: u32 = offset(&td::CPUID_VALUES);
    /// 48 bytes: SERVTD_HASH.
    pub const SERVTD_HASH: u32 = offset(&td::SERVTD_HASH);
    /// u16: bound service TDs.
    pub const SERVTD_NUM: u32 = offset(&td::SERVTD_NUM);
    /// The binding table: one slot of 128 bytes.
    pub const SERVTD_BINDINGS: u32 = offset(&td::SERVTD_BINDINGS_TABLE);
    /// u8: the key of what comes in is there.
    pub const MIG_DEC_KEY_SET: u32 = offset(&td::MIG_DEC_KEY_SET);
    /// u32: export sessions that began.
    pub const EXPORT_COUNT: u32 = offset(&td::EXPORT_COUNT);
    /// u32: imports that succeeded.
    pub const IMPORT_COUNT: u32 = offset(&td::IMPORT_COUNT);
    /// u32: migration epoch of the session.
    pub const MIG_EPOCH: u32 = offset(&td::MIG_EPOCH);
    /// u64: TD epoch of the last TDH.EXPORT.BLOCKW.
    pub const BW_EPOCH: u32 = offset(&td::BW_EPOCH);
    /// u64: bundles of the session.
    pub const TOTAL_MB_COUNT: u32 = offset(&td::TOTAL_MB_COUNT);
    /// 4 × u64: the key of what comes in in the next session.
    pub const MIG_DEC_KEY: u32 = offset(&td::MIG_DEC_KEY);
    /// 4 × u64: the key of what comes in in this session.
    pub const MIG_DEC_WORKING_KEY: u32 = offset(&td::MIG_DEC_WORKING_KEY);
    /// 4 × u64: the key of what goes out in the next session.
    pub const MIG_ENC_KEY: u32 = offset(&td::MIG_ENC_KEY);
    /// 4 × u64: the key of what goes out in this session.
    pub const MIG_ENC_WORKING_KEY: u32 = offset(&td::MIG_ENC_WORKING_KEY);
    /// u16: version of migration in the next session.
    pub const MIG_VERSION: u32 = offset(&td::MIG_VERSION);
    /// u16: version of migration in this session.
    pub const MIG_WORKING_VERSION: u32 = offset(&td::MIG_WORKING_VERSION);
    /// u64: pages that changed since they were exported.
    pub const DIRTY_COUNT: u32 = offset(&td::DIRTY_COUNT);
    /// u64: pages that are exported.
    pub const MIG_COUNT: u32 = offset(&td::MIG_COUNT);
    /// u32: VCPUs that were imported.
    pub const NUM_MIGRATED_VCPUS: u32 = offset(&td::NUM_MIGRATED_VCPUS);
    /// u16: migration streams.
    pub const NUM_MIGS: u32 = offset(&td::NUM_MIGS);
    /// 4 × u64: TD_UUID before an import.
    pub const PRE_IMPORT_UUID: u32 = offset(&td::PRE_IMPORT_UUID);
    /// Own: lock word of OP_STATE (host priority).
    pub const OP_STATE_LOCK: u32 = 0x1000;
    /// Own: lock word of the Secure-EPT tree.
    pub const SEPT_TREE_LOCK: u32 = 0x1040;
    /// Own: lock word of the TD epoch.
    pub const EPOCH_LOCK: u32 = 0x1080;
    /// Own: lock word of the RTMRs (host priority).
    pub const RTMR_LOCK: u32 = 0x10c0;
    /// Own: lock word of the service TD bindings.
    pub const SERVTD_LOCK: u32 = 0x1100;
    /// Own: lock word of the migration session.
    pub const MIG_LOCK: u32 = 0x1140;
    /// Own: what a walk finds before the TD has a Secure EPT; always zero, but for its lock.
    pub const NO_SEPT_ENTRY: u32 = 0x1180;
    /// 576 × u32: x2APIC ids of the VCPUs.
    pub const X2APIC_IDS: u32 = offset(&td::X2APIC_IDS);
    /// MSR bitmap page.
    pub const MSR_BITMAPS: u32 = offset(&td::MSR_BITMAPS);
    /// Secure-EPT root page.
    pub const SEPT_ROOT: u32 = offset(&td::SEPT_ROOT);
    /// Page of migration stream links.
    pub const MIGSC_LINKS: u32 = offset(&td::MIGSC_LINKS);
    /// Secure-EPT root of the first L2 VM; one page each.
    pub const L2_SEPT_ROOT: u32 = offset(&td::L2_SEPT_ROOT_1);
}

/// Fields of the TDVPS, across its pages.
pub mod tdvps {
    use tdx_module_iface::metadata::vp;

    use super::offset;

    /// u32: #VE exit reason; VE_INFO begins here.
    pub const VE_EXIT_REASON: u32 = offset(&vp::EXIT_REASON);
    /// u32: all ones while VE_INFO waits to be read.
    pub const VE_VALID: u32 = offset(&vp::VALID);
    /// u64: #VE exit qualification.
    pub const VE_QUALIFICATION: u32 = offset(&vp::EXIT_QUALIFICATION);
    /// u64: #VE guest-linear address.
    pub const VE_GLA: u32 = offset(&vp::GLA);
    /// u64: #VE guest-physical address.
    pub const VE_GPA: u32 = offset(&vp::GPA);
    /// u16: #VE EPTP index.
    pub const VE_EPTP_INDEX: u32 = offset(&vp::EPTP_INDEX);
    /// u32: #VE instruction length.
    pub const VE_INSTRUCTION_LENGTH: u32 = offset(&vp::INSTRUCTION_LENGTH);
    /// u32: #VE instruction information.
    pub const VE_INSTRUCTION_INFO: u32 = offset(&vp::INSTRUCTION_INFORMATION);
    /// u8: state of the vCPU.
    pub const VCPU_STATE: u32 = offset(&vp::VCPU_STATE);
    /// u8: kind of the last TD exit.
    pub const LAST_TD_EXIT: u32 = offset(&vp::LAST_TD_EXIT);
    /// u32: index of the vCPU.
    pub const VCPU_INDEX: u32 = offset(&vp::VCPU_INDEX);
    /// u8: pages of the TDVPS, TDVPR included.
    pub const NUM_TDVPS_PAGES: u32 = offset(&vp::NUM_TDVPS_PAGES);
    /// 15 × u64: addresses of the pages.
    pub const TDVPS_PAGE_PA: u32 = offset(&vp::TDVPS_PAGE_PA);
    /// Own: u64, address of the TDR.
    pub const TDR_PA: u32 = 0x0180;
    /// Own: u32, EXPORT_COUNT of the session in which the vCPU was exported last.
    pub const EXPORT_COUNT: u32 = 0x0188;
    /// u32: logical processor that the vCPU is associated with; all ones: none.
    pub const ASSOC_LPID: u32 = offset(&vp::ASSOC_LPID);
    /// u64: TD epoch of the last entry.
    pub const VCPU_EPOCH: u32 = offset(&vp::VCPU_EPOCH);
    /// u8: every CPUID at CPL 0 raises #VE.
    pub const CPUID_SUPERVISOR_VE: u32 = offset(&vp::CPUID_SUPERVISOR_VE);
    /// u8: every CPUID at CPL above 0 raises #VE.
    pub const CPUID_USER_VE: u32 = offset(&vp::CPUID_USER_VE);
    /// u64: TSC at the last TD exit.
    pub const LAST_EXIT_TSC: u32 = offset(&vp::LAST_EXIT_TSC);
    /// u8: an NMI is to be injected.
    pub const PEND_NMI: u32 = offset(&vp::PEND_NMI);
    /// u64: XFAM.
    pub const XFAM: u32 = offset(&vp::XFAM);
    /// u8: entries of LAST_EPF_GPA_LIST in use.
    pub const LAST_EPF_GPA_LIST_IDX: u32 = offset(&vp::LAST_EPF_GPA_LIST_IDX);
    /// u8: private EPT violations at one RIP so far.
    pub const POSSIBLY_EPF_STEPPING: u32 = offset(&vp::POSSIBLY_EPF_STEPPING);
    /// u64: when the guest first met a host-priority lock.
    pub const HP_LOCK_BUSY_START: u32 = offset(&vp::HP_LOCK_BUSY_START);
    /// u8: the guest is meeting host-priority locks.
    pub const HP_LOCK_BUSY: u32 = offset(&vp::HP_LOCK_BUSY);
    /// 4 × u8: the VMCS of each VM is launched.
    pub const VM_LAUNCHED: u32 = offset(&vp::VM_LAUNCHED);
    /// 4 × u64: TSC deadline of each VM; all ones: none.
    pub const TSC_DEADLINE: u32 = offset(&vp::TSC_DEADLINE);
    /// 4 × u64: shared EPT pointer as the host set it.
    pub const SHADOW_SHARED_EPTP: u32 = offset(&vp::SHADOW_SHARED_EPTP);
    /// 4 × u64: where TDG.VP.ENTER finds the L2 VM's state.
    pub const L2_ENTER_GUEST_STATE_GPA: u32 = offset(&vp::L2_ENTER_GUEST_STATE_GPA);
    /// 4 × u64: the same as host address.
    pub const L2_ENTER_GUEST_STATE_HPA: u32 = offset(&vp::L2_ENTER_GUEST_STATE_HPA);
    /// 4 × u64: virtual APIC page of the L2 VM.
    pub const L2_VAPIC_GPA: u32 = offset(&vp::L2_VAPIC_GPA);
    /// 4 × u64: the same as host address.
    pub const L2_VAPIC_HPA: u32 = offset(&vp::L2_VAPIC_HPA);
    /// 32 × u64: addresses of suspicious private EPT violations.
    pub const LAST_EPF_GPA_LIST: u32 = offset(&vp::LAST_EPF_GPA_LIST);
    /// 128 × u8: per-leaf CPUID control.
    pub const CPUID_CONTROL: u32 = offset(&vp::CPUID_CONTROL);
    /// 16 × u64: RAX, RCX, RDX, RBX, (RSP unused), RBP, RSI, RDI, R8 to R15.
    pub const GPRS: u32 = offset(&vp::RAX);
    /// 4 × u64: DR0 to DR3.
    pub const DR0: u32 = offset(&vp::DR0);
    /// u64: DR6.
    pub const DR6: u32 = offset(&vp::DR6);
    /// u64: XCR0.
    pub const XCR0: u32 = offset(&vp::XCR0);
    /// u64: CR2.
    pub const CR2: u32 = offset(&vp::CR2);
    /// u64: IA32_SPEC_CTRL.
    pub const SPEC_CTRL: u32 = offset(&vp::IA32_SPEC_CTRL);
    /// u64: IA32_DS_AREA.
    pub const DS_AREA: u32 = offset(&vp::IA32_DS_AREA);
    /// u64: IA32_XSS.
    pub const XSS: u32 = offset(&vp::IA32_XSS);
    /// u64: IA32_STAR.
    pub const STAR: u32 = offset(&vp::IA32_STAR);
    /// u64: IA32_LSTAR.
    pub const LSTAR: u32 = offset(&vp::IA32_LSTAR);
    /// u64: IA32_FMASK.
    pub const FMASK: u32 = offset(&vp::IA32_FMASK);
    /// u64: IA32_KERNEL_GS_BASE.
    pub const KERNEL_GS_BASE: u32 = offset(&vp::IA32_KERNEL_GS_BASE);
    /// u64: IA32_TSC_AUX.
    pub const TSC_AUX: u32 = offset(&vp::IA32_TSC_AUX);
    /// Virtual APIC page.
    pub const VAPIC: u32 = offset(&vp::VAPIC);
    /// Extended-state buffer in XSAVE format, three pages.
    pub const XBUFF: u32 = offset(&vp::XBUFF);
}
