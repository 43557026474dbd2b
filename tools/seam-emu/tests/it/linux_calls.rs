//! The SEAMCALLs that Linux and KVM issue, in their order, from the first processor online to the TD's last page: no
//! release of the module refuses one that it has.

use seam_emu::{CpuGuest, Lp, Machine, MachineConfig, ModuleProfile, testing};
use tdvisor_base::Hpa;
use tdx_module_iface::{Gprs, SeamCall, Status, StatusCode, TdhLeaf};

/// Global fields that Linux reads when it brings the module up.
mod field {
    pub const FEATURES0: u64 = 0x0a00_0003_0000_0008;
    pub const PAMT_4K_ENTRY_SIZE: u64 = 0x9100_0001_0000_0010;
    pub const TDCS_BASE_SIZE: u64 = 0x9800_0001_0000_0100;
    pub const TDVPS_BASE_SIZE: u64 = 0x9800_0001_0000_0200;
    pub const XFAM_FIXED1: u64 = 0x1900_0003_0000_0003;
    pub const NUM_CPUID_CONFIG: u64 = 0x9900_0001_0000_0004;
    pub const MAX_VCPUS_PER_TD: u64 = 0x9900_0001_0000_0008;
    pub const CPUID_CONFIG_LEAVES: u64 = 0x9900_0003_0000_0400;
    pub const MEMORY_POOL_REQUIRED_PAGES: u64 = 0x3100_0001_0000_0000;
    pub const EXT_REQUIRED: u64 = 0x3100_0001_0000_0001;
    pub const CPUID_CONFIG_VALUES: u64 = 0x9900_0003_0000_0500;
    /// Fields of Linux's list that have no name here.
    pub const OTHERS: [u64; 11] = [
        0x0800_0001_0000_0003,
        0x0800_0001_0000_0004,
        0x0800_0001_0000_0005,
        0x9100_0001_0000_0008,
        0x9100_0001_0000_0009,
        0x9100_0001_0000_0011,
        0x9100_0001_0000_0012,
        0x9800_0001_0000_0000,
        0x1900_0003_0000_0000,
        0x1900_0003_0000_0001,
        0x1900_0003_0000_0002,
    ];
}

/// FEATURES0: VP.INIT takes the vCPU's x2APIC id.
const TOPOLOGY_ENUM: u64 = 1 << 20;
const PAGE: u64 = 4096;
const GIB: u64 = 1 << 30;

struct Host<'m> {
    machine: &'m Machine,
    lps: Vec<Lp<&'m Machine>>,
    next_page: u64,
}

impl Host<'_> {
    fn call(&mut self, lp: usize, rax: u64, [rcx, rdx, r8, r9]: [u64; 4]) -> Gprs {
        let mut regs = Gprs { rax, rcx, rdx, r8, r9, ..Gprs::ZERO };
        self.lps[lp].seamcall(&mut regs).unwrap();
        regs
    }

    /// A call that Linux takes for granted.
    fn must(&mut self, rax: u64, operands: [u64; 4]) -> Gprs {
        let regs = self.call(0, rax, operands);
        assert_eq!(regs.rax, 0, "leaf {} with {operands:x?}", rax & 0xffff);
        regs
    }

    fn global(&mut self, field: u64) -> u64 {
        self.must(34, [0, field, 0, 0]).r8
    }

    fn page(&mut self) -> u64 {
        self.next_page += PAGE;
        self.next_page
    }

    fn write(&self, at: u64, words: &[u64]) {
        for (at, word) in (at..).step_by(8).zip(words) {
            self.machine.host_write(Hpa::new(at), &word.to_le_bytes()).unwrap();
        }
    }
}

fn from_boot_to_the_last_page(profile: ModuleProfile) {
    let config = MachineConfig { profile, ..MachineConfig::small() };
    let key = u64::from(*config.private_hkids.start());
    let (hkid_shift, family) = (config.hkid_start_bit, u64::from(config.cpuid_fms));
    let machine = Machine::new(config);
    for lp in 0..2 {
        machine.set_guest_cpu(lp, Box::new(CpuGuest::with_engine(testing::engine())));
    }
    let lps = (0..2).map(|lp| machine.lp(lp).unwrap()).collect();
    let mut host = Host { machine: &machine, lps, next_page: 0x6000_0000 };

    // tdx_enable: SYS.INIT, LP.INIT on each processor, the metadata.
    host.must(33, [0; 4]);
    host.must(35, [0; 4]);
    assert_eq!(host.call(1, 35, [0; 4]).rax, 0);
    for field in field::OTHERS {
        host.global(field);
    }
    let features = host.global(field::FEATURES0);
    let pamt_entry = host.global(field::PAMT_4K_ENTRY_SIZE);
    let tdcs_pages = host.global(field::TDCS_BASE_SIZE) / PAGE;
    let tdvps_pages = host.global(field::TDVPS_BASE_SIZE) / PAGE;
    let xfam_fixed1 = host.global(field::XFAM_FIXED1);
    assert!(host.global(field::MAX_VCPUS_PER_TD) >= 2);
    let values: Vec<_> = (0..host.global(field::NUM_CPUID_CONFIG))
        .map(|index| {
            let name = host.global(field::CPUID_CONFIG_LEAVES + index);
            let first = host.global(field::CPUID_CONFIG_VALUES + 2 * index);
            host.global(field::CPUID_CONFIG_VALUES + 2 * index + 1);
            (name & 0xffff_ffff, first)
        })
        .collect();

    // One TDMR of [1 GiB, 4 GiB), its PAMT inside.
    let (base, size) = (GIB, 3 * GIB);
    let pamt_4k = (size >> 12) * pamt_entry;
    let pamt_2m = ((size >> 21) * pamt_entry).next_multiple_of(PAGE);
    let tdmr = 0x1000_0000;
    let (at_2m, at_1g) = (base + pamt_4k, base + pamt_4k + pamt_2m);
    let reserved = pamt_4k + pamt_2m + PAGE;
    host.write(tdmr, &[base, size, at_1g, PAGE, at_2m, pamt_2m, base, pamt_4k, 0, reserved]);
    host.write(tdmr + 0x1_0000, &[tdmr]);
    host.must(45, [tdmr + 0x1_0000, 1, key, 0]);
    host.must(31, [0; 4]);
    let mut next = base;
    while next < base + size {
        next = host.must(36, [base, 0, 0, 0]).rdx;
    }

    // KVM_TDX_INIT_VM.
    let tdr = host.page();
    host.must(9, [tdr, key + 1, 0, 0]);
    host.must(8, [tdr, 0, 0, 0]);
    for _ in 0..tdcs_pages {
        let page = host.page();
        host.must(1, [page, tdr, 0, 0]);
    }
    let params = 0x2000_0000;
    host.write(params, &[0; 128]);
    host.write(params, &[1 << 28, 3 | xfam_fixed1, 2, 6 | 3 << 3, 4, 80]);
    for (at, (leaf, configurable)) in (params + 256..).step_by(16).zip(&values) {
        let first = match leaf {
            1 => configurable & (0x00ff_0800 << 32 | family),
            0x8000_0008 => configurable & 0x3034,
            _ => 0,
        };
        host.write(at, &[first, 0]);
    }
    host.must(21, [tdr, params, 0, 0]);
    host.must(11, [tdr, 17 << 56 | 10, 0, 0]);
    host.must(11, [tdr, 17 << 56 | 11, 0, 0]);

    // KVM_TDX_INIT_VCPU.
    let tdvpr = host.page();
    host.must(10, [tdvpr, tdr, 0, 0]);
    for _ in 1..tdvps_pages {
        let page = host.page();
        host.must(4, [page, tdvpr, 0, 0]);
    }
    let version = if features & TOPOLOGY_ENUM == 0 { 0 } else { 1 << 16 };
    host.must(22 | version, [tdvpr, 0x1234, 0, 0]);
    host.must(43, [tdvpr, 0x0002, 0xf2, 0xffff]);
    host.must(43, [tdvpr, 0x2016, 0x2100_0000, u64::MAX]);
    host.must(43, [tdvpr, 0x4000, 1 << 7, 1 << 7]);
    host.must(26, [tdvpr, 1 << 63 | 17 << 56 | 0x100, 0, 0]);
    host.must(43, [tdvpr, 32 << 56 | 11, 0, 0xff]);

    // Its memory, and an entry that a pending interrupt ends at once.
    for level in [3, 2, 1] {
        let page = host.page();
        host.must(3, [level, tdr, page, 0]);
    }
    let page = host.page();
    host.must(2, [0, tdr, page, 0x2300_0000]);
    for chunk in 0..16 {
        host.must(16, [chunk * 256, tdr, 0, 0]);
    }
    host.must(17, [tdr, 0, 0, 0]);
    let page = host.page();
    host.must(6, [PAGE, tdr, page, 0]);
    machine.set_interrupt_pending(0, true);
    assert_eq!(host.call(0, 0, [tdvpr, 0, 0, 0]).rax, 1, "an external interrupt");
    machine.set_interrupt_pending(0, false);

    // Teardown.
    host.must(7, [PAGE, tdr, 0, 0]);
    host.must(38, [tdr, 0, 0, 0]);
    host.must(29, [PAGE, tdr, 0, 0]);
    host.must(41, [page | (key + 1) << hkid_shift, 0, 0, 0]);
    host.must(18, [tdvpr, 0, 0, 0]);
    host.must(19, [tdr, 0, 0, 0]);
    let mut resume = 0;
    while host.call(0, 40, [resume, 0, 0, 0]).rax != 0 {
        resume = 1;
    }
    host.must(20, [tdr, 0, 0, 0]);
    host.must(28, [tdvpr, 0, 0, 0]);
    assert!(machine.violations().is_empty(), "{:?}", machine.violations());
}

#[test]
fn release_1_5_05_answers_what_linux_asks() {
    from_boot_to_the_last_page(ModuleProfile::V1_5_05);
}

#[test]
fn late_releases_answer_what_linux_asks() {
    from_boot_to_the_last_page(ModuleProfile::V1_5Late);
    from_boot_to_the_last_page(ModuleProfile::V2_0);
}

/// What Linux does before it starts another kernel.
#[test]
fn a_kernel_that_hands_the_machine_on_disables_the_module_and_no_call_follows() {
    let host = testing::Host::with(MachineConfig { profile: ModuleProfile::V2_0, ..MachineConfig::small() });
    assert_eq!(host.status(0, TdhLeaf::SYS_DISABLE, Gprs::ZERO), Status::SUCCESS);
    for leaf in [TdhLeaf::SYS_DISABLE, TdhLeaf::SYS_RD, TdhLeaf::MNG_CREATE, TdhLeaf::SYS_INIT] {
        assert_eq!(host.status(0, leaf, Gprs::ZERO).code(), StatusCode::SYS_SHUTDOWN, "{leaf}");
    }
    let older = testing::Host::ready();
    assert_eq!(older.status(0, TdhLeaf::SYS_DISABLE, Gprs::ZERO).code(), StatusCode::OPERAND_INVALID);
    older.ok(0, TdhLeaf::SYS_RD, Gprs { rdx: field::FEATURES0, ..Gprs::ZERO });
}

/// A kernel that knows extensions of the module asks what they need, and finds that there are none to set up.
#[test]
fn the_extensions_of_release_2_0_need_nothing() {
    let host = |profile| testing::Host::with(MachineConfig { profile, ..MachineConfig::small() });
    for field in [field::MEMORY_POOL_REQUIRED_PAGES, field::EXT_REQUIRED] {
        let read = Gprs { rdx: field, ..Gprs::ZERO };
        assert_eq!(host(ModuleProfile::V2_0).ok(0, TdhLeaf::SYS_RD, read).r8, 0);
        let older = host(ModuleProfile::V1_5_05).status(0, TdhLeaf::SYS_RD, read);
        assert_eq!(older.code(), StatusCode::METADATA_FIELD_ID_INCORRECT);
    }
}
