//! What the guest knows about its TD: TDG.VP.INFO and the TD HOB.

use core::sync::atomic::{AtomicU64, Ordering};

use tdx_guest::tdcall::Gpaw;
use tdx_guest::{TdAttributes, init_tdx};

use crate::exit;
use crate::hob::{Hob, Range};
use crate::layout::{IDENTITY_LIMIT, PAGE_2M, POOL_BASE, POOL_SIZE, TD_HOB_BASE, TD_HOB_SIZE};
use crate::sync::Once;

/// Pages that are left for the #PF handler to accept and map.
pub const DEMAND_CHUNKS: usize = 2;
/// The guests accept at most this many chunks (256 MiB) and leave the rest of a large TD alone.
pub const MAX_CHUNKS: usize = 128;

/// The TD as its first vCPU found it.
#[derive(Debug)]
pub struct Td {
    /// Guest-physical address width, 48 or 52; the SHARED bit is the highest of them.
    pub gpa_width: u8,
    /// ATTRIBUTES as given to TDH.MNG.INIT.
    pub attributes: TdAttributes,
    /// vCPUs that the TD has.
    pub vcpus: u32,
    /// vCPUs that the TD may have.
    pub max_vcpus: u32,
    hob: Hob,
    hob_bytes: &'static [u8],
    demand: [Range; DEMAND_CHUNKS],
}

static TD: Once<Td> = Once::new();
static SHARED_BIT: AtomicU64 = AtomicU64::new(0);

/// The SHARED bit of a GPA as a mask; 0 before the TD is known.
pub fn shared_bit() -> u64 {
    SHARED_BIT.load(Ordering::Relaxed)
}

impl Td {
    /// Asks the TDX module and reads the TD HOB; a TD without a usable one dies here.
    pub(crate) fn discover(hob_gpa: u64) -> &'static Self {
        let info = match init_tdx() {
            Ok(info) => info,
            Err(error) => exit::die(format_args!("this is no TD: {error:?}")),
        };
        let gpa_width = match info.gpaw {
            Gpaw::Bit48 => 48,
            Gpaw::Bit52 => 52,
        };
        SHARED_BIT.store(1 << (gpa_width - 1), Ordering::Relaxed);
        let (hob, hob_bytes) = read_hob(hob_gpa);
        let mut td = Self {
            gpa_width,
            attributes: info.attributes,
            vcpus: info.num_vcpus,
            max_vcpus: info.max_vcpus,
            hob,
            hob_bytes,
            demand: [Range::default(); DEMAND_CHUNKS],
        };
        let mut demand = td.demand;
        for chunk in td.chunks().filter(|chunk| chunk.end - chunk.start == PAGE_2M) {
            demand.rotate_left(1);
            demand[DEMAND_CHUNKS - 1] = chunk;
        }
        td.demand = demand;
        match TD.set(td) {
            Some(td) => td,
            None => exit::die(format_args!("the first vCPU started twice")),
        }
    }

    /// The command that the host gave, or an empty string.
    pub fn command(&self) -> &str {
        self.hob.command()
    }

    /// The TD HOB, read.
    pub fn hob(&self) -> &Hob {
        &self.hob
    }

    /// The TD HOB as the host wrote it, the end entry included.
    pub fn hob_bytes(&self) -> &'static [u8] {
        self.hob_bytes
    }

    /// Memory that the host offers for acceptance, as far as the identity map reaches.
    pub fn unaccepted(&self) -> impl Iterator<Item = Range> {
        let below = |range: &Range| Range { start: range.start, end: range.end.min(IDENTITY_LIMIT) };
        self.hob.unaccepted().iter().map(below).filter(|range| range.start < range.end)
    }

    /// The last whole 2M chunks, kept for the #PF handler; empty ranges if there is too little memory.
    pub fn demand(&self) -> &[Range; DEMAND_CHUNKS] {
        &self.demand
    }

    /// The chunks that vCPU `index` of `vcpus` has to accept: every `vcpus`-th one.
    pub fn share(&self, index: u32, vcpus: u32) -> impl Iterator<Item = Range> {
        self.chunks()
            .filter(|chunk| !self.demand.contains(chunk))
            .skip(index as usize)
            .step_by(vcpus.max(1) as usize)
    }

    /// The offered memory without the pool, cut at 2M boundaries.
    fn chunks(&self) -> impl Iterator<Item = Range> {
        self.unaccepted()
            .flat_map(|range| {
                let mut next = range.start;
                core::iter::from_fn(move || {
                    let start = next;
                    next = ((start & !(PAGE_2M - 1)) + PAGE_2M).min(range.end);
                    (start < range.end).then_some(Range { start, end: next })
                })
            })
            .filter(|chunk| chunk.end <= POOL_BASE || chunk.start >= POOL_BASE + POOL_SIZE)
            .take(MAX_CHUNKS)
    }
}

fn read_hob(gpa: u64) -> (Hob, &'static [u8]) {
    let Some(offset) = gpa.checked_sub(TD_HOB_BASE).filter(|offset| *offset < TD_HOB_SIZE) else {
        exit::die(format_args!("the TD HOB is not where the metadata asks for it but at {gpa:#x}"));
    };
    // SAFETY: the image's metadata makes the loader add this section, the identity map covers it, and it is
    // private memory that nobody writes.
    let bytes: &'static [u8] =
        unsafe { core::slice::from_raw_parts(gpa as *const u8, (TD_HOB_SIZE - offset) as usize) };
    match Hob::parse(bytes) {
        Ok(hob) => {
            let length = hob.length();
            (hob, bytes.get(..length).unwrap_or_default())
        }
        Err(error) => exit::die(format_args!("the TD HOB is malformed: {error:?}")),
    }
}
