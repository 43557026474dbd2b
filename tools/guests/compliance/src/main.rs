//! `compliance`: checks what a TD sees of its processor against the tables of TDX module 1.5.05, and says so in TAP.
//!
//! Every bit of every leaf of the virtual CPUID table, RDMSR and WRMSR of every register of the MSR table and of samples
//! beside it, every bit of CR0, CR4 and XCR0. The tables are data ([`cpuid_table`], [`msr_table`]); what the module
//! computes is checked by the rules of its documentation.
//!
//! CPUID is checked again after each change that a guest can make: topology enumeration on, CPUID that raises #VE for
//! all leaves and for single ones. What only a host can change (ATTRIBUTES, XFAM, the configured bits of CPUID), it
//! changes from outside: the guest reads its own configuration and expects what follows from it.
//!
//! The result is failure if one check failed; the lines that begin with `not ok` say which.

#![no_std]
#![no_main]

mod catch;
mod controls;
mod cpuid;
mod cpuid_table;
mod facts;
mod msr;
mod msr_table;
mod tap;

use guest_rt::{Outcome, Td, guest, println};

guest!(main);

fn main(td: &'static Td) -> Outcome {
    defmt::info!("compliance starts");
    catch::install();
    let mut facts = facts::Facts::read(td);
    println!("TAP version 14");
    println!(
        "# ATTRIBUTES {:#x} XFAM {:#x} CONFIG_FLAGS {:#x} TD_CTLS {:#x}",
        facts.attributes, facts.xfam, facts.config_flags, facts.td_ctls
    );
    let mut tap = tap::Tap::new();
    cpuid::check(&mut tap, &mut facts);
    msr::check(&mut tap, &facts);
    controls::check(&mut tap, &facts);
    let failed = tap.finish();
    defmt::info!("compliance ends, failures {=u32}", failed);
    Outcome::from_checks(failed == 0)
}
