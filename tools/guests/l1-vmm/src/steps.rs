//! What is done with the L2 VM.

use guest_rt::layout::PAGE_2M;
use guest_rt::shared::SharedBuffer;
use guest_rt::{Td, memory, println};

use crate::module::{Size, attributes};
use crate::vm::{Answer, CPUID_ECX, Place, Vm, give};
use crate::{Step, failed};

const READ_WRITE: u64 = attributes::READ | attributes::WRITE;
/// Exit qualification of an EPT violation: the access was a write.
const WRITE: u64 = 1 << 1;
const FIRST: u32 = 0x1000_0001;
const OTHER: u32 = 0x5eed_cafe;

pub fn all(td: &Td) -> Step {
    let mut vm = Vm::new()?;
    hello(&mut vm)?;
    large_page(td, &mut vm)?;
    let counts = vm.counts;
    println!(
        "L2: exits to L1: {} I/O, {} CPUID, {} HLT, {} EPT violations, {} of them by way of the host",
        counts.io, counts.cpuid, counts.hlt, counts.violations, counts.from_host
    );
    Ok(())
}

fn peek(page: &[u8], word: usize) -> u32 {
    let cell = page[4 * word..].as_ptr().cast::<u32>();
    // SAFETY: an aligned word of the slice. The L2 VM writes to it behind Rust's back, so it is read anew.
    unsafe { cell.read_volatile() }
}

fn poke(page: &mut [u8], word: usize, value: u32) {
    page[4 * word..4 * word + 4].copy_from_slice(&value.to_le_bytes());
}

/// The payload says hello, reads a page that it may read, writes to it once it may, reads a page that it gets on demand, and
/// does not change its own code.
fn hello(vm: &mut Vm) -> Step {
    let (Some(data), Some(other)) = (memory::take_pages(1), memory::take_pages(1)) else {
        return Err(failed(format_args!("hello: the pool is empty")));
    };
    poke(data, 0, FIRST);
    poke(other, 0, OTHER);
    let (at_data, at_other, code) = (data.as_ptr() as u64, other.as_ptr() as u64, vm.code());
    give(at_data, Size::Small, attributes::READ)?;
    let (mut writes, mut reads, mut forbidden) = (0, 0, 0);
    vm.run(Place::Hello, [vm.address(Place::Text), at_data, at_other], |exit| match exit.gpa & !0xfff {
        page if page == at_data && exit.qualification & WRITE != 0 => {
            writes += 1;
            Answer::Give(READ_WRITE)
        }
        page if page == at_other && exit.qualification & WRITE == 0 => {
            reads += 1;
            Answer::Give(attributes::READ)
        }
        page if page == code && exit.qualification & WRITE != 0 => {
            forbidden += 1;
            Answer::GoOnAt(Place::After)
        }
        _ => Answer::Leave,
    })?;
    println!("L2: \"{}\"", vm.said());
    let seen = [peek(data, 1), peek(data, 2)];
    if !vm.is_at(Place::After) || seen != [FIRST + CPUID_ECX as u32, OTHER] {
        return Err(failed(format_args!("hello: the VM left {seen:x?}")));
    }
    if (writes, reads, forbidden) != (1, 1, 1) {
        return Err(failed(format_args!("hello: {writes} writes, {reads} reads, {forbidden} forbidden")));
    }
    println!("L2: a page to read became one to write, another came on demand, its code stayed as it was");
    Ok(())
}

/// The VM has a page of 2M. L1 shares 4K out of its middle with the host: the rest stays the VM's, what is shared is not, and
/// what comes back is the VM's when L1 gives it again.
fn large_page(td: &Td, vm: &mut Vm) -> Step {
    let Some(chunk) = td.share(0, 1).find(|chunk| chunk.end - chunk.start == PAGE_2M) else {
        return Err(failed(format_args!("large page: the TD has none; give it 16 MiB")));
    };
    memory::accept(chunk)
        .map_err(|refused| failed(format_args!("large page: GPA {:#x}: {:?}", refused.gpa, refused.error)))?;
    give(chunk.start, Size::Large, READ_WRITE)?;
    let (first, middle, last) = (chunk.start, chunk.start + PAGE_2M / 2, chunk.end - 0x1000);
    // SAFETY: the chunk was accepted just now and is identity mapped; nobody else uses it.
    let page = |at: u64| unsafe { core::slice::from_raw_parts_mut(at as *mut u8, 0x1000) };
    poke(page(first), 0, FIRST);
    copy(vm, first, last, "in the 2M page")?;
    if peek(page(last), 0) != FIRST {
        return Err(failed(format_args!("large page: the VM copied {:#x}", peek(page(last), 0))));
    }

    let shared = SharedBuffer::convert(page(middle))
        .map_err(|error| failed(format_args!("large page: {error:x?}")))?;
    poke(page(first), 0, OTHER);
    copy(vm, first, last, "around what is shared")?;
    if peek(page(last), 0) != OTHER {
        return Err(failed(format_args!("large page: the VM copied {:#x} around", peek(page(last), 0))));
    }
    let before = vm.counts.from_host;
    vm.run(Place::Copy, [first, middle, 0], |_| Answer::Leave)?;
    if vm.counts.from_host != before + 1 {
        return Err(failed(format_args!("large page: the VM has what L1 shared")));
    }
    let back = shared.into_private().map_err(|error| failed(format_args!("large page: {error:x?}")))?;
    let mut missing = 0;
    vm.run(Place::Copy, [first, middle, 0], |_| {
        missing += 1;
        Answer::Give(READ_WRITE)
    })?;
    if missing != 1 || peek(back, 0) != OTHER {
        return Err(failed(format_args!("large page: {missing} violations, then {:#x}", peek(back, 0))));
    }
    println!("L2: a 2M page, cut around what L1 shared with the host, and whole again");
    Ok(())
}

/// Has the VM copy a word that it may read to where it may write.
fn copy(vm: &mut Vm, from: u64, to: u64, what: &str) -> Step {
    let mut exits = 0;
    vm.run(Place::Copy, [from, to, 0], |_| {
        exits += 1;
        Answer::Leave
    })?;
    if exits == 0 { Ok(()) } else { Err(failed(format_args!("large page: a violation {what}"))) }
}
