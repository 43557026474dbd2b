//! A TD, or a server, as gdb's target.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use gdbstub::common::{Signal, Tid};
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadResume, MultiThreadResumeOps, MultiThreadSchedulerLocking,
    MultiThreadSchedulerLockingOps, MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps, SwBreakpoint,
    SwBreakpointOps, WatchKind,
};
use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd, MonitorCmdOps};
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::{Target, TargetError, TargetResult};
use seam_emu::guest::debug::{DebugPort, Order};

use super::monitor;
use super::points::{Kind, Points};
use super::registers::{GdbRegisters, X86_64};
use super::{Debuggee, Words};

/// A TD under one client.
pub(super) struct Guest<'g> {
    port: &'g Arc<DebugPort>,
    machine: &'g seam_emu::Machine,
    lps: &'g [usize],
    words: Words,
    points: Points,
    /// What vCPUs do when the TD is resumed, by processor.
    orders: BTreeMap<usize, Order>,
    /// What those do that have no order of their own.
    others: Order,
}

impl<'g> Guest<'g> {
    pub(super) fn new(port: &'g Arc<DebugPort>, debuggee: &'g Debuggee<'_>) -> Self {
        Self {
            port,
            machine: &debuggee.machine,
            lps: &debuggee.lps,
            words: debuggee.subject.words(),
            points: Points::default(),
            orders: BTreeMap::new(),
            others: Order::Run,
        }
    }

    pub(super) const fn points(&self) -> &Points {
        &self.points
    }

    /// The thread that runs on a processor.
    pub(super) fn tid_of(&self, lp: usize) -> Option<Tid> {
        let index = self.lps.iter().position(|other| *other == lp)?;
        Tid::new(index + 1)
    }

    fn lp_of(&self, tid: Tid) -> Option<usize> {
        self.lps.get(tid.get() - 1).copied()
    }

    /// The processor through whose registers and tables a thread's memory is seen: one that has run, if this has not.
    fn view_of(&self, tid: Tid) -> Option<usize> {
        let own = self.lp_of(tid)?;
        let has_run = |lp: &usize| self.port.state(*lp).is_some();
        Some(own).filter(has_run).or_else(|| self.lps.iter().copied().find(has_run))
    }

    /// Does again what the client asked for last.
    pub(super) fn go_on(&self) {
        let of_td = |lp: &usize| self.lps.contains(lp);
        self.port.command(|lp| {
            Some(lp).filter(of_td).map(|lp| self.orders.get(&lp).copied().unwrap_or(self.others))
        });
    }

    fn change_points(&mut self, change: impl FnOnce(&mut Points) -> bool) -> TargetResult<bool, Self> {
        let changed = change(&mut self.points);
        self.port.set_stop_points(&self.points.stop_points());
        Ok(changed)
    }
}

impl Target for Guest<'_> {
    type Arch = X86_64;
    type Error = Infallible;

    fn base_ops(&mut self) -> BaseOps<'_, X86_64, Infallible> {
        BaseOps::MultiThread(self)
    }

    fn guard_rail_implicit_sw_breakpoints(&self) -> bool {
        true
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadBase for Guest<'_> {
    fn read_registers(&mut self, registers: &mut GdbRegisters, tid: Tid) -> TargetResult<(), Self> {
        let lp = self.lp_of(tid).ok_or(TargetError::NonFatal)?;
        // One that has not run yet is as reset leaves it.
        *registers = GdbRegisters::of(self.port.state(lp).unwrap_or_default());
        Ok(())
    }

    fn write_registers(&mut self, registers: &GdbRegisters, tid: Tid) -> TargetResult<(), Self> {
        let lp = self.lp_of(tid).ok_or(TargetError::NonFatal)?;
        let now = self.port.state(lp).ok_or(TargetError::NonFatal)?;
        let wanted = registers.over(&now).map_err(|_| TargetError::NonFatal)?;
        self.port.change_state(lp, |state| state.clone_from(&wanted)).map_err(|_| TargetError::NonFatal)
    }

    fn read_addrs(&mut self, start: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        let lp = self.view_of(tid).ok_or(TargetError::NonFatal)?;
        match self.port.read_memory(self.machine, lp, start, data) {
            0 => Err(TargetError::NonFatal),
            count => Ok(count),
        }
    }

    fn write_addrs(&mut self, start: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        let lp = self.view_of(tid).ok_or(TargetError::NonFatal)?;
        let written = self.port.write_memory(self.machine, lp, start, data);
        if written == data.len() { Ok(()) } else { Err(TargetError::NonFatal) }
    }

    fn list_active_threads(&mut self, is_active: &mut dyn FnMut(Tid)) -> Result<(), Infallible> {
        (1..=self.lps.len()).filter_map(Tid::new).for_each(is_active);
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }

    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadResume for Guest<'_> {
    fn resume(&mut self) -> Result<(), Infallible> {
        self.go_on();
        Ok(())
    }

    fn clear_resume_actions(&mut self) -> Result<(), Infallible> {
        self.orders.clear();
        self.others = Order::Run;
        Ok(())
    }

    fn set_resume_action_continue(&mut self, tid: Tid, _signal: Option<Signal>) -> Result<(), Infallible> {
        if let Some(lp) = self.lp_of(tid) {
            self.orders.insert(lp, Order::Run);
        }
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadSingleStep for Guest<'_> {
    fn set_resume_action_step(&mut self, tid: Tid, _signal: Option<Signal>) -> Result<(), Infallible> {
        if let Some(lp) = self.lp_of(tid) {
            self.orders.insert(lp, Order::Step);
        }
        // Others would run away during a step, and hold up whoever waits for its end.
        self.others = Order::Halt;
        Ok(())
    }
}

impl MultiThreadSchedulerLocking for Guest<'_> {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Infallible> {
        self.others = Order::Halt;
        Ok(())
    }
}

impl ThreadExtraInfo for Guest<'_> {
    fn thread_extra_info(&self, tid: Tid, out: &mut [u8]) -> Result<usize, Infallible> {
        let text = format!("{} {}", self.words.one, tid.get() - 1);
        let count = text.len().min(out.len());
        if let (Some(out), Some(text)) = (out.get_mut(..count), text.as_bytes().get(..count)) {
            out.copy_from_slice(text);
        }
        Ok(count)
    }
}

impl Breakpoints for Guest<'_> {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for Guest<'_> {
    fn add_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.change_points(|points| points.add(Kind::Software, address, 1))
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.change_points(|points| points.remove(Kind::Software, address, 1))
    }
}

impl HwBreakpoint for Guest<'_> {
    fn add_hw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.change_points(|points| points.add(Kind::Hardware, address, 1))
    }

    fn remove_hw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.change_points(|points| points.remove(Kind::Hardware, address, 1))
    }
}

impl HwWatchpoint for Guest<'_> {
    fn add_hw_watchpoint(&mut self, address: u64, bytes: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        self.change_points(|points| points.add(Kind::Watch(kind), address, bytes))
    }

    fn remove_hw_watchpoint(
        &mut self,
        address: u64,
        bytes: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        self.change_points(|points| points.remove(Kind::Watch(kind), address, bytes))
    }
}

impl MonitorCmd for Guest<'_> {
    fn handle_monitor_cmd(&mut self, command: &[u8], mut out: ConsoleOutput<'_>) -> Result<(), Infallible> {
        let text = monitor::answer(&String::from_utf8_lossy(command), self.port, self.lps, self.words);
        out.write_raw(text.as_bytes());
        Ok(())
    }
}
