//! A small host for tests: brings a module up, builds TDs, and issues raw calls, so that a test sees the exact status.
//!
//! A host that knows its module goes through typed calls; a test of the module, or of what a host does wrong, wants
//! registers. Addresses are therefore plain numbers here, as in registers; pages are handed out in order and never
//! taken back. Every method panics where a call fails that must succeed: it is for tests.
//!
//! ```
//! use seam_emu::guest::ExitReason;
//! use seam_emu::testing::{Host, code, mem};
//! use tdx_module_iface::{StatusCode, TdhLeaf};
//!
//! let host = Host::ready();
//! let td = host.td(1);
//! host.tables(&td, 0x8000_0000, 0);
//! let page = host.aug(&td, 0x8000_0000);
//!
//! // The guest accepts its page and is then interrupted.
//! let exit = host.accept(0, td.vcpus[0], 0x8000_0000);
//! assert_eq!(exit.rax, u64::from(ExitReason::EXTERNAL_INTERRUPT.0));
//!
//! // The page is taken by now.
//! let again = host.call(0, TdhLeaf::MEM_PAGE_AUG, mem(&td, 0x8000_0000, 0, page));
//! assert_ne!(code(&again), StatusCode::SUCCESS);
//! ```

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use tdvisor_base::Hpa;
use tdx_module_iface::exit::ExitReason;
use tdx_module_iface::td_params::{TdParams, eptp};
use tdx_module_iface::{Gprs, SeamCall, Status, StatusCode, TdgLeaf, TdhLeaf};
use zerocopy::{FromZeros, IntoBytes};

use crate::guest::GuestRegisters;
use crate::{EngineKind, GuestEnv, GuestState, Machine, MachineConfig, ModuleProfile, ScriptedGuest, VmExit};

/// Where the TDMR begins: it is the second gibibyte, and its PAMT lies behind it.
pub const TDMR: u64 = 1 << 30;
const PAMT_4K: u64 = 0x8000_0000;
const PAMT_2M: u64 = 0x8100_0000;
const PAMT_1G: u64 = 0x8110_0000;
/// Where the host puts structures that it passes to the module.
pub const SCRATCH: u64 = 0x10_0000;
const GLOBAL_HKID: u64 = 32;

/// Names the engine of [`engine`].
const ENGINE: &str = "X86_EMU_ENGINE";

/// The engine that tests run their guests' instructions with: the one that `X86_EMU_ENGINE` names, the interpreter if it names none.
/// What a test expects is the same with each.
pub fn engine() -> EngineKind {
    std::env::var(ENGINE).map_or(EngineKind::Interpreter, |name| {
        name.parse().unwrap_or_else(|unknown| panic!("{ENGINE}={name}: {unknown}"))
    })
}

/// A machine with its module up.
pub struct Host {
    /// The machine, for what this host has no method for.
    pub machine: Machine,
    next_page: AtomicU64,
    next_large: AtomicU64,
    next_hkid: AtomicU64,
}

/// A TD, by its control pages.
#[derive(Clone, Debug)]
pub struct Td {
    /// The TDR page.
    pub tdr: u64,
    /// The key id.
    pub hkid: u64,
    /// The TDVPR page of each vCPU.
    pub vcpus: Vec<u64>,
    /// The TDCX pages.
    pub tdcx: Vec<u64>,
    /// The TDVPX pages of all vCPUs.
    pub vcpu_pages: Vec<u64>,
    /// How many L2 VMs it has.
    pub l2_vms: u8,
}

impl Host {
    /// The module of release 1.5 on a small machine, ready for TDs.
    #[must_use]
    pub fn ready() -> Self {
        Self::with(MachineConfig::small())
    }

    /// A module on this machine, ready for TDs.
    #[must_use]
    pub fn with(config: MachineConfig) -> Self {
        Self::bring_up(config, GLOBAL_HKID)
    }

    /// A 2.0 module on a small machine, whose 4 KiB PAMT entries exist on demand.
    #[must_use]
    pub fn with_dynamic_pamt() -> Self {
        Self::with_dynamic_pamt_on(MachineConfig { profile: ModuleProfile::V2_0, ..MachineConfig::small() })
    }

    /// A module on this machine, whose 4 KiB PAMT entries exist on demand.
    #[must_use]
    pub fn with_dynamic_pamt_on(config: MachineConfig) -> Self {
        Self::bring_up(config, GLOBAL_HKID | 1 << 16)
    }

    /// A machine whose module nobody has initialised.
    #[must_use]
    pub fn at_power_on(config: MachineConfig) -> Self {
        Self {
            machine: Machine::new(config),
            next_page: AtomicU64::new(TDMR),
            next_large: AtomicU64::new(TDMR + (1 << 29)),
            next_hkid: AtomicU64::new(GLOBAL_HKID + 1),
        }
    }

    fn bring_up(config: MachineConfig, sys_config_r8: u64) -> Self {
        let host = Self::at_power_on(config);
        host.ok(0, TdhLeaf::SYS_INIT, Gprs::ZERO);
        for lp in 0..host.machine.num_lps() {
            host.ok(lp, TdhLeaf::SYS_LP_INIT, Gprs::ZERO);
        }
        let info = [TDMR, 1 << 30, PAMT_1G, 0x1000, PAMT_2M, 0x2000, PAMT_4K, 0x40_0000];
        let bytes: Vec<u8> = info.iter().flat_map(|word| word.to_le_bytes()).collect();
        host.write(SCRATCH + 0x1000, &bytes);
        host.write(SCRATCH, &(SCRATCH + 0x1000).to_le_bytes());
        host.ok(0, TdhLeaf::SYS_CONFIG, Gprs { rcx: SCRATCH, rdx: 1, r8: sys_config_r8, ..Gprs::ZERO });
        let mut packages: Vec<_> = host.machine.config().lp_packages.iter().enumerate().collect();
        packages.dedup_by_key(|(_, package)| **package);
        for (lp, _) in packages {
            host.ok(lp, TdhLeaf::SYS_KEY_CONFIG, Gprs::ZERO);
        }
        while host.ok(0, TdhLeaf::SYS_TDMR_INIT, Gprs { rcx: TDMR, ..Gprs::ZERO }).rdx < TDMR * 2 {}
        host
    }

    /// Writes what the host hands to the module.
    pub fn write(&self, at: u64, bytes: &[u8]) {
        self.machine.host_write(Hpa::new(at), bytes).expect("memory of the host");
    }

    /// Issues a call on a processor and gives all registers back.
    pub fn call(&self, lp: usize, leaf: TdhLeaf, mut gprs: Gprs) -> Gprs {
        gprs.rax = u64::from(leaf.0);
        self.machine.lp(lp).expect("a processor").seamcall(&mut gprs).expect("a module that answers");
        gprs
    }

    /// Issues a call on a processor and gives its status back.
    pub fn status(&self, lp: usize, leaf: TdhLeaf, gprs: Gprs) -> Status {
        Status::from_raw(self.call(lp, leaf, gprs).rax)
    }

    /// Issues a call that must succeed, without a warning, and gives all registers back.
    pub fn ok(&self, lp: usize, leaf: TdhLeaf, gprs: Gprs) -> Gprs {
        let out = self.call(lp, leaf, gprs);
        assert_eq!(out.rax, 0, "{leaf} with {gprs:?}: {:?}", Status::from_raw(out.rax));
        out
    }

    /// A free 4 KiB page of the TDMR.
    pub fn page(&self) -> u64 {
        self.next_page.fetch_add(0x1000, Ordering::Relaxed)
    }

    /// A free 2 MiB page of the TDMR.
    pub fn large_page(&self) -> u64 {
        self.next_large.fetch_add(0x20_0000, Ordering::Relaxed)
    }

    /// A TD that may run, with this many vCPUs on processors 0, 1, ..., and no memory.
    pub fn td(&self, vcpus: usize) -> Td {
        let td = self.td_being_built(vcpus, 0);
        self.ok(0, TdhLeaf::MR_FINALIZE, Gprs { rcx: td.tdr, ..Gprs::ZERO });
        td
    }

    /// A TD with these ATTRIBUTES before TDH.MR.FINALIZE.
    pub fn td_being_built(&self, vcpus: usize, attributes: u64) -> Td {
        let mut params = TdParams::new_zeroed();
        params.attributes = attributes;
        params.xfam = 3;
        params.max_vcpus = 8;
        params.eptp_controls = eptp::LEVELS_4;
        params.tsc_frequency = 100;
        let (mut td, status) = self.td_with(&params);
        assert!(status.is_success(), "TDH.MNG.INIT: {status}");
        for lp in 0..vcpus {
            self.add_vcpu(&mut td, lp);
        }
        td
    }

    /// A TD with its control pages, and what TDH.MNG.INIT said to these parameters.
    pub fn td_with(&self, params: &TdParams) -> (Td, Status) {
        let tdr = self.page();
        let hkid = self.next_hkid.fetch_add(1, Ordering::Relaxed);
        self.ok(0, TdhLeaf::MNG_CREATE, Gprs { rcx: tdr, rdx: hkid, ..Gprs::ZERO });
        let mut packages: Vec<_> = self.machine.config().lp_packages.iter().enumerate().collect();
        packages.dedup_by_key(|(_, package)| **package);
        for (lp, _) in packages {
            self.ok(lp, TdhLeaf::MNG_KEY_CONFIG, Gprs { rcx: tdr, ..Gprs::ZERO });
        }
        let tdcx: Vec<_> = (0..6 + params.num_l2_vms).map(|_| self.page()).collect();
        for page in &tdcx {
            self.ok(0, TdhLeaf::MNG_ADDCX, Gprs { rcx: *page, rdx: tdr, ..Gprs::ZERO });
        }
        self.write(SCRATCH, params.as_bytes());
        let status = self.status(0, TdhLeaf::MNG_INIT, Gprs { rcx: tdr, rdx: SCRATCH, ..Gprs::ZERO });
        let l2_vms = params.num_l2_vms;
        (Td { tdr, hkid, vcpus: Vec::new(), tdcx, vcpu_pages: Vec::new(), l2_vms }, status)
    }

    /// Gives the TD a vCPU with its pages, before TDH.VP.INIT; its TDVPR.
    pub fn create_vcpu(&self, td: &mut Td) -> u64 {
        let tdvpr = self.page();
        self.ok(0, TdhLeaf::VP_CREATE, Gprs { rcx: tdvpr, rdx: td.tdr, ..Gprs::ZERO });
        for _ in 0..5 + 3 * td.l2_vms {
            let page = self.page();
            self.ok(0, TdhLeaf::VP_ADDCX, Gprs { rcx: page, rdx: tdvpr, ..Gprs::ZERO });
            td.vcpu_pages.push(page);
        }
        td.vcpus.push(tdvpr);
        tdvpr
    }

    /// Gives the TD a vCPU that is initialised on a processor.
    pub fn add_vcpu(&self, td: &mut Td, lp: usize) {
        let tdvpr = self.create_vcpu(td);
        self.ok(lp, TdhLeaf::VP_INIT, Gprs { rcx: tdvpr, rdx: 0x1234, ..Gprs::ZERO });
    }

    /// Adds the Secure-EPT pages that are missing down to the entry of `level` for `gpa`; the pages that it took.
    pub fn tables(&self, td: &Td, gpa: u64, level: u64) -> Vec<u64> {
        let mut pages = Vec::new();
        for at in ((level + 1)..=3).rev() {
            let aligned = gpa & !((1u64 << (12 + 9 * at)) - 1);
            let page = self.page();
            let gprs = Gprs { rcx: aligned | at, rdx: td.tdr, r8: page, ..Gprs::ZERO };
            if self.status(0, TdhLeaf::MEM_SEPT_ADD, gprs).is_success() {
                pages.push(page);
            }
        }
        pages
    }

    /// Maps a pending 4 KiB page (TDH.MEM.PAGE.AUG); the page.
    pub fn aug(&self, td: &Td, gpa: u64) -> u64 {
        let page = self.page();
        self.ok(0, TdhLeaf::MEM_PAGE_AUG, mem(td, gpa, 0, page));
        page
    }

    /// Adds a 4 KiB page with these contents (TDH.MEM.PAGE.ADD) to a TD that is being built; the page.
    pub fn add(&self, td: &Td, gpa: u64, contents: &[u8]) -> u64 {
        let page = self.page();
        self.write(SCRATCH, &[0; 4096]);
        self.write(SCRATCH, contents);
        self.ok(0, TdhLeaf::MEM_PAGE_ADD, Gprs { r9: SCRATCH, ..mem(td, gpa, 0, page) });
        page
    }

    /// Runs a vCPU on a guest that does `act` and is then interrupted: what `act` gave, and the registers at the exit.
    pub fn run<R>(&self, lp: usize, tdvpr: u64, act: impl FnOnce(&mut Script<'_, '_>) -> R) -> (R, Gprs) {
        let mut act = Some(act);
        let mut result = None;
        let mut gprs = Gprs { rcx: tdvpr, ..Gprs::ZERO };
        let calls: Calls = Calls::default();
        let mut guest = ScriptedGuest(|state: &mut GuestState, env: &GuestEnv<'_>| {
            state.enter_64_bit_mode();
            if let Some(act) = act.take() {
                let mut script = Script { state, env, calls: &calls };
                result = Some(act(&mut script));
            }
            calls.next(state)
        });
        let lp = self.machine.lp(lp).expect("a processor");
        lp.seamcall_with(&mut gprs, &mut guest).expect("a module that answers");
        (result.expect("the guest ran"), gprs)
    }

    /// Accepts a page in the guest of a vCPU: the registers at the exit that follows.
    pub fn accept(&self, lp: usize, tdvpr: u64, gpa_level: u64) -> Gprs {
        self.run(lp, tdvpr, |script| script.tdcall(TdgLeaf::MEM_PAGE_ACCEPT, gpa_level)).1
    }
}

/// What a memory leaf takes: an entry by address and level, a TD, and a page where the leaf wants one.
#[must_use]
pub fn mem(td: &Td, gpa: u64, level: u64, page: u64) -> Gprs {
    Gprs { rcx: gpa | level, rdx: td.tdr, r8: page, ..Gprs::ZERO }
}

/// TDCALLs that a script wants done, one VM exit each.
#[derive(Default)]
struct Calls {
    queue: RefCell<VecDeque<Gprs>>,
}

impl Calls {
    fn next(&self, state: &mut GuestState) -> VmExit {
        state.set_rip(state.rip().wrapping_add(64));
        match self.queue.borrow_mut().pop_front() {
            Some(gprs) => {
                state.set_gprs(gprs);
                VmExit::tdcall()
            }
            None => VmExit::plain(ExitReason::EXTERNAL_INTERRUPT),
        }
    }
}

/// The inside of a guest.
pub struct Script<'a, 'm> {
    /// The guest's registers.
    pub state: &'a mut GuestState,
    /// The guest's memory, and what else a processor reaches.
    pub env: &'a GuestEnv<'m>,
    calls: &'a Calls,
}

impl Script<'_, '_> {
    /// Asks for a TDCALL with this RCX, to be issued once the script has ended.
    pub fn tdcall(&mut self, leaf: TdgLeaf, rcx: u64) {
        self.tdcall_with(leaf, Gprs { rcx, ..Gprs::ZERO });
    }

    /// Asks for a TDCALL with these registers, to be issued once the script has ended.
    pub fn tdcall_with(&mut self, leaf: TdgLeaf, mut gprs: Gprs) {
        gprs.rax = u64::from(leaf.0);
        self.calls.queue.borrow_mut().push_back(gprs);
    }
}

/// The status of a call without its details.
#[must_use]
pub fn code(gprs: &Gprs) -> StatusCode {
    Status::from_raw(gprs.rax).code()
}
