//! From an image to a TD that can run.
//!
//! # Protocol
//! KVM's rules of order: capabilities before KVM_TDX_INIT_VM; the interrupt controller before vCPUs; memory private before pages
//! are added to it; one vCPU initialised before that; all of it before KVM_TDX_FINALIZE_VM. Dropping what was made so far
//! takes the TD down, whatever step failed: the kernel reclaims its pages and its key id when the last descriptor is closed.
//!
//! Pages are added in the order of the image's plan, and KVM measures each right after it was added: the interleaved
//! loader, whose MRTD [`td_image::mrtd`] predicts.

use td_image::td_hob::{self, MemoryRange, qemu_ram};
use td_image::tdvf::{HostContents, LoaderModel, SectionPlan, TdvfImage};
use tdvisor_base::sync::pause;
use tdvisor_base::{Gpa, PAGE_SIZE, to_usize};
use tdvisor_vm::topology::Topology;
use tdx_module_iface::td_params::attributes;
use x86_arch::xcr0;
use zerocopy::FromZeros;

use crate::capabilities::{self, Capabilities};
use crate::cpuid::{Dropped, Policy};
use crate::error::{Asked, BuildError, Error, Refusal};
use crate::kernel::{Capability, Kernel, KernelVcpu, KernelVm, Pages};
use crate::memory::GuestMemory;
use crate::uapi::{HYPERCALL_MAP_GPA_RANGE, InitVm, MEASURE};

/// Extended processor state that a TD gets where KVM and the module support it: x87, SSE, AVX and the protection keys' PKRU.
const XFAM_WANTED: u64 = xcr0::X87 | xcr0::SSE | xcr0::AVX | xcr0::PKRU;
/// Bits of a TD's guest-physical addresses, the SHARED bit included.
pub(crate) const ADDRESS_BITS: u32 = 48;
/// Pins of the I/O APIC, which is a device of ours.
const IO_APIC_PINS: u64 = 24;
/// The period of the local APICs' timers without divider: the 25 MHz crystal of CPUID leaf 15H.
const APIC_BUS_CYCLE_NS: u64 = 40;
/// KVM_X2APIC_API_USE_32BIT_IDS, KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK: ids above 255, and 255 is an id.
const X2APIC_WHOLE_IDS: u64 = 0b11;
/// How often a request is repeated that the module answers "busy".
const PATIENCE: u32 = if cfg!(test) { 100 } else { 2_000 };
/// Pages whose contents are on their way at once.
const PAGES_AT_ONCE: u64 = 256;

/// A TD as it is asked for.
#[derive(Clone, Debug)]
pub struct TdSpec {
    /// Memory, bytes: a multiple of 4 KiB.
    pub memory: u64,
    /// How many vCPUs.
    pub vcpus: u32,
    /// ATTRIBUTES.
    pub attributes: u64,
    /// GUID extensions for the TD HOB: how a caller passes a command to a guest.
    pub hob_extensions: Vec<([u8; 16], Vec<u8>)>,
    /// MRCONFIGID.
    pub config_id: [u8; 48],
    /// MROWNER.
    pub owner: [u8; 48],
    /// MROWNERCONFIG.
    pub owner_config: [u8; 48],
}

impl Default for TdSpec {
    /// One vCPU, 128 MiB and SEPT_VE_DISABLE, without which a host could inject #VE at will into a guest that trusts its
    /// memory.
    fn default() -> Self {
        Self {
            memory: 128 << 20,
            vcpus: 1,
            attributes: attributes::SEPT_VE_DISABLE,
            hob_extensions: Vec::new(),
            config_id: [0; 48],
            owner: [0; 48],
            owner_config: [0; 48],
        }
    }
}

/// What was made.
pub(crate) struct Built<V: KernelVm> {
    pub(crate) vcpus: Vec<V::Vcpu>,
    pub(crate) memory: GuestMemory<V>,
    pub(crate) vm: V,
    pub(crate) capabilities: Capabilities,
    pub(crate) dropped: Vec<Dropped>,
}

/// Builds the TD; `progress` hears how many pages were added so far.
pub(crate) fn build<K: Kernel>(
    kernel: &K,
    spec: &TdSpec,
    image: &[u8],
    progress: impl FnMut(u64),
) -> Result<Built<K::Vm>, BuildError> {
    if spec.memory == 0 || !spec.memory.is_multiple_of(PAGE_SIZE) {
        return Err(BuildError::OddMemory(spec.memory));
    }
    let image = TdvfImage::parse(image)?;
    let ram: [MemoryRange; 2] = qemu_ram(spec.memory);
    let ranges = image.memory(&ram)?;
    let hob = td_hob::with_extensions(&image, &ram, &spec.hob_extensions)?;

    let vm = kernel.create_td().map_err(|errno| Error::new(Asked::CreateTd, errno))?;
    capabilities::check(&vm)?;
    let limit = vm.extension(Capability::MaxVcpus);
    if spec.vcpus == 0 || spec.vcpus > limit {
        return Err(BuildError::Vcpus { asked: spec.vcpus, limit });
    }
    let capabilities = Capabilities::of(&vm)?;
    if spec.attributes & !capabilities.attributes != 0 {
        let refused = spec.attributes & !capabilities.attributes;
        return Err(BuildError::Attributes { refused, supported: capabilities.attributes });
    }
    let supported = kernel.supported_cpuid().map_err(|errno| Error::new(Asked::SupportedCpuid, errno))?;
    let policy = Policy {
        supported: &supported,
        configurable: &capabilities.cpuid,
        topology: Topology { vcpus: spec.vcpus },
        address_bits: ADDRESS_BITS,
    };
    enable(&vm)?;
    let parameters = InitVm {
        attributes: spec.attributes,
        xfam: XFAM_WANTED & capabilities.xfam,
        mrconfigid: spec.config_id,
        mrowner: spec.owner,
        mrownerconfig: spec.owner_config,
        ..InitVm::new_zeroed()
    };
    let cpuid = policy.for_init_vm()?;
    patiently(Asked::InitVm, || vm.init_vm(parameters, &cpuid))?;

    let memory = GuestMemory::new(&vm, &ranges)?;
    let entry = hob.as_ref().map_or(0, |(gpa, _)| gpa.get());
    let mut dropped = Vec::new();
    let mut vcpus = Vec::new();
    for index in 0..spec.vcpus {
        let vcpu = vm.create_vcpu(index).map_err(|errno| Error::new(Asked::CreateVcpu(index), errno))?;
        let of_td = vcpu.cpuid().map_err(|refusal| Error::refused(Asked::GetCpuid(index), refusal))?;
        vcpu.set_cpuid(&policy.for_vcpu(&of_td, index))
            .map_err(|errno| Error::new(Asked::SetCpuid(index), errno))?;
        patiently(Asked::InitVcpu(index), || vcpu.init(entry))?;
        if index == 0 {
            dropped = policy.dropped(&of_td);
        }
        vcpus.push(vcpu);
    }
    if let Some(first) = vcpus.first() {
        let contents =
            HostContents { td_hob: hob.as_ref().map(|(_, list)| &list[..]), ..HostContents::default() };
        add_pages(&vm, first, &image, contents, progress)?;
    }
    patiently(Asked::Finalize, || vm.finalize())?;
    Ok(Built { vcpus, memory, vm, capabilities, dropped })
}

fn enable<V: KernelVm>(vm: &V) -> Result<(), Error> {
    for (capability, argument, name) in [
        (Capability::ExitHypercall, 1 << HYPERCALL_MAP_GPA_RANGE, "exits for MapGPA"),
        (Capability::SplitIrqchip, IO_APIC_PINS, "local APICs in the kernel"),
        (Capability::X2ApicApi, X2APIC_WHOLE_IDS, "x2APIC ids above 255"),
        (Capability::ApicBusCycles, APIC_BUS_CYCLE_NS, "local APIC timers of 25 MHz"),
    ] {
        vm.enable(capability, argument).map_err(|errno| Error::new(Asked::Enable(name), errno))?;
    }
    Ok(())
}

/// Repeats a request that the kernel or the module answers "again", within a bound. BUSY from KVM_TDX_INIT_VM is the cgroup's
/// limit, and no reason to ask again.
fn patiently(asked: Asked, mut request: impl FnMut() -> Result<(), Refusal>) -> Result<(), Error> {
    let mut attempt = 0;
    loop {
        let Err(refusal) = request() else { return Ok(()) };
        let is_limit = asked == Asked::InitVm && refusal.errno.0 == libc::EBUSY;
        if attempt == PATIENCE || is_limit || !refusal.errno.is_transient() {
            return Err(Error::refused(asked, refusal));
        }
        pause(attempt);
        attempt += 1;
    }
}

/// Adds and measures everything that the image's sections ask for.
fn add_pages<V: KernelVm>(
    vm: &V,
    vcpu: &V::Vcpu,
    image: &TdvfImage<'_>,
    contents: HostContents<'_>,
    mut progress: impl FnMut(u64),
) -> Result<(), BuildError> {
    let bytes = PAGES_AT_ONCE * PAGE_SIZE;
    let staging = vm.map(bytes).map_err(|errno| Error::new(Asked::Map { bytes }, errno))?;
    let plan = image.build_plan(LoaderModel::INTERLEAVED, contents)?;
    let mut added = 0;
    for section in plan.sections() {
        let flags = if section.measured { MEASURE } else { 0 };
        let pages = section.section.pages();
        let mut done = 0;
        while done < pages {
            let count = (pages - done).min(PAGES_AT_ONCE);
            stage(&staging, &section, done, count);
            let to = section.section.gpa.wrapping_add(done * PAGE_SIZE);
            add(vcpu, &staging, to, count, flags)?;
            done += count;
            added += count;
            progress(added);
        }
    }
    Ok(())
}

/// Puts the contents of `count` pages of a section, from the page `first` on, where the kernel reads them.
fn stage(staging: &impl Pages, section: &SectionPlan<'_>, first: u64, count: u64) {
    let bytes = to_usize(count * PAGE_SIZE);
    let start = usize::try_from(first * PAGE_SIZE).unwrap_or(usize::MAX);
    let given = section.contents.get(start..).unwrap_or_default();
    let given = given.get(..bytes).unwrap_or(given);
    staging.write(0, given);
    staging.write(given.len() as u64, &vec![0; bytes - given.len()]);
}

/// Has the kernel add pages, and goes on where it stopped for a signal or a busy module.
fn add<U: KernelVcpu>(vcpu: &U, staging: &U::Pages, to: Gpa, pages: u64, flags: u32) -> Result<(), Error> {
    let (mut done, mut stalled) = (0, 0);
    while done < pages {
        let from = done * PAGE_SIZE;
        let gpa = to.wrapping_add(from);
        let added = vcpu.add_pages(staging, from, gpa, pages - done, flags);
        done += added.pages.min(pages - done);
        let Err(refusal) = added.result else {
            // Success without progress would be asked for ever.
            stalled = if added.pages == 0 { stalled + 1 } else { 0 };
            if stalled > PATIENCE {
                return Err(Error::new(
                    Asked::AddPages { gpa, pages: pages - done },
                    crate::Errno(libc::EIO),
                ));
            }
            continue;
        };
        stalled = if added.pages == 0 { stalled + 1 } else { 0 };
        if !refusal.errno.is_transient() || stalled > PATIENCE {
            let gpa = to.wrapping_add(done * PAGE_SIZE);
            return Err(Error::refused(Asked::AddPages { gpa, pages: pages - done }, refusal));
        }
        pause(stalled);
    }
    Ok(())
}
