//! Requests that no monitor makes: see [`crate::kernel::odd`].
//!
//! # Why the unsafe code here is sound
//! Each request gets a local structure of the right type, or no address at all. Addresses *in* structures are zero, where the
//! kernel finds nothing to read or write, or are of a mapping that the VM keeps.

use std::os::fd::AsRawFd;
use std::sync::PoisonError;

use kvm_bindings as bindings;
use tdvisor_base::PAGE_SIZE;

use super::{LinuxVcpu, LinuxVm, Mapping, last};
use crate::error::Errno;
use crate::kernel::odd::{BareCommand, OddVcpuRequest, OddVmRequest};
use crate::kernel::{Pages, SlotPlace};
use crate::uapi::{InitMemRegion, TdxCommand, command, request};

/// Flags that do not exist yet, in any request.
const UNKNOWN_FLAG: u64 = 1 << 63;
/// No file has this descriptor.
const NO_FILE: u32 = u32::MAX;

impl From<BareCommand> for TdxCommand {
    fn from(command: BareCommand) -> Self {
        let BareCommand { id, flags, hw_error } = command;
        Self { id, flags, data: 0, hw_error }
    }
}

/// A request whose argument is a number, or the address of a local.
fn ask(file: &impl AsRawFd, request: u32, argument: usize) -> Result<(), Errno> {
    // SAFETY: the argument is a number to this request, or the address of the caller's local of the right type.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request.into(), argument) };
    if result < 0 { Err(last()) } else { Ok(()) }
}

pub(super) fn of_vm(vm: &LinuxVm, odd: OddVmRequest) -> Result<(), Errno> {
    let fd = &vm.shared.fd;
    match odd {
        OddVmRequest::Command(command) => vm.command(&mut command.into()),
        OddVmRequest::NoCommand => ask(fd, request::MEMORY_ENCRYPT_OP, 0),
        OddVmRequest::AttributesWithFlags(gpa) => {
            let attributes = bindings::kvm_memory_attributes {
                address: gpa.get(),
                size: PAGE_SIZE,
                attributes: 0,
                flags: UNKNOWN_FLAG,
            };
            Ok(fd.set_memory_attributes(attributes)?)
        }
        OddVmRequest::GuestMemfdWithFlags => {
            let create =
                bindings::kvm_create_guest_memfd { size: PAGE_SIZE, flags: UNKNOWN_FLAG, reserved: [0; 6] };
            Ok(fd.create_guest_memfd(create).map(drop)?)
        }
        OddVmRequest::SlotWithoutMemfd(place) => slot(vm, place, bindings::KVM_MEM_GUEST_MEMFD),
        OddVmRequest::ReadOnlySlot(place) => slot(vm, place, bindings::KVM_MEM_READONLY),
        OddVmRequest::TscKhz(khz) => ask(fd, request::SET_TSC_KHZ, khz as usize),
    }
}

fn slot(vm: &LinuxVm, place: SlotPlace, flags: u32) -> Result<(), Errno> {
    let memory = Mapping::anonymous(place.bytes)?;
    let region = bindings::kvm_userspace_memory_region2 {
        slot: place.slot,
        flags,
        guest_phys_addr: place.gpa.get(),
        memory_size: memory.len(),
        userspace_addr: memory.address(),
        guest_memfd_offset: 0,
        guest_memfd: NO_FILE,
        pad1: 0,
        pad2: [0; 14],
    };
    // Should the kernel take it, it has to last.
    vm.shared.slots.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
    // SAFETY: the memory of the slot is a mapping of exactly its size, kept in `slots` as long as the VM's descriptor.
    Ok(unsafe { vm.shared.fd.set_user_memory_region2(region) }?)
}

pub(super) fn of_vcpu(vcpu: &LinuxVcpu, odd: OddVcpuRequest) -> Result<(), Errno> {
    let fd = &vcpu.fd;
    match odd {
        OddVcpuRequest::Command(command) => vcpu.command(&mut command.into()),
        OddVcpuRequest::NoCommand => ask(fd, request::MEMORY_ENCRYPT_OP, 0),
        OddVcpuRequest::PageFromNowhere(gpa) => {
            // A page that no process maps; the kernel only reads there.
            let mut region = InitMemRegion { source: PAGE_SIZE, gpa: gpa.get(), pages: 1 };
            let data = std::ptr::from_mut(&mut region) as u64;
            vcpu.command(&mut TdxCommand { id: command::INIT_MEM_REGION, data, ..TdxCommand::default() })
        }
        OddVcpuRequest::PreFaultWithFlags(gpa) => {
            let mut range = bindings::kvm_pre_fault_memory {
                gpa: gpa.get(),
                size: PAGE_SIZE,
                flags: UNKNOWN_FLAG,
                ..Default::default()
            };
            ask(fd, request::PRE_FAULT_MEMORY, std::ptr::from_mut(&mut range) as usize)
        }
        OddVcpuRequest::PreFaultNothing => ask(fd, request::PRE_FAULT_MEMORY, 0),
        OddVcpuRequest::TscKhz(khz) => Ok(fd.set_tsc_khz(khz)?),
        OddVcpuRequest::GetRegisters => Ok(fd.get_regs().map(drop)?),
        OddVcpuRequest::SetRegisters => Ok(fd.set_regs(&bindings::kvm_regs::default())?),
        OddVcpuRequest::GetSystemRegisters => Ok(fd.get_sregs().map(drop)?),
    }
}
