//! Service TDs: what binds one TD to another whose metadata it may read and write (Intel 348551, TDH.SERVTD.*).

pub(crate) mod access;
pub(crate) mod bind;

use sha2::{Digest as _, Sha384};
use tdx_module_iface::report::TdInfo;
use tdx_module_iface::td_params::TdAttributes;
use zerocopy::{FromZeros, IntoBytes};

use crate::fields::layout::{tdcs, tdr};
use crate::fields::{FieldStore, Width};
use crate::td::{Tdcs, Tdr};

/// A TD's identity.
pub(crate) type Uuid = [u64; 4];

/// A TD's identity.
pub(crate) fn uuid(tdr: &Tdr<'_>) -> Uuid {
    core::array::from_fn(|word| tdr.load_u64(tdr::TD_UUID + 8 * word as u32))
}

/// Whether a slot has a service TD.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SlotState {
    NotBound,
    PreBound,
    Bound,
}

/// The one slot of a TD's binding table.
struct Binding<'a, 'm>(&'a Tdcs<'m>);

/// Where the parts of a slot are.
mod slot {
    pub(super) const STATE: u32 = 0;
    pub(super) const TYPE: u32 = 2;
    pub(super) const ATTRIBUTES: u32 = 8;
    pub(super) const UUID: u32 = 16;
    pub(super) const INFO_HASH: u32 = 48;
}

impl Binding<'_, '_> {
    fn state(&self) -> SlotState {
        match self.0.load(tdcs::SERVTD_BINDINGS + slot::STATE, Width::B1) {
            0 => SlotState::NotBound,
            1 => SlotState::PreBound,
            _ => SlotState::Bound,
        }
    }

    fn set_state(&self, state: SlotState) {
        self.0.store(tdcs::SERVTD_BINDINGS + slot::STATE, Width::B1, state as u64);
    }

    fn kind(&self) -> u64 {
        self.0.load(tdcs::SERVTD_BINDINGS + slot::TYPE, Width::B2)
    }

    fn attributes(&self) -> u64 {
        self.0.load_u64(tdcs::SERVTD_BINDINGS + slot::ATTRIBUTES)
    }

    fn uuid(&self) -> Uuid {
        core::array::from_fn(|word| self.0.load_u64(tdcs::SERVTD_BINDINGS + slot::UUID + 8 * word as u32))
    }

    fn set_uuid(&self, uuid: Uuid) {
        for (word, value) in (0u32..).zip(uuid) {
            self.0.store_u64(tdcs::SERVTD_BINDINGS + slot::UUID + 8 * word, value);
        }
    }

    fn info_hash(&self) -> [u8; 48] {
        let mut hash = [0; 48];
        self.0.load_bytes(tdcs::SERVTD_BINDINGS + slot::INFO_HASH, &mut hash);
        hash
    }

    fn set_info_hash(&self, hash: &[u8; 48]) {
        self.0.store_bytes(tdcs::SERVTD_BINDINGS + slot::INFO_HASH, hash);
    }

    /// Fills a slot, which counts from then on.
    fn fill(&self, state: SlotState, terms: &Terms, hash: &[u8; 48]) {
        if self.state() == SlotState::NotBound {
            self.0.store(tdcs::SERVTD_NUM, Width::B2, 1);
        }
        self.0.store(tdcs::SERVTD_BINDINGS + slot::TYPE, Width::B2, terms.kind);
        self.0.store_u64(tdcs::SERVTD_BINDINGS + slot::ATTRIBUTES, terms.attributes);
        self.set_info_hash(hash);
        self.set_state(state);
    }
}

/// What a binding is for.
struct Terms {
    kind: u64,
    attributes: u64,
}

/// Attribute: this instance of the service TD and no other.
const INSTANCE: u64 = 1;
/// Where the attributes begin that leave a part of TDINFO out of the hash.
const IGNORED: u32 = 32;

/// TDINFO, from a TD's control structure.
pub(crate) fn td_info(td: &Tdcs<'_>) -> TdInfo {
    let mut info = TdInfo::new_zeroed();
    info.attributes = TdAttributes::from_bits(td.attributes());
    info.xfam = td.load_u64(tdcs::XFAM).into();
    td.load_bytes(tdcs::MRTD, &mut info.mr_td);
    td.load_bytes(tdcs::MRCONFIGID, &mut info.mr_config_id);
    td.load_bytes(tdcs::MROWNER, &mut info.mr_owner);
    td.load_bytes(tdcs::MROWNERCONFIG, &mut info.mr_owner_config);
    td.load_bytes(tdcs::RTMR, info.rtmr.as_mut_bytes());
    td.load_bytes(tdcs::SERVTD_HASH, &mut info.servtd_hash);
    info
}

/// The hash by which a service TD is known: of its TDINFO without what the binding's attributes leave out.
fn info_hash(service: &Tdcs<'_>, attributes: u64) -> [u8; 48] {
    let mut info = td_info(service);
    let parts: [&mut [u8]; 11] = {
        let [rtmr0, rtmr1, rtmr2, rtmr3] = &mut info.rtmr;
        [
            info.attributes.as_mut_bytes(),
            info.xfam.as_mut_bytes(),
            info.mr_td.as_mut_slice(),
            info.mr_config_id.as_mut_slice(),
            info.mr_owner.as_mut_slice(),
            info.mr_owner_config.as_mut_slice(),
            rtmr0,
            rtmr1,
            rtmr2,
            rtmr3,
            info.servtd_hash.as_mut_slice(),
        ]
    };
    for (bit, part) in (IGNORED..).zip(parts) {
        if attributes >> bit & 1 != 0 {
            part.fill(0);
        }
    }
    Sha384::digest(info.as_bytes()).into()
}

/// Whether a slot as another module has it is one that this TD can have. Of itself nothing is taken over: the binding here
/// is with a service TD of this machine.
pub(crate) fn accepts(own: &Tdcs<'_>, words: &[u64]) -> bool {
    let word = |offset: u32| words.get(offset as usize / 8).copied().unwrap_or(0) >> (offset % 8 * 8);
    let kind = word(slot::TYPE) & 0xffff;
    let attributes = word(slot::ATTRIBUTES);
    let binding = Binding(own);
    match word(slot::STATE) & 0xff {
        NOT_BOUND => return true,
        PRE_BOUND | BOUND => {}
        _ => return false,
    }
    let agrees = binding.state() == SlotState::NotBound
        || (binding.kind() == kind && binding.attributes() == attributes);
    kind == bind::MIGRATION_TD && attributes & !bind::ATTRIBUTES == 0 && agrees
}

const NOT_BOUND: u64 = SlotState::NotBound as u64;
const PRE_BOUND: u64 = SlotState::PreBound as u64;
const BOUND: u64 = SlotState::Bound as u64;

/// The hash of the bindings of a TD when its measurement ends, part of its TDINFO; zero where it has none.
pub(crate) fn bindings_hash(tdcs: &Tdcs<'_>) -> [u8; 48] {
    let binding = Binding(tdcs);
    if binding.state() == SlotState::NotBound {
        return [0; 48];
    }
    let mut hash = Sha384::new();
    hash.update(binding.info_hash());
    hash.update((binding.kind() as u16).to_le_bytes());
    hash.update(binding.attributes().to_le_bytes());
    hash.finalize().into()
}
