//! Interrupts and exceptions: what they are, how they combine, and the form that VMX gives them.

/// Vectors of the exceptions (SDM vol. 3, "Interrupt and Exception Handling").
#[expect(missing_docs, reason = "the names are the exceptions")]
pub mod vector {
    use x86::irq;

    pub const DE: u8 = irq::DIVIDE_ERROR_VECTOR;
    pub const DB: u8 = irq::DEBUG_VECTOR;
    pub const NMI: u8 = irq::NONMASKABLE_INTERRUPT_VECTOR;
    pub const BP: u8 = irq::BREAKPOINT_VECTOR;
    pub const OF: u8 = irq::OVERFLOW_VECTOR;
    pub const BR: u8 = irq::BOUND_RANGE_EXCEEDED_VECTOR;
    pub const UD: u8 = irq::INVALID_OPCODE_VECTOR;
    pub const NM: u8 = irq::DEVICE_NOT_AVAILABLE_VECTOR;
    pub const DF: u8 = irq::DOUBLE_FAULT_VECTOR;
    pub const TS: u8 = irq::INVALID_TSS_VECTOR;
    pub const NP: u8 = irq::SEGMENT_NOT_PRESENT_VECTOR;
    pub const SS: u8 = irq::STACK_SEGEMENT_FAULT_VECTOR;
    pub const GP: u8 = irq::GENERAL_PROTECTION_FAULT_VECTOR;
    pub const PF: u8 = irq::PAGE_FAULT_VECTOR;
    pub const MF: u8 = irq::X87_FPU_VECTOR;
    pub const AC: u8 = irq::ALIGNMENT_CHECK_VECTOR;
    pub const MC: u8 = irq::MACHINE_CHECK_VECTOR;
    pub const XM: u8 = irq::SIMD_FLOATING_POINT_VECTOR;
    pub const VE: u8 = irq::VIRTUALIZATION_VECTOR;
    /// Control protection; the `x86` crate ends with #VE.
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

impl EventKind {
    /// The kind with this number; 1 and 7 name none.
    const fn from_bits(bits: u32) -> Option<Self> {
        Some(match bits {
            0 => Self::ExternalInterrupt,
            2 => Self::Nmi,
            3 => Self::HardwareException,
            4 => Self::SoftwareInterrupt,
            5 => Self::PrivilegedSoftwareException,
            6 => Self::SoftwareException,
            _ => return None,
        })
    }
}

/// An event to deliver through the IDT.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Event {
    /// The vector.
    pub vector: u8,
    /// What the event comes from.
    pub kind: EventKind,
    /// The error code, which is pushed for the exceptions that have one.
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

    /// Whether the gate's privilege is checked: INT n, INT3 and INTO.
    pub const fn is_software(&self) -> bool {
        matches!(self.kind, EventKind::SoftwareInterrupt | EventKind::SoftwareException)
    }

    /// Whether the CPU itself raised it.
    pub const fn is_exception(&self) -> bool {
        matches!(self.kind, EventKind::HardwareException)
    }

    /// Of the contributory class (SDM vol. 3, "Interrupt and Exception Classes").
    pub const fn is_contributory(&self) -> bool {
        self.is_exception()
            && matches!(
                self.vector,
                vector::DE | vector::TS | vector::NP | vector::SS | vector::GP | vector::CP
            )
    }

    /// #PF and #VE are one class when exceptions are combined.
    pub const fn is_page_fault(&self) -> bool {
        self.is_exception() && matches!(self.vector, vector::PF | vector::VE)
    }

    /// What becomes of an exception that arises during the delivery of this event: itself, #DF, or (`None`) the
    /// processor shuts down (SDM vol. 3, "Conditions for Generating a Double Fault").
    pub fn followed_by(&self, second: Self) -> Option<Self> {
        let first_is_df = self.is_exception() && self.vector == vector::DF;
        let second_counts = second.is_contributory() || second.is_page_fault();
        if first_is_df && second_counts {
            return None;
        }
        let double =
            self.is_contributory() && second.is_contributory() || self.is_page_fault() && second_counts;
        Some(if double { Self::exception_with_code(vector::DF, 0) } else { second })
    }
}

/// An event in the form of the VMX interruption-information fields: VM entry, VM exit and IDT vectoring (SDM vol. 3,
/// "VM-Entry Controls for Event Injection").
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct InterruptionInfo {
    /// Bits 7:0 vector, 10:8 kind, 11 error code valid, 31 valid.
    pub info: u32,
    /// The error code; 0 where bit 11 is clear.
    pub error_code: u32,
    /// Length of the instruction behind a software event, in bytes.
    pub instruction_length: u32,
}

impl InterruptionInfo {
    /// No event.
    pub const NONE: Self = Self { info: 0, error_code: 0, instruction_length: 0 };
    const KIND_SHIFT: u32 = 8;
    const KIND: u32 = 7 << Self::KIND_SHIFT;
    const ERROR_CODE_VALID: u32 = 1 << 11;
    const VALID: u32 = 1 << 31;

    /// The form of an event.
    pub const fn pack(event: Option<Event>) -> Self {
        let Some(event) = event else { return Self::NONE };
        let (valid, error_code) = match event.error_code {
            Some(code) => (Self::ERROR_CODE_VALID, code),
            None => (0, 0),
        };
        Self {
            info: Self::VALID | valid | (event.kind as u32) << Self::KIND_SHIFT | event.vector as u32,
            error_code,
            instruction_length: event.instruction_length as u32,
        }
    }

    /// The event; `None` where the valid bit is clear or the kind does not exist.
    pub const fn unpack(self) -> Option<Event> {
        if self.info & Self::VALID == 0 {
            return None;
        }
        let Some(kind) = EventKind::from_bits((self.info & Self::KIND) >> Self::KIND_SHIFT) else {
            return None;
        };
        let error_code = if self.info & Self::ERROR_CODE_VALID != 0 { Some(self.error_code) } else { None };
        Some(Event {
            vector: self.info as u8,
            kind,
            error_code,
            instruction_length: self.instruction_length as u8,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_survives_packing_and_unpacking() {
        for kind in (0..8).filter_map(EventKind::from_bits) {
            for vector in [0, 2, 14, 0x31, 255] {
                for error_code in [None, Some(0), Some(0xFFFF_FFFF)] {
                    let event = Event { vector, kind, error_code, instruction_length: 15 };
                    assert_eq!(InterruptionInfo::pack(Some(event)).unpack(), Some(event));
                }
            }
        }
        assert_eq!(InterruptionInfo::pack(None).unpack(), None);
    }

    #[test]
    fn kinds_that_do_not_exist_name_no_event() {
        for kind in [1, 7] {
            let info = InterruptionInfo { info: 1 << 31 | kind << 8, ..InterruptionInfo::NONE };
            assert_eq!(info.unpack(), None, "kind {kind}");
        }
    }

    #[test]
    fn a_general_protection_fault_packs_as_the_manual_lays_it_out() {
        let packed = InterruptionInfo::pack(Some(Event::exception_with_code(vector::GP, 0x18)));
        assert_eq!((packed.info, packed.error_code), (0x8000_0B0D, 0x18));
    }
}
