//! A guest written as a plain function that issues TDCALLs and gets their answers.
//!
//! # Protocol
//! The function runs on a thread of its own, but never at the same time as anything else of its vCPU: it works
//! while [`GuestProgram::run`] waits for its next request, and waits while the module handles that request. A
//! TDCALL that was interrupted, or that left the TD without being completed, is issued again when the vCPU runs
//! the next time, as the instruction would be. When the function has returned, every further run ends with an
//! external interrupt at once; a panic of the function goes on in the first of them.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use tdvisor_base::{Gpa, Level};
use tdx_module_iface::exit::ExitReason;
use tdx_module_iface::{Gprs, Status, TdgLeaf};
use x86_arch::Event;

use super::{GuestCpu, GuestRegisters, GuestState, VmExit};
use crate::machine::{GuestEnv, GuestMemoryError};

/// What the function wants.
enum Request {
    Tdcall(Gprs),
    Read { gpa: Gpa, len: usize },
    Write { gpa: Gpa, data: Vec<u8> },
    Instruction(VmExit),
}

/// What a guest program gets for what it does.
enum Answer {
    Gprs(Gprs),
    Data(Vec<u8>),
    Injected(Event),
}

/// How a TDCALL or an instruction ended other than with success.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GuestError {
    /// With this status; the registers as the module left them.
    Status(Status, Box<Gprs>),
    /// The module injected an event instead (#VE, #GP, ...).
    Injected(Event),
    /// The machine is gone.
    Stopped,
}

impl core::fmt::Display for GuestError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Status(status, _) => write!(f, "TDCALL ended with {status:?}"),
            Self::Injected(event) => write!(f, "the guest got vector {}", event.vector),
            Self::Stopped => f.write_str("the machine is gone"),
        }
    }
}

impl core::error::Error for GuestError {}

/// The function's side: what a guest can do.
#[derive(Debug)]
pub struct TdGuest {
    requests: Sender<Request>,
    answers: Receiver<Answer>,
}

/// What TDG.VP.INFO tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VpInfo {
    /// Bits of a guest-physical address.
    pub gpa_width: u64,
    /// ATTRIBUTES of the TD.
    pub attributes: u64,
    /// vCPUs of the TD now.
    pub num_vcpus: u32,
    /// The most that it may have.
    pub max_vcpus: u32,
    /// Index of this one.
    pub index: u64,
}

impl TdGuest {
    fn ask(&mut self, request: Request) -> Result<Answer, GuestError> {
        self.requests.send(request).map_err(|_| GuestError::Stopped)?;
        match self.answers.recv() {
            Ok(Answer::Injected(event)) => Err(GuestError::Injected(event)),
            Ok(answer) => Ok(answer),
            Err(_) => Err(GuestError::Stopped),
        }
    }

    /// Issues a TDCALL of version 0; RAX of `gprs` is overwritten.
    ///
    /// # Errors
    /// [`GuestError`]; a status that is neither success nor error is one of its [`GuestError::Status`].
    pub fn tdcall(&mut self, leaf: TdgLeaf, mut gprs: Gprs) -> Result<Gprs, GuestError> {
        gprs.rax = u64::from(leaf.0);
        let Answer::Gprs(gprs) = self.ask(Request::Tdcall(gprs))? else { return Err(GuestError::Stopped) };
        match Status::from_raw(gprs.rax) {
            status if status.is_success() => Ok(gprs),
            status => Err(GuestError::Status(status, Box::new(gprs))),
        }
    }

    /// TDG.VP.INFO.
    ///
    /// # Errors
    /// As for [`Self::tdcall`].
    pub fn vp_info(&mut self) -> Result<VpInfo, GuestError> {
        let out = self.tdcall(TdgLeaf::VP_INFO, Gprs::ZERO)?;
        Ok(VpInfo {
            gpa_width: out.rcx,
            attributes: out.rdx,
            num_vcpus: out.r8 as u32,
            max_vcpus: (out.r8 >> 32) as u32,
            index: out.r9,
        })
    }

    /// TDG.MEM.PAGE.ACCEPT of a 4 KiB or 2 MiB page.
    ///
    /// # Errors
    /// As for [`Self::tdcall`].
    pub fn mem_page_accept(&mut self, gpa: Gpa, level: Level) -> Result<(), GuestError> {
        let rcx = gpa.get() | u64::from(level.index());
        self.tdcall(TdgLeaf::MEM_PAGE_ACCEPT, Gprs { rcx, ..Gprs::ZERO }).map(drop)
    }

    /// TDG.MR.RTMR.EXTEND by the 48 bytes at `data`, which is 64-byte aligned.
    ///
    /// # Errors
    /// As for [`Self::tdcall`].
    pub fn mr_rtmr_extend(&mut self, data: Gpa, register: u64) -> Result<(), GuestError> {
        let gprs = Gprs { rcx: data.get(), rdx: register, ..Gprs::ZERO };
        self.tdcall(TdgLeaf::MR_RTMR_EXTEND, gprs).map(drop)
    }

    /// TDG.MR.REPORT into 1024 bytes at `report`, with the 64 bytes at `data`.
    ///
    /// # Errors
    /// As for [`Self::tdcall`].
    pub fn mr_report(&mut self, report: Gpa, data: Gpa) -> Result<(), GuestError> {
        let gprs = Gprs { rcx: report.get(), rdx: data.get(), ..Gprs::ZERO };
        self.tdcall(TdgLeaf::MR_REPORT, gprs).map(drop)
    }

    /// TDG.VP.VMCALL: RCX of `gprs` says which registers the VMM sees and may change.
    ///
    /// # Errors
    /// As for [`Self::tdcall`].
    pub fn vp_vmcall(&mut self, gprs: Gprs) -> Result<Gprs, GuestError> {
        self.tdcall(TdgLeaf::VP_VMCALL, gprs)
    }

    /// Reads memory. What is not mapped leaves the TD until the VMM has mapped it.
    ///
    /// # Errors
    /// [`GuestError::Injected`] for pages that wait to be accepted.
    pub fn read(&mut self, gpa: Gpa, len: usize) -> Result<Vec<u8>, GuestError> {
        match self.ask(Request::Read { gpa, len })? {
            Answer::Data(data) => Ok(data),
            _ => Err(GuestError::Stopped),
        }
    }

    /// Writes memory.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub fn write(&mut self, gpa: Gpa, data: &[u8]) -> Result<(), GuestError> {
        self.ask(Request::Write { gpa, data: data.to_vec() }).map(drop)
    }

    /// Executes an instruction that exits, described by its exit information; gives the registers behind it.
    ///
    /// # Errors
    /// [`GuestError::Injected`] where the module does not complete it.
    pub fn instruction(&mut self, exit: VmExit) -> Result<Gprs, GuestError> {
        match self.ask(Request::Instruction(exit))? {
            Answer::Gprs(gprs) => Ok(gprs),
            _ => Err(GuestError::Stopped),
        }
    }
}

/// A request that is under way.
struct Pending {
    request: Request,
    /// RIP when it began; `None` while it has not been tried.
    rip: Option<u64>,
}

/// The processor's side: executes the function's requests on one vCPU.
pub struct GuestProgram {
    requests: Receiver<Request>,
    answers: Sender<Answer>,
    pending: Option<Pending>,
    thread: Option<thread::JoinHandle<()>>,
}

impl core::fmt::Debug for GuestProgram {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("GuestProgram").field("waits", &self.pending.is_some()).finish_non_exhaustive()
    }
}

impl GuestProgram {
    /// Starts a guest; it waits until its vCPU is entered.
    pub fn new(guest: impl FnOnce(&mut TdGuest) + Send + 'static) -> Self {
        let (request_sender, requests) = channel();
        let (answers, answer_receiver) = channel();
        let thread = thread::spawn(move || {
            guest(&mut TdGuest { requests: request_sender, answers: answer_receiver });
        });
        Self { requests, answers, pending: None, thread: Some(thread) }
    }

    /// The function has returned. If it panicked, a test wants to know: the panic goes on here.
    fn finish(&mut self) {
        if let Some(Err(panic)) = self.thread.take().map(thread::JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
    }

    /// Answers the function and waits for what it wants next.
    fn answer(&mut self, answer: Answer) {
        self.pending = None;
        // A function that has returned does not listen any more.
        let _ = self.answers.send(answer);
    }
}

/// What came of one attempt at a request.
enum Attempt {
    Done(Answer),
    Exit(VmExit),
}

fn attempt(pending: &mut Pending, state: &mut GuestState, env: &GuestEnv<'_>) -> Attempt {
    if let Some(event) = state.event.take() {
        return Attempt::Done(Answer::Injected(event));
    }
    let began = pending.rip.replace(state.rip());
    let completed = began.is_some_and(|rip| rip != state.rip());
    match &pending.request {
        Request::Tdcall(_) | Request::Instruction(_) if completed => {
            Attempt::Done(Answer::Gprs(state.gprs()))
        }
        Request::Tdcall(gprs) => {
            state.set_gprs(*gprs);
            Attempt::Exit(VmExit::tdcall())
        }
        Request::Instruction(exit) => Attempt::Exit(*exit),
        Request::Read { gpa, len } => {
            let mut data = vec![0; *len];
            match env.read(*gpa, &mut data) {
                Ok(()) => accessed(state, data),
                Err(error) => Attempt::Exit(refused(error)),
            }
        }
        Request::Write { gpa, data } => match env.write(*gpa, data) {
            Ok(()) => accessed(state, Vec::new()),
            Err(error) => Attempt::Exit(refused(error)),
        },
    }
}

/// An access is an instruction, too: the next one is at another address.
fn accessed(state: &mut GuestState, data: Vec<u8>) -> Attempt {
    state.set_rip(state.rip().wrapping_add(ACCESS_LENGTH));
    Attempt::Done(Answer::Data(data))
}

/// Length of the instruction that an access stands for.
const ACCESS_LENGTH: u64 = 4;

/// The VM exit of an access that did not happen.
fn refused(error: GuestMemoryError) -> VmExit {
    /// #MC, a hardware exception, valid.
    const MACHINE_CHECK: u32 = 0x8000_0312;
    match error {
        GuestMemoryError::Exit(exit) => exit,
        GuestMemoryError::Memory(_) => {
            let mut exit = VmExit::plain(ExitReason::EXCEPTION_NMI);
            exit.interruption_info = MACHINE_CHECK;
            exit
        }
    }
}

impl GuestCpu for GuestProgram {
    fn run(&mut self, state: &mut GuestState, env: &GuestEnv<'_>) -> VmExit {
        let interrupted = VmExit::plain(ExitReason::EXTERNAL_INTERRUPT);
        state.enter_64_bit_mode();
        loop {
            let Some(pending) = &mut self.pending else {
                if env.interrupt_pending() {
                    return interrupted;
                }
                match self.requests.recv() {
                    Ok(request) => self.pending = Some(Pending { request, rip: None }),
                    Err(_) => {
                        self.finish();
                        return interrupted;
                    }
                }
                continue;
            };
            match attempt(pending, state, env) {
                Attempt::Done(answer) => self.answer(answer),
                Attempt::Exit(exit) => return exit,
            }
        }
    }
}
