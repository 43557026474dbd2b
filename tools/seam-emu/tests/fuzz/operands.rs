//! From two bytes to the value of a register: what the leaf wants, or something that some other operand is.

use std::sync::OnceLock;

use seam_emu::Machine;
use seam_emu::testing::{Host, SCRATCH, TDMR};
use tdvisor_test_data::chance::mix;
use tdx_module_iface::{Gprs, Reg, SeamCall, TdgLeaf, TdhLeaf};

use super::world::{CODE, GPA, MAPPED, PARAM_KINDS, PARAMS, World};

/// The field that a number names: those of TDs, vCPUs and the system that exist, and a few that do not.
pub fn field(index: u64) -> u64 {
    static ALL: OnceLock<Vec<u64>> = OnceLock::new();
    let all = ALL.get_or_init(fields);
    // Spread, so that 256 numbers reach every kind.
    all.get(index as usize * 7 % all.len().max(1)).copied().unwrap_or(0)
}

/// Asks a module, as a host does that does not know its fields.
fn fields() -> Vec<u64> {
    let host = Host::ready();
    let td = host.td_being_built(1, 1);
    let mut ids = vec![u64::MAX, 0x123];
    for (leaf, rcx, version) in
        [(TdhLeaf::SYS_RD, 0, 0), (TdhLeaf::MNG_RD, td.tdr, 1 << 16), (TdhLeaf::VP_RD, td.vcpus[0], 1 << 16)]
    {
        let mut id = u64::MAX;
        for _ in 0..2000 {
            let mut gprs = Gprs { rax: u64::from(leaf.0) | version, rcx, rdx: id, ..Gprs::ZERO };
            let asked = host.machine.lp(0).map(|mut lp| lp.seamcall(&mut gprs));
            if asked.is_none_or(|answer| answer.is_err()) || gprs.rdx == u64::MAX {
                break;
            }
            id = gprs.rdx;
            ids.push(id);
        }
    }
    ids
}

/// Where values come from.
pub struct Operands<'w> {
    pub world: &'w World,
    /// Registers after the last SEAMCALL.
    pub last: Gprs,
}

/// A page of the pool from which hosts take pages.
const fn pool(index: u64) -> u64 {
    TDMR + 0x10_0000 + (index & 0xff) * 0x1000
}

const fn large(index: u64) -> u64 {
    TDMR + (1 << 29) + (index & 7) * 0x20_0000
}

impl Operands<'_> {
    fn tdr(&self, index: u64) -> u64 {
        // TDs of this run take their pages from the pool.
        let known = self.world.tds.len() as u64;
        match self.world.tds.get(index as usize % (self.world.tds.len() + 2)) {
            Some(td) => td.tdr,
            None => pool(index.wrapping_sub(known) & 1),
        }
    }

    fn tdvpr(&self, index: u64) -> u64 {
        let vcpus: Vec<u64> = self.world.tds.iter().flat_map(|td| td.vcpus.iter().copied()).collect();
        match vcpus.get(index as usize % (vcpus.len() + 2)) {
            Some(vcpu) => *vcpu,
            None => pool(2 + (index & 1)),
        }
    }

    /// Guest addresses: small pages, large ones, ranges of tables, code.
    fn gpa_level(&self, index: u64) -> u64 {
        match index >> 4 & 15 {
            0..=4 => GPA + (index & 15) * 0x1000,
            5 => (GPA + (1 << 21) + (index & 3) * 0x20_0000) | 1,
            6 => GPA + (1 << 21) + (index & 15) * 0x1000,
            7 => (GPA + (index & 3) * 0x20_0000) | 1,
            8 => GPA | 2,
            9 => (index & 15) << 39 | 3,
            10 => (CODE & !0xf_ffff) | 1,
            11 => (CODE & !0x3fff_ffff) | 2,
            12 => CODE - (index & 15) * 0x1000,
            13 => (GPA + (1 << 30)) | (index & 3),
            14 => (1 << 39 | (index & 3) << 21) | 1,
            _ => (GPA + (1 << 30) * (index & 15)) | 2,
        }
    }

    /// What the leaf wants in this register, as far as one can say.
    fn natural_host(&self, leaf: TdhLeaf, reg: Reg, index: u64, machine: &Machine) -> u64 {
        let name = leaf.name().unwrap_or("");
        let page = if index >= 0xf0 { large(index) } else { pool(8 + index) };
        match (leaf, reg) {
            (TdhLeaf::MEM_TRACK, Reg::Rcx) => self.tdr(index),
            (TdhLeaf::MEM_RD | TdhLeaf::MEM_WR, Reg::Rcx) => MAPPED + (index & 0x7f) * 8,
            (TdhLeaf::MR_EXTEND, Reg::Rcx) => MAPPED + (index & 15) * 256,
            (TdhLeaf::MNG_CREATE, Reg::Rcx) => pool(index & 1),
            (TdhLeaf::MNG_CREATE, Reg::Rdx) => 40 + (index & 15),
            (TdhLeaf::MNG_INIT, Reg::Rdx) => PARAMS + index % PARAM_KINDS * 0x400,
            (TdhLeaf::VP_CREATE, Reg::Rcx) => pool(2 + (index & 1)),
            (TdhLeaf::MNG_ADDCX | TdhLeaf::VP_ADDCX, Reg::Rcx) => pool(8 + index),
            (TdhLeaf::VP_ADDCX, Reg::Rdx) => self.tdvpr(index),
            (TdhLeaf::VP_INIT, Reg::Rdx) => index,
            (TdhLeaf::VP_RD | TdhLeaf::VP_WR | TdhLeaf::MNG_RD | TdhLeaf::MNG_WR, Reg::Rdx)
            | (TdhLeaf::SYS_RD, Reg::Rdx) => field(index),
            (TdhLeaf::PHYMEM_CACHE_WB, Reg::Rcx) => index & 1,
            (TdhLeaf::PHYMEM_PAMT_ADD | TdhLeaf::PHYMEM_PAMT_REMOVE, Reg::Rcx) => {
                (TDMR + (index & 3) * 0x20_0000) | 1
            }
            (TdhLeaf::SYS_CONFIG, Reg::Rcx) => SCRATCH,
            (TdhLeaf::SYS_CONFIG, Reg::Rdx) => 1,
            (TdhLeaf::SYS_CONFIG, Reg::R8) => {
                32 | u64::from(machine.config().profile.has_dynamic_pamt() && index & 1 == 0) << 16
            }
            (TdhLeaf::SYS_TDMR_INIT, Reg::Rcx) => TDMR,
            (TdhLeaf::SYS_INFO | TdhLeaf::SYS_RDALL, Reg::Rcx | Reg::R8) => {
                SCRATCH + 0x2000 + (index & 1) * 0x400
            }
            (TdhLeaf::SYS_INFO, Reg::Rdx | Reg::R9) => 1024,
            (TdhLeaf::SYS_RDALL, Reg::Rdx) => SCRATCH + 0x3000,
            (TdhLeaf::SYS_INIT, _) => 0,
            (_, Reg::Rcx) if name.starts_with("TDH.MEM.") => self.gpa_level(index),
            (_, Reg::Rdx) if name.starts_with("TDH.MEM.") || leaf == TdhLeaf::MR_EXTEND => self.tdr(index),
            (TdhLeaf::MEM_PAGE_ADD, Reg::R9) => SCRATCH + 0x9000,
            (_, Reg::R9 | Reg::R10 | Reg::R11) if name.starts_with("TDH.MEM.SEPT") && index < 128 => u64::MAX,
            (TdhLeaf::MNG_WR | TdhLeaf::VP_WR, Reg::R9) => u64::MAX,
            (_, Reg::Rcx) if name.starts_with("TDH.VP.") => self.tdvpr(index),
            (_, Reg::Rcx) if name.starts_with("TDH.M") => self.tdr(index),
            (_, Reg::Rdx) if name.starts_with("TDH.") && leaf != TdhLeaf::VP_ENTER => self.tdr(index),
            _ => page,
        }
    }

    fn natural_guest(&self, leaf: TdgLeaf, reg: Reg, index: u64) -> u64 {
        match (leaf, reg) {
            (TdgLeaf::VP_VMCALL, Reg::Rcx) => [0xffcc, 0xfc00, 4, 0xffff_ffcc][index as usize & 3],
            (TdgLeaf::MEM_PAGE_ACCEPT | TdgLeaf::MEM_PAGE_ATTR_RD | TdgLeaf::MEM_PAGE_ATTR_WR, Reg::Rcx) => {
                self.gpa_level(index)
            }
            (TdgLeaf::MR_REPORT, Reg::Rcx) => MAPPED + 0x400 * (index & 3),
            (TdgLeaf::MR_REPORT, Reg::Rdx) => MAPPED + 0x1000 + 0x40 * (index & 3),
            (TdgLeaf::MR_REPORT, Reg::R8) => index >> 6,
            (TdgLeaf::MR_RTMR_EXTEND | TdgLeaf::MR_VERIFYREPORT, Reg::Rcx) => MAPPED + 0x100 * (index & 7),
            (TdgLeaf::MR_RTMR_EXTEND, Reg::Rdx) => index & 3,
            (TdgLeaf::VP_CPUIDVE_SET, Reg::Rcx) => index & 3,
            (TdgLeaf::SYS_RDALL, Reg::Rdx) => MAPPED + 0x1000 * (index & 3),
            (TdgLeaf::SYS_RDALL, Reg::R8) => u64::MAX,
            (_, Reg::Rdx) => field(index),
            (_, Reg::R9) => u64::MAX,
            _ => 0,
        }
    }

    /// Any value; `None` asks for the natural one.
    fn value(&self, select: u8, index: u64) -> Option<u64> {
        let value = match select % 24 {
            1 => self.tdr(index),
            2 => self.tdvpr(index),
            3 => pool(index),
            4 => large(index),
            5 => self.gpa_level(index),
            6 => GPA + (index & 15) * 0x1000,
            7 => field(index),
            8 => index,
            9 => u64::MAX - index,
            10 => 1 << (index & 63),
            11 => SCRATCH + index * 0x100,
            12 => 32 + (index & 31),
            13 => self.last.rcx,
            14 => self.last.rdx,
            15 => self.last.r8,
            16 => large(index >> 5) + (index & 31) * 0x1000,
            17 => pool(index) | (33 + (index & 3)) << 46,
            18 => TDMR + index * 0x1000,
            19 => mix(index),
            20 => (1 << 47) + index * 0x8_0000,
            21 => self.last.r8 ^ 1 << (index & 63),
            22 => SCRATCH + (index & 15) * 0x1000,
            _ => return None,
        };
        Some(value)
    }

    pub fn host(&self, leaf: TdhLeaf, reg: Reg, select: u8, index: u8, machine: &Machine) -> u64 {
        let index = u64::from(index);
        let natural = |index| self.natural_host(leaf, reg, index, machine);
        match select % 24 {
            23 => natural(0) ^ 1 << (index & 63),
            _ => self.value(select, index).unwrap_or_else(|| natural(index)),
        }
    }

    pub fn guest(&self, leaf: TdgLeaf, reg: Reg, select: u8, index: u8) -> u64 {
        let index = u64::from(index);
        let natural = |index| self.natural_guest(leaf, reg, index);
        match select % 24 {
            23 => natural(0) ^ 1 << (index & 63),
            _ => self.value(select, index).unwrap_or_else(|| natural(index)),
        }
    }

    /// A guest address without a level.
    pub fn gpa(&self, select: u8, index: u8) -> u64 {
        self.value(select, u64::from(index)).unwrap_or_else(|| self.gpa_level(u64::from(index)) & !7)
    }

    /// A host address.
    pub fn hpa(&self, select: u8, index: u8) -> u64 {
        self.value(select, u64::from(index)).unwrap_or_else(|| pool(u64::from(index)))
    }
}
