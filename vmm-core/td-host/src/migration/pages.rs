//! Pages of the host through which bundles pass: the module reads and writes them, the host copies them.

use alloc::vec::Vec;

use mirror_ept::{ArrivingLeaf, MovingLeaf, Standing};
use tdvisor_base::{Hpa, Level, Pfn};
use tdx_module_iface::outcome::SeamError;
use tdx_module_iface::tdh::{
    self, Command, EntryStatus, GpaEntry, GpaList, MBMD_BYTES, MemoryCall, Operation, PageList, Stream,
    TAG_BYTES,
};

use super::bundle::{Head, MemoryBundle, MemoryEntry, PAGES_AT_ONCE, Page, STATE_PAGES, StateBundle};
use crate::error::Error;
use crate::host::Host;
use crate::memory::{read_entries, through};
use crate::platform::Platform;
use crate::td::core::TdCore;

/// Bit 63 of an entry of a list of buffers, or of new pages: there is none.
const NONE: u64 = 1 << 63;
/// Pages beside those of contents: the head's, and the lists'.
const LISTS: usize = 5;

/// The pages of one session's calls. They go back when this is dropped: the module keeps none of them.
pub(crate) struct CallPages<'h, P: Platform> {
    host: &'h Host<P>,
    lists: [Pfn; LISTS],
    contents: Vec<Pfn>,
}

impl<P: Platform> Drop for CallPages<'_, P> {
    fn drop(&mut self) {
        for page in self.lists.into_iter().chain(self.contents.drain(..)) {
            self.host.platform.free_page(page, Level::L4K);
        }
    }
}

impl<'h, P: Platform> CallPages<'h, P> {
    pub(crate) fn new(host: &'h Host<P>) -> Result<Self, Error> {
        let mut all: Vec<Pfn> = Vec::new();
        for _ in 0..LISTS + PAGES_AT_ONCE {
            match host.give_page() {
                Ok(page) => all.push(page),
                Err(error) => {
                    all.into_iter().for_each(|page| host.platform.free_page(page, Level::L4K));
                    return Err(error);
                }
            }
        }
        let contents = all.split_off(LISTS);
        let lists = core::array::from_fn(|list| all.get(list).copied().unwrap_or(Pfn::new(0)));
        Ok(Self { host, lists, contents })
    }

    fn mbmd(&self) -> Hpa {
        self.lists[0].base()
    }

    /// The page of a list of guest pages.
    pub(crate) fn list(&self) -> Pfn {
        self.lists[1]
    }

    fn buffers(&self) -> Pfn {
        self.lists[2]
    }

    fn tags(&self) -> Pfn {
        self.lists[3]
    }

    fn new_pages(&self) -> Pfn {
        self.lists[4]
    }

    pub(crate) fn read_head(&self) -> Result<Head, Error> {
        let mut head = [0; MBMD_BYTES];
        self.host.platform.read(self.mbmd(), &mut head)?;
        Ok(head)
    }

    /// Puts a head where calls read it, and says where that is.
    pub(crate) fn write_head(&self, head: &Head) -> Result<Hpa, Error> {
        self.host.platform.write(self.mbmd(), head)?;
        Ok(self.mbmd())
    }

    /// Where calls write a head.
    pub(crate) fn head(&self) -> Hpa {
        self.mbmd()
    }

    fn write_words(&self, page: Pfn, words: impl Iterator<Item = u64>) -> Result<(), Error> {
        let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        Ok(self.host.platform.write(page.base(), &bytes)?)
    }

    fn read_page(&self, page: Pfn) -> Result<Page, Error> {
        let mut out = Page::zeroed();
        self.host.platform.read(page.base(), out.bytes_mut())?;
        Ok(out)
    }

    /// A list of so many pages for a bundle of state.
    fn state_pages(&self, entries: usize) -> Result<PageList, Error> {
        self.write_words(self.buffers(), self.contents.iter().take(entries).map(|page| page.base().get()))?;
        let entries = u16::try_from(entries).unwrap_or(u16::MAX);
        Ok(PageList { list: self.buffers().base(), entries })
    }

    /// Has a call write a bundle of state.
    pub(crate) fn export_state<'l>(
        &self,
        core: &TdCore<'_, P>,
        lp: &mut P::Lp<'l>,
        mut call: impl FnMut(&mut P::Lp<'l>, Hpa, PageList, Command) -> Result<u64, SeamError>,
    ) -> Result<StateBundle, Error>
    where
        P: 'l,
    {
        let list = self.state_pages(STATE_PAGES)?;
        let mut command = Command::New;
        let written = through(core, lp, |lp| {
            let result = call(lp, self.mbmd(), list, command);
            resume_after_interrupt(&result, &mut command);
            result
        })?;
        let pages = self.contents.iter().take(usize::try_from(written).unwrap_or(usize::MAX));
        let pages = pages.map(|page| self.read_page(*page)).collect::<Result<Vec<_>, _>>()?;
        StateBundle::new(self.read_head()?, pages).map_err(|_| TOO_MANY_PAGES)
    }

    /// Has a call read a bundle of state.
    pub(crate) fn import_state<'l>(
        &self,
        core: &TdCore<'_, P>,
        lp: &mut P::Lp<'l>,
        bundle: &StateBundle,
        mut call: impl FnMut(&mut P::Lp<'l>, Hpa, PageList, Command) -> Result<(), SeamError>,
    ) -> Result<(), Error>
    where
        P: 'l,
    {
        for (page, contents) in self.contents.iter().zip(bundle.pages()) {
            self.host.platform.write(page.base(), contents.bytes())?;
        }
        self.write_head(bundle.head())?;
        let list = self.state_pages(bundle.pages().len())?;
        let mut command = Command::New;
        through(core, lp, |lp| {
            let result = call(lp, self.mbmd(), list, command);
            resume_after_interrupt(&result, &mut command);
            result
        })
    }

    fn memory_call(&self, core: &TdCore<'_, P>, entries: usize) -> MemoryCall {
        let tags = self.tags().base();
        MemoryCall {
            tdr: core.tdr,
            list: GpaList::new(self.list().base(), entries),
            mbmd: self.mbmd(),
            buffers: self.buffers().base(),
            stream: Stream::FIRST,
            tags: [tags, tags],
        }
    }

    /// TDH.EXPORT.MEM for these leaves: those that were exported stand as sent then.
    pub(crate) fn export_memory<'l>(
        &self,
        core: &TdCore<'_, P>,
        lp: &mut P::Lp<'l>,
        leaves: &mut [MovingLeaf],
    ) -> Result<MemoryBundle, Error>
    where
        P: 'l,
    {
        let platform = &self.host.platform;
        self.write_words(
            self.list(),
            leaves.iter().map(|leaf| GpaEntry::new(leaf.gfn, Operation::Migrate).0),
        )?;
        self.write_words(
            self.buffers(),
            self.contents.iter().take(leaves.len()).map(|page| page.base().get()),
        )?;
        let mut call = self.memory_call(core, leaves.len());
        let mut command = Command::New;
        let outcome = through(core, lp, |lp| {
            let result = tdh::tdh_export_mem(lp, &mut call, command);
            resume_after_interrupt(&result, &mut command);
            result
        });
        let done = if outcome.is_ok() { leaves.len() } else { call.list.next() };
        let entries = read_entries(platform, self.list(), done)?;
        for (leaf, entry) in leaves.iter_mut().zip(&entries) {
            if entry.status() == EntryStatus::DONE {
                leaf.standing = Standing::Sent;
            }
        }
        outcome?;
        let mut tags = alloc::vec![0; TAG_BYTES * leaves.len()];
        platform.read(self.tags().base(), &mut tags)?;
        let buffers = read_entries(platform, self.buffers(), leaves.len())?;
        let mut list = Vec::new();
        for (((entry, tag), buffer), page) in
            entries.into_iter().zip(tags.chunks_exact(TAG_BYTES)).zip(buffers).zip(&self.contents)
        {
            let contents = if buffer.0 & NONE == 0 { Some(self.read_page(*page)?) } else { None };
            list.push(MemoryEntry { entry, tag: tag.try_into().unwrap_or_default(), contents });
        }
        MemoryBundle::new(self.read_head()?, list).map_err(|_| TOO_MANY_PAGES)
    }

    /// TDH.IMPORT.MEM of a bundle. `leaves` has a page for each entry that does something, in order; those that the
    /// module took are marked.
    pub(crate) fn import_memory<'l>(
        &self,
        core: &TdCore<'_, P>,
        lp: &mut P::Lp<'l>,
        bundle: &MemoryBundle,
        leaves: &mut [ArrivingLeaf],
    ) -> Result<(), Error>
    where
        P: 'l,
    {
        let platform = &self.host.platform;
        let entries = bundle.entries();
        for (page, entry) in self.contents.iter().zip(entries) {
            if let Some(contents) = &entry.contents {
                platform.write(page.base(), contents.bytes())?;
            }
        }
        self.write_words(self.list(), entries.iter().map(|entry| entry.entry.0))?;
        self.write_words(
            self.buffers(),
            self.contents
                .iter()
                .zip(entries)
                .map(|(page, entry)| page.base().get() | if entry.contents.is_some() { 0 } else { NONE }),
        )?;
        let tags: Vec<u8> = entries.iter().flat_map(|entry| entry.tag).collect();
        platform.write(self.tags().base(), &tags)?;
        let mut news = leaves.iter().map(|leaf| leaf.new.map_or(NONE, |page| page.base().get()));
        let does = |entry: &MemoryEntry| entry.entry.operation() != Operation::Nothing;
        self.write_words(
            self.new_pages(),
            entries.iter().map(|entry| if does(entry) { news.next().unwrap_or(NONE) } else { NONE }),
        )?;
        self.write_head(bundle.head())?;
        let mut call = self.memory_call(core, entries.len());
        let mut command = Command::New;
        let outcome = through(core, lp, |lp| {
            let result = tdh::tdh_import_mem(lp, &mut call, Some(self.new_pages().base()), command);
            resume_after_interrupt(&result, &mut command);
            result
        });
        let done = if outcome.is_ok() { entries.len() } else { call.list.next() };
        let after = read_entries(platform, self.list(), done)?;
        let statuses = entries.iter().zip(after).filter(|(entry, _)| does(entry));
        for (leaf, (_, after)) in leaves.iter_mut().zip(statuses) {
            leaf.taken = after.status() == EntryStatus::DONE;
        }
        outcome.map(drop)
    }
}

const TOO_MANY_PAGES: Error = Error::Caller("the module wrote a bundle of more pages than it was given");

fn resume_after_interrupt<T>(result: &Result<T, SeamError>, command: &mut Command) {
    use tdx_module_iface::outcome::Retry;
    if let Err(error) = result
        && matches!(error.retry(), Some(Retry::InterruptedResumable))
    {
        *command = Command::Resume;
    }
}
