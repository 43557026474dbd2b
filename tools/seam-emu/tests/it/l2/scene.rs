//! A TD with one L2 VM, played as a script: each act is what its processor does next, in whichever VM it is.

use seam_emu::features::FeatureSet;
use seam_emu::guest::GuestRegisters;
use seam_emu::testing::{Host, SCRATCH, Td};
use seam_emu::{GuestEnv, GuestState, MachineConfig, ScriptedGuest, Vm, VmExit};
use tdvisor_base::Gpa;
use tdx_module_iface::exit::{ExitReason, ExitReasonField};
use tdx_module_iface::metadata::{Field, vmcs, vp};
use tdx_module_iface::td_params::{TdParams, eptp};
use tdx_module_iface::{Gprs, Status, StatusCode, TdgLeaf, TdhLeaf};
use x86_arch::Gpr;
use zerocopy::FromZeros;

/// Where L1 keeps the state of its VM.
pub const STATE: u64 = 0x8000_0000;
/// The virtual APIC of the VM.
pub const APIC: u64 = 0x8000_1000;
/// A page of L1's for whatever a test wants.
pub const PAGE: u64 = 0x8000_2000;
/// The L2 VM, in flags.
pub const VM: u64 = 1 << 52;
/// The fields of the VM's VMCS.
const VMCS_OF_VM: u64 = 0x24 << 56;
/// RFLAGS in the state of a VM.
const RFLAGS: u64 = 0x80;
const RIP: u64 = 0x88;
/// Interrupt status in the state of a VM.
const INTERRUPT_STATUS: u64 = 0x98;
const INTERRUPTS_ON: u64 = 0x202;

/// A field of the VM's VMCS, for L1.
pub const fn of_vm(own: &Field) -> u64 {
    own.id.0 | VMCS_OF_VM
}

/// What the processor does next.
pub type Act = Box<dyn FnMut(&mut GuestState, &GuestEnv<'_>) -> VmExit>;

/// What there is before an act.
pub struct Seen {
    pub vm: Vm,
    pub state: GuestState,
}

impl Seen {
    /// Why L1 has the processor back.
    pub fn reason(&self) -> ExitReason {
        assert_eq!(self.vm, Vm::L1, "the VM goes on");
        ExitReasonField(self.state.regs[Gpr::Rax] as u32).basic()
    }

    /// What a TDCALL answered.
    pub fn status(&self) -> StatusCode {
        Status::from_raw(self.state.regs[Gpr::Rax]).code()
    }
}

/// A machine with such a TD.
pub struct Scene {
    pub host: Host,
    pub td: Td,
}

impl Scene {
    /// L1 has a page for the state of its VM and one for its APIC, and has told the module.
    pub fn new() -> Self {
        Self::late(0)
    }

    /// That, on a machine that has been up for this long when the TD begins.
    pub fn late(ticks: u64) -> Self {
        Self::untold(ticks).told(vec![l1_writes(of_vm(&vmcs::VIRTUAL_APIC_ADDRESS), APIC)])
    }

    /// A TD whose L1 has told nothing yet.
    fn untold(ticks: u64) -> Self {
        let config = MachineConfig { features: FeatureSet::Partitioned, ..MachineConfig::small() };
        let host = Host::with(config);
        host.machine.advance_tsc(ticks);
        let mut params = TdParams::new_zeroed();
        params.xfam = 3;
        params.max_vcpus = 1;
        params.num_l2_vms = 1;
        params.eptp_controls = eptp::LEVELS_4;
        params.tsc_frequency = 100;
        let (mut td, status) = host.td_with(&params);
        assert!(status.is_success(), "TDH.MNG.INIT: {status}");
        host.add_vcpu(&mut td, 0);
        host.tables(&td, STATE, 0);
        for gpa in [STATE, APIC, PAGE] {
            let page = host.page();
            host.write(SCRATCH, &[0; 4096]);
            let gprs = Gprs { rcx: gpa, rdx: td.tdr, r8: page, r9: SCRATCH, ..Gprs::ZERO };
            host.ok(0, TdhLeaf::MEM_PAGE_ADD, gprs);
        }
        host.ok(0, TdhLeaf::MR_FINALIZE, Gprs { rcx: td.tdr, ..Gprs::ZERO });
        Self { host, td }
    }

    /// L1 leaves these MSRs to the module.
    pub fn leaving_msrs(self, indices: &[u32]) -> Self {
        let words = indices.iter().flat_map(|index| bitmap_words(*index));
        let acts: Vec<_> =
            words.map(|word| l1_writes(vp::L2_MSR_BITMAPS_1.element_id(word).unwrap().0, 0)).collect();
        self.told(acts)
    }

    /// L1 leaves CR0 to the module.
    pub fn leaving_cr0(self) -> Self {
        self.told(vec![l1_writes(of_vm(&vmcs::CR0_GUEST_HOST_MASK), 0)])
    }

    /// L1 tells the module something that it must take.
    pub fn told(self, acts: Vec<Act>) -> Self {
        let seen = self.play(acts);
        for after in &seen[1..] {
            assert_eq!(after.status(), StatusCode::SUCCESS);
        }
        self
    }

    /// Runs the vCPU through these acts, then interrupts it: what there was before each act, and after the last.
    pub fn play(&self, acts: impl IntoIterator<Item = Act>) -> Vec<Seen> {
        let (seen, gprs) = self.play_to_exit(acts);
        assert_eq!(gprs.rax, u64::from(ExitReason::EXTERNAL_INTERRUPT.0), "it left early");
        seen
    }

    /// Runs the vCPU through these acts until it leaves the TD; with the registers that the host got.
    pub fn play_to_exit(&self, acts: impl IntoIterator<Item = Act>) -> (Vec<Seen>, Gprs) {
        let mut acts = acts.into_iter();
        let mut seen = Vec::new();
        let mut guest = ScriptedGuest(|state: &mut GuestState, env: &GuestEnv<'_>| {
            seen.push(Seen { vm: env.vm(), state: state.clone() });
            state.event = None;
            if env.vm() == Vm::L1 {
                state.enter_64_bit_mode();
            }
            match acts.next() {
                Some(mut act) => act(state, env),
                None => VmExit::plain(ExitReason::EXTERNAL_INTERRUPT),
            }
        });
        let mut gprs = Gprs { rax: u64::from(TdhLeaf::VP_ENTER.0), rcx: self.td.vcpus[0], ..Gprs::ZERO };
        self.host.machine.lp(0).unwrap().seamcall_with(&mut gprs, &mut guest).unwrap();
        (seen, gprs)
    }
}

/// The words of MSR bitmaps that have an MSR's bits, for reading and for writing.
fn bitmap_words(index: u32) -> [u32; 2] {
    const WORDS_A_RANGE: u32 = 128;
    let range = if index >> 31 == 0 { 0 } else { WORDS_A_RANGE };
    let word = range + (index & 0x1fff) / 64;
    [word, word + 2 * WORDS_A_RANGE]
}

/// L1 calls the module.
pub fn tdcall(leaf: TdgLeaf, gprs: Gprs) -> Act {
    Box::new(move |state, _| {
        state.set_gprs(Gprs { rax: u64::from(leaf.0), ..gprs });
        VmExit::tdcall()
    })
}

/// L1 writes a whole field of its VM.
pub fn l1_writes(field: u64, value: u64) -> Act {
    tdcall(TdgLeaf::VP_WR, Gprs { rdx: field, r8: value, r9: u64::MAX, ..Gprs::ZERO })
}

/// L1 sets bits of a field of its VM.
pub fn l1_sets(field: u64, bits: u64) -> Act {
    tdcall(TdgLeaf::VP_WR, Gprs { rdx: field, r8: bits, r9: bits, ..Gprs::ZERO })
}

/// L1 writes its memory, and executes something that changes nothing.
pub fn l1_stores(at: u64, bytes: impl Into<Vec<u8>>) -> Act {
    let bytes = bytes.into();
    Box::new(move |state, env| {
        env.write(Gpa::new(at), &bytes).unwrap();
        state.set_gprs(Gprs { rax: u64::from(TdgLeaf::VP_INFO.0), ..Gprs::ZERO });
        VmExit::tdcall()
    })
}

/// L1 enters its VM, which takes interrupts.
pub fn l1_enters() -> Act {
    l1_enters_with(0)
}

/// L1 enters its VM with this interrupt status.
pub fn l1_enters_with(interrupt_status: u16) -> Act {
    Box::new(move |state, env| {
        env.write(Gpa::new(STATE + RFLAGS), &INTERRUPTS_ON.to_le_bytes()).unwrap();
        env.write(Gpa::new(STATE + RIP), &0x1000u64.to_le_bytes()).unwrap();
        env.write(Gpa::new(STATE + INTERRUPT_STATUS), &interrupt_status.to_le_bytes()).unwrap();
        let gprs = Gprs { rax: u64::from(TdgLeaf::VP_ENTER.0), rcx: VM, rdx: STATE, ..Gprs::ZERO };
        state.set_gprs(gprs);
        VmExit::tdcall()
    })
}

/// The processor leaves the VM that it is in.
pub fn exits(exit: VmExit) -> Act {
    Box::new(move |_, _| exit)
}

/// RDMSR.
pub fn reads_msr(index: u32) -> Act {
    Box::new(move |state, _| {
        state.regs[Gpr::Rcx] = index.into();
        VmExit::instruction(ExitReason::RDMSR, 2, 0)
    })
}

/// WRMSR.
pub fn writes_msr(index: u32, value: u64) -> Act {
    Box::new(move |state, _| {
        state.regs[Gpr::Rcx] = index.into();
        state.regs[Gpr::Rax] = value & 0xffff_ffff;
        state.regs[Gpr::Rdx] = value >> 32;
        VmExit::instruction(ExitReason::WRMSR, 2, 0)
    })
}

/// MOV to a control register, from RAX.
pub fn writes_cr(number: u64, value: u64) -> Act {
    Box::new(move |state, _| {
        state.regs[Gpr::Rax] = value;
        VmExit::instruction(ExitReason::CR_ACCESS, 3, number)
    })
}
