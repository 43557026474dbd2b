//! Interrupts and exceptions: what they are. How they reach a handler is in the private module `delivery`.

/// Vectors of the exceptions that this crate raises (SDM vol. 3, "Interrupt and Exception Handling").
#[allow(missing_docs, reason = "the names are the exceptions")]
pub mod vector {
    pub const DE: u8 = 0;
    pub const DB: u8 = 1;
    pub const NMI: u8 = 2;
    pub const BP: u8 = 3;
    pub const OF: u8 = 4;
    pub const BR: u8 = 5;
    pub const UD: u8 = 6;
    pub const NM: u8 = 7;
    pub const DF: u8 = 8;
    pub const TS: u8 = 10;
    pub const NP: u8 = 11;
    pub const SS: u8 = 12;
    pub const GP: u8 = 13;
    pub const PF: u8 = 14;
    pub const MF: u8 = 16;
    pub const AC: u8 = 17;
    pub const MC: u8 = 18;
    pub const XM: u8 = 19;
    pub const VE: u8 = 20;
    pub const CP: u8 = 21;
}

/// Where an event comes from (the interruption types of VMX).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum EventKind {
    /// From an interrupt controller.
    ExternalInterrupt = 0,
    /// Non-maskable.
    Nmi = 2,
    /// A fault, trap or abort of the CPU.
    HardwareException = 3,
    /// INT n.
    SoftwareInterrupt = 4,
    /// INT1.
    PrivilegedSoftwareException = 5,
    /// INT3 and INTO.
    SoftwareException = 6,
}

/// An event to deliver through the IDT.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Event {
    /// The vector.
    pub vector: u8,
    /// Its source.
    pub kind: EventKind,
    /// Pushed for the exceptions that have one.
    pub error_code: Option<u32>,
    /// Length of the instruction that caused a software event: the handler returns behind it. 0 otherwise.
    pub instruction_length: u8,
}

impl Event {
    /// An interrupt from outside.
    pub const fn external(vector: u8) -> Self {
        Self { vector, kind: EventKind::ExternalInterrupt, error_code: None, instruction_length: 0 }
    }

    /// A non-maskable interrupt.
    pub const fn nmi() -> Self {
        Self { vector: vector::NMI, kind: EventKind::Nmi, error_code: None, instruction_length: 0 }
    }

    /// An exception without an error code (#UD, #DE, #VE, ...).
    pub const fn exception(vector: u8) -> Self {
        Self { vector, kind: EventKind::HardwareException, error_code: None, instruction_length: 0 }
    }

    /// An exception with an error code (#GP, #PF, ...). For #PF set CR2 too.
    pub const fn exception_with_code(vector: u8, error_code: u32) -> Self {
        Self {
            vector,
            kind: EventKind::HardwareException,
            error_code: Some(error_code),
            instruction_length: 0,
        }
    }

    /// INT n of this length in bytes.
    pub const fn software(vector: u8, instruction_length: u8) -> Self {
        Self { vector, kind: EventKind::SoftwareInterrupt, error_code: None, instruction_length }
    }
}
