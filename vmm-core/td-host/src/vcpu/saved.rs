//! A vCPU that no thread has, as numbers: for a snapshot. See [`crate::td`] for when that is.

use alloc::collections::BTreeMap;

use mirror_ept::{BadNumbers, Numbers, Reader};
use tdvisor_base::Hpa;
use tdvisor_base::sync::{AtomicBool, Mutex, Ordering};
use tdx_module_iface::handles::Tdvpr;

use super::create::VcpuControl;
use super::mtrr::Mtrrs;
use super::park::Place;
use super::posted::PostedInterrupts;
use super::standing::Standing;
use super::{ExitKind, Vcpu};
use crate::host::saved::read_pfn;
use crate::interrupts::local_apic::LocalApic;
use crate::memory::{GuestMemory, RestoringMemory};
use crate::platform::{LpId, Platform};
use crate::td::NotSaved;

impl Vcpu {
    /// Writes the vCPU.
    pub(crate) fn save<P: Platform>(&self, out: &mut Numbers) -> Result<(), NotSaved> {
        let Self { index, control, exits, apic, mtrrs, halted_for_good, place, stand } = self;
        let VcpuControl { tdvpr, root, pages, lp, posted } = control;
        // Nobody else is there to miss it, and no lock is held while others are taken.
        let taken = stand.lock().take();
        let Some(standing) = taken else { return Err(NotSaved::NotAtRest) };
        let is_idle = matches!(*place.lock(), Place::Idle { waits: false, .. });
        out.put(*index);
        out.put(tdvpr.0.get());
        out.put(root.get());
        out.put_list(pages, |out, page| out.put(page.get()));
        out.put(lp.0);
        out.put(posted.page().get());
        out.put_list(exits.lock().iter(), |out, (kind, count)| {
            kind.numbers().into_iter().for_each(|number| out.put(number));
            out.put(*count);
        });
        apic.lock().save(out);
        mtrrs.lock().save(out);
        out.put(halted_for_good.load(Ordering::Relaxed));
        standing.save(out);
        GuestMemory::<P>::save_cache(out, &standing.cache);
        self.stand(standing);
        if is_idle { Ok(()) } else { Err(NotSaved::NotAtRest) }
    }

    /// Reads what [`Self::save`] wrote. `tsc_hz` is the guest's TSC frequency.
    pub(crate) fn read<P: Platform>(
        memory: &mut RestoringMemory<'_, P>,
        tsc_hz: u64,
        reader: &mut Reader<'_>,
    ) -> Result<Self, BadNumbers> {
        let index = reader.narrow()?;
        let control = VcpuControl {
            tdvpr: Tdvpr(Hpa::new(reader.number()?)),
            root: read_pfn(reader)?,
            pages: reader.list(read_pfn)?,
            lp: LpId(reader.narrow()?),
            posted: PostedInterrupts::at(read_pfn(reader)?),
        };
        let exits = reader.list(|reader| Ok((ExitKind::of_numbers(reader.array()?)?, reader.number()?)))?;
        let apic = LocalApic::restore(index, tsc_hz, reader)?;
        let mtrrs = Mtrrs::restore(reader)?;
        let halted_for_good = reader.flag()?;
        let mut standing = Standing::read(reader)?;
        standing.cache = memory.read_cache(reader)?;
        Ok(Self {
            index,
            control,
            exits: Mutex::new(exits.into_iter().collect::<BTreeMap<_, _>>()),
            apic: Mutex::new(apic),
            mtrrs: Mutex::new(mtrrs),
            halted_for_good: AtomicBool::new(halted_for_good),
            place: Mutex::new(Place::Idle { next: standing.next(), waits: false }),
            stand: Mutex::new(Some(standing)),
        })
    }
}
