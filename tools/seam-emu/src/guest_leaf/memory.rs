//! Memory operands of guest leaves: private addresses that the module itself accesses.

use tdvisor_base::{Gpa, Hpa, KeyId, Level};
use tdx_module_iface::Operand;
use tdx_module_iface::exit::EptViolation;
use tdx_module_iface::sept::{SeptEntry, SeptStates};

use super::{Call, End, Step, violation};
use crate::guest::{GuestState, VmExit};
use crate::host::invalid;
use crate::td::sept::Walk;
use crate::vcpu::violation_of_leaf;

/// Where the qualification has the rights that the entry gives.
pub(crate) const RIGHTS_SHIFT: u32 = 3;

/// What a leaf does with an operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Use {
    /// Reads it.
    Read,
    /// Reads and writes it.
    ReadWrite,
}

/// An operand in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) hpa: Hpa,
    pub(crate) key: KeyId,
}

/// Checks alignment and privacy of an operand.
pub(crate) fn check_operand(call: &Call<'_, '_, '_>, gpa: u64, align: u64, operand: Operand) -> Step<Gpa> {
    if !gpa.is_multiple_of(align) || gpa >= call.vcpu.tdcs.shared_bit() {
        return Err(invalid(operand).into());
    }
    Ok(Gpa::new(gpa))
}

/// Finds an operand by a walk; what is not mapped, or not accepted, acts as the guest's own access would.
pub(crate) fn locate(call: &Call<'_, '_, '_>, state: &mut GuestState, gpa: Gpa, how: Use) -> Step<Place> {
    let tdcs = call.vcpu.tdcs;
    let slot = match tdcs.walk(gpa, Level::L4K) {
        Some(Walk::Found(slot) | Walk::Stopped(slot)) => Some(slot),
        None => None,
    };
    if let Some(slot) = slot.as_ref().filter(|slot| usable(how).contains(slot.state())) {
        let offset = gpa.get() & (slot.level.bytes() - 1);
        let hpa = slot.entry().hpa().align_down(slot.level.bytes()).wrapping_add(offset);
        return Ok(Place { hpa, key: call.vcpu.tdr.key() });
    }
    let access = match how {
        Use::Read => EptViolation::READ,
        Use::ReadWrite => EptViolation::READ | EptViolation::WRITE,
    };
    // What the entry allows is no reason, but is reported.
    let given = slot.map_or(0, |slot| slot.entry().0 & SeptEntry::RWX);
    let qualification = access & !given | given << RIGHTS_SHIFT;
    Err(End::Fault(violation_of_leaf(call.vcpu, state, &violation(gpa, qualification))))
}

const fn usable(how: Use) -> SeptStates {
    match how {
        Use::Read => SeptStates::GUEST_ACCESSIBLE_LEAF,
        Use::ReadWrite => SeptStates::GUEST_FULLY_ACCESSIBLE_LEAF,
    }
}

impl Call<'_, '_, '_> {
    /// Reads an operand. A page that the host broke kills the TD.
    pub(crate) fn read<const N: usize>(&self, place: Place) -> Step<[u8; N]> {
        let mut bytes = [0; N];
        match self.vcpu.machine.memory().read(place.hpa, place.key, &mut bytes) {
            Ok(()) => Ok(bytes),
            Err(_) => Err(self.broken()),
        }
    }

    /// Writes an operand.
    pub(crate) fn write(&self, place: Place, bytes: &[u8]) -> Step {
        match self.vcpu.machine.memory().write(place.hpa, place.key, bytes) {
            Ok(_) => Ok(()),
            Err(_) => Err(self.broken()),
        }
    }

    fn broken(&self) -> End {
        End::Fault(crate::vcpu::not_accessible(
            self.vcpu,
            &VmExit::plain(tdx_module_iface::exit::ExitReason::EXCEPTION_NMI),
        ))
    }
}
