//! A TD host that needs no operating system: it initialises the TDX module, runs one TD to its end, gives everything back,
//! and switches the machine off.
//!
//! The TD is the file that the boot loader brought (a TDVF image as initial RAM disk or first module), or else the one inside
//! the image. Options: `options`. What the machine must have: `tdvisor_bare_metal::conditions`; what is missing is said in
//! one line.
//!
//! **Why this is sound.** `unsafe` is used at the entry, where boot loaders promise the state that `Ring0` stands for; for the
//! heap and the boot loader's file, whose memory was taken out of the memory map; and for what the linker asks for: the linker
//! script's symbols, which are never read, and the names of the string functions.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "the entry, and what the linker asks for; the proof is above")]

extern crate alloc;

mod board;
mod console;
mod heap;
#[path = "../../../../tools/guests/guest-rt/src/mem_functions.rs"]
mod mem_functions;
mod options;
mod session;
mod status;

use core::arch::global_asm;
use core::panic::PanicInfo;

use td_host::host::MemoryRange;
use tdvisor_bare_metal::acpi::WakeUp;
use tdvisor_bare_metal::boot::Loader;
use tdvisor_bare_metal::ring0::Ring0;
use tdvisor_bare_metal::ring0::area::{AREAS, STACK_TOP};
use tdvisor_bare_metal::ring0::paging::Image;
use tdvisor_bare_metal::setup::Found;

use status::Status;

/// The TD inside.
static DEFAULT_TD: &[u8] = include_bytes!(env!("TDVISOR_DEFAULT_TD"));

global_asm!(
    include_str!("entry.s"),
    AREAS = sym AREAS,
    STACK_TOP = const STACK_TOP,
    main = sym image_main,
);

// SAFETY: defined by host.x; they are never read.
unsafe extern "C" {
    static image_text: u8;
    static image_rodata: u8;
    static image_data: u8;
    static image_end: u8;
}

fn image() -> Image {
    Image {
        text: (&raw const image_text).addr() as u64,
        rodata: (&raw const image_rodata).addr() as u64,
        data: (&raw const image_data).addr() as u64,
        end: (&raw const image_end).addr() as u64,
    }
}

/// Where `entry.s` goes on.
extern "C" fn image_main(loader: u32, info: u64) -> ! {
    // SAFETY: the entry's promises: ring 0, the first processor, nothing else runs, the first 4 GiB mapped to themselves.
    let ring0 = unsafe { Ring0::claim() };
    console::set_up();
    status::end(run(ring0, loader, info))
}

fn run(ring0: Ring0, loader: u32, info: u64) -> Status {
    let Some(loader) = Loader::from_number(loader) else {
        say!("the boot loader is none that is known");
        return Status::Usage;
    };
    let found = match Found::look(ring0, image(), loader, info) {
        Ok(found) => found,
        Err(error) => {
            say!("{error}");
            return Status::Usage;
        }
    };
    let line = found.boot.command_line.clone();
    status::set_up(options::exit_port(&line), found.power_off);
    say!("tdvisor {}, entered by {loader}", env!("CARGO_PKG_VERSION"));
    let file = found.boot.file;
    let unused = found.madt.as_ref().map_or(0, |madt| madt.unused);
    let mut machine = match found.take_over() {
        Ok(machine) => machine,
        Err(error) => {
            say!("{error}");
            return Status::Usage;
        }
    };
    // SAFETY: usable memory, mapped to itself, that was taken out of the memory map; it is done once.
    unsafe { heap::init(machine.heap()) };
    let options = match options::parse(&line) {
        Ok(options) => options,
        Err(bad) => {
            say!("{bad}");
            return Status::Usage;
        }
    };
    let how = match machine.wake_up() {
        WakeUp::InitSipi => "INIT and start-up IPIs",
        WakeUp::Mailbox(_) => "the wake-up mailbox",
    };
    let (processors, late) = machine.start_others();
    say!("{processors} processors (others started by {how}), {} MiB of memory", machine.memory_bytes() >> 20);
    if let Some(late) = late {
        say!("the processor with APIC id {} did not start: it and all behind it are not used", late.apic_id);
    }
    if unused != 0 {
        say!("{unused} further processors are not used");
    }
    let machine = match machine.into_platform() {
        Ok(machine) => machine,
        Err(missing) => {
            say!("no TDX: {missing}");
            return Status::NoTdx;
        }
    };
    match file.map(file_bytes) {
        Some(image) => session::run(machine, &options, image),
        None => session::run(machine, &options, DEFAULT_TD),
    }
}

/// The file that the boot loader brought.
fn file_bytes(file: MemoryRange) -> &'static [u8] {
    // SAFETY: mapped to itself (all of the first 4 GiB is), and nobody writes to it.
    unsafe { core::slice::from_raw_parts(file.base.get() as *const u8, file.size as usize) }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    if status::is_first_end() {
        match info.location() {
            Some(place) => console::last_line(format_args!(
                "panic: {} ({}:{})",
                info.message(),
                place.file(),
                place.line()
            )),
            None => console::last_line(format_args!("panic: {}", info.message())),
        }
        status::end(Status::HostFailed)
    }
    tdvisor_bare_metal::ring0::cpu::stop()
}

/// The prebuilt libraries name the unwinder's personality; nothing unwinds here.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
