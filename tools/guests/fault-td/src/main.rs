//! `fault-td`: ends badly, in the way that its command asks for, so that a host can be tested.
//!
//! | command | what happens |
//! |---|---|
//! | `unaccepted` | reads private memory that was never accepted |
//! | `triple-fault` | an exception without any handler |
//! | `fatal` | TDG.VP.VMCALL\<ReportFatalError\> with a message |
//! | `spin` | never ends |
//! | `halt` | halts with interrupts off |
//! | `wait` | waits for a keyboard controller, which no board of a TD has |
//! | `fail` | powers off with the result "failure" |
//! | `print` | prints without end |
//! | `count-input` | counts what comes on its console, up to the first NUL |
//! | `flood:KIND:COUNT` | feeds its host; see [`flood`] |

#![no_std]
#![no_main]

mod flood;

use guest_rt::{Outcome, Td, cpu, guest, memory, println};
use tdx_guest::tdvmcall::report_fatal_error_simple;

guest!(main);

/// The status port of a keyboard controller, and its bit that says 'not yet'.
const KEYBOARD_STATUS: u64 = 0x64;
const INPUT_FULL: u64 = 1 << 1;

fn main(td: &'static Td) -> Outcome {
    defmt::info!("fault-td starts, command {=str}", td.command());
    match td.command() {
        "unaccepted" => touch_unaccepted(td),
        "triple-fault" => triple_fault(),
        "fatal" => {
            println!("fault-td: reporting a fatal error");
            report_fatal_error_simple("fault-td was asked to die")
        }
        "spin" => {
            println!("fault-td: spinning");
            loop {
                core::hint::spin_loop();
            }
        }
        "halt" => {
            println!("fault-td: halting");
            guest_rt::exit::halt()
        }
        "wait" => {
            println!("fault-td: waiting for a keyboard controller");
            while flood::read_port(KEYBOARD_STATUS) & INPUT_FULL != 0 {}
            Outcome::Failure
        }
        "print" => flood::print_forever(),
        "count-input" => flood::count_input(),
        command if command.starts_with("flood:") => {
            if let Err(error) = memory::open_pool() {
                println!("fault-td: no memory: {error:?}");
                return Outcome::Failure;
            }
            flood::flood(td, command.trim_start_matches("flood:"))
        }
        "fail" => {
            println!("fault-td: reporting failure");
            Outcome::Failure
        }
        other => {
            println!(
                "fault-td: unknown command '{other}'; one of: unaccepted, triple-fault, fatal, spin, halt, wait, fail, print, \
                 count-input, flood:KIND:COUNT"
            );
            Outcome::Failure
        }
    }
}

/// With SEPT_VE_DISABLE the read ends the TD; without, the #VE handler does.
fn touch_unaccepted(td: &Td) -> Outcome {
    let Some(range) = td.unaccepted().last() else {
        println!("fault-td: the host offers no memory to accept");
        return Outcome::Failure;
    };
    let gpa = range.end - 8;
    println!("fault-td: reading unaccepted GPA {gpa:#x}");
    // SAFETY: an aligned read inside the identity map; reading memory that nobody wrote is the point.
    let value = unsafe { (gpa as *const u64).read_volatile() };
    println!("fault-td: read {value:#x} from memory that was never accepted");
    Outcome::Failure
}

fn triple_fault() -> Outcome {
    println!("fault-td: raising an exception without handlers");
    cpu::drop_exception_handlers();
    // SAFETY: an undefined instruction raises #UD; with no interrupt table that is a triple fault.
    unsafe { core::arch::asm!("ud2", options(noreturn)) }
}
