//! A TD in a unit test: a module that is up, a TD with a page of code, a guest that issues TDCALLs, and a guest of
//! real instructions.

use seam_emu::guest::{ExitReason, GuestProgram};
use seam_emu::testing::{Host, mem};
use seam_emu::{CpuGuest, GuestCpu, Machine};
use tdvisor_base::{Gpa, Level};
use tdx_module_iface::{Gprs, TdhLeaf};

/// The page of the reset vector, the last one below 4 GiB.
const CODE: u64 = 0xffff_f000;
/// Where in that page a processor starts.
const RESET: usize = 0xff0;
/// The page that the guest accepts.
const DATA: u64 = CODE - 0x1000;
/// MOV EAX, [90000000h]: a page that is not there.
const MOV_FROM_NOWHERE: [u8; 5] = [0xa1, 0x00, 0x00, 0x00, 0x90];

fn enter(host: &Host, vcpu: u64) -> Gprs {
    host.call(0, TdhLeaf::VP_ENTER, Gprs { rcx: vcpu, ..Gprs::ZERO })
}

fn run_on(machine: &Machine, guest: impl GuestCpu + Send + 'static) {
    machine.set_guest_cpu(0, Box::new(guest));
}

fn main() {
    let host = Host::ready();
    let td = host.td_being_built(2, 0);
    host.tables(&td, CODE, 0);
    let mut code = [0; 4096];
    code[RESET..][..MOV_FROM_NOWHERE.len()].copy_from_slice(&MOV_FROM_NOWHERE);
    host.add(&td, CODE, &code);
    host.ok(0, TdhLeaf::MR_FINALIZE, Gprs { rcx: td.tdr, ..Gprs::ZERO });
    host.ok(0, TdhLeaf::MEM_PAGE_AUG, mem(&td, DATA, 0, host.page()));

    // A guest as a function: it asks the module, accepts its page, and is interrupted.
    run_on(
        &host.machine,
        GuestProgram::new(|td| {
            assert_eq!(td.vp_info().expect("VP.INFO").num_vcpus, 2);
            td.mem_page_accept(Gpa::new(DATA), Level::L4K).expect("ACCEPT");
        }),
    );
    let exit = enter(&host, td.vcpus[0]);
    assert_eq!(exit.rax, u64::from(ExitReason::EXTERNAL_INTERRUPT.0));

    // A guest as machine code: it meets the page that is not there.
    run_on(&host.machine, CpuGuest::new());
    let exit = enter(&host, td.vcpus[1]);
    assert_eq!((exit.rax, exit.r8), (u64::from(ExitReason::EPT_VIOLATION.0), 0x9000_0000));
}
