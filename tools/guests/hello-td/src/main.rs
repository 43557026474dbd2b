//! `hello-td`: does once what every TD guest does, says so, and powers off.
//!
//! Steps, each a function below: memory, #VE, demand paging, conversion, measurement, the other vCPUs. A step that
//! fails says why; the guest carries on and reports failure at the end.
//!
//! Commands: empty, or `quote` to ask the host for a quote as well, or `split` to also convert 4K out of the middle
//! of a page that was accepted as 2M.

#![no_std]
#![no_main]

mod steps;
mod workers;

use guest_rt::{Outcome, Td, guest, println};

guest!(main);

/// The result of one step: what to say, either way.
type Step = Result<(), ()>;

fn main(td: &'static Td) -> Outcome {
    defmt::info!("hello-td starts on {=u32} vCPU(s)", td.vcpus);
    println!(
        "hello-td: a TD with {} vCPU(s), GPA width {}, attributes {:#x}",
        td.vcpus,
        td.gpa_width,
        td.attributes.bits()
    );
    let mut ok = steps::memory(td).is_ok();
    if ok {
        ok &= workers::run(td).is_ok();
        ok &= steps::exception().is_ok();
        ok &= steps::demand_paging(td).is_ok();
        ok &= steps::conversion(td).is_ok();
        ok &= steps::measurement(td).is_ok();
    }
    defmt::info!("hello-td ends, success {=bool}", ok);
    println!("hello-td: {}", if ok { "done, powering off" } else { "FAILED, powering off" });
    Outcome::from_checks(ok)
}

/// Says what failed.
fn failed(what: core::fmt::Arguments<'_>) {
    defmt::error!("a step failed");
    println!("FAILED {what}");
}
