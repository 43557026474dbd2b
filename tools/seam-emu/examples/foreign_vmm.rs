//! A VMM that knows nothing of this crate and wants a function that issues SEAMCALLs, registers in and out, as
//! Linux has with `__seamcall_ret`. Its threads are the processors. `cargo run -p seam-emu --example foreign_vmm`

use seam_emu::{Lp, Machine, MachineConfig};
use tdx_module_iface::{Gprs, SeamCall};

/// The foreign VMM.
mod vmm {
    /// RCX, RDX, R8 to R15.
    #[derive(Clone, Copy, Debug, Default)]
    pub struct Args {
        pub rcx: u64,
        pub rdx: u64,
        pub r8_to_r15: [u64; 8],
    }

    const TDH_SYS_RD: u64 = 34;
    const TDH_SYS_INIT: u64 = 33;
    const TDH_SYS_LP_INIT: u64 = 35;

    /// Counts the module's global metadata fields; an error has bit 63.
    pub fn count_fields(mut seamcall: impl FnMut(u64, &mut Args) -> u64) -> Result<usize, u64> {
        let mut call = |leaf, args: &mut Args| match seamcall(leaf, args) {
            error if error >> 63 != 0 => Err(error),
            _ => Ok(()),
        };
        call(TDH_SYS_INIT, &mut Args::default())?;
        call(TDH_SYS_LP_INIT, &mut Args::default())?;
        // The null id asks for the first one; each answer names the next one.
        let mut args = Args { rdx: u64::MAX, ..Args::default() };
        call(TDH_SYS_RD, &mut args)?;
        let mut fields = 0;
        while args.rdx != u64::MAX {
            call(TDH_SYS_RD, &mut args)?;
            fields += 1;
        }
        Ok(fields)
    }
}

/// All that there is to plug in.
fn seamcall(lp: &mut Lp<&Machine>, rax: u64, args: &mut vmm::Args) -> u64 {
    let [r8, r9, r10, r11, r12, r13, r14, r15] = args.r8_to_r15;
    let mut gprs =
        Gprs { rax, rcx: args.rcx, rdx: args.rdx, r8, r9, r10, r11, r12, r13, r14, r15, ..Gprs::ZERO };
    // An instruction that fails by itself is a fault on hardware.
    lp.seamcall(&mut gprs).expect("the machine has a module");
    (args.rcx, args.rdx) = (gprs.rcx, gprs.rdx);
    args.r8_to_r15 = [gprs.r8, gprs.r9, gprs.r10, gprs.r11, gprs.r12, gprs.r13, gprs.r14, gprs.r15];
    gprs.rax
}

fn main() {
    let machine = Machine::new(MachineConfig::small());
    let mut lp = machine.lp(0).expect("processor 0");
    let fields = vmm::count_fields(|rax, args| seamcall(&mut lp, rax, args));
    println!("{} fields", fields.expect("no call fails"));
}
