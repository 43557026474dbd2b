//! Requests that no monitor makes, because the kernel's documentation forbids them: the self-test makes them, to see each
//! refused. None of them gives the kernel an address to write to.

use tdvisor_base::Gpa;

use super::SlotPlace;

/// KVM_MEMORY_ENCRYPT_OP whose command has no data: its address is zero, where a process has nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BareCommand {
    /// One of [`command`](crate::uapi::command), or none of them.
    pub id: u32,
    /// Flags of the command.
    pub flags: u32,
    /// What only the kernel may write.
    pub hw_error: u64,
}

/// An odd request to a VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OddVmRequest {
    /// KVM_MEMORY_ENCRYPT_OP with a command without data.
    Command(BareCommand),
    /// KVM_MEMORY_ENCRYPT_OP without a command.
    NoCommand,
    /// KVM_SET_MEMORY_ATTRIBUTES of the page there, with flags.
    AttributesWithFlags(Gpa),
    /// KVM_CREATE_GUEST_MEMFD of one page, with flags that do not exist.
    GuestMemfdWithFlags,
    /// KVM_SET_USER_MEMORY_REGION2 with guest_memfd's flag and a descriptor that is none.
    SlotWithoutMemfd(SlotPlace),
    /// KVM_SET_USER_MEMORY_REGION2 of memory that is read only, and has no private side.
    ReadOnlySlot(SlotPlace),
    /// KVM_SET_TSC_KHZ.
    TscKhz(u32),
}

/// An odd request to a vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OddVcpuRequest {
    /// KVM_MEMORY_ENCRYPT_OP with a command without data.
    Command(BareCommand),
    /// KVM_MEMORY_ENCRYPT_OP without a command.
    NoCommand,
    /// KVM_TDX_INIT_MEM_REGION of one page, whose contents are where a process has nothing.
    PageFromNowhere(Gpa),
    /// KVM_PRE_FAULT_MEMORY of the page there, with flags.
    PreFaultWithFlags(Gpa),
    /// KVM_PRE_FAULT_MEMORY without a range.
    PreFaultNothing,
    /// KVM_SET_TSC_KHZ.
    TscKhz(u32),
    /// KVM_GET_REGS.
    GetRegisters,
    /// KVM_SET_REGS, to zeros.
    SetRegisters,
    /// KVM_GET_SREGS.
    GetSystemRegisters,
}
