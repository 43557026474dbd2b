//! A machine whose module is up, and TDs that live in one of its 1 GiB blocks each.

use std::sync::atomic::{AtomicU64, Ordering};

use seam_emu::guest::GuestRegisters;
use seam_emu::{Cmr, GuestEnv, GuestState, Machine, MachineConfig, ScriptedGuest, VmExit};
use tdvisor_base::Hpa;
use tdx_module_iface::exit::ExitReason;
use tdx_module_iface::{Gprs, SeamCall, TdgLeaf, TdhLeaf};
use x86_arch::Gpr;

const GIB: u64 = 1 << 30;
const PAGE: u64 = 4096;
/// Where the module's memory begins: the TDMR, block after block.
const TDMR: u64 = GIB;
/// Where the host puts structures that it passes to the module.
const SCRATCH: u64 = 0x10_0000;
const GLOBAL_HKID: u64 = 32;
/// Guest address of the pages; 1 GiB aligned.
const GPA: u64 = 4 * GIB;
/// Room for a TD's control and table pages; its memory lies behind.
const CONTROL_PAGES: u64 = 512;
/// Room for one TD: four may be in a block.
const TD_ROOM: u64 = 256 << 20;

pub struct Rig {
    machine: Machine,
    /// TDs so far; each has a key id and a room of its own.
    tds: AtomicU64,
}

impl Rig {
    /// A machine with two processors whose module manages this many 1 GiB blocks.
    pub fn new(blocks: u64) -> Self {
        let pamt = TDMR + blocks * GIB;
        let sizes = [PAGE, blocks * 0x2000, blocks * 0x40_0000];
        let config = MachineConfig {
            phys_mem_bytes: pamt + GIB,
            cmrs: vec![Cmr { base: TDMR, size: (blocks + 1) * GIB }],
            ..MachineConfig::small()
        };
        let rig = Self { machine: Machine::new(config), tds: AtomicU64::new(0) };
        rig.ok(0, TdhLeaf::SYS_INIT, Gprs::ZERO);
        for lp in 0..rig.machine.num_lps() {
            rig.ok(lp, TdhLeaf::SYS_LP_INIT, Gprs::ZERO);
        }
        let [large, medium, _] = sizes;
        let starts = [pamt, pamt + (2 << 20), pamt + (4 << 20)];
        let info = [TDMR, blocks * GIB, starts[0], large, starts[1], medium, starts[2], sizes[2]];
        let bytes: Vec<u8> = info.iter().flat_map(|word| word.to_le_bytes()).collect();
        rig.host_write(SCRATCH + 0x1000, &bytes);
        rig.host_write(SCRATCH, &(SCRATCH + 0x1000).to_le_bytes());
        rig.ok(0, TdhLeaf::SYS_CONFIG, Gprs { rcx: SCRATCH, rdx: 1, r8: GLOBAL_HKID, ..Gprs::ZERO });
        rig.ok(0, TdhLeaf::SYS_KEY_CONFIG, Gprs::ZERO);
        while rig.ok(0, TdhLeaf::SYS_TDMR_INIT, Gprs { rcx: TDMR, ..Gprs::ZERO }).rdx < pamt {}
        rig
    }

    fn host_write(&self, at: u64, bytes: &[u8]) {
        self.machine.host_write(Hpa::new(at), bytes).expect("host memory");
    }

    /// Issues a SEAMCALL and gives all registers back.
    pub fn call(&self, lp: usize, mut gprs: Gprs) -> Gprs {
        self.machine.lp(lp).expect("a processor").seamcall(&mut gprs).expect("the module is up");
        gprs
    }

    fn ok(&self, lp: usize, leaf: TdhLeaf, mut gprs: Gprs) -> Gprs {
        gprs.rax = u64::from(leaf.0);
        let out = self.call(lp, gprs);
        assert_eq!(out.rax, 0, "{leaf}: {:#x}", out.rax);
        out
    }

    /// A TD with one vCPU for processor `lp`, whose pages all lie in `block`, and Secure-EPT tables for
    /// `pages` pages.
    pub fn td(&self, lp: usize, block: u64, pages: u64) -> Td {
        let number = self.tds.fetch_add(1, Ordering::Relaxed);
        let base = TDMR + block * GIB + number * TD_ROOM;
        let mut control = (base..base + CONTROL_PAGES * PAGE).step_by(PAGE as usize);
        let mut page = || control.next().expect("room for control pages");
        let tdr = page();
        let hkid = GLOBAL_HKID + 1 + number;
        self.ok(lp, TdhLeaf::MNG_CREATE, Gprs { rcx: tdr, rdx: hkid, ..Gprs::ZERO });
        self.ok(lp, TdhLeaf::MNG_KEY_CONFIG, Gprs { rcx: tdr, ..Gprs::ZERO });
        for _ in 0..6 {
            self.ok(lp, TdhLeaf::MNG_ADDCX, Gprs { rcx: page(), rdx: tdr, ..Gprs::ZERO });
        }
        let mut params = [0u8; 1024];
        params[8] = 3; // XFAM: x87 and SSE
        params[16] = 8; // MAX_VCPUS
        params[24] = 0x1e; // EPTP controls: write-back, four levels
        params[40] = 100; // TSC frequency in 25 MHz
        self.host_write(SCRATCH, &params);
        self.ok(lp, TdhLeaf::MNG_INIT, Gprs { rcx: tdr, rdx: SCRATCH, ..Gprs::ZERO });
        let tdvpr = page();
        self.ok(lp, TdhLeaf::VP_CREATE, Gprs { rcx: tdvpr, rdx: tdr, ..Gprs::ZERO });
        for _ in 0..5 {
            self.ok(lp, TdhLeaf::VP_ADDCX, Gprs { rcx: page(), rdx: tdvpr, ..Gprs::ZERO });
        }
        self.ok(lp, TdhLeaf::VP_INIT, Gprs { rcx: tdvpr, ..Gprs::ZERO });
        self.ok(lp, TdhLeaf::MR_FINALIZE, Gprs { rcx: tdr, ..Gprs::ZERO });
        let mut table = |gpa_level: u64| {
            self.ok(lp, TdhLeaf::MEM_SEPT_ADD, Gprs { rcx: gpa_level, rdx: tdr, r8: page(), ..Gprs::ZERO });
        };
        table(3);
        table(GPA | 2);
        for range in 0..pages.div_ceil(512) {
            table((GPA + range * (2 << 20)) | 1);
        }
        Td { lp, tdr, tdvpr, memory: base + CONTROL_PAGES * PAGE }
    }
}

pub struct Td {
    lp: usize,
    tdr: u64,
    tdvpr: u64,
    memory: u64,
}

impl Td {
    /// Maps pages in this order, then lets the guest accept them in the same order, on one TD entry.
    pub fn aug_and_accept(&self, rig: &Rig, order: &[u64]) {
        for index in order {
            let (gpa, page) = (GPA + index * PAGE, self.memory + index * PAGE);
            rig.ok(self.lp, TdhLeaf::MEM_PAGE_AUG, Gprs { rcx: gpa, rdx: self.tdr, r8: page, ..Gprs::ZERO });
        }
        let mut rest = order.iter();
        let mut guest = ScriptedGuest(|state: &mut GuestState, _: &GuestEnv<'_>| {
            state.enter_64_bit_mode();
            assert_eq!(state.regs[Gpr::Rax], 0);
            match rest.next() {
                Some(index) => {
                    let rax = u64::from(TdgLeaf::MEM_PAGE_ACCEPT.0);
                    state.set_gprs(Gprs { rax, rcx: GPA + index * PAGE, ..Gprs::ZERO });
                    VmExit::tdcall()
                }
                None => VmExit::plain(ExitReason::EXTERNAL_INTERRUPT),
            }
        });
        let mut gprs = Gprs { rcx: self.tdvpr, ..Gprs::ZERO };
        let lp = rig.machine.lp(self.lp).expect("a processor");
        lp.seamcall_with(&mut gprs, &mut guest).expect("the module is up");
        assert_eq!(gprs.rax, u64::from(ExitReason::EXTERNAL_INTERRUPT.0));
    }

    /// Takes the pages back.
    pub fn remove_all(&self, rig: &Rig, order: &[u64]) {
        let of = |index: &u64| Gprs { rcx: GPA + index * PAGE, rdx: self.tdr, ..Gprs::ZERO };
        for index in order {
            rig.ok(self.lp, TdhLeaf::MEM_RANGE_BLOCK, of(index));
        }
        rig.ok(self.lp, TdhLeaf::MEM_TRACK, Gprs { rcx: self.tdr, ..Gprs::ZERO });
        for index in order {
            rig.ok(self.lp, TdhLeaf::MEM_PAGE_REMOVE, of(index));
            let page = self.memory + index * PAGE;
            rig.ok(self.lp, TdhLeaf::PHYMEM_PAGE_WBINVD, Gprs { rcx: page, ..Gprs::ZERO });
        }
    }
}
