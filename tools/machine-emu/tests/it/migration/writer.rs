//! A guest that writes while its memory is sent: what it wrote last is what arrives.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use seam_emu::guest::GuestRegisters;
use seam_emu::machine::GuestMemoryError;
use seam_emu::{GuestEnv, GuestState, ScriptedGuest, VmExit as GuestExit};
use td_host::migration::destination::Destination;
use td_host::migration::source::{Plan, Source, Step};
use tdvisor_base::{Gpa, Level};
use tdvisor_vm::{Answer, Partition, Vcpu, VmExit};
use tdx_module_iface::exit::ExitReason;
use tdx_module_iface::{Gprs, TdgLeaf};
use x86_arch::Gpr;

use super::world::{EmulatedHost, EmulatedTd, End, SPARE, agree, check, frames, guest, hosts};
use crate::driven::{come_back, drive};

/// Pages that the guest writes to, in turn.
const PAGES: u64 = 48;

fn page(number: u64) -> Gpa {
    frames(number % PAGES, 1).start().base()
}

/// Accepts its pages, then writes a growing number to one after the other until it is told to stop.
fn writer(
    written: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> impl FnMut(&mut GuestState, &GuestEnv<'_>) -> GuestExit + Send {
    let (mut accepted, mut asked) = (0, false);
    move |state, env| {
        state.enter_64_bit_mode();
        if asked {
            asked = false;
            if state.regs[Gpr::Rax] == 0 {
                accepted += 1;
            }
        }
        if env.interrupt_pending() {
            return GuestExit::plain(ExitReason::EXTERNAL_INTERRUPT);
        }
        if accepted < PAGES {
            asked = true;
            let rax = u64::from(TdgLeaf::MEM_PAGE_ACCEPT.0);
            state.set_gprs(Gprs { rax, rcx: page(accepted).get(), ..Gprs::ZERO });
            return GuestExit::tdcall();
        }
        loop {
            if env.interrupt_pending() || stop.load(Ordering::SeqCst) {
                return GuestExit::plain(ExitReason::EXTERNAL_INTERRUPT);
            }
            let value = written.load(Ordering::SeqCst);
            match env.write(page(value), &(value + 1).to_le_bytes()) {
                Ok(()) => {
                    written.store(value + 1, Ordering::SeqCst);
                    state.set_rip(state.rip().wrapping_add(4));
                }
                Err(GuestMemoryError::Exit(exit)) => return exit,
                Err(GuestMemoryError::Memory(fault)) => panic!("{fault:?}"),
            }
        }
    }
}

/// Reads every page once.
fn read_all(host: &EmulatedHost, td: &EmulatedTd<'_>) -> Vec<u64> {
    let values = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = values.clone();
    let script = move |state: &mut GuestState, env: &GuestEnv<'_>| {
        state.enter_64_bit_mode();
        let mut seen = seen.lock().unwrap();
        while (seen.len() as u64) < PAGES {
            let mut word = [0; 8];
            match env.read(page(seen.len() as u64), &mut word) {
                Ok(()) => seen.push(u64::from_le_bytes(word)),
                Err(GuestMemoryError::Exit(exit)) => return exit,
                Err(GuestMemoryError::Memory(fault)) => panic!("{fault:?}"),
            }
        }
        come_back(state)
    };
    drive(host, td, script);
    let values = values.lock().unwrap();
    values.clone()
}

/// What the pages hold after the guest wrote so many numbers.
fn expected(written: u64) -> Vec<u64> {
    (0..PAGES)
        .map(|page| (0..written).rev().find(|value| value % PAGES == page).map_or(0, |v| v + 1))
        .collect()
}

fn wait_for(written: &AtomicU64, more: u64) {
    let seen = written.load(Ordering::SeqCst);
    while written.load(Ordering::SeqCst) < seen + more {
        std::thread::yield_now();
    }
}

#[test]
fn inv_59_whatever_is_written_while_memory_is_sent_arrives_or_stays() {
    let [here, there] = hosts(0);
    let (from, to) = (End::new(&here), End::new(&there));
    for commits in [false, true] {
        let td = guest(&here, &from.service, Level::L2M);
        let mut destination = Destination::new(&there, SPARE).unwrap();
        agree(&from, &td, &to, &destination);
        let (written, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let lp = td.vcpus()[0].lp().0 as usize;
        let script = writer(written.clone(), stop.clone());
        here.platform().machine().set_guest_cpu(lp, Box::new(ScriptedGuest(script)));
        let (mut rounds, mut sent) = (0, 0);
        std::thread::scope(|scope| {
            let run = scope.spawn(|| td.vcpu(0).unwrap().run(Answer::Done));
            wait_for(&written, 2 * PAGES);
            let mut source = Source::new(&td, SPARE, Plan { rounds: 6, ..Plan::default() }).unwrap();
            loop {
                let before = source.at();
                match source.step().unwrap() {
                    Step::Say(message) => {
                        if let Some(answer) = destination.take(&message).unwrap() {
                            assert!(commits);
                            source.hear(&answer).unwrap();
                            break;
                        }
                    }
                    Step::Quiet => {}
                    Step::Wait => unreachable!("it answers"),
                }
                match (before, source.at()) {
                    // It writes to pages that are held, and to some that were sent.
                    (_, "in a round") => wait_for(&written, 3),
                    (_, "before a round" | "before the pause") => {
                        rounds += 1;
                        wait_for(&written, PAGES / 2);
                    }
                    (_, "before the token") if !commits => {
                        let token = destination.abort();
                        source.abort(token.as_ref()).unwrap();
                        wait_for(&written, PAGES);
                        break;
                    }
                    _ => {}
                }
                sent = source.progress().pages;
            }
            stop.store(true, Ordering::SeqCst);
            td.interrupt(0);
            let exit = run.join().unwrap();
            assert_eq!(matches!(exit, VmExit::Ended(_)), commits, "{exit:?}");
        });
        assert!(rounds >= 1 && sent > PAGES, "{rounds} rounds, {sent} pages");
        let last = written.load(Ordering::SeqCst);
        if commits {
            let moved = destination.finish().unwrap();
            check(&there, &[&moved]);
            assert_eq!(read_all(&there, &moved), expected(last));
            assert!(moved.teardown().is_clean());
        } else {
            check(&here, &[&td]);
            assert_eq!(read_all(&here, &td), expected(last));
        }
        check(&here, &[]);
        assert!(td.teardown().is_clean());
    }
}
