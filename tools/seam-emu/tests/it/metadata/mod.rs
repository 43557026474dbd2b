//! Metadata: every field of every release through every leaf that reads or writes fields, judged by tables of its own;
//! and what single calls of Intel's module gave, by name.

mod kvm_cpuid;
mod rules;

use rules::{MUST_BE_ZERO, Of, Read, Row, Table, Who};
use seam_emu::features::FeatureSet;
use seam_emu::guest::GuestRegisters;
use seam_emu::testing::{Host, SCRATCH, Td, code};
use seam_emu::{GuestEnv, GuestState, MachineConfig, ModuleProfile, ScriptedGuest, VmExit};
use tdvisor_base::{Hpa, KeyId};
use tdx_module_iface::exit::ExitReason;
use tdx_module_iface::td_params::{TdParams, attributes, eptp};
use tdx_module_iface::{Gprs, Operand, Release, SeamCall, Status, StatusCode, TdgLeaf, TdhLeaf};

const RELEASES: [ModuleProfile; 2] = [ModuleProfile::V1_5_01, ModuleProfile::V1_5_05];
const BUILT: u64 = 0x8000_0000;

/// A module with one TD, which it shows as it was recorded.
struct World {
    host: Host,
    td: Td,
    release: Release,
}

impl World {
    fn new(profile: ModuleProfile, attributes: u64, l2_vms: u8) -> Self {
        Self::on(MachineConfig { profile, ..MachineConfig::small() }, attributes, l2_vms)
    }

    fn on(config: MachineConfig, attributes: u64, l2_vms: u8) -> Self {
        Self::with(config, |params| (params.attributes, params.num_l2_vms) = (attributes, l2_vms))
    }

    fn with(config: MachineConfig, change: impl FnOnce(&mut TdParams)) -> Self {
        let release = config.profile.release();
        let host = Host::with(MachineConfig { features: FeatureSet::Recorded, ..config });
        let mut params = TdParams {
            xfam: 3,
            max_vcpus: 1,
            eptp_controls: eptp::LEVELS_4,
            tsc_frequency: 100,
            ..TdParams::ZERO
        };
        change(&mut params);
        let (mut td, status) = host.td_with(&params);
        assert!(status.is_success(), "TDH.MNG.INIT: {status}");
        host.add_vcpu(&mut td, 0);
        host.tables(&td, BUILT, 0);
        for page in 0..2 {
            host.add(&td, BUILT + page * 0x1000, &[]);
        }
        host.ok(0, TdhLeaf::MR_FINALIZE, Gprs { rcx: td.tdr, ..Gprs::ZERO });
        Self { host, td, release }
    }

    /// A SEAMCALL with version bits.
    fn seamcall(&self, leaf: TdhLeaf, version: u8, mut gprs: Gprs) -> Gprs {
        gprs.rax = leaf.word_version(version).0;
        self.host.machine.lp(0).unwrap().seamcall(&mut gprs).unwrap();
        gprs
    }

    /// TDCALLs in one entry: the registers after each of them.
    fn tdcalls(&self, calls: &[Gprs]) -> Vec<Gprs> {
        let mut seen = Vec::new();
        let mut asked = 0;
        let mut guest = ScriptedGuest(|state: &mut GuestState, _: &GuestEnv<'_>| {
            state.enter_64_bit_mode();
            if asked > 0 {
                seen.push(state.gprs());
            }
            let Some(call) = calls.get(asked) else { return VmExit::plain(ExitReason::EXTERNAL_INTERRUPT) };
            asked += 1;
            state.set_rip(state.rip() + 64);
            state.set_gprs(*call);
            VmExit::tdcall()
        });
        let mut gprs = Gprs { rcx: self.td.vcpus[0], ..Gprs::ZERO };
        self.host.machine.lp(0).unwrap().seamcall_with(&mut gprs, &mut guest).unwrap();
        assert_eq!(gprs.rax, u64::from(ExitReason::EXTERNAL_INTERRUPT.0), "the guest ran to its end");
        seen
    }

    /// Reads of these identifiers.
    fn reads(&self, of: Of, who: Who, version: u8, ids: &[u64]) -> Vec<Gprs> {
        let (host_leaf, object, guest_leaf) = match of {
            Of::Module => (TdhLeaf::SYS_RD, 0, TdgLeaf::SYS_RD),
            Of::Td => (TdhLeaf::MNG_RD, self.td.tdr, TdgLeaf::VM_RD),
            Of::Vcpu => (TdhLeaf::VP_RD, self.td.vcpus[0], TdgLeaf::VP_RD),
        };
        if who == Who::Guest {
            let rax = guest_leaf.word_version(version).0;
            let calls: Vec<_> = ids.iter().map(|id| Gprs { rax, rdx: *id, r8: 0x55, ..Gprs::ZERO }).collect();
            return self.tdcalls(&calls);
        }
        let read = |id: &u64| {
            self.seamcall(host_leaf, version, Gprs { rcx: object, rdx: *id, r8: 0x55, ..Gprs::ZERO })
        };
        ids.iter().map(read).collect()
    }

    /// Writes: identifier, value, mask.
    fn writes(&self, of: Of, who: Who, writes: &[(u64, u64, u64)]) -> Vec<Gprs> {
        let (host_leaf, object, guest_leaf) = match of {
            Of::Td => (TdhLeaf::MNG_WR, self.td.tdr, TdgLeaf::VM_WR),
            _ => (TdhLeaf::VP_WR, self.td.vcpus[0], TdgLeaf::VP_WR),
        };
        let operands =
            |(id, value, mask): &(u64, u64, u64)| Gprs { rdx: *id, r8: *value, r9: *mask, ..Gprs::ZERO };
        if who == Who::Guest {
            let rax = u64::from(guest_leaf.0);
            return self
                .tdcalls(&writes.iter().map(|write| Gprs { rax, ..operands(write) }).collect::<Vec<_>>());
        }
        writes
            .iter()
            .map(|write| self.seamcall(host_leaf, 0, Gprs { rcx: object, ..operands(write) }))
            .collect()
    }
}

/// Every context, and who may ask for it.
fn for_everybody(l2_vms: u8, check: impl Fn(&World, Of, Who, &Table)) {
    for profile in RELEASES {
        for (attributes, askers) in
            [(0, &[Who::Host, Who::Guest][..]), (attributes::DEBUG, &[Who::DebugHost])]
        {
            let world = World::new(profile, attributes, l2_vms);
            for who in askers {
                for of in [Of::Module, Of::Td, Of::Vcpu] {
                    check(&world, of, *who, &Table::new(of, world.release, l2_vms));
                }
            }
        }
    }
}

/// The versions of a read, and whether they name the next field.
fn versions(of: Of, who: Who) -> &'static [(u8, bool)] {
    match (of, who) {
        (Of::Module, _) | (Of::Vcpu, Who::Guest) => &[(0, true)],
        _ => &[(0, false), (1, true)],
    }
}

fn every_read_is_as_the_tables_say(l2_vms: u8) {
    for_everybody(l2_vms, |world, of, who, table| {
        let ids = table.identifiers();
        for &(version, walks) in versions(of, who) {
            for (id, seen) in ids.iter().zip(world.reads(of, who, version, &ids)) {
                let what = || format!("{} {of:?} {who:?} version {version}: {id:#018x}", world.release);
                let Read { status, bits, next } = table.read(who, *id);
                assert_eq!(Status::from_raw(seen.rax), Status::new(status), "{}", what());
                assert_eq!(seen.r8 & !bits, 0, "{}: bits that may not be read", what());
                assert_eq!(seen.rdx, if walks { next } else { *id }, "{}: RDX", what());
            }
        }
    });
}

#[test]
fn every_read_of_a_td_without_l2_vms_is_as_the_tables_say() {
    every_read_is_as_the_tables_say(0);
}

#[test]
fn every_read_of_a_td_with_two_l2_vms_is_as_the_tables_say() {
    every_read_is_as_the_tables_say(2);
}

#[test]
fn a_walk_from_the_null_identifier_visits_every_readable_field_once_and_ends() {
    for_everybody(1, |world, of, who, table| {
        let Some(&(version, _)) = versions(of, who).iter().find(|(_, walks)| *walks) else { return };
        for null in [u64::MAX, !(7 << 52)] {
            let [first] = world.reads(of, who, version, &[null])[..] else { panic!("one call") };
            assert_eq!(code(&first), StatusCode::METADATA_FIRST_FIELD_ID_IN_CONTEXT, "{of:?} {who:?}");
            assert_eq!((first.r8, first.rdx), (0, table.first(who)), "{of:?} {who:?}");
        }
        let (mut id, mut steps) = (table.first(who), 0u32);
        while id != u64::MAX {
            id = table.read(who, id).next;
            steps += 1;
            assert!(steps < 1 << 16, "{of:?} {who:?}: the walk does not end");
        }
    });
}

#[test]
fn a_version_that_a_read_does_not_have_names_no_field() {
    for profile in RELEASES {
        let world = World::new(profile, 0, 0);
        for id in [0x9e10_0003_0004_048c, 0x9810_0103_0000_0010, 0x0a00_0003_0000_000c, 0xd85b_62d6_7b1a_c7c6]
        {
            for version in [2, 3, 255] {
                for (of, who) in [(Of::Td, Who::Host), (Of::Vcpu, Who::Host), (Of::Td, Who::Guest)] {
                    let [seen] = world.reads(of, who, version, &[id])[..] else { panic!("one call") };
                    let refused = Status::with_operand(StatusCode::OPERAND_INVALID, Operand::RAX);
                    assert_eq!(Status::from_raw(seen.rax), refused, "{profile} {of:?} {who:?} {id:#x}");
                    assert_eq!((seen.rdx, seen.r8), (u64::MAX, 0), "{profile} {of:?} {who:?} {id:#x}");
                }
            }
        }
    }
}

/// Fields whose values the module checks beside their masks, by context and class and code.
fn has_checks_of_its_own(of: Of, row: &Row, element: u64) -> bool {
    let code = element as u32 & 0xff_ffff;
    match (of, row.class()) {
        (Of::Td, 0x11) => matches!(code, 0x11 | 0x17),
        (Of::Td, 0x18) => code == 0x20,
        // IA32_SPEC_CTRL of a TD; TSC deadlines.
        (Of::Vcpu, 0x13) => code == 0x48,
        (Of::Vcpu, 0x20) => (0x58..0x5c).contains(&code),
        (Of::Vcpu, 0 | 0x24 | 0x2c | 0x34) => matches!(
            code,
            0x2 | 0x200e
                | 0x2012
                | 0x2016
                | 0x201a
                | 0x2034
                | 0x203c
                | 0x2040
                | 0x2802
                | 0x280a..=0x2810
                | 0x4000
                | 0x4002
                | 0x401e
                | 0x4020
                | 0x4022
                | 0x6000..=0x6006
                | 0x6800
                | 0x6802
                | 0x6804
        ),
        _ => false,
    }
}

/// Fields that the module does not let anybody write whatever the tables say: XFAM of a VCPU, the XSAVE header.
fn is_kept(of: Of, row: &Row, element: u64) -> bool {
    let code = element as u32 & 0xff_ffff;
    of == Of::Vcpu && (row.class() == 0x20 && code == 0xc || row.class() == 0x12 && (64..72).contains(&code))
}

#[test]
fn every_bit_of_every_field_is_written_by_those_who_may_and_by_nobody_else() {
    for_everybody(2, |world, of, who, table| {
        if of == Of::Module {
            return;
        }
        for row in &table.rows {
            let ends = [row.element(0), row.element(row.elements() - 1)];
            for element in &ends[..if row.elements() == 1 { 1 } else { 2 }] {
                let sparse = of == Of::Td && row.class() == 0x14;
                let element = if sparse { row.id | 1 << 9 | 0x1fe } else { *element };
                let current = current(world, of, who, row, element);
                let bits = (0..64).map(|bit| 1u64 << bit);
                let writes: Vec<_> =
                    bits.clone().chain([0]).map(|mask| (element, !current & mask, mask)).collect();
                for (&(id, value, mask), seen) in writes.iter().zip(world.writes(of, who, &writes)) {
                    let what = || {
                        format!("{} {of:?} {who:?} {id:#018x} := {value:#x}, mask {mask:#x}", world.release)
                    };
                    let status = Status::from_raw(seen.rax);
                    if row.writable(who) & mask == 0 {
                        assert_eq!(
                            status,
                            Status::new(StatusCode::METADATA_FIELD_NOT_WRITABLE),
                            "{}",
                            what()
                        );
                        assert_eq!(seen.r8, 0, "{}", what());
                    } else if is_kept(of, row, id) {
                        assert_eq!(status.code(), StatusCode::METADATA_FIELD_NOT_WRITABLE, "{}", what());
                    } else if !has_checks_of_its_own(of, row, id) {
                        assert!(status.is_success(), "{}: {status}", what());
                        assert_eq!(seen.r8 & !row.readable(who), 0, "{}: bits that may not be read", what());
                    } else {
                        assert_ne!(status.code(), StatusCode::METADATA_FIELD_NOT_WRITABLE, "{}", what());
                    }
                }
            }
        }
    });
}

/// The readable bits of a field; those of a field that is written only are zero.
fn current(world: &World, of: Of, who: Who, row: &Row, element: u64) -> u64 {
    if row.readable(who) == 0 {
        return 0;
    }
    world.reads(of, who, 0, &[element])[0].r8
}

#[test]
fn a_write_that_would_change_a_bit_which_is_not_writable_changes_nothing() {
    for_everybody(0, |world, of, who, table| {
        for row in table.rows.iter().filter(|_| of != Of::Module) {
            let element = row.element(0);
            let (readable, writable) = (row.readable(who), row.writable(who));
            let fixed = readable & !writable & row.size();
            if writable == 0 || fixed == 0 || is_kept(of, row, element) {
                continue;
            }
            let old = current(world, of, who, row, element);
            let bit = 1u64 << fixed.trailing_zeros();
            let write = (element, (old ^ bit) & (bit | writable), bit | writable);
            let seen = world.writes(of, who, &[write])[0];
            let what = format!("{} {of:?} {who:?} {element:#018x}", world.release);
            // An address that nobody set counts as having no bit outside the writable ones.
            if old >> 63 == 0 {
                assert_eq!(code(&seen), StatusCode::METADATA_FIELD_VALUE_NOT_VALID, "{what}");
                assert_eq!(current(world, of, who, row, element), old, "{what}");
            }
        }
    });
}

#[test]
fn an_identifier_that_no_write_takes_is_refused_by_each() {
    for_everybody(0, |world, of, who, table| {
        if of == Of::Module {
            return;
        }
        let ids: Vec<_> = table.identifiers().into_iter().filter(|id| table.row(*id).is_none()).collect();
        assert!(ids.iter().any(|id| id & MUST_BE_ZERO != 0));
        let writes: Vec<_> = ids.iter().map(|id| (*id, 0, u64::MAX)).collect();
        for (id, seen) in ids.iter().zip(world.writes(of, who, &writes)) {
            let refused = Status::new(StatusCode::METADATA_FIELD_ID_INCORRECT);
            assert_eq!(Status::from_raw(seen.rax), refused, "{} {of:?} {who:?} {id:#018x}", world.release);
            assert_eq!(seen.r8, 0);
        }
    });
}

/// A list as RDALL writes it: each field's identifier with the values of its elements.
fn fields_of(list: &[u8]) -> Vec<(u64, Vec<u64>)> {
    let word = |at: usize| u64::from_le_bytes(list[at..at + 8].try_into().unwrap());
    let (size, sequences) = ((word(0) & 0xffff) as usize, word(0) >> 16 & 0xffff);
    assert_eq!(word(0) >> 32, 0, "the header's reserved half");
    let mut fields = Vec::new();
    let mut at = 8;
    for _ in 0..sequences {
        let header = word(at);
        let (elements, count) = ((header >> 34 & 0xf) + 1, (header >> 38 & 0x1ff) + 1);
        let id = header & !(0xf << 34 | 0x1ff << 38);
        at += 8;
        for number in 0..count {
            let values = (0..elements as usize).map(|element| word(at + 8 * element)).collect();
            fields.push((id + number * elements, values));
            at += 8 * elements as usize;
        }
    }
    assert_eq!(at, size, "the sequences fill the list");
    fields
}

/// The fields of the module that a reader may read, one by one.
fn single_fields(table: &Table, who: Who) -> Vec<u64> {
    let readable = table.rows.iter().filter(|row| row.readable(who) != 0);
    readable
        .flat_map(|row| (0..row.elements()).step_by(row.elems as usize).map(|at| row.element(at)))
        .collect()
}

fn read_all(world: &World, who: Who, start: u64) -> (Gprs, Vec<u8>) {
    let mut page = vec![0; 4096];
    if who == Who::Guest {
        let rax = u64::from(TdgLeaf::SYS_RDALL.0);
        let seen = world.tdcalls(&[Gprs { rax, rdx: BUILT, r8: start, ..Gprs::ZERO }])[0];
        let hpa =
            world.host.call(0, TdhLeaf::MEM_SEPT_RD, seam_emu::testing::mem(&world.td, BUILT, 0, 0)).rcx;
        let key = KeyId::new(world.td.hkid as u16);
        world.host.machine.memory().read(Hpa::new(hpa & 0x000f_ffff_ffff_f000), key, &mut page).unwrap();
        return (seen, page);
    }
    let seen = world.seamcall(TdhLeaf::SYS_RDALL, 0, Gprs { rdx: SCRATCH, r8: start, ..Gprs::ZERO });
    world.host.machine.host_read(Hpa::new(SCRATCH), &mut page).unwrap();
    (seen, page)
}

#[test]
fn lists_hold_what_single_reads_give_from_whatever_field_they_begin() {
    for profile in RELEASES {
        let world = World::new(profile, 0, 0);
        let table = Table::new(Of::Module, world.release, 0);
        for who in [Who::Host, Who::Guest] {
            let all = single_fields(&table, who);
            // Also from fields that the reader may not read: the list begins behind them.
            for start in single_fields(&table, Who::Host).into_iter().chain([u64::MAX]) {
                let from = match start {
                    u64::MAX => 0,
                    start => all
                        .iter()
                        .position(|id| order(&table, *id) >= order(&table, start))
                        .unwrap_or(all.len()),
                };
                let (seen, page) = read_all(&world, who, start);
                let listed = fields_of(&page);
                let what = format!("{profile} {who:?} from {start:#018x}");
                // The fields of a sequence share the top bit of its first one.
                let plain = |id: &u64| id & !(1 << 63);
                let ids: Vec<_> = listed.iter().map(|(id, _)| plain(id)).collect();
                let expected: Vec<_> = all[from..].iter().map(plain).take(ids.len()).collect();
                assert!(ids == expected, "{what}: {ids:#x?} instead of {expected:#x?}");
                let next = all.get(from + ids.len()).copied().unwrap_or(u64::MAX);
                assert_eq!(seen.r8, next, "{what}: the field that did not fit");
                let complete =
                    if next == u64::MAX { StatusCode::SUCCESS } else { StatusCode::METADATA_LIST_OVERFLOW };
                assert_eq!(code(&seen), complete, "{what}");
                if start == u64::MAX {
                    let elements: Vec<_> = listed
                        .iter()
                        .flat_map(|(id, values)| (0..).zip(values).map(move |(at, value)| (id + at, *value)))
                        .collect();
                    let ids: Vec<_> = elements.iter().map(|(id, _)| *id).collect();
                    let values: Vec<_> =
                        world.reads(Of::Module, who, 0, &ids).iter().map(|seen| seen.r8).collect();
                    assert_eq!(
                        elements.iter().map(|(_, value)| *value).collect::<Vec<_>>(),
                        values,
                        "{what}"
                    );
                }
            }
        }
    }
}

/// Where an element stands in the walk.
fn order(table: &Table, id: u64) -> (usize, u64) {
    (table.row(id).expect("a field"), id & 0xff_ffff)
}

#[test]
fn a_list_begins_at_the_first_element_of_a_field_of_the_right_size_and_nothing_else_of_its_identifier_matters()
 {
    const VALUES: u64 = 0x9900_0003_0000_0500;
    let world = World::new(ModuleProfile::V1_5_05, 0, 0);
    let list = |start: u64| read_all(&world, Who::Host, start);
    let whole = list(VALUES);
    for ignored in [1 << 24, 1 << 34, 1 << 38, 1 << 47, 1 << 50, 1 << 52, 1 << 55, 1 << 62, 1 << 63] {
        let (seen, page) = list(VALUES ^ ignored);
        assert_eq!((code(&seen), &page), (code(&whole.0), &whole.1), "bit {ignored:#x}");
    }
    for wrong in
        [VALUES + 1, VALUES ^ 1 << 32, VALUES ^ 1 << 33, 0x1234_0003_0000_0000, 0x0a00_0003_0000_000c]
    {
        let (seen, _) = list(wrong);
        assert_eq!(code(&seen), StatusCode::METADATA_FIELD_ID_INCORRECT, "{wrong:#x}");
        assert_eq!(seen.r8, u64::MAX, "{wrong:#x}: no field is left");
    }
}

/// Single calls, as Intel's module answered them.
mod single_calls {
    use super::*;

    #[test]
    fn leaf_80000008h_of_the_first_release_is_followed_by_leaf_0() {
        let world = World::new(ModuleProfile::V1_5_01, 0, 0);
        let seen = world.reads(Of::Td, Who::Host, 1, &[0x9410_0003_0001_11ff])[0];
        assert_eq!((seen.rax, seen.rdx), (0, 0x9410_0003_0000_01fe));
    }

    #[test]
    fn leaves_of_the_topology_are_no_fields_of_the_first_release_and_leaf_1fh_cannot_be_read() {
        let world = World::new(ModuleProfile::V1_5_01, 0, 0);
        let leaf = |leaf: u64, subleaf: u64| 0x9410_0003_0000_0000 | leaf << 9 | subleaf << 1;
        let seen = world.reads(Of::Td, Who::Host, 1, &[leaf(0xb, 0), leaf(0x1a, 0xff), leaf(0x1f, 0)]);
        let codes: Vec<_> = seen.iter().map(code).collect();
        let (incorrect, unreadable) =
            (StatusCode::METADATA_FIELD_ID_INCORRECT, StatusCode::METADATA_FIELD_NOT_READABLE);
        assert_eq!(codes, [incorrect, incorrect, unreadable]);
        let count = world.reads(Of::Td, Who::Host, 0, &[0x9110_0001_0000_000e])[0];
        assert_eq!(count.r8, 64, "NUM_CPUID_VALUES");
    }

    #[test]
    fn packages_are_counted_by_what_is_left_of_an_x2apic_id() {
        for profile in RELEASES {
            let config = MachineConfig { profile, lp_packages: vec![0, 1], ..MachineConfig::small() };
            let world = World::on(config, 0, 0);
            let seen = world.reads(Of::Td, Who::Host, 0, &[0x8110_0003_0000_0002])[0];
            assert_eq!((seen.rax, seen.r8), (0, 0x11), "{profile}: PKG_CONFIG_BITMAP");
        }
    }

    #[test]
    fn what_streams_attributes_and_controls_the_module_announces() {
        for profile in RELEASES {
            let world = World::new(profile, 0, 0);
            for (id, value) in [
                (0xa000_0001_0000_0010, 0x200),
                (0xa200_0001_0000_0000, 0x807f),
                (0xa200_0003_0000_0003, 3),
                (0xa200_0003_0000_0005, 7),
            ] {
                let seen = world.reads(Of::Module, Who::Host, 0, &[id])[0];
                assert_eq!((seen.rax, seen.r8), (0, value), "{profile} {id:#x}");
            }
        }
    }

    #[test]
    fn the_host_of_a_debuggable_td_changes_no_bit_of_cr0_that_the_module_owns() {
        for profile in RELEASES {
            let world = World::new(profile, attributes::DEBUG, 0);
            let seen = world.writes(Of::Vcpu, Who::DebugHost, &[(0x0024_0003_0000_6800, 0xf3, u64::MAX)])[0];
            assert_eq!((seen.rax, seen.r8), (0xc000_0c03_0000_0000, 0), "{profile}");
            // MCE is the module's as well, and reads as one.
            let cr4 = [(0x0024_0003_0000_6804, 0x20, u64::MAX), (0x0024_0003_0000_6804, 0x60, u64::MAX)];
            let seen: Vec<_> = world.writes(Of::Vcpu, Who::DebugHost, &cr4).iter().map(code).collect();
            assert_eq!(seen, [StatusCode::METADATA_FIELD_VALUE_NOT_VALID, StatusCode::SUCCESS], "{profile}");
        }
    }

    #[test]
    fn what_an_l2_vm_reads_of_a_control_bit_is_its_owner_s_affair() {
        const MASK: u64 = 0x2424_0003_0000_6000;
        const SHADOW: u64 = 0x2424_0003_0000_6004;
        const NE: u64 = 1 << 5;
        const WP: u64 = 1 << 16;
        let world = World::new(ModuleProfile::V1_5_05, attributes::DEBUG, 1);
        let effective = || {
            let seen = world.reads(Of::Vcpu, Who::DebugHost, 0, &[MASK, SHADOW]);
            [seen[0].r8, seen[1].r8 & (NE | WP)]
        };
        assert_eq!(effective(), [u64::MAX, NE], "L1 owns every bit until it says otherwise");
        // The module owns NE as well; L1 comes first.
        for (l1_mask, l1_shadow, expected) in [(WP, WP, NE | WP), (NE | WP, WP, WP), (0, WP, NE)] {
            let writes = [(SHADOW, l1_shadow, u64::MAX), (MASK, l1_mask, u64::MAX)];
            assert!(world.writes(Of::Vcpu, Who::Guest, &writes).iter().all(|seen| seen.rax == 0));
            let [mask, shadow] = effective();
            assert_eq!((mask & (NE | WP), shadow), (NE | l1_mask, expected), "mask {l1_mask:#x}");
            let own = world.reads(Of::Vcpu, Who::Guest, 0, &[MASK, SHADOW]);
            assert_eq!([own[0].r8, own[1].r8], [l1_mask, l1_shadow], "L1 reads what it wrote");
        }
    }

    #[test]
    fn page_modification_logging_needs_a_place_and_a_debuggable_td() {
        const PML_ADDRESS: u64 = 0x0024_0003_0000_200e;
        const PROCBASED2: u64 = 0x0024_0002_0000_401e;
        const ENABLE_PML: u64 = 1 << 17;
        let world = World::new(ModuleProfile::V1_5_05, attributes::DEBUG, 0);
        let turn_on = (PROCBASED2, ENABLE_PML, ENABLE_PML);
        let writes =
            [turn_on, (PML_ADDRESS, 1 << 30 | 32 << 46, u64::MAX), (PML_ADDRESS, SCRATCH, u64::MAX), turn_on];
        let seen: Vec<_> = world.writes(Of::Vcpu, Who::DebugHost, &writes).iter().map(code).collect();
        let refused = StatusCode::METADATA_FIELD_VALUE_NOT_VALID;
        assert_eq!(seen, [refused, refused, StatusCode::SUCCESS, StatusCode::SUCCESS]);
    }

    #[test]
    fn the_module_s_parts_of_the_extended_state_are_not_written() {
        const XBUFF: u64 = 0x1220_0003_0000_0000;
        const XBUFF_OFFSETS: u64 = 0x9110_0002_0000_0800;
        const PROCESSOR_TRACE: u64 = 8;
        let config = MachineConfig { profile: ModuleProfile::V1_5_05, ..MachineConfig::small() };
        let world = World::with(config, |params| {
            params.attributes = attributes::DEBUG;
            params.xfam |= 1 << PROCESSOR_TRACE;
        });
        let trace = world.reads(Of::Td, Who::DebugHost, 0, &[XBUFF_OFFSETS + PROCESSOR_TRACE])[0].r8 / 8;
        for (element, expected) in [
            (63, StatusCode::SUCCESS),
            (64, StatusCode::METADATA_FIELD_NOT_WRITABLE),
            (71, StatusCode::METADATA_FIELD_NOT_WRITABLE),
            (trace, StatusCode::METADATA_FIELD_NOT_WRITABLE),
            (trace + 1, StatusCode::SUCCESS),
        ] {
            let seen = world.writes(Of::Vcpu, Who::DebugHost, &[(XBUFF + element, 0, u64::MAX)])[0];
            assert_eq!(code(&seen), expected, "element {element} of XBUFF");
        }
    }

    #[test]
    fn a_vcpu_that_a_triple_fault_disabled_is_read_and_not_written() {
        const PEND_NMI: u64 = 0x2020_0000_0000_000b;
        let world = World::new(ModuleProfile::V1_5_05, 0, 0);
        let mut guest = ScriptedGuest(|state: &mut GuestState, _: &GuestEnv<'_>| {
            state.enter_64_bit_mode();
            VmExit::plain(ExitReason::TRIPLE_FAULT)
        });
        let mut gprs = Gprs { rcx: world.td.vcpus[0], ..Gprs::ZERO };
        world.host.machine.lp(0).unwrap().seamcall_with(&mut gprs, &mut guest).unwrap();
        assert_eq!(code(&gprs), StatusCode::NON_RECOVERABLE_VCPU);
        let read = world.reads(Of::Vcpu, Who::Host, 0, &[PEND_NMI])[0];
        let write = world.writes(Of::Vcpu, Who::Host, &[(PEND_NMI, 1, 1)])[0];
        assert_eq!([code(&read), code(&write)], [StatusCode::SUCCESS, StatusCode::VCPU_STATE_INCORRECT]);
    }

    #[test]
    fn a_list_that_is_refused_for_its_address_leaves_no_field() {
        for profile in RELEASES {
            let world = World::new(profile, 0, 0);
            let rax = u64::from(TdgLeaf::SYS_RDALL.0);
            let call = Gprs { rax, rdx: 0x8000_2040, r8: 0x0a00_0003_0000_0008, ..Gprs::ZERO };
            let seen = world.tdcalls(&[call])[0];
            let refused = Status::with_operand(StatusCode::OPERAND_INVALID, Operand::RDX);
            assert_eq!((Status::from_raw(seen.rax), seen.r8), (refused, u64::MAX), "{profile}");
        }
    }
}
