//! One probe for each bit that is offered: it fails when the behaviour behind the bit is gone.

use tdvisor_base::{Gpa, Hpa, Level};
use tdx_module_iface::exit::ExitReason;
use tdx_module_iface::lifecycle::LastTdExit;
use tdx_module_iface::metadata::{FieldId, sys, td, vp};
use tdx_module_iface::td_params::attributes::SEPT_VE_DISABLE;
use tdx_module_iface::td_params::{TdParams, config_flags, eptp, msr_config_ctls};
use tdx_module_iface::tdg::td_ctls;
use tdx_module_iface::{Gprs, SeamCall, Status, StatusCode as C, TdgLeaf, TdhLeaf};
use x86_arch::Access;

use super::Word::{Attributes, ConfigFlags, Features0, TdCtls, Xfam};
use super::{FeatureSet, TABLE, Word};
use crate::fields::layout::tdvps;
use crate::fields::{FieldStore, Width};
use crate::guest::{GuestRegisters, GuestState, ScriptedGuest, VmExit};
use crate::lock::{Mode, Side};
use crate::migration::tests::{self as migration, Pair};
use crate::td::Tdvps;
use crate::testing::{Host, Td, code, mem};
use crate::{GuestEnv, MachineConfig, ModuleProfile};

/// A page that the TD gets while it is built.
const BUILT: u64 = 0x10_0000;
/// A page that is pending.
const PENDING: u64 = BUILT + 0x1000;
const VECTOR_VE: u8 = 20;

type Probe = (Word, u8, fn());

const PROBES: &[Probe] = &[
    (Features0, 0, a_td_moves_with_its_memory),
    (Features0, 2, a_service_td_reads_its_target),
    (Features0, 3, a_guest_reads_its_vcpu),
    (Features0, 4, two_processors_change_one_secure_ept),
    (Features0, 5, a_guest_chooses_that_cpuid_faults),
    (Features0, 8, a_report_verifies_and_a_changed_one_does_not),
    (Features0, 9, an_entry_after_a_trap_like_exit_takes_the_recoverability_hint),
    (Features0, 10, a_host_sets_the_time_out_of_host_priority),
    (Features0, 11, arch_capabilities_are_configured),
    (Features0, 16, td_ctls_begin_as_sept_ve_disable_says),
    (Features0, 17, the_allowed_processor_models_are_listed),
    (Features0, 18, rbp_of_the_host_survives_an_exit),
    (Features0, 20, vcpus_get_x2apic_ids_that_differ),
    (Features0, 36, pamt_pages_are_given_at_run_time),
    (Features0, 51, demotion_is_not_interrupted),
    (Attributes, 0, a_debuggable_td_is_read_by_its_host),
    (Attributes, 28, a_pending_page_exits_to_the_host),
    (Attributes, 29, only_a_td_with_the_attribute_is_exported),
    (Xfam, 0, x87_state_is_there_and_outlives_a_td_exit),
    (Xfam, 1, sse_state_is_there_and_outlives_a_td_exit),
    (Xfam, 2, avx_state_is_there_and_outlives_a_td_exit),
    (Xfam, 9, a_td_has_protection_keys),
    (ConfigFlags, 0, guest_addresses_have_52_bits),
    (ConfigFlags, 1, only_a_td_with_the_flag_changes_its_pending_page_exceptions),
    (ConfigFlags, 2, rbp_is_not_exposed_to_the_host),
    (TdCtls, 0, a_guest_turns_pending_page_exceptions_off),
    (TdCtls, 1, cpuid_shows_the_x2apic_id_once_the_guest_asks),
];

#[test]
fn no_two_bits_share_a_probe() {
    for (index, (word, bit, probe)) in PROBES.iter().enumerate() {
        let twin = PROBES[index + 1..].iter().find(|other| core::ptr::fn_addr_eq(other.2, *probe));
        assert!(twin.is_none(), "{} bit {bit}", word.name());
    }
}

#[test]
fn every_offered_bit_does_what_it_says() {
    for feature in TABLE.iter().filter(|feature| feature.absent.is_none()) {
        let probe = PROBES.iter().find(|(word, bit, _)| (*word, *bit) == (feature.word, feature.bit));
        let name = format!("{} bit {} ({})", feature.word.name(), feature.bit, feature.name);
        println!("{name}");
        let (_, _, run) = probe.unwrap_or_else(|| panic!("{name} is offered, and nothing probes it"));
        run();
    }
}

#[test]
fn a_bit_that_is_not_offered_is_not_announced_and_a_td_cannot_have_it() {
    let host = Host::ready();
    let config = host.machine.config();
    let release = config.profile.release();
    for feature in TABLE.iter().filter(|feature| feature.absent.is_some()) {
        let name = feature.name;
        assert_eq!(FeatureSet::Offered.bits(feature.word, release) & feature.mask(), 0, "{name}");
        let field = match feature.word {
            Features0 => sys::TDX_FEATURES0,
            Attributes => sys::ATTRIBUTES_FIXED0,
            Xfam => sys::XFAM_FIXED0,
            ConfigFlags | TdCtls => continue,
        };
        let read = host.ok(0, TdhLeaf::SYS_RD, Gprs { rdx: field.id.0, ..Gprs::ZERO });
        assert_eq!(read.r8 & feature.mask(), 0, "{name} is announced by SYS.RD");
        let status = match feature.word {
            Attributes => created(&host, |params| params.attributes = feature.mask()).1,
            Xfam => created(&host, |params| params.xfam |= feature.mask()).1,
            _ => continue,
        };
        assert_eq!(status.code(), C::OPERAND_INVALID, "a TD got {name}");
    }
}

fn params() -> TdParams {
    let mut params: TdParams = zerocopy::FromZeros::new_zeroed();
    params.xfam = 3;
    params.max_vcpus = 8;
    params.eptp_controls = eptp::LEVELS_4;
    params.tsc_frequency = 100;
    params
}

/// A TD without VCPUs, and what TDH.MNG.INIT said.
fn created(host: &Host, change: impl FnOnce(&mut TdParams)) -> (Td, Status) {
    let mut params = params();
    change(&mut params);
    host.td_with(&params)
}

/// A TD with these parameters and one VCPU, with a page at [`BUILT`] and a pending one at [`PENDING`].
fn running(host: &Host, change: impl FnOnce(&mut TdParams)) -> Td {
    let (mut td, status) = created(host, change);
    assert!(status.is_success(), "{status}");
    host.add_vcpu(&mut td, 0);
    host.tables(&td, BUILT, 0);
    host.add(&td, BUILT, &[]);
    host.ok(0, TdhLeaf::MR_FINALIZE, Gprs { rcx: td.tdr, ..Gprs::ZERO });
    host.aug(&td, PENDING);
    td
}

/// What the guest sees when it goes on after a step.
#[derive(Clone, Copy, Debug)]
struct Seen {
    gprs: Gprs,
    /// The vector that the module injected.
    vector: Option<u8>,
}

/// Enters the VCPU with these flags in RCX; the guest makes these exits, one after the other, and is then interrupted. Gives
/// what it saw after each, and the registers of the host at the TD exit.
fn guest(host: &Host, td: &Td, rcx_flags: u64, exits: &[(Gprs, VmExit)]) -> (Vec<Seen>, Gprs) {
    guest_of(host, td, Gprs { rcx: rcx_flags, ..Gprs::ZERO }, exits)
}

/// Enters the VCPU as [`guest`] does, from a host with these registers; RCX has the flags.
fn guest_of(host: &Host, td: &Td, mut gprs: Gprs, exits: &[(Gprs, VmExit)]) -> (Vec<Seen>, Gprs) {
    let mut seen = Vec::new();
    let mut step = 0;
    let mut cpu = ScriptedGuest(|state: &mut GuestState, _: &GuestEnv<'_>| {
        state.enter_64_bit_mode();
        let vector = state.event.take().map(|event| event.vector);
        if step > 0 {
            seen.push(Seen { gprs: state.gprs(), vector });
        }
        state.set_rip(state.rip() + 64);
        step += 1;
        match exits.get(step - 1) {
            Some((gprs, exit)) => {
                state.set_gprs(*gprs);
                *exit
            }
            None => VmExit::plain(ExitReason::EXTERNAL_INTERRUPT),
        }
    });
    gprs.rcx |= td.vcpus[0];
    let lp = host.machine.lp(0).expect("a processor");
    lp.seamcall_with(&mut gprs, &mut cpu).expect("a module that answers");
    (seen, gprs)
}

fn tdcall(leaf: TdgLeaf, gprs: Gprs) -> (Gprs, VmExit) {
    (Gprs { rax: u64::from(leaf.0), ..gprs }, VmExit::tdcall())
}

fn read(leaf: TdgLeaf, field: FieldId) -> (Gprs, VmExit) {
    tdcall(leaf, Gprs { rdx: field.0, ..Gprs::ZERO })
}

fn touch_pending() -> (Gprs, VmExit) {
    (Gprs::ZERO, VmExit::ept_violation(Gpa::new(PENDING), PENDING, Access::Read, 0))
}

fn a_td_moves_with_its_memory() {
    migration::crosses(MachineConfig::small());
}

fn a_service_td_reads_its_target() {
    let host = Host::ready();
    let service = running(&host, |_| ());
    let target = host.td_being_built(1, 0);
    let bind = Gprs { rcx: target.tdr, rdx: service.tdr, ..Gprs::ZERO };
    let handle = host.ok(0, TdhLeaf::SERVTD_BIND, bind);
    let key = Gprs { rdx: td::MIG_ENC_KEY.id.0, ..handle };
    let (seen, _) = guest(&host, &service, 0, &[tdcall(TdgLeaf::SERVTD_RD, key)]);
    assert_eq!(code(&seen[0].gprs), C::SUCCESS);
    let tdcs = migration::tdcs_of(&host, &target);
    assert_eq!(seen[0].gprs.r8, tdcs.load_u64(crate::fields::layout::tdcs::MIG_ENC_KEY));
}

fn only_a_td_with_the_attribute_is_exported() {
    let pair = Pair::on(MachineConfig::small());
    let export = pair.export_operands(TdhLeaf::EXPORT_STATE_IMMUTABLE);
    let plain = pair.host.td(1);
    let refused = pair.host.status(0, TdhLeaf::EXPORT_STATE_IMMUTABLE, Gprs { rcx: plain.tdr, ..export });
    assert_eq!(refused.code(), C::TD_NOT_MIGRATABLE);
    pair.host.ok(0, TdhLeaf::EXPORT_STATE_IMMUTABLE, export);
}

fn a_guest_reads_its_vcpu() {
    let host = Host::ready();
    let td = running(&host, |_| ());
    let (seen, _) = guest(&host, &td, 0, &[read(TdgLeaf::VP_RD, vp::VCPU_INDEX.id)]);
    assert_eq!((seen[0].gprs.rax, seen[0].gprs.r8), (0, 0));
    assert_ne!(seen[0].gprs.rdx, vp::VCPU_INDEX.id.0, "the next field is named");
}

fn two_processors_change_one_secure_ept() {
    let host = Host::ready();
    let td = running(&host, |_| ());
    let tdcs = crate::td::Tdr::at(host.machine.memory(), Hpa::new(td.tdr)).expect("a TDR").tdcs();
    let _other = tdcs.tree_lock().expect("a lock").acquire(Mode::Shared, Side::Host).expect("free");
    let add = host.call(0, TdhLeaf::MEM_PAGE_AUG, mem(&td, PENDING + 0x1000, 0, host.page()));
    assert_eq!(code(&add), C::SUCCESS, "an addition does not wait for another");
}

fn a_guest_chooses_that_cpuid_faults() {
    let host = Host::ready();
    let td = running(&host, |_| ());
    let cpuid = (Gprs::ZERO, VmExit::instruction(ExitReason::CPUID, 2, 0));
    let set = tdcall(TdgLeaf::VP_CPUIDVE_SET, Gprs { rcx: 1, ..Gprs::ZERO });
    let (seen, _) = guest(&host, &td, 0, &[cpuid, set, cpuid]);
    assert_eq!([seen[0].vector, seen[2].vector], [None, Some(VECTOR_VE)]);
}

fn a_report_verifies_and_a_changed_one_does_not() {
    let host = Host::ready();
    let td = running(&host, |_| ());
    let report = tdcall(TdgLeaf::MR_REPORT, Gprs { rcx: BUILT, rdx: BUILT + 0x800, ..Gprs::ZERO });
    let verify = |gpa| tdcall(TdgLeaf::MR_VERIFYREPORT, Gprs { rcx: gpa, ..Gprs::ZERO });
    let (seen, _) = guest(&host, &td, 0, &[report, verify(BUILT), verify(BUILT + 0x100)]);
    assert_eq!([seen[0].gprs.rax, seen[1].gprs.rax], [0, 0]);
    assert_ne!(seen[2].gprs.rax, 0, "other bytes are no report");
}

fn an_entry_after_a_trap_like_exit_takes_the_recoverability_hint() {
    const HOST_RECOVERABILITY_HINT: u64 = 1 << 52;
    let host = Host::ready();
    let td = running(&host, |_| ());
    let (_, refused) = guest(&host, &td, HOST_RECOVERABILITY_HINT, &[]);
    assert_eq!(code(&refused), C::OPERAND_INVALID, "nothing recoverable happened");
    let tdvps = Tdvps::at(host.machine.memory(), Hpa::new(td.vcpus[0])).expect("a TDVPS");
    tdvps.store(tdvps::LAST_TD_EXIT, Width::B1, u64::from(LastTdExit::ASYNC_TRAP.0));
    let (_, exit) = guest(&host, &td, HOST_RECOVERABILITY_HINT, &[]);
    assert_eq!(exit.rax, u64::from(ExitReason::EXTERNAL_INTERRUPT.0), "the guest ran");
}

/// A host that lost an entry's lock comes first: the guest that holds on is sent to its host after the time that the
/// host chose.
fn a_host_sets_the_time_out_of_host_priority() {
    const ONE_TENTH_OF_A_SECOND: u64 = 100_000;
    /// A guest that is still refused then is never sent to its host.
    const FAR_TOO_MANY: u32 = 50;
    let host = Host::ready();
    let td = running(&host, |_| ());
    let field = Gprs { rcx: td.tdr, rdx: td::HP_LOCK_TIMEOUT.id.0, ..Gprs::ZERO };
    host.ok(0, TdhLeaf::MNG_WR, Gprs { r8: ONE_TENTH_OF_A_SECOND, r9: u64::MAX, ..field });
    let tdcs = crate::td::Tdr::at(host.machine.memory(), Hpa::new(td.tdr)).expect("a TDR").tdcs();
    let Some(crate::td::sept::Walk::Found(slot)) = tdcs.walk(Gpa::new(PENDING), Level::L4K) else {
        panic!("the page has an entry");
    };
    let held = slot.lock(Side::Guest).expect("free");
    slot.lock(Side::Host).expect_err("somebody holds it, and the host wants it");
    drop(held);
    let mut refusals = 0;
    let mut cpu = ScriptedGuest(|state: &mut GuestState, env: &GuestEnv<'_>| {
        state.enter_64_bit_mode();
        refusals += u32::from(code(&state.gprs()) == C::OPERAND_BUSY);
        if refusals > FAR_TOO_MANY {
            return VmExit::plain(ExitReason::EXTERNAL_INTERRUPT);
        }
        env.machine().advance_tsc(env.machine().config().tsc_hz / 25);
        state.set_gprs(tdcall(TdgLeaf::MEM_PAGE_ACCEPT, Gprs { rcx: PENDING, ..Gprs::ZERO }).0);
        VmExit::tdcall()
    });
    let mut gprs = Gprs { rcx: td.vcpus[0], ..Gprs::ZERO };
    let lp = host.machine.lp(0).expect("a processor");
    lp.seamcall_with(&mut gprs, &mut cpu).expect("a module that answers");
    assert_eq!((code(&gprs), refusals), (C::HOST_PRIORITY_BUSY_TIMEOUT, 3));
}

fn arch_capabilities_are_configured() {
    let host = Host::ready();
    let mask = Gprs { rdx: sys::IA32_ARCH_CAPABILITIES_CONFIG_MASK.id.0, ..Gprs::ZERO };
    let configurable = host.ok(0, TdhLeaf::SYS_RD, mask).r8;
    let without = created(&host, |params| params.ia32_arch_capabilities_config = configurable).1;
    let with = created(&host, |params| {
        params.msr_config_ctls = msr_config_ctls::IA32_ARCH_CAPABILITIES;
        params.ia32_arch_capabilities_config = configurable;
    });
    assert_ne!(configurable, 0);
    assert_eq!([without.code(), with.1.code()], [C::OPERAND_INVALID, C::SUCCESS]);
}

/// The first version asked ATTRIBUTES at each violation; the second asks TD_CTLS, which begin with what ATTRIBUTES say.
fn td_ctls_begin_as_sept_ve_disable_says() {
    let host = Host::ready();
    for (attributes, expected) in [(0, 0), (SEPT_VE_DISABLE, td_ctls::PENDING_VE_DISABLE)] {
        let td = running(&host, |params| params.attributes = attributes);
        let (seen, _) = guest(&host, &td, 0, &[read(TdgLeaf::VM_RD, td::TD_CTLS.id)]);
        assert_eq!((seen[0].gprs.rax, seen[0].gprs.r8), (0, expected), "ATTRIBUTES {attributes:#x}");
    }
}

/// A TDG.VM.WR that turns #VE for pending pages off.
fn turn_pending_ve_off() -> (Gprs, VmExit) {
    let bit = td_ctls::PENDING_VE_DISABLE;
    tdcall(TdgLeaf::VM_WR, Gprs { rdx: td::TD_CTLS.id.0, r8: bit, r9: bit, ..Gprs::ZERO })
}

fn only_a_td_with_the_flag_changes_its_pending_page_exceptions() {
    let host = Host::ready();
    for (flags, expected) in
        [(config_flags::FLEXIBLE_PENDING_VE, C::SUCCESS), (0, C::METADATA_FIELD_VALUE_NOT_VALID)]
    {
        let td = running(&host, |params| params.config_flags = flags);
        let (seen, _) = guest(&host, &td, 0, &[turn_pending_ve_off()]);
        assert_eq!(code(&seen[0].gprs), expected, "CONFIG_FLAGS {flags:#x}");
    }
}

fn a_guest_turns_pending_page_exceptions_off() {
    let host = Host::ready();
    let td = running(&host, |params| params.config_flags = config_flags::FLEXIBLE_PENDING_VE);
    let steps = [touch_pending(), tdcall(TdgLeaf::VP_VEINFO_GET, Gprs::ZERO), turn_pending_ve_off()];
    let (seen, _) = guest(&host, &td, 0, &steps);
    assert_eq!(seen[0].vector, Some(VECTOR_VE));
    let (_, exit) = guest(&host, &td, 0, &[touch_pending()]);
    assert_eq!(exit.rax, u64::from(ExitReason::EPT_VIOLATION.0), "the host is asked now");
}

fn the_allowed_processor_models_are_listed() {
    let host = Host::ready();
    let read = |field: FieldId| host.ok(0, TdhLeaf::SYS_RD, Gprs { rdx: field.0, ..Gprs::ZERO }).r8;
    assert_eq!(read(sys::NUM_ALLOWED_FMS.id), 1);
    assert_eq!(read(sys::ALLOWED_FMS.id), u64::from(host.machine.config().cpuid_fms));
}

fn rbp_of_the_host_survives_an_exit() {
    const HOST_RBP: u64 = 0x1234;
    let host = Host::ready();
    let vmcall = tdcall(TdgLeaf::VP_VMCALL, Gprs { rbp: 7, ..Gprs::ZERO });
    for (flags, expected) in [(config_flags::NO_RBP_MOD, HOST_RBP), (0, 0)] {
        let td = running(&host, |params| params.config_flags = flags);
        // The second one exits for an external interrupt.
        for exits in [&[vmcall][..], &[]] {
            let (_, exit) = guest_of(&host, &td, Gprs { rbp: HOST_RBP, ..Gprs::ZERO }, exits);
            assert_eq!(exit.rbp, expected, "CONFIG_FLAGS {flags:#x}, {} VMCALLs", exits.len());
        }
    }
}

fn rbp_is_not_exposed_to_the_host() {
    const RBP: u64 = 1 << 5;
    let host = Host::ready();
    let vmcall = tdcall(TdgLeaf::VP_VMCALL, Gprs { rcx: RBP, rbp: 7, ..Gprs::ZERO });
    let modified = running(&host, |_| ());
    let (_, exit) = guest(&host, &modified, 0, &[vmcall]);
    assert_eq!(exit.rbp, 7, "without the flag it is a register as any other");
    let kept = running(&host, |params| params.config_flags = config_flags::NO_RBP_MOD);
    let (seen, _) = guest(&host, &kept, 0, &[vmcall]);
    assert_eq!(Status::from_raw(seen[0].gprs.rax).code(), C::OPERAND_INVALID);
}

fn vcpus_get_x2apic_ids_that_differ() {
    const X2APIC_ID: u64 = 0x42;
    let host = Host::with(MachineConfig { profile: ModuleProfile::V1_5_05, ..MachineConfig::small() });
    let (mut td, _) = created(&host, |_| ());
    let mut init = || {
        let tdvpr = host.create_vcpu(&mut td);
        let version_1 = TdhLeaf::VP_INIT.word_version(1).0;
        Status::from_raw(raw(&host, Gprs { rax: version_1, rcx: tdvpr, r8: X2APIC_ID, ..Gprs::ZERO }).rax)
    };
    assert_eq!([init().code(), init().code()], [C::SUCCESS, C::X2APIC_ID_NOT_UNIQUE]);
    let field = |field: FieldId| Gprs { rcx: td.tdr, rdx: field.0, ..Gprs::ZERO };
    assert_eq!(host.ok(0, TdhLeaf::MNG_RD, field(td::X2APIC_IDS.id)).r8, X2APIC_ID);
    assert_eq!(host.ok(0, TdhLeaf::MNG_RD, field(td::TOPOLOGY_ENUM_CONFIGURED.id)).r8, 1);
}

fn cpuid_shows_the_x2apic_id_once_the_guest_asks() {
    const ENUM_TOPOLOGY: u64 = 2;
    let host = Host::with(MachineConfig { profile: ModuleProfile::V1_5_05, ..MachineConfig::small() });
    let (mut td, status) = created(&host, |_| ());
    assert!(status.is_success(), "{status}");
    let tdvpr = host.create_vcpu(&mut td);
    let init = Gprs { rax: TdhLeaf::VP_INIT.word_version(1).0, rcx: tdvpr, r8: 0x42, ..Gprs::ZERO };
    assert_eq!(raw(&host, init).rax, 0, "TDH.VP.INIT version 1");
    host.ok(0, TdhLeaf::MR_FINALIZE, Gprs { rcx: td.tdr, ..Gprs::ZERO });
    let on = Gprs { rdx: td::TD_CTLS.id.0, r8: ENUM_TOPOLOGY, r9: ENUM_TOPOLOGY, ..Gprs::ZERO };
    let cpuid = (Gprs { rax: 0xb, ..Gprs::ZERO }, VmExit::instruction(ExitReason::CPUID, 2, 0));
    let (seen, _) = guest(&host, &td, 0, &[cpuid, tdcall(TdgLeaf::VM_WR, on), cpuid]);
    assert_eq!(seen[0].vector, Some(VECTOR_VE), "the host has to say it");
    assert_eq!(seen[1].gprs.rax, 0, "TD_CTLS.ENUM_TOPOLOGY");
    assert_eq!((seen[2].vector, seen[2].gprs.rdx), (None, 0x42), "CPUID leaf 0xb shows the x2APIC id");
}

fn pamt_pages_are_given_at_run_time() {
    let host = Host::with_dynamic_pamt();
    let first = crate::testing::TDMR;
    let add = Gprs { rcx: first | 1, rdx: first + 0x20_0000, r8: first + 0x20_1000, ..Gprs::ZERO };
    assert_eq!(
        host.status(0, TdhLeaf::MNG_CREATE, Gprs { rcx: first, rdx: 40, ..Gprs::ZERO }).code(),
        C::MISSING_PAMT_PAGE_PAIR
    );
    assert_eq!(host.status(0, TdhLeaf::PHYMEM_PAMT_ADD, add).code(), C::SUCCESS);
}

fn demotion_is_not_interrupted() {
    let demote = |profile| {
        let host = Host::with(MachineConfig { profile, ..MachineConfig::small() });
        let td = running(&host, |_| ());
        let gpa = 0x20_0000;
        host.ok(0, TdhLeaf::MEM_PAGE_AUG, mem(&td, gpa, 1, host.large_page()));
        host.ok(0, TdhLeaf::MEM_RANGE_BLOCK, mem(&td, gpa, 1, 0));
        host.ok(0, TdhLeaf::MEM_TRACK, Gprs { rcx: td.tdr, ..Gprs::ZERO });
        let none = Gprs { r9: u64::MAX, r10: u64::MAX, r11: u64::MAX, ..mem(&td, gpa, 1, host.page()) };
        host.machine.with_interrupt(0, || host.status(0, TdhLeaf::MEM_PAGE_DEMOTE, none)).code()
    };
    assert_eq!(demote(ModuleProfile::V1_5_01), C::INTERRUPTED_RESTARTABLE);
    assert_eq!(demote(ModuleProfile::V1_5Late), C::SUCCESS);
}

fn a_debuggable_td_is_read_by_its_host() {
    let host = Host::ready();
    let debug = running(&host, |params| params.attributes = 1);
    let closed = running(&host, |_| ());
    let read = |td: &Td| host.status(0, TdhLeaf::MEM_RD, mem(td, BUILT, 0, 0)).code();
    assert_eq!([read(&debug), read(&closed)], [C::SUCCESS, C::TD_NON_DEBUG]);
}

fn a_pending_page_exits_to_the_host() {
    let host = Host::ready();
    let td = running(&host, |params| params.attributes = SEPT_VE_DISABLE);
    let (_, exit) = guest(&host, &td, 0, &[touch_pending()]);
    assert_eq!(exit.rax, u64::from(ExitReason::EPT_VIOLATION.0));
    let open = running(&host, |_| ());
    let (seen, _) = guest(&host, &open, 0, &[touch_pending()]);
    assert_eq!(seen[0].vector, Some(VECTOR_VE), "without the attribute the guest is told");
}

/// Enters a TD twice: what `set` put into the guest's state the first time, `get` finds the second time.
fn outlives_a_td_exit<T: PartialEq + core::fmt::Debug>(
    set: impl Fn(&mut GuestState),
    get: impl Fn(&GuestState) -> T,
    expected: T,
) {
    let host = Host::ready();
    let td = running(&host, |_| ());
    host.run(0, td.vcpus[0], |script| set(script.state));
    let (found, _) = host.run(0, td.vcpus[0], |script| get(script.state));
    assert_eq!(found, expected);
}

/// XCR0 and CPUID leaf DH of a TD that asked for nothing more: the component is there and cannot be left out.
fn component_is_there(bit: u64, without: u64) {
    let host = Host::ready();
    assert_eq!(created(&host, |params| params.xfam = without).1.code(), C::OPERAND_INVALID);
    let td = running(&host, |_| ());
    let cpuid = (Gprs { rax: 0xd, ..Gprs::ZERO }, VmExit::instruction(ExitReason::CPUID, 2, 0));
    let (seen, _) = guest(&host, &td, 0, &[cpuid]);
    assert_ne!(seen[0].gprs.rax & bit, 0, "XCR0 may have the component");
}

fn x87_state_is_there_and_outlives_a_td_exit() {
    component_is_there(1, 2);
    outlives_a_td_exit(|state| state.simd.x87.control = 0x27f, |state| state.simd.x87.control, 0x27f);
}

fn sse_state_is_there_and_outlives_a_td_exit() {
    component_is_there(2, 1);
    outlives_a_td_exit(|state| state.simd.xmm[5] = 7, |state| state.simd.xmm[5], 7);
}

/// With the component CPUID has the instructions, and XCR0 takes it; beside PKRU, which lies behind it, nothing is lost.
fn avx_state_is_there_and_outlives_a_td_exit() {
    const AVX: u64 = 1 << 28;
    const AREA_WITH_AVX: u64 = 832;
    const AREA_WITHOUT: u64 = 576;
    for (xfam, avx, area) in [(7, AVX, AREA_WITH_AVX), (3, 0, AREA_WITHOUT)] {
        let host = Host::ready();
        let td = running(&host, |params| {
            params.xfam = xfam;
            // It is given to whom asks for it.
            params.cpuid_config[0].ecx |= AVX as u32;
        });
        let cpuid =
            |leaf: u64| (Gprs { rax: leaf, ..Gprs::ZERO }, VmExit::instruction(ExitReason::CPUID, 2, 0));
        let xsetbv = (Gprs { rax: 7, ..Gprs::ZERO }, VmExit::instruction(ExitReason::XSETBV, 3, 0));
        let (seen, _) = guest(&host, &td, 0, &[cpuid(1), xsetbv, cpuid(0xd)]);
        assert_eq!(seen[0].gprs.rcx & AVX, avx, "XFAM {xfam:#x}");
        assert_eq!(seen[2].gprs.rbx, area, "XFAM {xfam:#x}");
    }
    let host = Host::ready();
    let td = running(&host, |params| params.xfam = 0x207);
    let both = |state: &GuestState| (state.simd.ymm_high[0], state.simd.ymm_high[15], state.pkru);
    host.run(0, td.vcpus[0], |script| {
        (script.state.simd.ymm_high[0], script.state.simd.ymm_high[15]) = (7, 9);
        script.state.pkru = 11;
    });
    let (found, _) = host.run(0, td.vcpus[0], |script| both(script.state));
    assert_eq!(found, (7, 9, 11));
}

/// With the component CPUID has the keys, and XCR0 takes it: the XSAVE area then ends behind PKRU.
fn a_td_has_protection_keys() {
    const PKU: u64 = 1 << 3;
    const AREA_WITH_PKRU: u64 = 2696;
    const AREA_WITHOUT: u64 = 576;
    for (xfam, keys, area) in [(0x203, PKU, AREA_WITH_PKRU), (3, 0, AREA_WITHOUT)] {
        let host = Host::ready();
        let td = running(&host, |params| params.xfam = xfam);
        let cpuid =
            |leaf: u64| (Gprs { rax: leaf, ..Gprs::ZERO }, VmExit::instruction(ExitReason::CPUID, 2, 0));
        let xsetbv = (Gprs { rax: 0x203, ..Gprs::ZERO }, VmExit::instruction(ExitReason::XSETBV, 3, 0));
        let (seen, _) = guest(&host, &td, 0, &[cpuid(7), xsetbv, cpuid(0xd)]);
        assert_eq!(seen[0].gprs.rcx & PKU, keys, "XFAM {xfam:#x}");
        assert_eq!(seen[2].gprs.rbx, area, "XFAM {xfam:#x}");
    }
}

fn guest_addresses_have_52_bits() {
    let host = Host::ready();
    let (mut td, status) = created(&host, |params| {
        params.config_flags = config_flags::GPAW;
        params.eptp_controls = eptp::LEVELS_5;
    });
    assert!(status.is_success(), "{status}");
    host.add_vcpu(&mut td, 0);
    host.ok(0, TdhLeaf::MR_FINALIZE, Gprs { rcx: td.tdr, ..Gprs::ZERO });
    let (seen, _) = guest(&host, &td, 0, &[tdcall(TdgLeaf::VP_INFO, Gprs::ZERO)]);
    assert_eq!(seen[0].gprs.rcx & 0x3f, 52);
}

/// A call with version bits in RAX.
fn raw(host: &Host, mut gprs: Gprs) -> Gprs {
    host.machine.lp(0).expect("a processor").seamcall(&mut gprs).expect("a module that answers");
    gprs
}
