//! Uses something of every `no_std` crate, so that the linker has to find all of it.

#![no_std]
#![no_main]

extern crate alloc;

mod mem_functions;

use alloc::vec::Vec;
use core::hint::black_box;
use core::panic::PanicInfo;

use buddy_system_allocator::LockedHeap;

/// Empty: the binary is linked, not run.
#[global_allocator]
static HEAP: LockedHeap<32> = LockedHeap::empty();

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}

/// The prebuilt libraries name the unwinder's personality; nothing unwinds here. `std` would bring its own.
#[unsafe(no_mangle)]
pub extern "C" fn rust_eh_personality() {}

/// The entry point that the linker asks for.
#[unsafe(no_mangle)]
pub extern "C" fn _start() -> ! {
    let clock = tdvisor_base::clock::VirtualClock::new(1);
    black_box(clock.advance(tdvisor_base::Ticks::new(1)));
    let table: tdvisor_base::table::Table = core::array::from_fn(|_| 0.into());
    tdvisor_base::table::fill(black_box(&table), 7, 4096);

    black_box(tdx_module_iface::Status::from_raw(black_box(0x8000_0200_0000_0092)).is_error());

    let monitor = tdvisor_monitor::Monitor::default();
    black_box(&monitor);

    let config = td_host::td::config::TdConfig::default();
    black_box(config.check(black_box(1 << 30), 1).is_ok());

    black_box(tdvisor_attest::quote::Quote::parse(black_box(&[0; 16])).is_ok());
    black_box(td_image::tdvf::TdvfImage::parse(black_box(&[0; 16])).is_ok());
    black_box(mirror_ept::Config::for_address_width(black_box(48)));

    black_box(Vec::<u8>::with_capacity(black_box(1)));
    loop {}
}
