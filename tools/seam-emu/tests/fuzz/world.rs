//! The states in which runs start: three releases of the module, one or two packages, and a machine at power-on,
//! with its module up, or with TDs.

use std::sync::OnceLock;

use seam_emu::features::FeatureSet;
use seam_emu::{Machine, MachineConfig, MachineSnapshot, ModuleProfile};
use tdvisor_base::Hpa;
use tdx_module_iface::{Gprs, TdhLeaf};

use seam_emu::testing::{Host, SCRATCH, TDMR, Td, mem};

/// Where the guest's pages begin; aligned to 1 GiB.
pub const GPA: u64 = 0x8000_0000;
/// Guest pages that the host filled: root and next level of identity page tables, code.
pub const PML4: u64 = 0xffff_d000;
const PDPT: u64 = 0xffff_e000;
pub const CODE: u64 = 0xffff_f000;
/// Guest pages with contents, from here on.
pub const MAPPED: u64 = GPA + 8 * 0x1000;
/// Structures that hosts pass: TD_PARAMS of several kinds, one for each KiB.
pub const PARAMS: u64 = 0x12_0000;
pub const PARAM_KINDS: u64 = 8;
/// Root of a shared EPT that maps the first GiB of shared addresses.
const SHARED_ROOT: u64 = 0x20_0000;
const SHARED_EPTP: u64 = 0x0024_0003_0000_203c;
/// Pages that serve as PAMT memory in release 2.0.
const PAMT_POOL: u64 = 2 * TDMR - 0x20_0000;

/// A starting state and what is known about it.
pub struct World {
    snapshot: MachineSnapshot,
    pub tds: Vec<Td>,
    /// The page behind [`CODE`] of the first TD, and its key.
    pub code: Option<(Hpa, u64)>,
}

impl World {
    pub fn machine(&self) -> Machine {
        self.snapshot.to_machine()
    }
}

const WORLDS: usize = 18;

/// The world that a byte names.
pub fn world(number: u8) -> &'static World {
    static ALL: [OnceLock<World>; WORLDS] = [const { OnceLock::new() }; WORLDS];
    let number = usize::from(number) % WORLDS;
    ALL[number].get_or_init(|| make(number))
}

fn make(number: usize) -> World {
    let profile = [ModuleProfile::V1_5_01, ModuleProfile::V1_5_05, ModuleProfile::V2_0][number % 3];
    let lp_packages = if number >= 9 { vec![0, 1] } else { vec![0, 0] };
    // What a release announces, so that TDs with L2 VMs and every feature are met as well.
    let features = FeatureSet::Recorded;
    let config = MachineConfig { profile, lp_packages, features, ..MachineConfig::small() };
    let start = number / 3 % 3;
    let mut host = match (start, profile) {
        (0, _) => Host::at_power_on(config),
        (_, ModuleProfile::V2_0) => Host::with_dynamic_pamt_on(config),
        _ => Host::with(config),
    };
    prepare_structures(&host);
    if start > 0 && profile == ModuleProfile::V2_0 {
        let pair = |range: u64, at: u64| Gprs { rcx: range | 1, rdx: at, r8: at + 0x1000, ..Gprs::ZERO };
        host.ok(0, TdhLeaf::PHYMEM_PAMT_ADD, pair(TDMR, PAMT_POOL));
        host.ok(0, TdhLeaf::PHYMEM_PAMT_ADD, pair(TDMR + 0x20_0000, PAMT_POOL + 0x2000));
    }
    let (tds, code) = if start == 2 { build_tds(&host) } else { (Vec::new(), None) };
    let snapshot = host.machine.snapshot().expect("nobody else holds the memory");
    World { snapshot, tds, code }
}

fn write(host: &Host, at: u64, bytes: &[u8]) {
    host.machine.host_write(Hpa::new(at), bytes).expect("host memory");
}

/// What a host would pass to SYS.CONFIG and MNG.INIT, and a shared EPT.
fn prepare_structures(host: &Host) {
    let info = [TDMR, 1 << 30, 0x8110_0000, 0x1000, 0x8100_0000, 0x2000, 0x8000_0000, 0x40_0000];
    let bytes: Vec<u8> = info.iter().flat_map(|word: &u64| word.to_le_bytes()).collect();
    write(host, SCRATCH + 0x1000, &bytes);
    write(host, SCRATCH, &(SCRATCH + 0x1000).to_le_bytes());
    for kind in 0..PARAM_KINDS {
        let mut params = [0u8; 1024];
        let attributes = [0u64, 1, 1 << 28, 0, 0, 1 << 30, 0, 1][kind as usize];
        params[..8].copy_from_slice(&attributes.to_le_bytes());
        params[8..16].copy_from_slice(&[3u64, 3, 7, 3, 3, 0xe7, 0x6_00e7, 3][kind as usize].to_le_bytes());
        params[16] = [8, 1, 8, 8, 8, 8, 8, 0][kind as usize];
        params[18] = [0, 0, 0, 1, 0, 3, 0, 0][kind as usize];
        params[24] = if kind == 4 { 0x26 } else { 0x1e };
        params[32] = [0, 0, 0, 0, 1, 2, 0, 4][kind as usize];
        params[40] = 100;
        write(host, PARAMS + kind * 0x400, &params);
    }
    write(host, SHARED_ROOT + 8 * 256, &((SHARED_ROOT + 0x1000) | 7).to_le_bytes());
    write(host, SHARED_ROOT + 0x1000, &((SHARED_ROOT + 0x2000) | 7).to_le_bytes());
    for entry in 0..512u64 {
        let leaf = match entry {
            0..8 => (entry << 21) | 0xb7 | 1 << 63,
            8 => 2,                          // a misconfiguration
            9 => 0,                          // #VE
            10 => 1 << 63,                   // an exit
            _ => ((entry % 8) << 21) | 0xb1, // read only
        };
        write(host, SHARED_ROOT + 0x2000 + 8 * entry, &leaf.to_le_bytes());
    }
}

/// A TD that runs, with memory and code, and a debuggable one that is being built.
fn build_tds(host: &Host) -> (Vec<Td>, Option<(Hpa, u64)>) {
    let first = host.td_being_built(2, 0);
    host.tables(&first, GPA, 0);
    host.tables(&first, CODE, 0);
    let add = |gpa: u64, contents: &[u8]| {
        let source = SCRATCH + 0x8000;
        write(host, source, &[0; 4096]);
        write(host, source, contents);
        let page = host.page();
        host.ok(0, TdhLeaf::MEM_PAGE_ADD, Gprs { r9: source, ..mem(&first, gpa, 0, page) });
        page
    };
    add(PML4, &(PDPT | 7).to_le_bytes());
    let gibibytes: Vec<u8> = (0..4u64).flat_map(|gib| (gib << 30 | 0x87).to_le_bytes()).collect();
    add(PDPT, &gibibytes);
    let code = add(CODE, &[0xf4; 4096]);
    for page in 0..4 {
        add(MAPPED + page * 0x1000, &[0x5a; 64]);
    }
    host.ok(0, TdhLeaf::MR_FINALIZE, Gprs { rcx: first.tdr, ..Gprs::ZERO });
    for page in 0..4 {
        host.aug(&first, GPA + page * 0x1000);
    }
    for (lp, vcpu) in first.vcpus.iter().enumerate() {
        let write =
            Gprs { rcx: *vcpu, rdx: SHARED_EPTP, r8: SHARED_ROOT, r9: 0x000f_ffff_ffff_f000, ..Gprs::ZERO };
        host.ok(lp, TdhLeaf::VP_WR, write);
    }
    let second = host.td_being_built(1, 1);
    host.tables(&second, GPA, 0);
    let key = first.hkid;
    (vec![first, second], Some((Hpa::new(code), key)))
}
