//! A kernel that answers from a script, and remembers what it was asked: the state machine, resumption and errors are tested
//! against it, without /dev/kvm.
//!
//! It keeps KVM's rules of order (no vCPU before KVM_TDX_INIT_VM, no pages into memory that is not private, …) and answers
//! what KVM answers where they are broken.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tdvisor_base::{Gpa, PAGE_SIZE};
use zerocopy::FromZeros;

use super::odd::{OddVcpuRequest, OddVmRequest};
use super::{Added, Capability, GuestMemfd, Kernel, KernelVcpu, KernelVm, Listed, Msi, Pages, SlotPlace};
use crate::error::{Errno, Refusal};
use crate::uapi::{ATTRIBUTE_PRIVATE, CapabilitiesHeader, CpuidEntry, InitVm, MEASURE, run};

/// Bytes of a vCPU's page.
const RUN_PAGE: u64 = 4096;

/// One return from KVM_RUN.
#[derive(Clone, Debug)]
pub(crate) struct Return {
    pub(crate) result: Result<(), Errno>,
    pub(crate) reason: u32,
    /// What stands in the page, and where.
    pub(crate) details: Vec<(u64, Vec<u8>)>,
}

impl Return {
    pub(crate) fn exit(reason: u32, details: &[(u64, &[u8])]) -> Self {
        let details = details.iter().map(|(at, bytes)| (*at, bytes.to_vec())).collect();
        Self { result: Ok(()), reason, details }
    }

    pub(crate) fn error(errno: i32) -> Self {
        Self { result: Err(Errno(errno)), reason: 0, details: Vec::new() }
    }
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<String>,
    failures: HashMap<&'static str, VecDeque<i32>>,
    /// What the module says beside the next failure.
    module: u64,
    /// What KVM_RUN gives.
    returns: VecDeque<Return>,
    /// The answers that stood in the page when KVM_RUN was called.
    answers: Vec<[u64; 2]>,
    /// Pages that the next requests to add pages add before they fail.
    added_before_failure: u64,
    initialised: bool,
    initialised_vcpus: u32,
    finalised: bool,
    private: Vec<(u64, u64)>,
    missing: Option<Capability>,
    supported: Vec<CpuidEntry>,
    configurable: Vec<CpuidEntry>,
    measured: u64,
    added: u64,
    contents: Vec<(u64, Vec<u8>)>,
}

impl State {
    /// Notes a request; fails if the script says so.
    fn ask(&mut self, name: &'static str, text: String) -> Result<(), Errno> {
        self.calls.push(if text.is_empty() { name.to_owned() } else { format!("{name} {text}") });
        match self.failures.get_mut(name).and_then(VecDeque::pop_front) {
            Some(errno) => Err(Errno(errno)),
            None => Ok(()),
        }
    }

    fn refuse(&mut self, errno: Errno) -> Refusal {
        Refusal { errno, module: std::mem::take(&mut self.module) }
    }
}

/// The kernel.
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeKernel(Arc<Mutex<State>>);

impl FakeKernel {
    /// A kernel whose module lets leaf 7, leaf 1 and the address width be configured.
    pub(crate) fn usual() -> Self {
        let kernel = Self::default();
        {
            let mut state = kernel.state();
            state.configurable = vec![
                CpuidEntry::new(1, 0, [0, 0x00ff_0000, 0xffff, 0]),
                CpuidEntry::new(7, 0, [0, 0xff, 0, 0]),
                CpuidEntry::new(0x8000_0008, 0, [0x00ff_0000, 0, 0, 0]),
            ];
            state.supported =
                vec![CpuidEntry::new(1, 0, [0, 0x0010_0000, 7, 0]), CpuidEntry::new(7, 0, [0, 3, 0, 0])];
        }
        kernel
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was asked since the last time.
    pub(crate) fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state().calls)
    }

    /// The next requests of this name fail, one after the other.
    pub(crate) fn fail(&self, name: &'static str, errnos: impl IntoIterator<Item = i32>) {
        self.state().failures.entry(name).or_default().extend(errnos);
    }

    /// What the module says beside the next failure of a TDX command.
    pub(crate) fn module_says(&self, status: u64) {
        self.state().module = status;
    }

    /// Requests to add pages that fail add so many before.
    pub(crate) fn add_before_failing(&self, pages: u64) {
        self.state().added_before_failure = pages;
    }

    /// KVM has no such capability.
    pub(crate) fn lacks(&self, capability: Capability) {
        self.state().missing = Some(capability);
    }

    /// What KVM_RUN gives next; when all is given, it gives EINTR.
    pub(crate) fn will_return(&self, returns: impl IntoIterator<Item = Return>) {
        self.state().returns.extend(returns);
    }

    /// Pages added and pages measured.
    pub(crate) fn pages(&self) -> (u64, u64) {
        let state = self.state();
        (state.added, state.measured)
    }

    /// The first bytes of the page that was added there.
    pub(crate) fn contents_at(&self, gpa: u64) -> Option<Vec<u8>> {
        self.state().contents.iter().find(|(at, _)| *at == gpa).map(|(_, bytes)| bytes.clone())
    }

    /// What stood as results (of a hypercall, of a GHCI function) in the page at each KVM_RUN.
    pub(crate) fn answers(&self) -> Vec<[u64; 2]> {
        self.state().answers.clone()
    }
}

impl Kernel for FakeKernel {
    type Vm = FakeVm;

    fn create_vm(&self, _vm_type: u32) -> Result<FakeVm, Errno> {
        self.state().ask("create", String::new())?;
        Ok(FakeVm(self.clone()))
    }

    fn supported_cpuid(&self) -> Result<Vec<CpuidEntry>, Errno> {
        let mut state = self.state();
        state.ask("supported-cpuid", String::new())?;
        Ok(state.supported.clone())
    }
}

/// Memory.
#[derive(Debug)]
pub(crate) struct FakePages {
    bytes: Mutex<Vec<u8>>,
    /// Where discarding is noted, and the address to note it under.
    of: Option<(FakeKernel, Arc<Mutex<u64>>)>,
}

impl FakePages {
    pub(crate) fn new(bytes: u64) -> Self {
        Self { bytes: Mutex::new(vec![0; bytes as usize]), of: None }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages for FakePages {
    fn len(&self) -> u64 {
        self.lock().len() as u64
    }

    fn read(&self, at: u64, out: &mut [u8]) {
        let bytes = self.lock();
        for (index, to) in out.iter_mut().enumerate() {
            *to = bytes.get(at as usize + index).copied().unwrap_or_default();
        }
    }

    fn write(&self, at: u64, data: &[u8]) {
        let mut bytes = self.lock();
        for (index, from) in data.iter().enumerate() {
            if let Some(to) = bytes.get_mut(at as usize + index) {
                *to = *from;
            }
        }
    }

    fn discard(&self, at: u64, count: u64) -> Result<(), Errno> {
        if let Some((kernel, base)) = &self.of {
            let base = *base.lock().unwrap_or_else(PoisonError::into_inner);
            kernel.state().ask("discard", format!("{:#x} +{count:#x}", base + at))?;
        }
        self.lock()[at as usize..(at + count) as usize].fill(0);
        Ok(())
    }
}

/// Private memory.
#[derive(Debug)]
pub(crate) struct FakeMemfd {
    kernel: FakeKernel,
    base: Mutex<u64>,
}

impl GuestMemfd for FakeMemfd {
    fn punch_hole(&self, at: u64, bytes: u64) -> Result<(), Errno> {
        let base = *self.base.lock().unwrap_or_else(PoisonError::into_inner);
        self.kernel.state().ask("punch", format!("{:#x} +{bytes:#x}", base + at))
    }
}

/// A TD.
#[derive(Debug)]
pub(crate) struct FakeVm(FakeKernel);

impl Drop for FakeVm {
    fn drop(&mut self) {
        self.0.state().calls.push("close".to_owned());
    }
}

impl KernelVm for FakeVm {
    type Vcpu = FakeVcpu;
    type Pages = FakePages;
    type GuestMemfd = FakeMemfd;

    fn extension(&self, capability: Capability) -> u32 {
        match capability {
            missing if self.0.state().missing == Some(missing) => 0,
            Capability::MaxVcpus => 4,
            _ => 1,
        }
    }

    fn enable(&self, capability: Capability, argument: u64) -> Result<(), Errno> {
        self.0.state().ask("enable", format!("{capability:?} {argument:#x}"))
    }

    fn tdx_capabilities(&self, room: usize) -> Result<(CapabilitiesHeader, Vec<CpuidEntry>), Errno> {
        let mut state = self.0.state();
        state.ask("capabilities", format!("{room}"))?;
        let header = CapabilitiesHeader {
            supported_attributes: 1 << 28,
            supported_xfam: 3,
            user_call_info_r11: 2,
            ..CapabilitiesHeader::new_zeroed()
        };
        Ok((header, state.configurable.clone()))
    }

    fn init_vm(&self, parameters: InitVm, cpuid: &[CpuidEntry]) -> Result<(), Refusal> {
        let mut state = self.0.state();
        let text = format!("{:#x} {:#x} {}", parameters.attributes, parameters.xfam, cpuid.len());
        if let Err(errno) = state.ask("init-vm", text) {
            return Err(state.refuse(errno));
        }
        if state.initialised {
            return Err(Errno(libc::EINVAL).into());
        }
        state.initialised = true;
        Ok(())
    }

    fn finalize(&self) -> Result<(), Refusal> {
        let mut state = self.0.state();
        if let Err(errno) = state.ask("finalize", String::new()) {
            return Err(state.refuse(errno));
        }
        state.finalised = true;
        Ok(())
    }

    fn map(&self, bytes: u64) -> Result<FakePages, Errno> {
        self.0.state().ask("map", format!("{bytes:#x}"))?;
        Ok(FakePages { of: Some((self.0.clone(), Arc::default())), ..FakePages::new(bytes) })
    }

    fn guest_memfd(&self, bytes: u64) -> Result<FakeMemfd, Errno> {
        self.0.state().ask("memfd", format!("{bytes:#x}"))?;
        Ok(FakeMemfd { kernel: self.0.clone(), base: Mutex::default() })
    }

    fn add_slot(&self, place: SlotPlace, shared: &FakePages, private: &FakeMemfd) -> Result<(), Errno> {
        self.0.state().ask("slot", format!("{} {} +{:#x}", place.slot, place.gpa, place.bytes))?;
        if let Some((_, base)) = &shared.of {
            *base.lock().unwrap_or_else(PoisonError::into_inner) = place.gpa.get();
        }
        *private.base.lock().unwrap_or_else(PoisonError::into_inner) = place.gpa.get();
        Ok(())
    }

    fn set_attributes(&self, gpa: Gpa, bytes: u64, attributes: u64) -> Result<(), Errno> {
        let mut state = self.0.state();
        state.ask("attributes", format!("{:#x} +{bytes:#x} = {attributes:#x}", gpa.get()))?;
        if attributes == ATTRIBUTE_PRIVATE {
            state.private.push((gpa.get(), gpa.get() + bytes));
        }
        Ok(())
    }

    fn signal_msi(&self, msi: Msi) -> Result<(), Errno> {
        let text = format!("{:#x}:{:#x} {:#x}", msi.address_high, msi.address_low, msi.data);
        self.0.state().ask("msi", text)
    }

    fn odd(&self, request: OddVmRequest) -> Result<(), Errno> {
        self.0.state().ask("odd", format!("{request:?}")).and(Err(Errno(libc::EINVAL)))
    }

    fn create_vcpu(&self, index: u32) -> Result<FakeVcpu, Errno> {
        let mut state = self.0.state();
        state.ask("vcpu", format!("{index}"))?;
        if !state.initialised {
            return Err(Errno(libc::EIO));
        }
        Ok(FakeVcpu { kernel: self.0.clone(), page: FakePages::new(RUN_PAGE) })
    }
}

/// A vCPU.
#[derive(Debug)]
pub(crate) struct FakeVcpu {
    kernel: FakeKernel,
    page: FakePages,
}

impl KernelVcpu for FakeVcpu {
    type Pages = FakePages;

    fn cpuid_with_room(&self, _room: usize) -> Listed {
        let asked = self.kernel.state().ask("get-cpuid", String::new());
        let all = [CpuidEntry::new(0, 0, [0x21, 0, 0, 0]), CpuidEntry::new(7, 0, [0, 1, 0, 0])];
        let entries = if asked.is_ok() { all.to_vec() } else { Vec::new() };
        Listed { count: entries.len(), entries, result: asked.map_err(Refusal::from) }
    }

    fn odd(&self, request: OddVcpuRequest) -> Result<(), Errno> {
        self.kernel.state().ask("odd", format!("{request:?}")).and(Err(Errno(libc::EINVAL)))
    }

    fn set_cpuid(&self, entries: &[CpuidEntry]) -> Result<(), Errno> {
        self.kernel.state().ask("set-cpuid", format!("{}", entries.len()))
    }

    fn init(&self, entry: u64) -> Result<(), Refusal> {
        let mut state = self.kernel.state();
        if let Err(errno) = state.ask("init-vcpu", format!("{entry:#x}")) {
            return Err(state.refuse(errno));
        }
        state.initialised_vcpus += 1;
        Ok(())
    }

    fn add_pages(&self, contents: &FakePages, from: u64, to: Gpa, pages: u64, flags: u32) -> Added {
        let mut state = self.kernel.state();
        let result = state.ask("add", format!("{:#x} {pages} {flags}", to.get()));
        let end = to.get() + pages * PAGE_SIZE;
        let is_private = state.private.iter().any(|(start, last)| *start <= to.get() && end <= *last);
        if state.finalised || state.initialised_vcpus == 0 || !is_private {
            return Added { pages: 0, result: Err(Errno(libc::EINVAL).into()) };
        }
        let added = if result.is_ok() { pages } else { state.added_before_failure.min(pages) };
        for page in 0..added {
            let mut bytes = vec![0; PAGE_SIZE as usize];
            contents.read(from + page * PAGE_SIZE, &mut bytes);
            state.contents.push((to.get() + page * PAGE_SIZE, bytes));
        }
        state.added += added;
        state.measured += if flags & MEASURE != 0 { added } else { 0 };
        let result = result.map_err(|errno| state.refuse(errno));
        Added { pages: added, result }
    }

    fn pre_fault(&self, gpa: Gpa, bytes: u64) -> Result<(), Errno> {
        self.kernel.state().ask("pre-fault", format!("{:#x} +{bytes:#x}", gpa.get()))
    }

    fn run(&self) -> Result<(), Errno> {
        let result = |at| {
            let mut bytes = [0; 8];
            self.page.read(at, &mut bytes);
            u64::from_le_bytes(bytes)
        };
        let answers = [result(run::hypercall::RESULT), result(run::tdx::RESULT)];
        let mut state = self.kernel.state();
        state.answers.push(answers);
        let mut immediate = [0];
        self.page.read(run::IMMEDIATE_EXIT, &mut immediate);
        if immediate[0] != 0 || !state.finalised {
            return Err(Errno(if state.finalised { libc::EINTR } else { libc::EINVAL }));
        }
        let Some(next) = state.returns.pop_front() else { return Err(Errno(libc::EINTR)) };
        self.page.write(run::EXIT_REASON, &next.reason.to_le_bytes());
        for (at, bytes) in &next.details {
            self.page.write(*at, bytes);
        }
        next.result
    }

    fn page(&self) -> &FakePages {
        &self.page
    }

    fn bind(&self) {}

    fn unbind(&self) {}

    fn kick(&self) {
        self.page.write(run::IMMEDIATE_EXIT, &[1]);
    }
}
