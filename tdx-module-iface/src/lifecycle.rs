//! The state machines beside OP_STATE: a TD's key, the table of key ids, a VCPU, and the module itself.

use tdvisor_base::open_enum;

open_enum! {
    /// The life of a TD with respect to its key (TD field LIFECYCLE_STATE).
    pub enum LifecycleState : u32 {
        /// `TDH.MNG.CREATE` assigned a key id.
        HKID_ASSIGNED = 0, "TD_HKID_ASSIGNED";
        /// `TDH.MNG.KEY.CONFIG` ran on every package.
        KEYS_CONFIGURED = 1, "TD_KEYS_CONFIGURED";
        /// `TDH.MNG.VPFLUSHDONE`: the TD cannot run any more.
        BLOCKED = 2, "TD_BLOCKED";
        /// `TDH.MNG.KEY.FREEID`: pages may be reclaimed.
        TEARDOWN = 3, "TD_TEARDOWN";
    }
}

open_enum! {
    /// The state of one key id in the key ownership table.
    pub enum HkidState : u8 {
        /// Available.
        FREE = 0, "HKID_FREE";
        /// Belongs to a TD.
        ASSIGNED = 1, "HKID_ASSIGNED";
        /// The TD's VCPUs are flushed; caches are not yet written back everywhere.
        FLUSHED = 2, "HKID_FLUSHED";
        /// Never given to a TD: the module's own key.
        RESERVED = 3, "HKID_RESERVED";
    }
}

open_enum! {
    /// The state of a VCPU (VP field VCPU_STATE).
    pub enum VcpuState : u8 {
        /// Before `TDH.VP.INIT`.
        UNINITIALIZED = 0, "VCPU_UNINITIALIZED";
        /// May be entered.
        READY = 2, "VCPU_READY";
        /// Runs on some LP.
        ACTIVE = 4, "VCPU_ACTIVE";
        /// Cannot be entered any more.
        DISABLED = 8, "VCPU_DISABLED";
        /// Waits for its state to be imported.
        IMPORT = 16, "VCPU_IMPORT";
    }
}

open_enum! {
    /// How a VCPU last left the guest (VP field LAST_TD_EXIT).
    pub enum LastTdExit : u8 {
        /// Asynchronously, with the interrupted instruction not executed.
        ASYNC_FAULT = 0, "ASYNC_FAULT";
        /// Asynchronously, after an instruction.
        ASYNC_TRAP = 1, "ASYNC_TRAP";
        /// By TDG.VP.VMCALL.
        TDVMCALL = 2, "TDVMCALL";
    }
}

open_enum! {
    /// The state of the module.
    pub enum SysState : u8 {
        /// `TDH.SYS.INIT` has not run.
        INIT_PENDING = 0, "SYSINIT_PENDING";
        /// `TDH.SYS.INIT` has run; LPs are being initialised.
        INIT_DONE = 1, "SYSINIT_DONE";
        /// `TDH.SYS.CONFIG` has run.
        CONFIG_DONE = 2, "SYSCONFIG_DONE";
        /// Every package has the module's key.
        READY = 3, "SYS_READY";
        /// Shut down.
        SHUTDOWN = 4, "SYS_SHUTDOWN";
    }
}
