//! A vCPU and the memory that its guest has.

use tdvisor_base::{Gpa, Hpa, KeyId, Level};
use tdx_module_iface::Gprs;
use tdx_module_iface::exit::{ExitReason, ExitReasonField};
use x86_arch::{Attributes, Gpr, Segment, TableRegister};

use crate::config::MachineConfig;
use crate::fields::{FieldStore, Width};
use crate::guest::cpu::CpuGuest;
use crate::guest::{GuestCpu, GuestState, VmExit, Windows};
use crate::l2::Vm;
use crate::machine::{Asid, GuestEnv, GuestSpace, GuestTime, Machine};
use crate::vcpu::control::OwnedControls;

pub(super) const ASID: Asid = Asid { tdr: Hpa::new(0x5000), vm: Vm::L1 };
pub(super) const KEY: KeyId = KeyId::new(33);
pub(super) const SHARED: u64 = 1 << 47;
/// Where guest memory is.
pub(super) const PRIVATE_BASE: u64 = 0x1000_0000;
pub(super) const SHARED_BASE: u64 = 0x2000_0000;
pub(super) const TABLES: u64 = 0x2800_0000;
pub(super) const READ: u64 = 1;
pub(super) const ALL: u64 = 7;

pub(super) const CODE: u64 = 0x1000;
pub(super) const DATA: u64 = 0x2000;
pub(super) const STACK: u64 = 0x4000;
pub(super) const GDT: u64 = 0x5000;
pub(super) const IDT: u64 = 0x6000;
pub(super) const HANDLERS: u64 = 0x7000;
pub(super) const PML4: u64 = 0x8000;
pub(super) const PDPT: u64 = 0x9000;
pub(super) const PD: u64 = 0xa000;
pub(super) const PT: u64 = 0xb000;

/// A TD without ATTRIBUTES and without extended state.
pub(super) struct PlainTd;

impl FieldStore for PlainTd {
    fn load(&self, _: u32, _: Width) -> u64 {
        0
    }

    fn store(&self, _: u32, _: Width, _: u64) {}
}

/// The surroundings of a vCPU whose trees are at [`TABLES`].
pub(super) fn env(machine: &Machine, vcpu: u64) -> GuestEnv<'_> {
    GuestEnv {
        machine,
        lp: 0,
        asid: ASID,
        vcpu: Hpa::new(vcpu),
        space: GuestSpace {
            key: KEY,
            sept_root: Hpa::new(TABLES),
            root_level: Level::L512G,
            shared_root: Hpa::new(TABLES + 0x1000),
            shared_bit: SHARED,
        },
        time: GuestTime { multiplier: 1 << 47, offset: 1000 },
        windows: Windows::default(),
        controls: OwnedControls::initial(machine.config(), &PlainTd),
        intercepts: Default::default(),
    }
}

/// One vCPU on one processor.
pub(super) struct Td {
    pub(super) machine: Machine,
    pub(super) cpu: CpuGuest,
    pub(super) state: GuestState,
    pub(super) vcpu: u64,
    pub(super) tables: u64,
    pub(super) windows: Windows,
}

impl Td {
    /// The vCPU at the architectural entry, `code` at the reset vector, no other memory.
    pub(super) fn at_reset(code: &[u8]) -> Self {
        let machine = Machine::new(MachineConfig { lp_packages: vec![0], ..MachineConfig::small() });
        let mut td = Self {
            machine,
            cpu: CpuGuest::from(crate::testing::engine().eager().expect("memory for code")),
            state: entry_state(),
            vcpu: 0x1000,
            tables: TABLES + 0x2000,
            windows: Windows::default(),
        };
        td.map(0xffff_f000, ALL);
        td.write(0xffff_fff0, code);
        td
    }

    /// A TD in 64-bit mode with identity page tables, a GDT, an IDT whose handlers are HLT, and `code` at
    /// [`CODE`].
    pub(super) fn in_long_mode(code: &[u8]) -> Self {
        let mut td = Self::at_reset(&[0xf4]);
        for page in (CODE..=PT).step_by(0x1000) {
            td.map(page, ALL);
        }
        td.write(CODE, code);
        td.poke(PML4, PDPT | 3);
        td.poke(PDPT, PD | 3);
        td.poke(PD, PT | 3);
        for page in 0..16 {
            td.poke(PT + 8 * page, page << 12 | 3);
        }
        td.poke(GDT + 8, 0x00af_9b00_0000_ffff);
        td.poke(GDT + 16, 0x00cf_9300_0000_ffff);
        for vector in 0..64 {
            let target = HANDLERS + 16 * vector;
            td.poke(IDT + 16 * vector, target | 8 << 16 | 0x8e00 << 32);
            td.write(target, &[0xf4]);
        }
        let state = &mut td.state;
        state.control.cr0 = 0x8000_0031;
        state.control.cr3 = PML4;
        state.control.cr4 = 0x2060;
        state.control.efer = 0xd01;
        state.segments[1] = Segment { selector: 8, base: 0, limit: u32::MAX, attributes: Attributes(0xa09b) };
        state.segments[2].selector = 16;
        state.gdtr = TableRegister { base: GDT, limit: 23 };
        state.idtr = TableRegister { base: IDT, limit: 0x3ff };
        state.set_rip(CODE);
        state.regs[Gpr::Rsp] = STACK + 0x1000;
        td
    }

    pub(super) fn entry(&mut self, gpa: u64) -> (Hpa, usize) {
        let mut table = if gpa & SHARED != 0 { TABLES + 0x1000 } else { TABLES };
        let gfn = Gpa::new(gpa).frame();
        for level in [Level::L512G, Level::L1G, Level::L2M] {
            let at = (Hpa::new(table), level.table_index(gfn));
            let mut below = self.load(at);
            if below == 0 {
                below = self.tables | ALL;
                self.tables += 0x1000;
                self.store(at, below);
            }
            table = below & !0xfff;
        }
        (Hpa::new(table), Level::L4K.table_index(gfn))
    }

    fn load(&self, (table, index): (Hpa, usize)) -> u64 {
        self.machine.memory().table(table.frame()).unwrap()[index].load(tdvisor_base::sync::Ordering::Acquire)
    }

    pub(super) fn store(&self, (table, index): (Hpa, usize), value: u64) {
        self.machine.memory().table(table.frame()).unwrap()[index]
            .store(value, tdvisor_base::sync::Ordering::Release);
    }

    pub(super) fn home(gpa: u64) -> (Hpa, KeyId) {
        if gpa & SHARED != 0 {
            (Hpa::new(SHARED_BASE + (gpa & 0x7ff_ffff)), KeyId::DEFAULT)
        } else {
            (Hpa::new(PRIVATE_BASE + (gpa & 0x7ff_ffff)), KEY)
        }
    }

    /// Maps one page; private ones become the guest's.
    pub(super) fn map(&mut self, gpa: u64, rights: u64) {
        let (hpa, key) = Self::home(gpa);
        if self.machine.memory().page_key(hpa.frame()) != Ok(key) {
            self.machine.memory().clear_page(hpa.frame(), key).unwrap();
        }
        let entry = self.entry(gpa);
        self.store(entry, hpa.get() | rights);
    }

    pub(super) fn unmap(&mut self, gpa: u64) {
        let entry = self.entry(gpa);
        self.store(entry, 0);
        self.machine.processors()[0].tlb.flush_all();
    }

    pub(super) fn write(&self, gpa: u64, bytes: &[u8]) {
        let (hpa, key) = Self::home(gpa);
        let _ = self.machine.memory().write(hpa, key, bytes).unwrap();
    }

    pub(super) fn poke(&self, gpa: u64, value: u64) {
        self.write(gpa, &value.to_le_bytes());
    }

    pub(super) fn peek(&self, gpa: u64) -> u64 {
        let (hpa, key) = Self::home(gpa);
        self.machine.memory().load(hpa, key).unwrap()
    }

    pub(super) fn run(&mut self) -> VmExit {
        let env = GuestEnv { windows: self.windows, ..env(&self.machine, self.vcpu) };
        self.cpu.run(&mut self.state, &env)
    }

    /// Runs and expects an exit for this reason, for nothing that the instruction did.
    pub(super) fn run_to(&mut self, expected: ExitReason) -> VmExit {
        let exit = self.run();
        assert_eq!(
            exit.reason,
            ExitReasonField(u32::from(expected.0)),
            "at {:#x}: {exit:?}, {:?}",
            self.state.rip(),
            self.machine.limits()
        );
        exit
    }

    /// Runs and expects that the handler of a vector is reached.
    pub(super) fn run_to_handler(&mut self, vector: u64) {
        self.run_to(ExitReason::HLT);
        assert_eq!(self.state.rip(), HANDLERS + 16 * vector, "the handler of vector {vector}");
    }
}

/// The state in which TDH.VP.INIT leaves a vCPU.
pub(super) fn entry_state() -> GuestState {
    crate::vcpu::state::initial(Gprs::ZERO)
}
