//! What the class bits of a code say by themselves.

use core::fmt;

use tdvisor_base::open_enum;

use super::StatusCode;

open_enum! {
    /// The class of a status: bits 47:40.
    pub enum StatusClass : u8 {
        /// General.
        GENERAL = 0x00, "general";
        /// Operands.
        OPERAND = 0x01, "operand";
        /// Resources in use.
        BUSY = 0x02, "resource busy";
        /// Page metadata.
        PAGE_METADATA = 0x03, "page metadata";
        /// Dependent pages.
        DEPENDENTS = 0x04, "dependents";
        /// State of the module.
        SYSTEM_STATE = 0x05, "module state";
        /// State of the TD.
        TD_STATE = 0x06, "TD state";
        /// VCPU.
        VCPU = 0x07, "VCPU";
        /// Keys and key ids.
        KEY = 0x08, "key";
        /// Platform.
        PLATFORM = 0x09, "platform";
        /// Memory configuration.
        MEMORY_CONFIG = 0x0a, "memory configuration";
        /// Secure EPT and pages.
        SECURE_EPT = 0x0b, "Secure EPT";
        /// Metadata fields.
        METADATA_FIELD = 0x0c, "metadata field";
        /// Service TDs.
        SERVICE_TD = 0x0d, "service TD";
        /// Migration.
        MIGRATION = 0x0e, "migration";
        /// TDX Connect (module 2.0).
        TDX_IO = 0x0f, "TDX Connect";
        /// Attestation.
        ATTESTATION = 0x10, "attestation";
        /// TD partitioning.
        PARTITIONING = 0x11, "TD partitioning";
        /// The module's "never set" value.
        UNINITIALIZED = 0xff, "uninitialised status";
    }
}

/// What a caller can expect of trying again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Recovery {
    /// Success, or an outcome that is no error.
    NotNeeded,
    /// A call with equal operands may succeed later.
    Retry,
    /// A call with equal operands cannot succeed unless the state changes; other operands may.
    AfterChange,
    /// The VCPU is lost.
    VcpuLost,
    /// The TD is lost.
    TdLost,
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotNeeded => "no error",
            Self::Retry => "recoverable, the call may succeed when repeated",
            Self::AfterChange => "repeating the call cannot help until its inputs or the state change",
            Self::VcpuLost => "not recoverable, the VCPU is lost",
            Self::TdLost => "not recoverable, the TD is lost",
        })
    }
}

impl StatusCode {
    /// Bits 47:40 of the status.
    pub const fn class(self) -> StatusClass {
        StatusClass((self.0 >> 8 & 0xff) as u8)
    }

    /// What the class bits say about trying again.
    pub const fn recovery(self) -> Recovery {
        const ERROR: u32 = 1 << 31;
        const NON_RECOVERABLE: u32 = 1 << 30;
        const FATAL: u32 = 1 << 29;
        if self.0 & FATAL != 0 {
            Recovery::TdLost
        } else if self.0 & NON_RECOVERABLE == 0 {
            if self.0 & ERROR == 0 { Recovery::NotNeeded } else { Recovery::Retry }
        } else if self.0 & ERROR == 0 {
            Recovery::VcpuLost
        } else {
            Recovery::AfterChange
        }
    }
}
