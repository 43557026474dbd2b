//! Runtime of the freestanding TD guests.
//!
//! A guest is a binary that calls [`guest!`] with its main function. The runtime brings every vCPU from the TDX
//! entry state (32-bit, flat, paging off) to Rust code with stacks, exception handlers and an identity map of
//! 4 GiB, describes the machine as [`Td`], and offers what the guests need of it:
//!
//! | module | offers |
//! |---|---|
//! | [`td`] | TDG.VP.INFO, the TD HOB, the command, memory cut into chunks |
//! | [`memory`] | acceptance of 4K and 2M pages, the page pool |
//! | [`paging`] | memory mapped on demand by the #PF handler, the window for shared pages |
//! | [`shared`] | buffers converted to shared and back |
//! | [`measurement`] | RTMR extension, TDREPORT, quotes |
//! | [`smp`] | the other vCPUs |
//! | [`serial`], [`logger`] | console on COM1, defmt frames on COM2 |
//! | `heap` | with the feature of that name: an allocator over memory that the guest accepts, and larger stacks |
//! | [`exit`] | power-off with a result, death with a message |
//!
//! What the host must provide is written down in the guests' README.

#![no_std]

#[cfg(not(feature = "heap"))]
mod alloc_none;
mod boot;
pub mod cpu;
pub mod exit;
#[cfg(feature = "heap")]
pub mod heap;
pub mod hob;
pub mod layout;
pub mod logger;
pub mod measurement;
mod mem_functions;
pub mod memory;
pub mod paging;
pub mod serial;
pub mod shared;
pub mod smp;
pub mod sync;
pub mod td;

pub use exit::Outcome;
pub use td::Td;

/// Names the guest's main function, a `fn(&'static Td) -> Outcome`, and what its last words on the console begin
/// with where something goes wrong.
#[macro_export]
macro_rules! guest {
    ($main:path) => {
        $crate::guest!($main, "guest died");
    };
    ($main:path, $last_words:literal) => {
        #[unsafe(no_mangle)]
        static guest_last_words: &str = $last_words;

        #[unsafe(no_mangle)]
        fn guest_main(td: &'static $crate::Td) -> $crate::Outcome {
            let main: fn(&'static $crate::Td) -> $crate::Outcome = $main;
            main(td)
        }
    };
}
