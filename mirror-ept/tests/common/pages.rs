//! Table memory with a count of what is out, and a countdown to a refusal.

use mirror_ept::{ExternalPage, NoMemory, Returned, Table, TablePages};
use tdvisor_base::Pfn;
use tdvisor_base::sync::{AtomicU64, Mutex, Ordering};

/// The twin of a mirror table.
#[derive(Debug)]
pub struct Twin(pub Pfn);

impl ExternalPage for Twin {
    fn pfn(&self) -> Pfn {
        self.0
    }
}

/// Table memory with a count of what is out, and a countdown to a refusal.
pub struct Pages {
    direct: Vec<Table>,
    free: Mutex<Vec<u64>>,
    twins_out: AtomicU64,
    next_twin: AtomicU64,
    pub scribbled: AtomicU64,
    /// The allocation that fails, counted from 1; 0: none.
    pub fail_at: AtomicU64,
}

impl Pages {
    pub fn new(direct: usize) -> Self {
        Self {
            direct: (0..direct).map(|_| std::array::from_fn(|_| AtomicU64::new(0))).collect(),
            free: Mutex::new((0..direct as u64).rev().collect()),
            twins_out: AtomicU64::new(0),
            next_twin: AtomicU64::new(0x10_0000),
            scribbled: AtomicU64::new(0),
            fail_at: AtomicU64::new(0),
        }
    }

    fn admit(&self) -> Result<(), NoMemory> {
        let left = self.fail_at.load(Ordering::Relaxed);
        if left > 0 {
            self.fail_at.store(left - 1, Ordering::Relaxed);
        }
        if left == 1 { Err(NoMemory) } else { Ok(()) }
    }

    pub fn twins_out(&self) -> u64 {
        self.twins_out.load(Ordering::Relaxed)
    }

    pub fn direct_out(&self) -> usize {
        self.direct.len() - self.free.lock().len()
    }
}

impl TablePages for Pages {
    type ExternalPage = Twin;

    fn alloc_direct(&self) -> Result<Pfn, NoMemory> {
        self.admit()?;
        self.free.lock().pop().map(|n| Pfn::new(n + 1)).ok_or(NoMemory)
    }

    fn free_direct(&self, page: Pfn) {
        // Whoever still reads the page shall notice: the poison is a young leaf of nothing.
        for entry in self.direct_table(page).into_iter().flatten() {
            entry.store(POISON, Ordering::Relaxed);
        }
        let mut free = self.free.lock();
        assert!(!free.contains(&(page.get() - 1)), "a direct table was freed twice");
        free.push(page.get() - 1);
    }

    fn direct_table(&self, page: Pfn) -> Option<&Table> {
        self.direct.get(page.get().checked_sub(1)? as usize)
    }

    fn reserve_external(&self) -> Result<Twin, NoMemory> {
        self.admit()?;
        self.twins_out.fetch_add(1, Ordering::Relaxed);
        Ok(Twin(Pfn::new(self.next_twin.fetch_add(1, Ordering::Relaxed))))
    }

    fn return_external(&self, _page: Twin, state: Returned) {
        self.twins_out.fetch_sub(1, Ordering::Relaxed);
        if state == Returned::Scribbled {
            self.scribbled.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What a freed direct table holds.
pub const POISON: u64 = 0xfff;
