//! Linux's KVM: `kvm-ioctls` where it has the request, and the requests on TDs that it lacks.
//!
//! # Why the unsafe code here is sound
//! A request is unsafe for what the kernel then writes, and when.
//! - *During the call* it reads and writes the structure whose address it gets, and lists behind it, of the length that the
//!   structure says. Each such structure is a local or an owned buffer of that length.
//! - *Later* it reads and writes the memory of slots, whenever a vCPU runs. That memory is a [`Mapping`], which the VM keeps
//!   until its own file descriptor and those of its vCPUs are closed; no reference to it exists.
//! - A vCPU's page is written by the kernel during KVM_RUN, and is a [`Mapping`] too.
//!
//! File descriptors are owned by the types of `kvm-ioctls` and the standard library; none is made from a number that the
//! kernel did not just give.

#![expect(unsafe_code, reason = "the kernel's requests take addresses; the proof is in the module docs")]

mod mapping;
mod odd;
mod signal;

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings as bindings;
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use tdvisor_base::{Gpa, PAGE_SIZE};
use zerocopy::{FromZeros, IntoBytes};

use super::odd::{OddVcpuRequest, OddVmRequest};
use super::{Added, Capability, GuestMemfd, Kernel, KernelVcpu, KernelVm, Listed, Msi, Pages, SlotPlace};
use crate::error::{Errno, Refusal};
use crate::uapi::{
    CapabilitiesHeader, CpuidEntry, CpuidHeader, InitMemRegion, InitVm, MAX_CPUID_ENTRIES, TdxCommand,
    command, request, run,
};
pub use mapping::Mapping;

/// KVM of the Linux that this program runs on.
#[derive(Debug)]
pub struct Linux {
    kvm: Kvm,
}

impl Linux {
    /// Opens /dev/kvm.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn open() -> Result<Self, Errno> {
        signal::prepare()?;
        Ok(Self { kvm: Kvm::new()? })
    }

    /// Which types of VM there are: bit [`crate::uapi::VM_TYPE_TDX`] for TDs.
    pub fn vm_types(&self) -> u32 {
        let types = self.kvm.check_extension_raw(bindings::KVM_CAP_VM_TYPES.into());
        u32::try_from(types).unwrap_or_default()
    }
}

impl Kernel for Linux {
    type Vm = LinuxVm;

    fn create_vm(&self, vm_type: u32) -> Result<LinuxVm, Errno> {
        let fd = self.kvm.create_vm_with_type(vm_type.into())?;
        Ok(LinuxVm { shared: Arc::new(Shared { fd, slots: Mutex::default() }) })
    }

    fn supported_cpuid(&self) -> Result<Vec<CpuidEntry>, Errno> {
        let list = self.kvm.get_supported_cpuid(MAX_CPUID_ENTRIES)?;
        Ok(list.as_slice().iter().map(of_bindings).collect())
    }
}

fn of_bindings(entry: &bindings::kvm_cpuid_entry2) -> CpuidEntry {
    CpuidEntry {
        function: entry.function,
        index: entry.index,
        flags: entry.flags,
        eax: entry.eax,
        ebx: entry.ebx,
        ecx: entry.ecx,
        edx: entry.edx,
        padding: [0; 3],
    }
}

fn to_bindings(entry: &CpuidEntry) -> bindings::kvm_cpuid_entry2 {
    bindings::kvm_cpuid_entry2 {
        function: entry.function,
        index: entry.index,
        flags: entry.flags,
        eax: entry.eax,
        ebx: entry.ebx,
        ecx: entry.ecx,
        edx: entry.edx,
        padding: [0; 3],
    }
}

/// A VM and what the kernel may touch on its behalf. The descriptor is closed first.
#[derive(Debug)]
struct Shared {
    fd: VmFd,
    slots: Mutex<Vec<Mapping>>,
}

/// A TD of Linux's KVM.
#[derive(Debug)]
pub struct LinuxVm {
    shared: Arc<Shared>,
}

/// A list of CPUID values behind a header, in one buffer.
fn with_entries(header: &[u8], entries: &[CpuidEntry]) -> Vec<u64> {
    let bytes = header.len() + size_of_val(entries);
    let mut buffer = vec![0u64; bytes.div_ceil(size_of::<u64>())];
    let (first, rest) = buffer.as_mut_bytes().split_at_mut(header.len());
    first.copy_from_slice(header);
    rest[..size_of_val(entries)].copy_from_slice(entries.as_bytes());
    buffer
}

/// The entries behind a header of `header` bytes; as many as there are.
fn entries_of(buffer: &[u64], header: usize, count: usize) -> Vec<CpuidEntry> {
    let bytes = buffer.as_bytes().get(header..).unwrap_or_default();
    bytes.chunks_exact(size_of::<CpuidEntry>()).take(count).filter_map(zero_copied).collect()
}

fn zero_copied<T: zerocopy::FromBytes>(bytes: &[u8]) -> Option<T> {
    T::read_from_bytes(bytes).ok()
}

fn last() -> Errno {
    Errno(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

impl LinuxVm {
    fn command(&self, command: &mut TdxCommand) -> Result<(), Errno> {
        // SAFETY: the command is a local of the right type; what its `data` means to the command is for the callers, which
        // are in this file and give the address of an owned buffer of the length that is said in it.
        unsafe { self.shared.fd.encrypt_op(command) }.map_err(Errno::from)
    }
}

impl KernelVm for LinuxVm {
    type Vcpu = LinuxVcpu;
    type Pages = Mapping;
    type GuestMemfd = LinuxMemfd;

    fn extension(&self, capability: Capability) -> u32 {
        let answer = self.shared.fd.check_extension_raw(capability as libc::c_ulong);
        u32::try_from(answer).unwrap_or_default()
    }

    fn enable(&self, capability: Capability, argument: u64) -> Result<(), Errno> {
        let enable = bindings::kvm_enable_cap {
            cap: capability as u32,
            args: [argument, 0, 0, 0],
            ..Default::default()
        };
        Ok(self.shared.fd.enable_cap(&enable)?)
    }

    fn tdx_capabilities(&self, room: usize) -> Result<(CapabilitiesHeader, Vec<CpuidEntry>), Errno> {
        let room = room.min(MAX_CPUID_ENTRIES);
        let header = CapabilitiesHeader { cpuid: CpuidHeader::of(room), ..CapabilitiesHeader::new_zeroed() };
        let mut buffer = with_entries(header.as_bytes(), &vec![CpuidEntry::default(); room]);
        let data = buffer.as_mut_ptr() as u64;
        self.command(&mut TdxCommand { id: command::CAPABILITIES, data, ..TdxCommand::default() })?;
        let bytes = buffer.as_bytes().get(..size_of::<CapabilitiesHeader>()).unwrap_or_default();
        let header: CapabilitiesHeader = zero_copied(bytes).unwrap_or_default();
        let count = header.cpuid.entries as usize;
        Ok((header, entries_of(&buffer, size_of::<CapabilitiesHeader>(), count)))
    }

    fn init_vm(&self, parameters: InitVm, cpuid: &[CpuidEntry]) -> Result<(), Refusal> {
        let count = CpuidHeader::of(cpuid.len());
        let parameters = InitVm { cpuid: count, ..parameters };
        let buffer = with_entries(parameters.as_bytes(), cpuid);
        let mut command =
            TdxCommand { id: command::INIT_VM, data: buffer.as_ptr() as u64, ..TdxCommand::default() };
        let result = self.command(&mut command);
        result.map_err(|errno| Refusal { errno, module: command.hw_error })
    }

    fn finalize(&self) -> Result<(), Refusal> {
        let mut command = TdxCommand { id: command::FINALIZE_VM, ..TdxCommand::default() };
        let result = self.command(&mut command);
        result.map_err(|errno| Refusal { errno, module: command.hw_error })
    }

    fn map(&self, bytes: u64) -> Result<Mapping, Errno> {
        Mapping::anonymous(bytes)
    }

    fn guest_memfd(&self, bytes: u64) -> Result<LinuxMemfd, Errno> {
        let create = bindings::kvm_create_guest_memfd { size: bytes, flags: 0, reserved: [0; 6] };
        let fd = self.shared.fd.create_guest_memfd(create)?;
        // SAFETY: the kernel just made this descriptor for us, and nobody else has it.
        Ok(LinuxMemfd { fd: unsafe { OwnedFd::from_raw_fd(fd) }, bytes })
    }

    fn add_slot(&self, place: SlotPlace, shared: &Mapping, private: &LinuxMemfd) -> Result<(), Errno> {
        if shared.len() != place.bytes || private.bytes != place.bytes {
            return Err(Errno(libc::EINVAL));
        }
        let region = bindings::kvm_userspace_memory_region2 {
            slot: place.slot,
            flags: bindings::KVM_MEM_GUEST_MEMFD,
            guest_phys_addr: place.gpa.get(),
            memory_size: place.bytes,
            userspace_addr: shared.address(),
            guest_memfd_offset: 0,
            guest_memfd: private.fd.as_raw_fd().cast_unsigned(),
            pad1: 0,
            pad2: [0; 14],
        };
        // Kept before the kernel knows of it.
        self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner).push(shared.clone());
        // SAFETY: the memory of the slot is a mapping of exactly its size, kept in `slots` as long as the VM's descriptor.
        Ok(unsafe { self.shared.fd.set_user_memory_region2(region) }?)
    }

    fn set_attributes(&self, gpa: Gpa, bytes: u64, attributes: u64) -> Result<(), Errno> {
        let attributes =
            bindings::kvm_memory_attributes { address: gpa.get(), size: bytes, attributes, flags: 0 };
        Ok(self.shared.fd.set_memory_attributes(attributes)?)
    }

    fn signal_msi(&self, msi: Msi) -> Result<(), Errno> {
        let msi = bindings::kvm_msi {
            address_lo: msi.address_low,
            address_hi: msi.address_high,
            data: msi.data,
            ..Default::default()
        };
        Ok(self.shared.fd.signal_msi(msi).map(drop)?)
    }

    fn odd(&self, request: OddVmRequest) -> Result<(), Errno> {
        odd::of_vm(self, request)
    }

    fn create_vcpu(&self, index: u32) -> Result<LinuxVcpu, Errno> {
        let fd = self.shared.fd.create_vcpu(index.into())?;
        let page = Mapping::of_vcpu(&fd, self.shared.fd.run_size() as u64)?;
        Ok(LinuxVcpu { fd, page, thread: AtomicI32::new(NO_THREAD), _vm: self.shared.clone() })
    }
}

/// Private memory of a TD.
#[derive(Debug)]
pub struct LinuxMemfd {
    fd: OwnedFd,
    bytes: u64,
}

impl GuestMemfd for LinuxMemfd {
    fn punch_hole(&self, at: u64, bytes: u64) -> Result<(), Errno> {
        let (Ok(at), Ok(bytes)) = (at.try_into(), bytes.try_into()) else { return Err(Errno(libc::EINVAL)) };
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: no address is involved; the descriptor is ours.
        match unsafe { libc::fallocate(self.fd.as_raw_fd(), mode, at, bytes) } {
            0 => Ok(()),
            _ => Err(last()),
        }
    }
}

/// No thread has this number.
const NO_THREAD: i32 = 0;

/// A vCPU of a TD of Linux's KVM. The descriptor is closed before the VM lets go of its memory.
#[derive(Debug)]
pub struct LinuxVcpu {
    fd: VcpuFd,
    page: Mapping,
    /// The thread that runs it.
    thread: AtomicI32,
    _vm: Arc<Shared>,
}

impl LinuxVcpu {
    fn command(&self, command: &mut TdxCommand) -> Result<(), Errno> {
        // SAFETY: the command is a local of the right type; what its `data` means to the command is for the callers, which
        // are in this file and give a value, or the address of an owned buffer of the length that is said in it.
        let result = unsafe {
            libc::ioctl(self.fd.as_raw_fd(), request::MEMORY_ENCRYPT_OP.into(), std::ptr::from_mut(command))
        };
        if result < 0 { Err(last()) } else { Ok(()) }
    }
}

impl KernelVcpu for LinuxVcpu {
    type Pages = Mapping;

    fn cpuid_with_room(&self, room: usize) -> Listed {
        let room = room.min(MAX_CPUID_ENTRIES);
        let header = CpuidHeader::of(room);
        let mut buffer = with_entries(header.as_bytes(), &vec![CpuidEntry::default(); room]);
        let data = buffer.as_mut_ptr() as u64;
        let mut command = TdxCommand { id: command::GET_CPUID, data, ..TdxCommand::default() };
        let result = self.command(&mut command).map_err(|errno| Refusal { errno, module: command.hw_error });
        let bytes = buffer.as_bytes().get(..size_of::<CpuidHeader>()).unwrap_or_default();
        let header: CpuidHeader = zero_copied(bytes).unwrap_or_default();
        let count = header.entries as usize;
        let there = if result.is_ok() { count } else { 0 };
        Listed { entries: entries_of(&buffer, size_of::<CpuidHeader>(), there), count, result }
    }

    fn odd(&self, request: OddVcpuRequest) -> Result<(), Errno> {
        odd::of_vcpu(self, request)
    }

    fn set_cpuid(&self, entries: &[CpuidEntry]) -> Result<(), Errno> {
        let entries: Vec<_> = entries.iter().map(to_bindings).collect();
        let list = bindings::CpuId::from_entries(&entries).map_err(|_| Errno(libc::E2BIG))?;
        Ok(self.fd.set_cpuid2(&list)?)
    }

    fn init(&self, entry: u64) -> Result<(), Refusal> {
        let mut command = TdxCommand { id: command::INIT_VCPU, data: entry, ..TdxCommand::default() };
        let result = self.command(&mut command);
        result.map_err(|errno| Refusal { errno, module: command.hw_error })
    }

    fn add_pages(&self, contents: &Mapping, from: u64, to: Gpa, pages: u64, flags: u32) -> Added {
        let bytes = pages.checked_mul(PAGE_SIZE).and_then(|bytes| bytes.checked_add(from));
        if bytes.is_none_or(|end| end > contents.len()) {
            return Added { pages: 0, result: Err(Errno(libc::EFAULT).into()) };
        }
        let mut region = InitMemRegion { source: contents.address() + from, gpa: to.get(), pages };
        let data = std::ptr::from_mut(&mut region) as u64;
        let mut command = TdxCommand { id: command::INIT_MEM_REGION, flags, data, hw_error: 0 };
        let result = self.command(&mut command);
        Added {
            pages: pages.saturating_sub(region.pages),
            result: result.map_err(|errno| Refusal { errno, module: command.hw_error }),
        }
    }

    fn pre_fault(&self, gpa: Gpa, bytes: u64) -> Result<(), Errno> {
        let mut range = bindings::kvm_pre_fault_memory { gpa: gpa.get(), size: bytes, ..Default::default() };
        // SAFETY: the range is a local of the right type, in which the kernel writes how far it came.
        let result = unsafe {
            libc::ioctl(self.fd.as_raw_fd(), request::PRE_FAULT_MEMORY.into(), std::ptr::from_mut(&mut range))
        };
        if result < 0 { Err(last()) } else { Ok(()) }
    }

    fn run(&self) -> Result<(), Errno> {
        // SAFETY: takes no address; what the guest reaches meanwhile is the memory of slots, which `_vm` keeps, and what the
        // kernel writes is the vCPU's page.
        let result = unsafe { libc::ioctl(self.fd.as_raw_fd(), request::RUN.into(), 0) };
        if result < 0 { Err(last()) } else { Ok(()) }
    }

    fn page(&self) -> &Mapping {
        &self.page
    }

    fn bind(&self) {
        self.thread.store(signal::this_thread(), Ordering::SeqCst);
    }

    fn unbind(&self) {
        self.thread.store(NO_THREAD, Ordering::SeqCst);
    }

    fn kick(&self) {
        // First what keeps the thread from entering, then what makes it leave.
        self.page.write(run::IMMEDIATE_EXIT, &[1]);
        match self.thread.load(Ordering::SeqCst) {
            NO_THREAD => {}
            thread => signal::send(thread),
        }
    }
}
