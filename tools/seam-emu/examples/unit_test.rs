//! A TD in a unit test: the module brought up, a TD built, a guest that issues TDCALLs, a guest of real instructions.
use seam_emu::guest::{ExitReason, GuestProgram};
use seam_emu::{CpuGuest, Machine, MachineConfig};
use tdvisor_base::{Gpa, Hpa, Level};
use tdx_module_iface::{Gprs, SeamCall, TdhLeaf};
const TDMR: u64 = 1 << 30;
const GPA: u64 = 0xffff_f000;
fn main() {
    let machine = Machine::new(MachineConfig::small());
    let call = |lp: usize, leaf: TdhLeaf, rcx: u64, rdx: u64, r8: u64, r9: u64| {
        let mut regs = Gprs { rax: leaf.0.into(), rcx, rdx, r8, r9, ..Gprs::ZERO };
        machine.lp(lp).expect("an LP").seamcall(&mut regs).expect("a module");
        assert_eq!(regs.rax >> 32, 0, "{leaf}: {regs:?}");
        regs
    };
    let write = |at: u64, words: &[u64]| {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        machine.host_write(Hpa::new(at), &bytes).expect("memory");
    };
    // The module: one TDMR of 1 GiB, its PAMT behind it, key id 32 for itself.
    call(0, TdhLeaf::SYS_INIT, 0, 0, 0, 0);
    let _ = [0, 1].map(|lp| call(lp, TdhLeaf::SYS_LP_INIT, 0, 0, 0, 0));
    write(0x1000, &[0x2000]);
    write(0x2000, &[TDMR, TDMR, 0x8400_0000, 0x1000, 0x8200_0000, 0x2000, 0x8000_0000, 0x40_0000]);
    call(0, TdhLeaf::SYS_CONFIG, 0x1000, 1, 32, 0);
    call(0, TdhLeaf::SYS_KEY_CONFIG, 0, 0, 0, 0);
    while call(0, TdhLeaf::SYS_TDMR_INIT, TDMR, 0, 0, 0).rdx < 2 * TDMR {}
    // A TD with key id 33, two vCPUs and one page of code: MOV EAX,[90000000h] at the reset vector.
    let mut pages = (TDMR..).step_by(4096);
    let mut page = || pages.next().expect("a page");
    let (tdr, vcpus) = (page(), [page(), page()]);
    call(0, TdhLeaf::MNG_CREATE, tdr, 33, 0, 0);
    call(0, TdhLeaf::MNG_KEY_CONFIG, tdr, 0, 0, 0);
    let _ = [(); 6].map(|()| call(0, TdhLeaf::MNG_ADDCX, page(), tdr, 0, 0));
    write(0x3000, &[0, 3, 2, 0x1e, 0, 100]);
    call(0, TdhLeaf::MNG_INIT, tdr, 0x3000, 0, 0);
    for vcpu in vcpus {
        call(0, TdhLeaf::VP_CREATE, vcpu, tdr, 0, 0);
        let _ = [(); 5].map(|()| call(0, TdhLeaf::VP_ADDCX, page(), vcpu, 0, 0));
        call(0, TdhLeaf::VP_INIT, vcpu, 0, 0, 0);
    }
    for (base, level) in [(0, 3), (0xc000_0000, 2), (0xffe0_0000, 1)] {
        call(0, TdhLeaf::MEM_SEPT_ADD, base | level, tdr, page(), 0);
    }
    write(0x4ff0, &[0x90_0000_00a1]);
    call(0, TdhLeaf::MEM_PAGE_ADD, GPA, tdr, page(), 0x4000);
    call(0, TdhLeaf::MR_FINALIZE, tdr, 0, 0, 0);
    call(0, TdhLeaf::MEM_PAGE_AUG, GPA - 0x1000, tdr, page(), 0);
    // A guest as a function, which ends interrupted, then one as machine code, which meets an absent page.
    let program = GuestProgram::new(|td| {
        assert_eq!(td.vp_info().expect("VP.INFO").num_vcpus, 2);
        td.mem_page_accept(Gpa::new(GPA - 0x1000), Level::L4K).expect("ACCEPT");
    });
    machine.set_guest_cpu(0, Box::new(program));
    let exit = call(0, TdhLeaf::VP_ENTER, vcpus[0], 0, 0, 0);
    assert_eq!(exit.rax, ExitReason::EXTERNAL_INTERRUPT.0 as u64);
    machine.set_guest_cpu(0, Box::new(CpuGuest::new()));
    let exit = call(0, TdhLeaf::VP_ENTER, vcpus[1], 0, 0, 0);
    assert_eq!((exit.rax, exit.r8), (u64::from(ExitReason::EPT_VIOLATION.0), 0x9000_0000));
}
