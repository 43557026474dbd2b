//! Cases in which a guest runs: what it asks of its monitor, and what becomes of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use td_image::mrtd;
use td_image::tdvf::{HostContents, LoaderModel, TdvfImage};
use tdvisor_base::{Gfn, PAGE_SIZE, Side};
use tdvisor_vm::{Answer, Ending, Partition, Transfer, Vcpu as _, VmExit};

use super::{Case, Guests, Mismatch, Outcome, Run, holds, refused};
use crate::build::TdSpec;
use crate::death::{Death, DeathCause};
use crate::error::{BuildError, Errno};
use crate::exit::ExitKind;
use crate::kernel::{Kernel, KernelVcpu};
use crate::td::Td;

/// Memory of a guest: enough for the guests of the cases, and little to give back.
const MEMORY: u64 = 32 << 20;
/// How long a guest may take; a server that is emulated is slow.
const PATIENCE: Duration = Duration::from_secs(600);
/// Exits that a guest may have.
const MOST_EXITS: u32 = 100_000;

/// Where a guest prints, and where it says how it went.
mod port {
    pub(super) const CONSOLE: u16 = 0x3f8;
    pub(super) const RESULT: u16 = 0x501;
}

/// Cases in which a guest runs, in an order in which the first that fails says most.
pub(super) fn cases<K: Kernel>() -> Vec<Case<K>> {
    macro_rules! list {
        ($($name:literal => $run:expr,)*) => { vec![$(Case { name: $name, run: Run::Guest($run) }),*] };
    }
    list! {
        "a guest runs: KVM_EXIT_IO, KVM_EXIT_HYPERCALL for MapGPA both ways, KVM_EXIT_TDX for GetQuote, and a TDREPORT with the MRTD of pages that were measured one by one" => whole_life,
        "an access to memory that no slot has is KVM_EXIT_MMIO" => mmio,
        "ReportFatalError is KVM_EXIT_SYSTEM_EVENT with its message" => |kernel, guests| {
            let story = Story::of(kernel, guests.fault, guests.command("fatal"), |_| false)?;
            holds("the message", matches!(
                story.ending,
                Some(Ending::FatalError { ref message, .. }) if message.contains("fault-td was asked to die")
            ))
        },
        "a triple fault is KVM_EXIT_SHUTDOWN" => |kernel, guests| {
            let story = Story::of(kernel, guests.fault, guests.command("triple-fault"), |_| false)?;
            holds("the exit", matches!(
                story.ending,
                Some(Ending::Died(Death { cause: DeathCause::TripleFault, .. }))
            ))
        },
        "private memory that was not accepted ends the TD: KVM_RUN is EIO, and stays so" => |kernel, guests| {
            let td = build(kernel, guests.fault, guests.command("unaccepted"))?;
            let story = Story::watch(&td, |_| false)?;
            let Some(Ending::Died(Death { cause: DeathCause::Kernel(error), .. })) = story.ending else {
                return holds("the TD died", false);
            };
            refused("KVM_RUN", Err::<(), _>(error.errno), libc::EIO)?;
            td.vcpus.iter().try_for_each(|vcpu| refused("KVM_RUN again", vcpu.kernel.run(), libc::EIO))
        },
        "a signal takes a vCPU out of KVM_RUN, and it runs on" => |kernel, guests| {
            let td = build(kernel, guests.fault, guests.command("spin"))?;
            beside(&td, |interrupted| {
                td.interrupt(0);
                holds("the vCPU came back", interrupted.recv_timeout(PATIENCE).is_ok())?;
                td.interrupt(0);
                holds("and again", interrupted.recv_timeout(PATIENCE).is_ok())
            })
        },
        "a signal takes a halted vCPU out of KVM_RUN, and it stays halted" => |kernel, guests| {
            let td = build(kernel, guests.fault, guests.command("halt"))?;
            beside(&td, |interrupted| {
                for step in ["the vCPU came back", "and again", "and a third time"] {
                    td.interrupt(0);
                    holds(step, interrupted.recv_timeout(PATIENCE).is_ok())?;
                }
                Ok(())
            })
        },
        "private memory that became shared beneath its guest is KVM_EXIT_MEMORY_FAULT" => |kernel, guests| {
            let td = build(kernel, guests.hello, None)?;
            let story = Story::watch(&td, |story| story.console.contains('\n'))?;
            holds("the guest runs", story.ending.is_none())?;
            share_all(&td)?;
            let story = Story::watch(&td, |story| story.faults != 0)?;
            holds("KVM_EXIT_MEMORY_FAULT", story.faults == 1 && story.ending.is_none())
        },
        "memory changes sides beside a vCPU that runs" => |kernel, guests| {
            let td = build(kernel, guests.fault, guests.command("spin"))?;
            // The last MiB, which this guest does not touch.
            let (start, end) = (Gfn::new((MEMORY - (1 << 20)) / PAGE_SIZE), Gfn::new(MEMORY / PAGE_SIZE));
            beside(&td, |_| {
                for side in [Side::Shared, Side::Private].into_iter().cycle().take(20) {
                    let converted = td.memory.convert(&td.vm, start, end, side);
                    holds("KVM_SET_MEMORY_ATTRIBUTES", converted.is_ok_and(|all| all.reached == end))?;
                }
                Ok(())
            })
        },
        "a TD is torn down while its vCPU is on its way out" => |kernel, guests| {
            for _ in 0..3 {
                let td = build(kernel, guests.fault, guests.command("spin"))?;
                beside(&td, |_| Ok(()))?;
                drop(td);
            }
            Ok(())
        },
    }
}

/// What a guest did.
#[derive(Debug, Default)]
struct Story {
    console: String,
    /// What the guest said of its own run.
    result: Option<u64>,
    /// Frames that it gave to its monitor, and took back.
    shared: u64,
    private: u64,
    mmio: u64,
    quotes: u64,
    /// Accesses to the side on which memory is not.
    faults: u64,
    ending: Option<Ending<Death>>,
}

fn build<K: Kernel>(
    kernel: &K,
    image: &[u8],
    command: Option<([u8; 16], Vec<u8>)>,
) -> Result<Td<K>, Mismatch> {
    let spec = TdSpec { memory: MEMORY, hob_extensions: command.into_iter().collect(), ..TdSpec::default() };
    Td::build(kernel, &spec, image, |_| {}).map_err(|error| {
        let (got, module) = match error {
            BuildError::Refused(error) => (error.errno, error.module.map_or(0, |status| status.raw())),
            _ => (Errno(libc::ERANGE), 0),
        };
        Mismatch { step: "a TD with a guest", wanted: None, got: Some(got), module }
    })
}

impl Story {
    /// Builds a TD, and runs it until it ends, says how it went, or has done `enough`.
    fn of<K: Kernel>(
        kernel: &K,
        image: &[u8],
        command: Option<([u8; 16], Vec<u8>)>,
        enough: impl Fn(&Self) -> bool,
    ) -> Result<Self, Mismatch> {
        Self::watch(&build(kernel, image, command)?, enough)
    }

    fn watch<K: Kernel>(td: &Td<K>, enough: impl Fn(&Self) -> bool) -> Result<Self, Mismatch> {
        let (done, deadline) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                if deadline.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                    td.end(Ending::Stopped);
                }
            });
            let mut story = Self::default();
            let result = story.drive(td, enough);
            drop(done);
            result.map(|()| story)
        })
    }

    fn drive<K: Kernel>(&mut self, td: &Td<K>, enough: impl Fn(&Self) -> bool) -> Outcome {
        let Ok(mut vcpu) = td.vcpu(0) else { return holds("a vCPU", false) };
        let mut answer = Answer::Done;
        for _ in 0..MOST_EXITS {
            if self.result.is_some() || enough(self) {
                return Ok(());
            }
            answer = match vcpu.run(answer) {
                VmExit::Io { port, size, transfer } => match (port, transfer) {
                    (port::CONSOLE, Transfer::Write(byte)) => {
                        self.console.push(char::from((byte & 0xff) as u8));
                        Answer::Done
                    }
                    (port::RESULT, Transfer::Write(result)) => {
                        self.result = Some(result);
                        Answer::Done
                    }
                    (_, Transfer::Write(_)) => Answer::Done,
                    (_, Transfer::Read) => Answer::Value(size.all_ones()),
                },
                VmExit::Mmio { size, transfer, .. } => {
                    self.mmio += 1;
                    if transfer == Transfer::Read { Answer::Value(size.all_ones()) } else { Answer::Done }
                }
                VmExit::MapGpa { gpa, size } => {
                    let (side, gpa) = td.shared_bit().split(gpa);
                    let frames = size / PAGE_SIZE;
                    let end = Gfn::new(gpa.frame().get().saturating_add(frames));
                    let mut at = gpa.frame();
                    while at < end {
                        match vcpu.convert(at, end, side) {
                            Ok(reached) if reached > at => at = reached,
                            _ => return holds("a conversion", false),
                        }
                    }
                    match side {
                        Side::Shared => self.shared += frames,
                        Side::Private => self.private += frames,
                    }
                    Answer::Done
                }
                VmExit::GetQuote { gpa, .. } => {
                    self.quotes += 1;
                    let (side, gpa) = td.shared_bit().split(gpa);
                    holds("the quote's buffer is shared", side == Side::Shared)?;
                    let mut version = [0; 8];
                    let read = td.shared_memory().read(gpa, &mut version);
                    holds("and holds a request", read.is_ok() && u64::from_le_bytes(version) == 1)?;
                    Answer::Invalid
                }
                VmExit::EventNotify { .. } => Answer::Done,
                // All that KVM hands on.
                VmExit::CallInfo { .. } => Answer::Value(u64::MAX),
                VmExit::MemoryFault(_) => {
                    self.faults += 1;
                    return holds("no access to the other side", enough(self));
                }
                VmExit::Interrupted => Answer::Done,
                VmExit::Ended(ending) => {
                    self.ending = Some(ending);
                    return Ok(());
                }
            };
        }
        holds("an end", false)
    }
}

/// Makes all of a TD's memory shared, beneath its guest.
fn share_all<K: Kernel>(td: &Td<K>) -> Outcome {
    let (mut at, end) = (Gfn::new(0), Gfn::new(MEMORY / PAGE_SIZE));
    while at < end {
        at = match td.memory.convert(&td.vm, at, end, Side::Shared) {
            Ok(all) if all.reached > at => all.reached,
            _ => return holds("a conversion", false),
        };
    }
    Ok(())
}

/// Runs the TD's vCPU on another thread. When its guest has printed something, does `act` beside it, which hears of each time
/// that the vCPU is interrupted; then ends the TD.
fn beside<K: Kernel>(td: &Td<K>, act: impl FnOnce(&mpsc::Receiver<()>) -> Outcome) -> Outcome {
    let (says, heard) = mpsc::channel();
    let (comes_back, interrupted) = mpsc::channel();
    let has_ended = AtomicBool::new(false);
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            let (says, comes_back) = (says, comes_back);
            let Ok(mut vcpu) = td.vcpu(0) else { return };
            loop {
                match vcpu.run(Answer::Value(u64::MAX)) {
                    VmExit::Io { port: port::CONSOLE, transfer: Transfer::Write(byte), .. }
                        if byte & 0xff == u64::from(b'\n') =>
                    {
                        let _ = says.send(());
                    }
                    VmExit::Interrupted => {
                        let _ = comes_back.send(());
                    }
                    VmExit::Ended(_) => break,
                    _ => {}
                }
            }
            has_ended.store(true, Ordering::SeqCst);
        });
        let runs = holds("the guest runs", heard.recv_timeout(PATIENCE).is_ok());
        let outcome = runs.and_then(|()| act(&interrupted));
        td.end(Ending::Stopped);
        outcome
    });
    outcome?;
    holds("the vCPU ended", has_ended.load(Ordering::SeqCst))
}

fn whole_life<K: Kernel>(kernel: &K, guests: &Guests<'_>) -> Outcome {
    let predicted = TdvfImage::parse(guests.hello).and_then(|image| {
        Ok(mrtd::of_plan(&image.build_plan(LoaderModel::INTERLEAVED, HostContents::default())?))
    });
    let Ok(predicted) = predicted else { return holds("an image", false) };
    let story = Story::of(kernel, guests.hello, guests.command("quote"), |_| false)?;
    holds("the guest says that all went well", story.result == Some(0))?;
    holds("MapGPA to shared", story.shared != 0)?;
    holds("MapGPA to private", story.private != 0)?;
    holds("GetQuote", story.quotes != 0)?;
    holds("MRTD", story.console.contains(&format!("MRTD {predicted}")))
}

fn mmio<K: Kernel>(kernel: &K, guests: &Guests<'_>) -> Outcome {
    const ACCESSES: u64 = 8;
    let command = guests.command("flood:mmio:8");
    let td = build(kernel, guests.fault, command)?;
    let story = Story::watch(&td, |story| story.console.contains("flood mmio 0"))?;
    // Some of the addresses may have memory, and be answered by KVM.
    holds("accesses", (1..=ACCESSES).contains(&story.mmio))?;
    holds("each is counted", td.exits(ExitKind::Mmio) == story.mmio)?;
    holds("none is at memory", story.ending.is_none())
}
