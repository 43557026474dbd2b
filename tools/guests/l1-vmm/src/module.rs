//! The module's calls for L2 VMs, which `tdx-guest` does not have (TDX Module ABI Specification, TDG leaves).

use core::arch::{asm, global_asm};

global_asm!(include_str!("enter.s"));

const VM_RD: u64 = 7;
const VP_WR: u64 = 10;
const MEM_PAGE_ATTR_WR: u64 = 24;

/// TD field: how many L2 VMs the TD has.
const NUM_L2_VMS: u64 = 0x9010_0001_0000_0005;
/// The field of L2 VM 1's VMCS that says where its virtual APIC is.
const VIRTUAL_APIC_ADDRESS: u64 = 0x2420_0003_0000_2012;

/// The only L2 VM that this guest runs.
const VM: u32 = 1;
/// Bits of RDX and R8 of an attribute write for each VM.
const ATTRIBUTE_BITS: u32 = 16;

/// Attributes of a page for an L2 VM.
pub mod attributes {
    /// The page may be read.
    pub const READ: u64 = 1;
    /// The page may be written.
    pub const WRITE: u64 = 1 << 1;
    /// The page may be executed, by supervisor and user.
    pub const EXECUTE: u64 = 1 << 2 | 1 << 3;
    pub(super) const ALL: u64 = READ | WRITE | EXECUTE;
    pub(super) const VALID: u64 = 1 << 15;
    /// In the mask: the VM's translations are dropped.
    pub(super) const FLUSH: u64 = 1 << 15;
}

/// A status of the module's that is no success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(pub u64);

impl Refused {
    /// The page is mapped with another size than the one that was named.
    pub fn is_size_mismatch(self) -> bool {
        const PAGE_SIZE_MISMATCH: u64 = 0xc000_0b0b;
        self.0 >> 32 == PAGE_SIZE_MISMATCH
    }
}

/// One call: RCX, RDX, R8 and R9 in, RDX and R8 out.
fn call(leaf: u64, rcx: u64, rdx: u64, r8: u64, r9: u64) -> Result<u64, Refused> {
    let (status, result): (u64, u64);
    // SAFETY: the leaves used here change no memory of Rust's, and no register that is not named.
    unsafe {
        asm!(".byte 0x66, 0x0f, 0x01, 0xcc", inout("rax") leaf => status, inout("rcx") rcx => _,
            inout("rdx") rdx => _, inout("r8") r8 => result, inout("r9") r9 => _, out("r10") _, out("r11") _,
            out("r12") _, out("r13") _, options(nostack));
    }
    if status == 0 { Ok(result) } else { Err(Refused(status)) }
}

/// How many L2 VMs the TD has.
pub fn l2_vms() -> Result<u64, Refused> {
    call(VM_RD, 0, NUM_L2_VMS, 0, 0)
}

/// Says where the L2 VM's virtual APIC is.
pub fn set_virtual_apic(page: u64) -> Result<(), Refused> {
    call(VP_WR, 0, VIRTUAL_APIC_ADDRESS, page, u64::MAX).map(drop)
}

/// The size of a page that attributes are for.
#[derive(Clone, Copy, Debug)]
pub enum Size {
    /// 4 KiB.
    Small,
    /// 2 MiB.
    Large,
}

/// Gives the L2 VM a page with these attributes and no others.
pub fn give(gpa: u64, size: Size, attributes: u64) -> Result<(), Refused> {
    let level = match size {
        Size::Small => 0,
        Size::Large => 1,
    };
    let of_vm = |bits: u64| bits << (ATTRIBUTE_BITS * VM);
    let wanted = of_vm(attributes | attributes::VALID);
    let mask = of_vm(attributes::ALL | attributes::FLUSH);
    call(MEM_PAGE_ATTR_WR, gpa | level, wanted, mask, 0).map(drop)
}

/// What L1 learns of an exit of its L2 VM.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Exit {
    /// RAX: how it came to L1, and the VMX exit reason.
    pub status: u64,
    /// RCX: the exit qualification.
    pub qualification: u64,
    /// RDX: the linear address.
    pub gla: u64,
    /// R8: the guest-physical address.
    pub gpa: u64,
    /// R11: the instruction's length in bits 63:32.
    instruction: u64,
    /// R13: the extended exit qualification.
    pub extended: u64,
}

impl Exit {
    /// The VMX exit reason.
    pub fn reason(&self) -> u64 {
        self.status & 0xffff
    }

    /// Bytes of the instruction that exited.
    pub fn length(&self) -> u64 {
        self.instruction >> 32
    }

    /// Bits 63:32 of the status.
    pub fn code(&self) -> u64 {
        self.status >> 32
    }
}

unsafe extern "C" {
    fn l2_enter(flags: u64, state: u64, out: *mut Exit);
}

/// The state of the L2 VM, as the module keeps it in memory of L1's.
#[repr(C, align(256))]
#[derive(Clone, Copy, Debug, Default)]
pub struct State {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub gprs: [u64; 16],
    /// RFLAGS.
    pub rflags: u64,
    /// RIP.
    pub rip: u64,
    ssp: u64,
    interrupt_status: u64,
}

/// Runs the L2 VM until L1 goes on.
pub fn enter(state: &mut State) -> Exit {
    let mut exit = Exit::default();
    // SAFETY: the function keeps to the calling convention; the state is memory of the guest's own with the alignment that
    // the module wants, identity mapped, and borrowed for as long as the VM runs.
    unsafe { l2_enter(u64::from(VM) << 52, core::ptr::from_mut(state) as u64, &mut exit) };
    exit
}
