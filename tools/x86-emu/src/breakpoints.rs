//! Hardware breakpoints: DR0 to DR3 under DR7 (SDM vol. 3, "Debug Registers" and "Debug Exceptions").
//!
//! # Protocol
//! - What the debug registers ask for is kept in [`Breakpoints`], brought up to date at the start of a run and whenever an
//!   instruction changes a debug register or CR4.DE. A change drops every linear translation.
//! - The TLB holds no right to read or write a page with a data breakpoint, and the jump table holds no block with an
//!   instruction breakpoint. So both are met on the slow paths only, and a CPU without breakpoints pays nothing.
//! - A data breakpoint is a trap: [`Cpu::met`] collects what an instruction met, and the #DB is due when it has completed.
//!   An instruction that faults met nothing. A load of SS holds the trap off until the next instruction is over; where that
//!   is INT n, the trap comes at the first instruction of its handler.
//! - An instruction breakpoint is a fault, before anything of the instruction is fetched; RFLAGS.RF and a load of SS just
//!   before suppress it.
//! - What the processor accesses on its own behalf (descriptor tables, the TSS, the stack of a handler, page tables) meets
//!   no breakpoint.

use crate::cpu::Cpu;
use crate::op::Intent;
use crate::stop::{Reason, Step};
use crate::stop_points::{StopOn, StopPoint};
use x86_arch::{DebugRegisters, Event, EventKind, Shadow, cr4, dr6, dr7, vector};

const PAGE: u64 = !0xFFF;

/// What a breakpoint waits for (the R/W field of DR7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Condition {
    Execution,
    Write,
    /// Reads and writes of a port.
    Port,
    Access,
}

/// One enabled breakpoint: the first and the last byte it covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Breakpoint {
    condition: Condition,
    first: u64,
    last: u64,
}

impl Breakpoint {
    fn from_registers(debug: &DebugRegisters, extensions: bool, n: usize) -> Option<Self> {
        if debug.dr7 >> (2 * n) & 3 == 0 {
            return None;
        }
        let control = debug.dr7 >> (dr7::CONDITIONS_SHIFT as usize + 4 * n);
        let condition = match control & 3 {
            0 => Condition::Execution,
            1 => Condition::Write,
            2 if extensions => Condition::Port,
            // Undefined without CR4.DE.
            2 => return None,
            _ => Condition::Access,
        };
        let length = match control >> 2 & 3 {
            // An instruction breakpoint of another length is undefined.
            _ if condition == Condition::Execution => 1,
            0 => 1,
            1 => 2,
            2 => 8,
            _ => 4u64,
        };
        let first = debug.address.get(n)? & !(length - 1);
        Some(Self { condition, first, last: first + (length - 1) })
    }

    /// Whether any byte of an operand is covered.
    const fn covers(&self, first: u64, last: u64) -> bool {
        self.first <= last && first <= self.last
    }
}

/// What the debug registers ask for, and the owner of the CPU.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Breakpoints {
    armed: [Option<Breakpoint>; 4],
    stop_points: Vec<StopPoint>,
    /// There is an instruction breakpoint, or a stop point for execution.
    pub(crate) code: bool,
    /// There is a data breakpoint, or a stop point for data.
    pub(crate) data: bool,
}

impl Breakpoints {
    fn of_registers(debug: &DebugRegisters, extensions: bool) -> [Option<Breakpoint>; 4] {
        if debug.dr7 & dr7::ENABLES == 0 {
            return [None; 4];
        }
        core::array::from_fn(|n| Breakpoint::from_registers(debug, extensions, n))
    }

    /// Takes what the debug registers ask for; whether it is something new.
    fn arm(&mut self, armed: [Option<Breakpoint>; 4]) -> bool {
        let changed = armed != self.armed;
        self.armed = armed;
        self.summarize();
        changed
    }

    /// Takes what the owner asks for; whether it is something new.
    pub(crate) fn set_stop_points(&mut self, points: &[StopPoint]) -> bool {
        let changed = self.stop_points != points;
        if changed {
            self.stop_points = points.to_vec();
            self.summarize();
        }
        changed
    }

    fn summarize(&mut self) {
        let has = |wanted: fn(Condition) -> bool| self.armed.iter().flatten().any(|b| wanted(b.condition));
        let stops = |code: bool| self.stop_points.iter().any(|p| (p.on == StopOn::Execution) == code);
        self.code = has(|c| c == Condition::Execution) || stops(true);
        self.data = has(|c| matches!(c, Condition::Write | Condition::Access)) || stops(false);
    }

    /// The first stop point that waits for this and covers any of these bytes.
    pub(crate) fn stop_point(
        &self,
        wanted: impl Fn(StopOn) -> bool,
        first: u64,
        last: u64,
    ) -> Option<StopPoint> {
        self.stop_points.iter().find(|p| wanted(p.on) && p.covers(first, last)).copied()
    }

    /// The breakpoints that wait for this and cover any of these bytes, as bits of DR6.
    fn met(&self, wanted: impl Fn(Condition) -> bool, first: u64, last: u64) -> u64 {
        let hits = |b: &Option<Breakpoint>| b.is_some_and(|b| wanted(b.condition) && b.covers(first, last));
        (0u32..).zip(&self.armed).filter(|(_, b)| hits(b)).fold(0, |bits, (n, _)| bits | 1 << n)
    }

    /// Whether a data breakpoint lies in the page of this address.
    pub(crate) fn watch_page(&self, linear: u64) -> bool {
        let data = |c| matches!(c, Condition::Write | Condition::Access);
        let (first, last) = (linear & PAGE, linear | !PAGE);
        self.data
            && (self.met(data, first, last) != 0
                || self.stop_point(|on| on != StopOn::Execution, first, last).is_some())
    }

    /// Whether an instruction breakpoint or a stop point for execution lies among these bytes of code.
    pub(crate) fn stop_inside(&self, linear: u64, bytes: u64) -> bool {
        let last = linear.wrapping_add(bytes.saturating_sub(1));
        self.code
            && (self.met(|c| c == Condition::Execution, linear, last) != 0
                || self.stop_point(|on| on == StopOn::Execution, linear, last).is_some())
    }
}

/// How the next instruction is run, where instruction breakpoints are concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Pace {
    /// As part of a block.
    #[default]
    Block,
    /// Alone.
    Single,
    /// Alone, and without its breakpoint.
    SinglePastBreakpoint,
}

impl Cpu {
    /// Brings what is watched up to date with the debug registers.
    pub(crate) fn arm_breakpoints(&mut self) {
        let now = Breakpoints::of_registers(&self.state.debug, self.state.control.cr4 & cr4::DE != 0);
        if self.breakpoints.arm(now) {
            self.tlb.flush_linear();
        }
    }

    /// Notes the data breakpoints that an operand meets; the running block ends behind the instruction.
    #[inline]
    pub(crate) fn meet(&mut self, linear: u64, bytes: usize, intent: Intent) {
        if self.breakpoints.data {
            self.meet_armed(linear, bytes, intent);
        }
    }

    #[cold]
    fn meet_armed(&mut self, linear: u64, bytes: usize, intent: Intent) {
        let last = linear.wrapping_add(bytes.saturating_sub(1) as u64);
        let writes = intent == Intent::Write;
        let waits = |c| c == Condition::Access || c == Condition::Write && writes;
        let met = self.breakpoints.met(waits, linear, last);
        let stops = |on| match on {
            StopOn::Execution => false,
            StopOn::Write => writes,
            StopOn::Read => !writes,
            StopOn::Access => true,
        };
        let stop_point = self.breakpoints.stop_point(stops, linear, last);
        if met != 0 || stop_point.is_some() {
            self.met |= met;
            self.met_stop_point = self.met_stop_point.or(stop_point);
            self.attention = true;
        }
    }

    /// Makes the #DB due that a completed instruction met, or forgets what one met that did not complete.
    #[cold]
    pub(crate) fn settle_met(&mut self, completed: bool) {
        if !completed && !matches!(self.stop, Reason::Continue) {
            let met = core::mem::take(&mut self.met);
            match self.stop {
                // What a load of SS held off comes behind the entry into the handler of INT n, INT3 or INTO.
                Reason::Exception(Event {
                    kind: EventKind::SoftwareInterrupt | EventKind::SoftwareException,
                    ..
                }) => self.queue_breakpoint(met),
                // INT1 is a #DB already.
                Reason::Exception(Event { kind: EventKind::PrivilegedSoftwareException, .. }) => {
                    self.state.debug.note(met);
                }
                _ => {}
            }
        } else if self.state.interruptibility.shadow != Shadow::MovSs {
            let met = core::mem::take(&mut self.met);
            self.queue_breakpoint(met);
        }
    }

    fn queue_breakpoint(&mut self, met: u64) {
        self.state.debug.note(met);
        self.state.event = Some(Event::exception(vector::DB));
    }

    /// Ends the run if a stop point for execution lies here; #DB if an instruction breakpoint does and nothing
    /// suppresses it.
    #[cold]
    pub(crate) fn check_code_breakpoint(&mut self, rip: u64) -> Step {
        let linear = self.code_linear(rip);
        if let Some(point) = self.stop_point_at(linear) {
            return Err(self.stop_for(Reason::StopPoint(point)));
        }
        if self.pace == Pace::SinglePastBreakpoint {
            return Ok(());
        }
        let met = self.breakpoints.met(|c| c == Condition::Execution, linear, linear);
        if met == 0 {
            return Ok(());
        }
        self.state.debug.note(met);
        Err(self.raise(Event::exception(vector::DB)))
    }

    /// Notes the port breakpoints that an access meets: the #DB is due when the owner has performed it.
    pub(crate) fn meet_port(&mut self, port: u16, size: u8) {
        let first = u64::from(port);
        let last = first + u64::from(size).saturating_sub(1);
        self.met_port = self.breakpoints.met(|c| c == Condition::Port, first, last);
    }

    /// Makes the #DB of a port breakpoint due, behind an access that the owner has performed.
    pub(crate) fn settle_met_port(&mut self) {
        let met = core::mem::take(&mut self.met_port);
        if met != 0 {
            self.queue_breakpoint(met);
        }
    }

    /// #DB for an access to a debug register while DR7.GD is set; as a fault it pushes RF.
    pub(crate) fn check_general_detect(&mut self) -> Step {
        if self.state.debug.dr7 & dr7::GD == 0 {
            return Ok(());
        }
        self.state.debug.note(dr6::BD);
        self.state.flags.set_rest(self.state.flags.rest() | x86_arch::flags::RF);
        Err(self.raise(Event::exception(vector::DB)))
    }
}
