//! A TD at rest as numbers, for a snapshot.
//!
//! # Protocol
//! The TD is *quiet*: its machine has frozen ([`crate::vcpu::standing`]) and no vCPU has its thread any more. So no SEAMCALL is in
//! flight, nobody has a seat or a guard, and every lock of the host is free; nobody takes the TD before [`Td::save`] has
//! returned. What is written is everything that the host keeps of it beside the module: handles and pages, where each vCPU stands
//! and what it has reserved, slots and mappings. Every field is named, so that one that is added does not compile until it is
//! decided what becomes of it.
//!
//! [`Td::restore`] reads it on a machine whose module and memory are as they were, before anything runs there. It issues no
//! SEAMCALL. Whether the mirror agrees with the module's Secure EPT is for the caller to ask, who can look into both.
//!
//! A TD that has ended, that is paused or on its way to another machine, or that was started to be moved is not saved.

use alloc::sync::Arc;
use core::fmt;

use mirror_ept::{BadNumbers, Config, Numbers, Reader};
use tdvisor_base::Hpa;
use tdx_module_iface::handles::Tdr;

use super::control::Control;
use super::core::TdCore;
use super::{GPA_WIDTH, OTHER_SEATS, Td};
use crate::host::Host;
use crate::host::hkid::HkidPool;
use crate::host::saved::{read_key, read_pfn};
use crate::interrupts::tsc::TscScale;
use crate::memory::{GuestMemory, RestoringMemory};
use crate::platform::Platform;
use crate::vcpu::Vcpu;

/// Why a TD cannot be saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSaved {
    /// The TD has ended, or never ran.
    NotRunning,
    /// The TD is paused, or memory of it is on its way: to another machine, or out of the TD.
    Moving,
    /// Somebody works on it.
    NotAtRest,
}

impl fmt::Display for NotSaved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotRunning => "the TD does not run",
            Self::Moving => "the TD is paused, or some of its memory is being moved",
            Self::NotAtRest => "the TD is not at rest",
        })
    }
}

impl ::core::error::Error for NotSaved {}

impl<'h, P: Platform> Td<'h, P> {
    /// Writes the TD.
    ///
    /// # Errors
    /// [`NotSaved`].
    pub fn save(&self, out: &mut Numbers) -> Result<(), NotSaved> {
        let Self { core, memory, control, vcpus, tsc } = self;
        if core.ending().is_some() || !core.is_runnable() {
            return Err(NotSaved::NotRunning);
        }
        if core.is_paused() || core.has_strays() {
            return Err(NotSaved::Moving);
        }
        let Control { tdr, tdr_page, tdcx, hkid } = control;
        out.put(tdr.0.get());
        out.put(tdr_page.get());
        out.put_list(tdcx, |out, page| out.put(page.get()));
        out.put(hkid.key().get());
        out.put(core.l2_vms);
        out.put(tsc.multiplier);
        out.put(tsc.offset);
        out.put_list(core.presences(), |out, presence| presence.save(out));
        memory.save(out)?;
        out.put_count(vcpus.len());
        vcpus.iter().try_for_each(|vcpu| vcpu.save::<P>(out))
    }

    /// The TD that [`Self::save`] wrote.
    ///
    /// # Errors
    /// [`BadNumbers`].
    pub fn restore(host: &'h Host<P>, reader: &mut Reader<'_>) -> Result<Self, BadNumbers> {
        let tdr = Tdr(Hpa::new(reader.number()?));
        let tdr_page = read_pfn(reader)?;
        let tdcx = reader.list(read_pfn)?;
        let hkid = HkidPool::taken(read_key(reader)?);
        let l2_vms = reader.narrow()?;
        let tsc = TscScale { multiplier: reader.number()?, offset: reader.number()? };
        let presences = reader.list(crate::vcpu::presence::Presence::read)?;
        let seats = presences.len() + OTHER_SEATS;
        let core = Arc::new(TdCore::restored(host, tdr, hkid.key(), presences, l2_vms));
        let config = Config { participants: seats, ..Config::for_address_width(GPA_WIDTH) };
        let mut memory = RestoringMemory::read(core.clone(), config, reader)?;
        let hz = super::control::tsc_units(host.platform()) * super::control::TSC_UNIT_HZ;
        let vcpus = reader.list(|reader| Vcpu::read(&mut memory, hz, reader))?;
        let is_numbered = (0u32..).zip(&vcpus).all(|(index, vcpu)| vcpu.index() == index);
        if !is_numbered || vcpus.len() != core.presences().len() {
            return Err(BadNumbers);
        }
        let memory: GuestMemory<'h, P> = memory.finish()?;
        Ok(Self { core, memory, control: Control { tdr, tdr_page, tdcx, hkid }, vcpus, tsc })
    }
}
