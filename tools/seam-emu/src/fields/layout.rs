//! Offsets of the fields that the leaves themselves use (structures reference, section 9, column "offset").
//!
//! Where the table gives no offset, or one that collides with a neighbour, ours is marked "own": those fields
//! are reachable by field id only through code that names them.

/// Fields of the TDR page.
pub mod tdr {
    /// u8: the TD is dead.
    pub const FATAL: u32 = 0x0000;
    /// u32: number of TDCX pages.
    pub const NUM_TDCX: u32 = 0x0004;
    /// u64: pages that belong to the TD, TDR excluded.
    pub const CHLDCNT: u32 = 0x0008;
    /// u32: life-cycle state.
    pub const LIFECYCLE_STATE: u32 = 0x0010;
    /// 9 × u64: addresses of the TDCX pages.
    pub const TDCX_PA: u32 = 0x0018;
    /// 4 × u64: identity of the TD.
    pub const TD_UUID: u32 = 0x0060;
    /// u16: the TD's key id.
    pub const HKID: u32 = 0x0100;
    /// u64: packages on which the key is configured.
    pub const PKG_CONFIG_BITMAP: u32 = 0x0108;
}

/// Fields of the TDCS, across its TDCX pages.
pub mod tdcs {
    /// u32: vCPUs that were initialised.
    pub const NUM_VCPUS: u32 = 0x0000;
    /// u32: vCPUs associated with a logical processor.
    pub const NUM_ASSOC_VCPUS: u32 = 0x0004;
    /// u32: operation state.
    pub const OP_STATE: u32 = 0x0008;
    /// u16: number of L2 VMs.
    pub const NUM_L2_VMS: u32 = 0x0010;
    /// u64: ATTRIBUTES.
    pub const ATTRIBUTES: u32 = 0x0080;
    /// u64: XFAM.
    pub const XFAM: u32 = 0x0088;
    /// u32: maximum number of vCPUs.
    pub const MAX_VCPUS: u32 = 0x0090;
    /// u8: guest-physical address width: 1 = 52 bits.
    pub const GPAW: u32 = 0x0094;
    /// u64: EPT pointer.
    pub const EPTP: u32 = 0x0098;
    /// u64: TSC offset.
    pub const TSC_OFFSET: u32 = 0x00a8;
    /// u64: TSC multiplier.
    pub const TSC_MULTIPLIER: u32 = 0x00b0;
    /// u16: TSC frequency in 25 MHz units.
    pub const TSC_FREQUENCY: u32 = 0x00b8;
    /// u32: bytes of the extended-state buffer in use.
    pub const XBUFF_SIZE: u32 = 0x00dc;
    /// u64: notifications that the guest enabled.
    pub const NOTIFY_ENABLES: u32 = 0x00e0;
    /// u64: host-priority lock time-out, in TSC ticks.
    pub const HP_LOCK_TIMEOUT: u32 = 0x00e8;
    /// 4 × u64: per-VM controls.
    pub const VM_CTLS: u32 = 0x00f0;
    /// u64: CONFIG_FLAGS.
    pub const CONFIG_FLAGS: u32 = 0x0118;
    /// u64: TD_CTLS.
    pub const TD_CTLS: u32 = 0x0120;
    /// 80 × u8: which CPUID values are valid.
    pub const CPUID_VALID: u32 = 0x0134;
    /// 19 × u32: offsets of the extended-state components.
    pub const XBUFF_OFFSETS: u32 = 0x0190;
    /// u64: TD epoch.
    pub const TD_EPOCH: u32 = 0x0200;
    /// 2 × u16: vCPUs running in even and odd epochs.
    pub const REFCOUNT: u32 = 0x0208;
    /// 48 bytes: MRTD.
    pub const MRTD: u32 = 0x0240;
    /// 48 bytes: MRCONFIGID.
    pub const MRCONFIGID: u32 = 0x0270;
    /// 48 bytes: MROWNER.
    pub const MROWNER: u32 = 0x02a0;
    /// 48 bytes: MROWNERCONFIG.
    pub const MROWNERCONFIG: u32 = 0x02d0;
    /// 4 × 48 bytes: RTMRs.
    pub const RTMR: u32 = 0x0300;
    /// u64: virtual IA32_ARCH_CAPABILITIES.
    pub const VIRTUAL_ARCH_CAPABILITIES: u32 = 0x0778;
    /// 80 × 2 × u64: CPUID values.
    pub const CPUID_VALUES: u32 = 0x0800;
    /// 48 bytes: SERVTD_HASH.
    pub const SERVTD_HASH: u32 = 0x0d00;
    /// Own: lock word of OP_STATE (host priority).
    pub const OP_STATE_LOCK: u32 = 0x1000;
    /// Own: lock word of the Secure-EPT tree.
    pub const SEPT_TREE_LOCK: u32 = 0x1040;
    /// Own: lock word of the TD epoch.
    pub const EPOCH_LOCK: u32 = 0x1080;
    /// Own: lock word of the RTMRs (host priority).
    pub const RTMR_LOCK: u32 = 0x10c0;
    /// MSR bitmap page.
    pub const MSR_BITMAPS: u32 = 0x2000;
    /// Secure-EPT root page.
    pub const SEPT_ROOT: u32 = 0x3000;
    /// Page of migration stream links.
    pub const MIGSC_LINKS: u32 = 0x5000;
    /// Secure-EPT root of the first L2 VM; one page each.
    pub const L2_SEPT_ROOT: u32 = 0x6000;
}

/// Fields of the TDVPS, across its pages.
pub mod tdvps {
    /// u32: #VE exit reason; VE_INFO begins here.
    pub const VE_EXIT_REASON: u32 = 0x0000;
    /// u32: all ones while VE_INFO waits to be read.
    pub const VE_VALID: u32 = 0x0004;
    /// u64: #VE exit qualification.
    pub const VE_QUALIFICATION: u32 = 0x0008;
    /// u64: #VE guest-linear address.
    pub const VE_GLA: u32 = 0x0010;
    /// u64: #VE guest-physical address.
    pub const VE_GPA: u32 = 0x0018;
    /// u16: #VE EPTP index.
    pub const VE_EPTP_INDEX: u32 = 0x0020;
    /// u32: #VE instruction length.
    pub const VE_INSTRUCTION_LENGTH: u32 = 0x0024;
    /// u32: #VE instruction information.
    pub const VE_INSTRUCTION_INFO: u32 = 0x0028;
    /// u8: state of the vCPU.
    pub const VCPU_STATE: u32 = 0x0100;
    /// u8: kind of the last TD exit.
    pub const LAST_TD_EXIT: u32 = 0x0101;
    /// u32: index of the vCPU.
    pub const VCPU_INDEX: u32 = 0x0102;
    /// u8: pages of the TDVPS, TDVPR included.
    pub const NUM_TDVPS_PAGES: u32 = 0x0107;
    /// 15 × u64: addresses of the pages.
    pub const TDVPS_PAGE_PA: u32 = 0x0108;
    /// Own: u64, address of the TDR.
    pub const TDR_PA: u32 = 0x0180;
    /// u32: logical processor that the vCPU is associated with; all ones: none.
    pub const ASSOC_LPID: u32 = 0x01c8;
    /// u64: TD epoch of the last entry.
    pub const VCPU_EPOCH: u32 = 0x01d0;
    /// u8: every CPUID at CPL 0 raises #VE.
    pub const CPUID_SUPERVISOR_VE: u32 = 0x01d8;
    /// u8: every CPUID at CPL above 0 raises #VE.
    pub const CPUID_USER_VE: u32 = 0x01d9;
    /// u64: TSC at the last TD exit.
    pub const LAST_EXIT_TSC: u32 = 0x01e0;
    /// u8: an NMI is to be injected.
    pub const PEND_NMI: u32 = 0x01e8;
    /// u64: XFAM.
    pub const XFAM: u32 = 0x01f0;
    /// u8: entries of LAST_EPF_GPA_LIST in use.
    pub const LAST_EPF_GPA_LIST_IDX: u32 = 0x01f8;
    /// u8: private EPT violations at one RIP so far.
    pub const POSSIBLY_EPF_STEPPING: u32 = 0x01f9;
    /// u64: when the guest first met a host-priority lock.
    pub const HP_LOCK_BUSY_START: u32 = 0x0200;
    /// u8: the guest is meeting host-priority locks.
    pub const HP_LOCK_BUSY: u32 = 0x0208;
    /// 4 × u8: the VMCS of each VM is launched.
    pub const VM_LAUNCHED: u32 = 0x021a;
    /// 4 × u64: TSC deadline of each VM; all ones: none.
    pub const TSC_DEADLINE: u32 = 0x0268;
    /// 4 × u64: shared EPT pointer as the host set it.
    pub const SHADOW_SHARED_EPTP: u32 = 0x03c0;
    /// 4 × u64: where TDG.VP.ENTER finds the L2 VM's state.
    pub const L2_ENTER_GUEST_STATE_GPA: u32 = 0x03e0;
    /// 4 × u64: the same as host address.
    pub const L2_ENTER_GUEST_STATE_HPA: u32 = 0x0400;
    /// 4 × u64: virtual APIC page of the L2 VM.
    pub const L2_VAPIC_GPA: u32 = 0x0460;
    /// 4 × u64: the same as host address.
    pub const L2_VAPIC_HPA: u32 = 0x0480;
    /// 32 × u64: addresses of suspicious private EPT violations.
    pub const LAST_EPF_GPA_LIST: u32 = 0x0700;
    /// 128 × u8: per-leaf CPUID control.
    pub const CPUID_CONTROL: u32 = 0x0900;
    /// 16 × u64: RAX, RCX, RDX, RBX, (RSP unused), RBP, RSI, RDI, R8 to R15.
    pub const GPRS: u32 = 0x0980;
    /// 4 × u64: DR0 to DR3.
    pub const DR0: u32 = 0x0a00;
    /// u64: DR6.
    pub const DR6: u32 = 0x0a20;
    /// u64: XCR0.
    pub const XCR0: u32 = 0x0a28;
    /// u64: CR2.
    pub const CR2: u32 = 0x0a30;
    /// Own: u64, RIP of the last private EPT violation.
    pub const LAST_EPF_GUEST_RIP: u32 = 0x0a40;
    /// u64: IA32_SPEC_CTRL.
    pub const SPEC_CTRL: u32 = 0x0a80;
    /// u64: IA32_XSS.
    pub const XSS: u32 = 0x0c70;
    /// u64: IA32_STAR.
    pub const STAR: u32 = 0x0c88;
    /// u64: IA32_LSTAR.
    pub const LSTAR: u32 = 0x0c90;
    /// u64: IA32_FMASK.
    pub const FMASK: u32 = 0x0c98;
    /// u64: IA32_KERNEL_GS_BASE.
    pub const KERNEL_GS_BASE: u32 = 0x0ca0;
    /// u64: IA32_TSC_AUX.
    pub const TSC_AUX: u32 = 0x0ca8;
    /// Virtual APIC page.
    pub const VAPIC: u32 = 0x2000;
    /// Extended-state buffer in XSAVE format, three pages.
    pub const XBUFF: u32 = 0x3000;
}
