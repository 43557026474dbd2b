//! `mig-td`: the migration TD. It takes orders from its host, one after the other, until it is told to end.
//!
//! What an order is, and whom this TD hands keys to, is decided in `tdvisor-migration-td`; here are the TD's own surroundings:
//! the mailbox of the host, quotes, random numbers, and the module. A host that does not keep to the mailbox's rules gets no
//! key; one that does not answer an order for the next order ends the TD.
//!
//! It wants 8 MiB, of which the last two chunks of 2 MiB are its heap, and the first vCPU alone.

#![no_std]
#![no_main]

extern crate alloc;

mod host;
mod module;
mod random;
mod surroundings;

use guest_rt::{Outcome, Td, guest, heap, memory, println};
use tdvisor_migration_td::hand_over;
use tdvisor_migration_td::mailbox::{self, Order};

use host::Host;
use surroundings::Inside;

guest!(main, "mig-td died");

fn main(td: &'static Td) -> Outcome {
    match open(td) {
        Ok(inside) => serve(inside),
        Err(problem) => {
            println!("mig-td: {problem}");
            Outcome::Failure
        }
    }
}

/// Accepts memory for heap and mailbox, and shares the mailbox.
fn open(td: &Td) -> Result<Inside, &'static str> {
    memory::open_pool().map_err(|_| "the pool was not accepted")?;
    for chunk in td.demand().iter().filter(|chunk| chunk.start != 0) {
        heap::add(*chunk).map_err(|_| "memory for the heap was not accepted")?;
    }
    if heap::free() == 0 {
        return Err("the TD has no 2M page for a heap; give it 8 MiB");
    }
    let report = memory::take_pages(1).ok_or("the pool is empty")?;
    let pages = (mailbox::BYTES as u64).div_ceil(guest_rt::layout::PAGE_4K);
    let mailbox = memory::take_pages(pages).ok_or("the pool is empty")?;
    let host = Host::open(mailbox).map_err(|_| "the mailbox was not shared")?;
    Ok(Inside::new(host, report))
}

/// Does what the host orders.
fn serve(mut inside: Inside) -> Outcome {
    println!("mig-td: ready");
    loop {
        let order = match inside.host().order() {
            Ok(order) => order,
            Err(problem) => {
                println!("mig-td: no order: {problem}");
                return Outcome::Failure;
            }
        };
        let (role, target) = match order {
            Order::PowerOff => return Outcome::Success,
            Order::HandOver { role, target } => (role, target),
        };
        let outcome = match hand_over(&mut inside, role, &target) {
            Ok(()) => mailbox::Outcome::Done,
            Err(unfinished) => {
                println!("mig-td: {unfinished}");
                unfinished.outcome()
            }
        };
        println!("mig-td: {role:?}: {outcome}");
        if let Err(problem) = inside.host().report(outcome) {
            println!("mig-td: not reported: {problem}");
        }
    }
}
