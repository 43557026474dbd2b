//! `l1-vmm`: a small VMM inside of a TD. It gives an L2 VM a payload with page attributes of its own, runs it by
//! TDG.VP.ENTER, answers its exits and counts them.
//!
//! Steps, each a function of [`steps`]: the payload says hello and finds out what it may not do; a 2M page is the VM's, too;
//! what L1 gives to its host its VM does not have any more.

#![no_std]
#![no_main]

mod module;
mod steps;
mod vm;

use guest_rt::{Outcome, Td, guest, memory, println};

guest!(main);

/// The result of one step: what to say, either way.
type Step = Result<(), Failed>;

/// Something that a step checks did not hold; it has been said.
struct Failed;

fn main(td: &'static Td) -> Outcome {
    match module::l2_vms() {
        Ok(0) => {
            println!("l1-vmm: this TD has no L2 VM: its host has to ask for one");
            return Outcome::Failure;
        }
        Ok(vms) => println!("l1-vmm: a TD with {vms} L2 VM(s)"),
        Err(error) => {
            println!("l1-vmm: the module does not tell of L2 VMs: {error:x?}");
            return Outcome::Failure;
        }
    }
    if let Err(refused) = memory::open_pool() {
        println!("l1-vmm: GPA {:#x} not accepted: {:?}", refused.gpa, refused.error);
        return Outcome::Failure;
    }
    let ok = steps::all(td).is_ok();
    println!("l1-vmm: {}", if ok { "done, powering off" } else { "FAILED, powering off" });
    Outcome::from_checks(ok)
}

/// Says what failed.
fn failed(what: core::fmt::Arguments<'_>) -> Failed {
    println!("FAILED {what}");
    Failed
}
