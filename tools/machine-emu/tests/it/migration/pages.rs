//! Pages of a TD that moves: what its guest and its host do to them, and what a flat model knows of them.

use std::sync::{Arc, Mutex};

use mirror_ept::GfnRange;
use seam_emu::guest::GuestRegisters;
use seam_emu::machine::GuestMemoryError;
use seam_emu::{GuestEnv, GuestState};
use td_host::memory::Converted;
use tdvisor_base::{Gpa, Side};
use tdx_module_iface::{Gprs, Status, StatusCode, TdgLeaf};

use super::world::{EmulatedHost, EmulatedTd, SPARE, frames};
use crate::driven::{come_back, drive, tdcalls};

/// Pages of the model, in 4 KiB from the middle of the guest's memory: the first and the last of two large ones among them.
pub const PAGES: [u64; 8] = [0, 1, 255, 511, 512, 513, 700, 1023];

/// What the model knows of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Not accepted.
    Absent,
    /// Shared with the host.
    Shared,
    /// Accepted, and what its first word is.
    Private(u64),
}

fn gpa(page: usize) -> Gpa {
    frames(PAGES[page], 1).start().base()
}

fn accept(host: &EmulatedHost, td: &EmulatedTd<'_>, page: usize) {
    // A guest repeats what was busy.
    for _ in 0..100 {
        let rax = u64::from(TdgLeaf::MEM_PAGE_ACCEPT.0);
        let got = tdcalls(host, td, vec![Gprs { rax, rcx: gpa(page).get(), ..Gprs::ZERO }]);
        let status = Status::from_raw(got[0].rax);
        if status.code() != StatusCode::OPERAND_BUSY {
            assert_eq!(status, Status::SUCCESS, "page {page}");
            return;
        }
    }
    panic!("page {page} stays busy");
}

fn write(host: &EmulatedHost, td: &EmulatedTd<'_>, page: usize, value: u64) {
    drive(host, td, move |state: &mut GuestState, env: &GuestEnv<'_>| {
        state.enter_64_bit_mode();
        match env.write(gpa(page), &value.to_le_bytes()) {
            Ok(()) => come_back(state),
            Err(GuestMemoryError::Exit(exit)) => exit,
            Err(GuestMemoryError::Memory(fault)) => panic!("{fault:?}"),
        }
    });
}

/// The first words of pages, as the guest reads them.
pub fn read(host: &EmulatedHost, td: &EmulatedTd<'_>, pages: Vec<usize>) -> Vec<u64> {
    let values = Arc::new(Mutex::new(Vec::new()));
    let seen = values.clone();
    drive(host, td, move |state: &mut GuestState, env: &GuestEnv<'_>| {
        state.enter_64_bit_mode();
        let mut seen = seen.lock().unwrap();
        while let Some(page) = pages.get(seen.len()) {
            let mut word = [0; 8];
            match env.read(gpa(*page), &mut word) {
                Ok(()) => seen.push(u64::from_le_bytes(word)),
                Err(GuestMemoryError::Exit(exit)) => return exit,
                Err(GuestMemoryError::Memory(fault)) => panic!("{fault:?}"),
            }
        }
        come_back(state)
    });
    let values = values.lock().unwrap();
    values.clone()
}

fn convert(td: &EmulatedTd<'_>, page: usize, to: Side) {
    let mut seat = td.memory().take_seat(SPARE).unwrap();
    while td.memory().convert(&mut seat, frames(PAGES[page], 1), to).unwrap() != Converted::All {}
}

/// What the guest or its host does to one page.
pub fn touch(
    (host, td): (&EmulatedHost, &EmulatedTd<'_>),
    page: usize,
    known: Known,
    kind: usize,
    value: u64,
) -> Known {
    match (known, kind) {
        (Known::Absent, _) => {
            accept(host, td, page);
            Known::Private(0)
        }
        (Known::Shared, _) => {
            convert(td, page, Side::Private);
            Known::Absent
        }
        (Known::Private(_), 0) => {
            convert(td, page, Side::Shared);
            Known::Shared
        }
        (known @ Known::Private(_), 1) => {
            let mut seat = td.memory().take_seat(SPARE).unwrap();
            let range = GfnRange::new(frames(0, 1).start(), frames(1024, 1).start());
            td.memory().collapse(&mut seat, range).unwrap();
            known
        }
        (Known::Private(_), _) => {
            write(host, td, page, value);
            Known::Private(value)
        }
    }
}
