//! TDG.VP.INVEPT (26): drops translations of L2 VMs. RCX the VMs, by bit.
//!
//! TDG.VP.INVVPID (27): drops linear translations of an L2 VM. RCX VM in bits 53:52; bit 0: RDX is a list, otherwise
//! one entry (bits 63:12 the page, 11:0 how many more). A list is a page of entries: RDX bits 51:12 its address, 8:0 the
//! first entry, 61:52 how many. It ends at the first entry that is not canonical; when an interrupt waits, RDX says
//! where the instruction goes on.
//!
//! The emulated processor keeps no linear translations of a VM that does not run, so that the VM's translations are
//! dropped as a whole.

use tdx_module_iface::{Operand, Status, StatusCode};
use x86_arch::Gpr;

use super::{Vm, vm_of_flags};
use crate::guest::GuestState;
use crate::guest_leaf::{Call, End, Place, Step, Use, check_operand, locate};
use crate::host::invalid;

pub(crate) fn invept(call: &Call<'_, '_, '_>, guest: &mut GuestState) -> Step {
    let vms = guest.regs[Gpr::Rcx];
    let existing = (2u64 << call.vcpu.tdcs.num_l2_vms()) - 2;
    if vms & !existing != 0 {
        return Err(invalid(Operand::RCX).into());
    }
    for vm in (1..=Vm::MAX_L2).filter_map(Vm::l2).filter(|vm| vms >> vm.number() & 1 != 0) {
        call.vcpu.flush_vm(vm);
    }
    Ok(())
}

const IS_LIST: u64 = 1;
/// Bits of a linear address, as the module takes them: a page of five levels.
const LINEAR_BITS: u32 = 57;

pub(crate) fn invvpid(call: &Call<'_, '_, '_>, guest: &mut GuestState) -> Step {
    let (rcx, rdx) = (guest.regs[Gpr::Rcx], guest.regs[Gpr::Rdx]);
    let vm = vm_of_flags(call.vcpu.tdcs, rcx, IS_LIST).ok_or(End::from(invalid(Operand::RCX)))?;
    if rcx & IS_LIST == 0 {
        check_entry(rdx)?;
        call.vcpu.flush_vm(vm);
        return Ok(());
    }
    let list = List::read(rdx)?;
    let gpa = check_operand(call, list.page, 4096, Operand::RDX)?;
    let place = locate(call, guest, gpa, Use::Read)?;
    call.vcpu.flush_vm(vm);
    for done in 0..list.count {
        let first = list.first + done;
        let entry = Place { hpa: place.hpa.wrapping_add(8 * first), ..place };
        check_entry(u64::from_le_bytes(call.read(entry)?))?;
        // Also behind the last entry (recorded): the instruction finds nothing more to do then.
        if call.vcpu.env.interrupt_pending() {
            guest.regs[Gpr::Rdx] = list.after(done + 1);
            return Err(End::Again);
        }
    }
    guest.regs[Gpr::Rdx] = list.after(list.count);
    Ok(())
}

/// Whether all pages of an entry are canonical.
fn check_entry(entry: u64) -> Result<(), Status> {
    let canonical = |address: u64| {
        let top = address as i64 >> (LINEAR_BITS - 1);
        top == 0 || top == -1
    };
    let last = (entry & !0xfff).wrapping_add((entry & 0xfff) << 12);
    if canonical(entry & !0xfff) && canonical(last) {
        Ok(())
    } else {
        Err(Status::new(StatusCode::GLA_NOT_CANONICAL))
    }
}

/// RDX of a list.
struct List {
    page: u64,
    first: u64,
    count: u64,
}

impl List {
    const PAGE: u64 = 0x000f_ffff_ffff_f000;
    const INDEX: u64 = 0x1ff;
    const COUNT: u64 = 0x3ff;
    const COUNT_SHIFT: u32 = 52;
    const ENTRIES: u64 = 512;

    fn read(rdx: u64) -> Result<Self, Status> {
        let list = Self {
            page: rdx & Self::PAGE,
            first: rdx & Self::INDEX,
            count: rdx >> Self::COUNT_SHIFT & Self::COUNT,
        };
        let defined = Self::PAGE | Self::INDEX | Self::COUNT << Self::COUNT_SHIFT;
        if rdx & !defined != 0 || list.first + list.count > Self::ENTRIES {
            return Err(invalid(Operand::RDX));
        }
        Ok(list)
    }

    /// RDX after `done` entries. Behind the last of a page the first one is next.
    const fn after(&self, done: u64) -> u64 {
        self.page | (self.first + done) & Self::INDEX | (self.count - done) << Self::COUNT_SHIFT
    }
}
