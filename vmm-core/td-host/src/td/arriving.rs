//! A TD that arrives from another machine: what [`crate::migration::destination`] needs of it.

use alloc::sync::Arc;
use alloc::vec::Vec;

use mirror_ept::{Config, GfnRange};

use super::control::Control;
use super::core::TdCore;
use super::{GPA_WIDTH, OTHER_SEATS, Td, vcpu_limit, vcpu_lp};
use crate::error::Error;
use crate::host::Host;
use crate::interrupts::tsc::TscScale;
use crate::memory::GuestMemory;
use crate::migration::bundle::{Announcement, VcpuBundle};
use crate::migration::failure::{Failure, PeerFault};
use crate::migration::pages::CallPages;
use crate::platform::Platform;
use crate::vcpu::Vcpu;
use crate::vcpu::create::VcpuControl;
use tdx_module_iface::tdh::{self, Stream};

impl<'h, P: Platform> Td<'h, P> {
    /// A TD of the announced shape around these control pages, with nothing in it. The pages come back with an error.
    pub(crate) fn arriving(
        host: &'h Host<P>,
        control: Control,
        shape: &Announcement,
    ) -> Result<Self, (Control, Failure)> {
        if shape.frames() > host.platform.free_frames() || shape.vcpus() > vcpu_limit(&host.platform) {
            return Err((control, PeerFault::TooLarge.into()));
        }
        let vcpus = shape.vcpus() as usize;
        // The module has no L2 VMs in a TD that moves.
        let core = Arc::new(TdCore::new(host, control.tdr, control.hkid.key(), vcpus, 0));
        let mmu = Config { participants: vcpus + OTHER_SEATS, ..Config::for_address_width(GPA_WIDTH) };
        let ranges: Vec<GfnRange> = shape.slots().iter().map(|slot| slot.frames()).collect();
        let memory = match GuestMemory::new(core.clone(), mmu, &ranges, shape.largest_page()) {
            Ok(memory) => memory,
            Err(error) => return Err((control, error.into())),
        };
        memory.take_shape(shape.slots());
        let tsc = TscScale { multiplier: 0, offset: 0 };
        Ok(Self { core, memory, control, vcpus: Vec::new(), tsc })
    }

    /// The changing state of the TD has arrived: its time goes on.
    pub(crate) fn state_arrived(&mut self) -> Result<(), Error> {
        self.tsc = self.read_tsc_scale()?;
        Ok(())
    }

    /// The next vCPU arrives.
    pub(crate) fn vcpu_arrives(
        &mut self,
        pages: &CallPages<'h, P>,
        bundle: &VcpuBundle,
    ) -> Result<(), Failure> {
        let index = u32::try_from(self.vcpus.len()).unwrap_or(u32::MAX);
        let lp = vcpu_lp(self.host().platform(), index);
        let root = self.memory.mmu().direct_root();
        let core = self.core.clone();
        let control = VcpuControl::create_with(&core, lp, root, |lp, tdvpr| {
            pages.import_state(&core, lp, &bundle.state, |lp, head, list, command| {
                tdh::tdh_import_state_vp(lp, tdvpr, head, list, Stream::FIRST, command)
            })
        })?;
        let vcpu = Vcpu::new(index, control, self.tsc_hz());
        vcpu.take_over(bundle.host.apic.clone().taken_over(index, self.tsc_hz()), bundle.host.mtrrs.clone());
        vcpu.set_next(bundle.host.next);
        let vectors = (0..=u8::MAX).filter(|vector| {
            let word = bundle.host.posted.get(usize::from(*vector) / 64).copied().unwrap_or(0);
            word >> (vector % 64) & 1 != 0
        });
        // Vectors below 16 are no interrupts; a good host posted none.
        let host = self.host();
        for vector in vectors.filter(|vector| *vector >= crate::vcpu::posted::FIRST_VECTOR) {
            vcpu.control.posted.post(host, vector)?;
        }
        self.vcpus.push(vcpu);
        Ok(())
    }

    /// From here on vCPUs may run, and removals are tracked.
    pub(crate) fn may_run(&self) {
        self.core.set_runnable();
    }
}
