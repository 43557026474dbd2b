//! The debugger: gdb's remote protocol over the emulated processors' debug port.
//!
//! # Protocol
//! - A TD that is made with a debugger is halted before its first instruction, until a client comes, and runs on when the client
//!   detaches or goes away. The next client halts it again. One client at a time.
//! - Threads are vCPUs, numbered from 1. All stop together, and a step is of one of them alone.
//! - Breakpoints and watchpoints are addresses that the CPU compares: nothing is written into the guest for them, so measured
//!   text, pages that are not accepted yet and code that checks itself stay whole.
//! - VM exits and SEAMCALLs are caught by `monitor catch`, and `monitor why` says which it was that stopped the TD. The host goes on
//!   with an exit or a call meanwhile: what the vCPU has is as it left its guest, and can only be read.
//! - Memory is read and written through the page tables of the thread's vCPU.
//!
//! A server is debugged in the same way: its threads are its processors, and what is seen is the host that runs on them, never its
//! TDs.
//!
//! # Whose secrets
//! A debugger sees and changes a TD that is not in debug mode. Only an emulator can do this: hardware keeps such a TD's
//! registers and memory sealed. There is one only where whoever started the TD asked for it, at the start.
//!
//! The client is not authenticated: an [`Endpoint`] is a socket file of its owner alone, or an address of this machine only.

mod connection;
mod endpoint;
mod monitor;
mod points;
mod registers;
mod target;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gdbstub::common::{Signal, Tid};
use gdbstub::stub::state_machine::GdbStubStateMachine;
use gdbstub::stub::{DisconnectReason, GdbStub, MultiThreadStopReason};
use machine_emu::EmulatedMachine;
use seam_emu::guest::debug::{DebugPort, Stop, StopReason};
use server_emu::Server;
use td_host::td::{Ending, Td};

use connection::Client;
pub use endpoint::{Endpoint, EndpointError, Listener};
use target::Guest;

/// How long what happens on one side may go unnoticed while the other is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// How long vCPUs may take to halt before a client is told that they have.
const HALTING: Duration = Duration::from_secs(10);

/// A debugger that waits for its client.
#[derive(Debug)]
pub struct Debugger {
    listener: Listener,
    port: Arc<DebugPort>,
}

/// What is debugged, as its session knows it.
pub(crate) struct Debuggee<'s> {
    /// The machine that it runs on.
    pub(crate) machine: Arc<seam_emu::Machine>,
    /// The logical processor of each thread.
    pub(crate) lps: Vec<usize>,
    /// All its processors are done.
    pub(crate) finished: &'s AtomicBool,
    /// The TD, or the server.
    pub(crate) subject: &'s dyn Subject,
}

/// What a debugger can do to a TD or a server beside looking into it.
pub(crate) trait Subject: Sync {
    /// How gdb is told that it ended.
    fn reason_of_end(&self) -> MultiThreadStopReason<u64>;

    /// Ends it.
    fn kill(&self);

    /// What the subject's processors are called.
    fn words(&self) -> Words;
}

/// How processors are spoken of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words {
    /// The word for one processor.
    pub(crate) one: &'static str,
    /// The word for where a processor executes.
    pub(crate) inside: &'static str,
    /// The word for where a processor does not execute.
    pub(crate) outside: &'static str,
}

impl Subject for Td<'_, EmulatedMachine> {
    /// An exit status where the guest gave one, a signal otherwise.
    fn reason_of_end(&self) -> MultiThreadStopReason<u64> {
        match self.ending() {
            Some(Ending::PoweredOff { code }) => MultiThreadStopReason::Exited(code),
            Some(Ending::Stopped) | None => MultiThreadStopReason::Terminated(Signal::SIGTERM),
            Some(Ending::Reset) => MultiThreadStopReason::Terminated(Signal::SIGHUP),
            Some(Ending::FatalError { .. } | Ending::Panicked) => {
                MultiThreadStopReason::Terminated(Signal::SIGABRT)
            }
            Some(Ending::Died(_)) => MultiThreadStopReason::Terminated(Signal::SIGKILL),
        }
    }

    fn kill(&self) {
        self.stop();
    }

    fn words(&self) -> Words {
        Words { one: "vCPU", inside: "in its guest", outside: "outside of its guest" }
    }
}

impl Subject for Server {
    /// The host's own code where it switched itself off, a signal otherwise.
    fn reason_of_end(&self) -> MultiThreadStopReason<u64> {
        use server_emu::Ending::{Frozen, Panicked, PowerOff, Reset, Stopped, TripleFault, Unimplemented};
        match self.ending() {
            Some(PowerOff { code }) => MultiThreadStopReason::Exited(code),
            Some(Stopped | Frozen) | None => MultiThreadStopReason::Terminated(Signal::SIGTERM),
            Some(Reset) => MultiThreadStopReason::Terminated(Signal::SIGHUP),
            Some(Panicked) => MultiThreadStopReason::Terminated(Signal::SIGABRT),
            Some(TripleFault { .. } | Unimplemented { .. }) => {
                MultiThreadStopReason::Terminated(Signal::SIGKILL)
            }
        }
    }

    fn kill(&self) {
        self.end(server_emu::Ending::Stopped);
    }

    fn words(&self) -> Words {
        Words { one: "CPU", inside: "between two instructions", outside: "asleep, parked or in a TD" }
    }
}

/// How a client went away.
enum Farewell {
    Gone,
    /// The debugger wants the TD dead.
    Kill,
}

impl Debugger {
    /// A debugger for the TDs of a machine that is brought up with its port.
    pub fn new(listener: Listener, port: Arc<DebugPort>) -> Self {
        Self { listener, port }
    }

    /// What stops the processors of its machine.
    pub(crate) fn port(&self) -> Arc<DebugPort> {
        self.port.clone()
    }

    /// Serves one client after the other until what is debugged is done.
    pub(crate) fn serve(&self, debuggee: &Debuggee<'_>) {
        while !debuggee.finished.load(Ordering::SeqCst) {
            let Some(client) = self.listener.accept(LOOK_AGAIN) else { continue };
            self.port.halt();
            self.port.wait_until_quiet(&debuggee.lps, HALTING);
            let farewell = self.converse(client, debuggee);
            self.port.release();
            if matches!(farewell, Farewell::Kill) {
                debuggee.subject.kill();
            }
        }
    }

    /// Talks with one client until it goes away, or the TD has ended and it knows. A client that breaks the protocol has
    /// gone.
    fn converse(&self, client: Client, debuggee: &Debuggee<'_>) -> Farewell {
        // Stops of before its time are not its own.
        while self.port.take_stop(Duration::ZERO).is_some() {}
        let mut guest = Guest::new(&self.port, debuggee);
        let mut machine = match GdbStub::new(client).run_state_machine(&mut guest) {
            Ok(machine) => machine,
            Err(_) => return Farewell::Gone,
        };
        loop {
            let next = match machine {
                GdbStubStateMachine::Disconnected(end) => {
                    return match end.get_reason() {
                        DisconnectReason::Kill => Farewell::Kill,
                        _ => Farewell::Gone,
                    };
                }
                GdbStubStateMachine::CtrlCInterrupt(interrupted) => {
                    self.port.halt();
                    self.port.wait_until_quiet(&debuggee.lps, HALTING);
                    interrupted
                        .interrupt_handled(&mut guest, Some(MultiThreadStopReason::Signal(Signal::SIGINT)))
                }
                GdbStubStateMachine::Running(mut running) => {
                    if debuggee.finished.load(Ordering::SeqCst) {
                        running.report_stop(&mut guest, debuggee.subject.reason_of_end())
                    } else if let Some(stop) = self.port.take_stop(LOOK_AGAIN) {
                        self.port.wait_until_quiet(&debuggee.lps, HALTING);
                        match guest.reason(stop) {
                            Some(reason) => running.report_stop(&mut guest, reason),
                            // Of a processor or a point that is not the client's: go on.
                            None => {
                                guest.go_on();
                                Ok(running.into())
                            }
                        }
                    } else {
                        match running.borrow_conn().next_byte(Duration::ZERO) {
                            Ok(Some(byte)) => running.incoming_data(&mut guest, byte),
                            Ok(None) => Ok(running.into()),
                            Err(_) => return Farewell::Gone,
                        }
                    }
                }
                GdbStubStateMachine::Idle(mut idle) => match idle.borrow_conn().next_byte(LOOK_AGAIN) {
                    Ok(Some(byte)) => idle.incoming_data(&mut guest, byte),
                    // Whoever has stopped the TD is not told that the host ended it before it goes on.
                    Ok(None) if debuggee.finished.load(Ordering::SeqCst) => return Farewell::Gone,
                    Ok(None) => Ok(idle.into()),
                    Err(_) => return Farewell::Gone,
                },
            };
            machine = match next {
                Ok(next) => next,
                Err(_) => return Farewell::Gone,
            };
        }
    }
}

impl Drop for Debugger {
    fn drop(&mut self) {
        self.port.release();
    }
}

impl Guest<'_> {
    /// A stop as the client is told it; `None` where it is about nothing of this client's.
    fn reason(&self, stop: Stop) -> Option<MultiThreadStopReason<u64>> {
        let tid: Option<Tid> = self.tid_of(stop.lp);
        // The host calls on processors of its own, too: then all threads are as good.
        let tid = if matches!(stop.reason, StopReason::Call(_)) { tid.or(Tid::new(1)) } else { tid };
        let tid = tid?;
        Some(match stop.reason {
            StopReason::Point(point) => self.points().reason(tid, &point)?,
            StopReason::Step | StopReason::Exit(_) | StopReason::Call(_) => {
                MultiThreadStopReason::SignalWithThread { tid, signal: Signal::SIGTRAP }
            }
            StopReason::TripleFault => {
                MultiThreadStopReason::SignalWithThread { tid, signal: Signal::SIGSEGV }
            }
            StopReason::Unimplemented => {
                MultiThreadStopReason::SignalWithThread { tid, signal: Signal::SIGILL }
            }
        })
    }
}
