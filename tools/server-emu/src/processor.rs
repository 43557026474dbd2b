//! One logical processor of a server: a thread that runs the host's code on the software CPU.
//!
//! # Protocol of one turn
//! 1. A parked processor waits for the mailbox.
//! 2. The bell is cleared, then the APIC is looked at: its timer first, then what it would deliver. An interrupt that
//!    the CPU can take is acknowledged and injected; for one that it cannot take yet, the CPU is asked to stop as soon
//!    as it can.
//! 3. The CPU runs a slice of instructions. What concerns the machine ends the slice and is done here.
//!
//! A guest that TDH.VP.ENTER runs is on this thread as well; the host's CPU stands at its SEAMCALL meanwhile.

mod exits;
mod saved;
mod strict;
mod string_io;
mod vmx_exits;

use seam_emu::config::TscSource;
use seam_emu::guest::debug::{Next, StopReason};
use seam_emu::{Lp, Machine};
use tdvisor_devices::DeviceRequest;
use x86_arch::{Activity, Event, cr4, vector};
use x86_emu::{AnyEngine, Budget, Cpu, Engine, Exit};

use crate::apic::LocalApic;
use crate::bus::HostBus;
use crate::debug::Line;
use crate::firmware;
use crate::msr::Msrs;
use crate::report::Notice;
use crate::server::{Ending, Server};
use crate::vmx::Vmx;

pub(crate) use saved::SavedProcessor;

/// Instructions of one slice.
const SLICE: u64 = 20_000;

/// A processor.
pub(crate) struct Processor<'s> {
    server: &'s Server,
    index: usize,
    apic_id: u32,
    pub(crate) cpu: Cpu,
    pub(crate) engine: AnyEngine,
    pub(crate) bus: HostBus<'s>,
    pub(crate) debug: Line<'s>,
    lp: Lp<&'s Machine>,
    msrs: Msrs,
    vmx: Vmx,
    /// Instructions that it had retired where it goes on from a saved state.
    retired_before: u64,
    /// Instructions, besides those, that the server knows of.
    noted: u64,
    /// Whether the processor has come to the point where the server freezes.
    arrived: bool,
}

/// How the processor goes on after what concerned the machine.
pub(crate) type Flow = Result<(), Ending>;

/// Does what a device asks of the machine.
const fn obey(request: DeviceRequest) -> Flow {
    match request {
        DeviceRequest::None => Ok(()),
        DeviceRequest::PowerOff { code } => Err(Ending::PowerOff { code }),
        DeviceRequest::Reset => Err(Ending::Reset),
        DeviceRequest::Panicked => Err(Ending::Panicked),
    }
}

impl<'s> Processor<'s> {
    /// A processor that begins at `entry`, or parked.
    pub(crate) fn new(server: &'s Server, index: usize, apic_id: u32, lp: Lp<&'s Machine>) -> Self {
        let mut cpu = Cpu::new();
        cpu.controls.cr4_supported |= cr4::VMXE;
        cpu.controls.physical_bits = server.machine.config().max_pa as u8;
        cpu.controls.intercept_cr8_write = true;
        cpu.controls.intercept_pause = server.interrupts.takes_turns();
        Self {
            bus: HostBus::new(server),
            debug: Line::new(server, index),
            server,
            index,
            apic_id,
            cpu,
            engine: server.config.engine.engine(),
            lp,
            msrs: Msrs::default(),
            vmx: Vmx::default(),
            retired_before: 0,
            noted: 0,
            arrived: false,
        }
    }

    /// The processor that boots: it begins at this physical address, with this one in RSI.
    pub(crate) fn boot(&mut self, entry: u64, rsi: u64) {
        self.begin(entry);
        self.cpu.state.set_gpr(x86_arch::Gpr::Rsi, rsi);
    }

    fn begin(&mut self, entry: u64) {
        self.cpu.state = firmware::entry_state(entry);
        self.cpu.tlb.flush_all();
    }

    /// Runs until the machine has ended, or freezes. Gives the processor's state then.
    pub(crate) fn run(mut self) -> SavedProcessor {
        self.server.interrupts.begin(self.index);
        self.debug.leave(&self.cpu);
        while !self.server.has_ended() && !self.arrived {
            if let Err(ending) = self.turn() {
                self.server.end(ending);
            }
        }
        self.server.interrupts.leave(self.index);
        self.note_retired();
        self.save()
    }

    fn turn(&mut self) -> Flow {
        let server = self.server;
        if let Some(bell) = server.interrupts.bell(self.index) {
            bell.clear();
        }
        if server.freeze.takes_in(&server.interrupts) {
            self.arrived = true;
            if server.freeze.is_complete(server.machine.num_lps()) {
                server.end(Ending::Frozen);
            }
            return Ok(());
        }
        if let Some(entry) = server.parking.take(self.index) {
            self.begin(entry);
        } else if server.parking.is_parked(self.index) {
            if !server.has_ended() {
                server.interrupts.sleep_parked(self.index);
            }
            return Ok(());
        }
        server.interrupts.give_way(self.index);
        // The end may have come in somebody else's turn.
        if server.has_ended() {
            return Ok(());
        }
        if server.freeze.is_now(&server.interrupts) {
            return Err(Ending::Frozen);
        }
        match self.debug.next(&mut self.cpu) {
            Next::Run => {}
            Next::Leave => return Ok(()),
            Next::Step => return self.step(),
        }
        self.take_interrupts();
        let exit = self.slice();
        self.settle(exit)
    }

    /// Looks at the APIC, and injects what the CPU can take.
    fn take_interrupts(&mut self) {
        let interrupts = &self.server.interrupts;
        interrupts.look(self.index);
        let state = &self.cpu.state;
        let busy = state.event.is_some();
        let (nmis_open, interrupts_open) = (state.nmis_open() && !busy, state.interrupts_open() && !busy);
        let taken = interrupts.with(self.index, |apic| {
            if nmis_open && apic.take_nmi() {
                return (Some(Event::nmi()), false, apic.deliverable().is_some());
            }
            let event = if interrupts_open { apic.acknowledge().map(Event::external) } else { None };
            (event, apic.nmi_waits(), apic.deliverable().is_some())
        });
        let (event, nmi_waits, interrupt_waits) = taken.unwrap_or_default();
        if let Some(event) = event {
            let _ = self.cpu.inject(event);
        }
        self.cpu.controls.nmi_window = nmi_waits;
        self.cpu.controls.interrupt_window = interrupt_waits;
    }

    fn slice(&mut self) -> Exit<crate::bus::PrivateKey> {
        self.bus.tsc_offset = self.msrs.tsc_adjust;
        let Some(bell) = self.server.interrupts.bell(self.index) else { return Exit::Inactive };
        let before = self.cpu.retired();
        let exit = self.engine.run(&mut self.cpu, &mut self.bus, Budget(SLICE), bell.flag());
        let retired = self.cpu.retired().wrapping_sub(before);
        self.note_retired();
        self.pass_time(if exit == Exit::BudgetExhausted { SLICE } else { retired });
        exit
    }

    /// Tells the server what was retired since the last time.
    fn note_retired(&mut self) {
        let retired = self.cpu.retired();
        self.server.note_retired(retired.wrapping_sub(self.noted));
        self.noted = retired;
    }

    /// Virtual time passes with what the processor does.
    pub(crate) fn pass_time(&self, instructions: u64) {
        let machine = &self.server.machine;
        if machine.config().tsc_source == TscSource::Virtual {
            machine.advance_tsc(instructions.saturating_mul(machine.config().tsc_ticks_per_instruction));
        }
    }

    pub(crate) fn settle(&mut self, exit: Exit<crate::bus::PrivateKey>) -> Flow {
        obey(self.bus.take_request())?;
        match exit {
            Exit::BudgetExhausted | Exit::ExternalInterrupt | Exit::InterruptWindow | Exit::NmiWindow => {
                Ok(())
            }
            Exit::StopPoint(point) => {
                self.debug.stopped(StopReason::Point(point));
                Ok(())
            }
            Exit::Instruction { what, length } => self.instruction(what, length),
            Exit::Refused(access) => {
                self.refused(&access);
                Ok(())
            }
            Exit::TripleFault => {
                self.debug.hold(&self.cpu, StopReason::TripleFault);
                Err(Ending::TripleFault { processor: self.index, rip: self.cpu.state.rip() })
            }
            Exit::Unimplemented(what) => {
                self.debug.hold(&self.cpu, StopReason::Unimplemented);
                Err(Ending::Unimplemented { processor: self.index, what })
            }
            Exit::Inactive => {
                self.sleep();
                Ok(())
            }
        }
    }

    /// HLT: sleeps until something would interrupt the processor.
    fn sleep(&mut self) {
        if self.cpu.state.activity != Activity::Halted {
            return;
        }
        self.debug.leave(&self.cpu);
        let server = self.server;
        let open = self.cpu.state.interrupts_open();
        if !server.has_ended() {
            let wakes = |apic: &LocalApic| apic.nmi_waits() || open && apic.deliverable().is_some();
            server.interrupts.sleep(self.index, wakes);
        }
    }

    /// A private key id in an address is a reserved bit outside SEAM mode; memory that is not there is a machine check.
    fn refused(&mut self, access: &x86_emu::RefusedAccess<crate::bus::PrivateKey>) {
        use x86_emu::RefusedBy;
        const PRESENT: u32 = 1;
        const WRITE: u32 = 1 << 1;
        const USER: u32 = 1 << 2;
        const RESERVED: u32 = 1 << 3;
        const FETCH: u32 = 1 << 4;
        match access.by {
            RefusedBy::Bus(crate::bus::PrivateKey(key)) => {
                self.server.report.note(Notice::PrivateKey { processor: self.index, key: key.get() });
                let mut code = PRESENT | RESERVED;
                code |= if access.access.is_write() { WRITE } else { 0 };
                code |= if access.access == x86_arch::Access::Execute { FETCH } else { 0 };
                code |= if self.cpu.state.cpl() == 3 { USER } else { 0 };
                self.cpu.state.control.cr2 = access.gla;
                let _ = self.cpu.inject(Event::exception_with_code(vector::PF, code));
            }
            RefusedBy::Memory(hpa) => {
                self.server.report.note(Notice::MachineCheck { processor: self.index, hpa: hpa.get() });
                let _ = self.cpu.inject(Event::exception(vector::MC));
            }
        }
    }
}
