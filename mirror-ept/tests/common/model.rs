//! An external table that checks the protocol of its owner at every call, and can refuse any call.

use std::collections::BTreeMap;
use std::fmt;

use mirror_ept::external::phase::{Batch, Blocked, Tracked};
use mirror_ept::{
    Blocking, ENTRIES, Exclusive, External, ExternalEntry, ExternalView, GfnRange, HookError, Position,
    Shared, Standing,
};
use tdvisor_base::sync::{Arc, Mutex};
use tdvisor_base::{Level, Pfn};

use super::pages::Twin;

/// A call of a hook.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    Link(Position),
    Set(Position, Pfn),
    Block(Position),
    Track(usize),
    Remove(Position),
    Split(Position),
    Promote(Position),
    Free(Position),
    Unblock(Position),
    Release(Position),
    Flush(GfnRange),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Usable,
    Blocked,
    Tracked,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Held {
    entry: ExternalEntry,
    phase: Phase,
}

#[derive(Default)]
pub struct State {
    entries: BTreeMap<Position, Held>,
    pub calls: Vec<Call>,
    /// How many calls until one is refused, with what, and how often in a row.
    fail: Option<(u64, HookError<&'static str>, u64)>,
}

/// The external table.
pub struct Model {
    pub state: Arc<Mutex<State>>,
}

impl Model {
    pub fn new() -> Self {
        Self { state: Arc::new(Mutex::new(State::default())) }
    }

    /// The `n`-th call from now (from 1) and `times - 1` after it fail with `why`.
    pub fn fail_at(&self, n: u64, why: HookError<&'static str>, times: u64) {
        self.state.lock().fail = Some((n, why, times));
    }

    /// Whether the refusal was used up; it is gone afterwards.
    pub fn fail_was_reached(&self) -> bool {
        self.state.lock().fail.take().is_none_or(|(n, ..)| n == 0)
    }

    pub fn take_calls(&self) -> Vec<Call> {
        core::mem::take(&mut self.state.lock().calls)
    }

    pub fn is_empty(&self) -> bool {
        self.state.lock().entries.is_empty()
    }

    /// Puts an entry behind the protocol's back: what a bug, or broken hardware, would do.
    pub fn tamper(&self, at: Position, entry: ExternalEntry) {
        let phase = if entry == ExternalEntry::Blocked { Phase::Blocked } else { Phase::Usable };
        match entry {
            ExternalEntry::Free => drop(self.state.lock().entries.remove(&at)),
            entry => drop(self.state.lock().entries.insert(at, Held { entry, phase })),
        }
    }

    /// Has a leaf stand elsewhere in a transfer: what whoever sends does with it.
    pub fn stand(&self, at: Position, standing: Standing) {
        self.state.lock().stand(at, standing);
    }

    /// Takes a page at a position, as an import does.
    pub fn take(&self, at: Position, pfn: Pfn) {
        let mut state = self.state.lock();
        state.assert_reachable(at);
        state.put(at, ExternalEntry::Leaf(pfn));
    }

    /// Everything that is held, in order.
    pub fn contents(&self) -> Vec<(Position, ExternalEntry)> {
        self.state.lock().entries.iter().map(|(at, held)| (*at, held.entry)).collect()
    }

    /// Forgets everything, as when the external table's pages were reclaimed.
    pub fn clear(&self) {
        self.state.lock().entries.clear();
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Model")
    }
}

impl State {
    fn enter(&mut self, call: Call) -> Result<(), HookError<&'static str>> {
        if let Some((n, why, times)) = &mut self.fail {
            *n = n.saturating_sub(1);
            if *n == 0 {
                let why = *why;
                *times -= 1;
                if *times == 0 {
                    self.fail = None;
                } else {
                    *n = 1;
                }
                return Err(why);
            }
        }
        self.calls.push(call);
        Ok(())
    }

    fn get(&self, at: Position) -> Held {
        self.entries.get(&at).copied().unwrap_or(Held { entry: ExternalEntry::Free, phase: Phase::Usable })
    }

    /// Every ancestor is a table, and none is blocked.
    fn assert_reachable(&self, at: Position) {
        let mut level = at.level();
        while let Some(up) = level.up() {
            if up > Level::L512G {
                return;
            }
            let parent = self.get(Position::of(at.gfn(), up));
            assert!(matches!(parent.entry, ExternalEntry::Table(_)), "{at} has no parent table at {up}");
            assert_eq!(parent.phase, Phase::Usable, "the parent of {at} is blocked");
            level = up;
        }
    }

    fn stand(&mut self, at: Position, standing: Standing) {
        let pfn = match self.get(at).entry {
            ExternalEntry::Leaf(pfn) | ExternalEntry::Moving(pfn, _) => pfn,
            other => panic!("{at} is no leaf but {other:?}"),
        };
        self.put(
            at,
            match standing {
                Standing::Plain => ExternalEntry::Leaf(pfn),
                standing => ExternalEntry::Moving(pfn, standing),
            },
        );
    }

    fn put(&mut self, at: Position, entry: ExternalEntry) {
        match entry {
            ExternalEntry::Free => self.entries.remove(&at),
            entry => self.entries.insert(at, Held { entry, phase: Phase::Usable }),
        };
    }

    fn children(&self, at: Position) -> Vec<(Position, Held)> {
        let below = at.level().down().expect("a table has children");
        (0..ENTRIES as u64)
            .map(|i| Position::of(at.gfn().wrapping_add(i * below.frames()), below))
            .filter_map(|child| self.entries.get(&child).map(|held| (child, *held)))
            .collect()
    }

    fn tracked_leaf(&self, at: Position, pfn: Pfn) {
        self.assert_reachable(at);
        assert_eq!(self.get(at), Held { entry: ExternalEntry::Leaf(pfn), phase: Phase::Tracked }, "{at}");
    }

    fn tracked_table(&self, at: Position, page: Pfn) {
        self.assert_reachable(at);
        assert_eq!(self.get(at), Held { entry: ExternalEntry::Table(page), phase: Phase::Tracked }, "{at}");
    }
}

type Said = Result<(), HookError<&'static str>>;

impl External for Model {
    type Page = Twin;
    type Error = &'static str;
    type Ctx = ();

    fn link_external_spt(&self, (): &mut (), _: &Shared<'_>, at: Position, page: &mut Twin) -> Said {
        let mut state = self.state.lock();
        state.enter(Call::Link(at))?;
        state.assert_reachable(at);
        assert_eq!(state.get(at).entry, ExternalEntry::Free, "{at}");
        state.put(at, ExternalEntry::Table(page.0));
        Ok(())
    }

    fn set_external_spte(&self, (): &mut (), _: &Shared<'_>, at: Position, pfn: Pfn) -> Said {
        let mut state = self.state.lock();
        state.enter(Call::Set(at, pfn))?;
        state.assert_reachable(at);
        assert_eq!(state.get(at).entry, ExternalEntry::Free, "{at}");
        state.put(at, ExternalEntry::Leaf(pfn));
        Ok(())
    }

    fn block(&self, (): &mut (), _: &mut Exclusive<'_>, at: Position, what: Blocking) -> Said {
        let mut state = self.state.lock();
        state.enter(Call::Block(at))?;
        state.assert_reachable(at);
        let held = state.get(at);
        assert_eq!(held.phase, Phase::Usable, "{at} is blocked twice");
        match (what, held.entry) {
            (Blocking::Leaf(pfn), ExternalEntry::Leaf(mapped)) => assert_eq!(pfn, mapped, "{at}"),
            (Blocking::Table, ExternalEntry::Table(_)) => {}
            other => panic!("blocking {at}: {other:?}"),
        }
        state.entries.insert(at, Held { phase: Phase::Blocked, ..held });
        Ok(())
    }

    fn track(&self, (): &mut (), _: &mut Exclusive<'_>, blocked: &Batch<Blocked>) -> Said {
        let mut state = self.state.lock();
        state.enter(Call::Track(blocked.len()))?;
        for at in blocked.positions() {
            let held = state.get(at);
            assert_eq!(held.phase, Phase::Blocked, "{at} is tracked without having been blocked");
            state.entries.insert(at, Held { phase: Phase::Tracked, ..held });
        }
        Ok(())
    }

    fn remove_external_spte(&self, (): &mut (), _: &mut Exclusive<'_>, entry: &Tracked, pfn: Pfn) -> Said {
        let mut state = self.state.lock();
        state.enter(Call::Remove(entry.at()))?;
        state.tracked_leaf(entry.at(), pfn);
        state.put(entry.at(), ExternalEntry::Free);
        Ok(())
    }

    fn split_external_spt(
        &self,
        (): &mut (),
        _: &mut Exclusive<'_>,
        entry: &Tracked,
        pfn: Pfn,
        page: &mut Twin,
    ) -> Said {
        let mut state = self.state.lock();
        let at = entry.at();
        state.enter(Call::Split(at))?;
        state.tracked_leaf(at, pfn);
        state.put(at, ExternalEntry::Table(page.0));
        let below = at.level().down().expect("a 4K leaf cannot be split");
        for i in 0..ENTRIES as u64 {
            let child = Position::of(at.gfn().wrapping_add(i * below.frames()), below);
            state.put(child, ExternalEntry::Leaf(pfn.wrapping_add(i * below.frames())));
        }
        Ok(())
    }

    fn promote_external_spt(
        &self,
        (): &mut (),
        _: &mut Exclusive<'_>,
        entry: &Tracked,
        pfn: Pfn,
        page: &mut Twin,
    ) -> Said {
        let mut state = self.state.lock();
        let at = entry.at();
        state.enter(Call::Promote(at))?;
        state.tracked_table(at, page.0);
        let children = state.children(at);
        assert_eq!(children.len(), ENTRIES, "promotion of {at} with holes");
        for (i, (child, held)) in (0u64..).zip(children) {
            let wanted = pfn.wrapping_add(i * child.level().frames());
            assert_eq!(held.entry, ExternalEntry::Leaf(wanted), "{child}");
            state.put(child, ExternalEntry::Free);
        }
        state.put(at, ExternalEntry::Leaf(pfn));
        Ok(())
    }

    fn free_external_spt(
        &self,
        (): &mut (),
        _: &mut Exclusive<'_>,
        entry: &Tracked,
        page: &mut Twin,
    ) -> Said {
        let mut state = self.state.lock();
        state.enter(Call::Free(entry.at()))?;
        state.tracked_table(entry.at(), page.0);
        assert!(state.children(entry.at()).is_empty(), "{} is freed with children", entry.at());
        state.put(entry.at(), ExternalEntry::Free);
        Ok(())
    }

    fn unblock(&self, (): &mut (), _: &mut Exclusive<'_>, entry: &Tracked) -> Said {
        let mut state = self.state.lock();
        state.enter(Call::Unblock(entry.at()))?;
        let held = state.get(entry.at());
        assert_eq!(held.phase, Phase::Tracked, "{} is unblocked without being tracked", entry.at());
        state.put(entry.at(), held.entry);
        Ok(())
    }

    fn release_writes(&self, (): &mut (), _: &Shared<'_>, at: Position, pfn: Pfn) -> Said {
        let mut state = self.state.lock();
        state.enter(Call::Release(at))?;
        let ExternalEntry::Moving(mapped, standing) = state.get(at).entry else {
            panic!("writes to {at} are allowed already");
        };
        assert_eq!(pfn, mapped, "{at}");
        assert!(!standing.may_change(), "writes to {at} are allowed already: {standing:?}");
        state.stand(at, standing.written());
        Ok(())
    }

    fn flush_direct(&self, range: GfnRange) {
        self.state.lock().calls.push(Call::Flush(range));
    }
}

impl ExternalView for &Model {
    fn entry(&mut self, at: Position) -> ExternalEntry {
        let held = self.state.lock().get(at);
        if held.phase == Phase::Usable { held.entry } else { ExternalEntry::Blocked }
    }
}
