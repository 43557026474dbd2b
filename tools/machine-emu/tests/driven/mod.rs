//! What a test has a TD's vCPU do, in the place of a guest.

use std::sync::{Arc, Mutex};

use machine_emu::EmulatedMachine;
use seam_emu::guest::GuestRegisters;
use seam_emu::{CpuGuest, GuestEnv, GuestState, ScriptedGuest, VmExit as GuestExit};
use td_host::Host;
use td_host::td::Td;
use tdvisor_vm::{Answer, Partition, Vcpu, VmExit};
use tdx_module_iface::Gprs;
use tdx_module_iface::exit::ExitReason;

type EmulatedHost = Host<EmulatedMachine>;
type EmulatedTd<'h> = Td<'h, EmulatedMachine>;

/// An OUT to a port nobody has, so that the vCPU comes back from its loop.
const OUT: Gprs = Gprs { rcx: 0xfc00, r11: 30, r12: 1, r13: 1, r14: PORT as u64, ..Gprs::ZERO };
const PORT: u16 = 0x80;

/// Runs a TD's first vCPU with this in the place of its guest, until it makes [`come_back`]'s exit.
pub fn drive(
    host: &EmulatedHost,
    td: &EmulatedTd<'_>,
    script: impl FnMut(&mut GuestState, &GuestEnv<'_>) -> GuestExit + Send + 'static,
) {
    let lp = td.vcpus()[0].lp().0 as usize;
    let machine = host.platform().machine();
    machine.set_guest_cpu(lp, Box::new(ScriptedGuest(script)));
    let mut vcpu = td.vcpu(0).expect("a vCPU that nobody has");
    let exit = vcpu.run(Answer::Done);
    assert!(matches!(exit, VmExit::Io { port: PORT, .. }), "{exit:?}");
    // Takes the answer, and comes back before it enters: a vCPU that waits for one is not at rest.
    td.interrupt(0);
    let exit = vcpu.run(Answer::Done);
    assert_eq!(exit, VmExit::Interrupted);
    machine.set_guest_cpu(lp, Box::new(CpuGuest::with_engine(seam_emu::testing::engine())));
}

/// The exit by which a driven vCPU comes back to its test.
pub fn come_back(state: &mut GuestState) -> GuestExit {
    state.enter_64_bit_mode();
    state.set_gprs(OUT);
    GuestExit::tdcall()
}

/// Has a TD's first vCPU, in its L1, make calls of the module one after the other; gives the registers after each.
pub fn tdcalls(host: &EmulatedHost, td: &EmulatedTd<'_>, calls: Vec<Gprs>) -> Vec<Gprs> {
    let results = Arc::new(Mutex::new(Vec::new()));
    let (seen, mut next) = (results.clone(), 0);
    drive(host, td, move |state: &mut GuestState, env: &GuestEnv<'_>| {
        state.enter_64_bit_mode();
        if env.interrupt_pending() {
            return GuestExit::plain(ExitReason::EXTERNAL_INTERRUPT);
        }
        // A call whose TD exit the host resolved is made again: its registers are as they were.
        let again = next > 0 && calls.get(next - 1).is_some_and(|call| *call == state.gprs());
        if !again {
            if next > 0 {
                seen.lock().unwrap().push(state.gprs());
            }
            let Some(call) = calls.get(next) else { return come_back(state) };
            state.set_gprs(*call);
            next += 1;
        }
        GuestExit::tdcall()
    });
    let results = results.lock().unwrap();
    results.clone()
}
