//! Each wrapper against a scripted LP that checks the registers and plays back recorded answers.

use std::vec::Vec;

use tdvisor_base::{Gpa, Hpa, KeyId, Level};

use super::*;
use crate::exit::{ExitReason, ExtendedQualification};
use crate::handles::{GpaLevel, Tdr, Tdvpr};
use crate::metadata::FieldId;
use crate::regs::{Reg, SeamCallFault};
use crate::status::Operand;

/// An LP that expects calls and answers them.
struct Script {
    calls: Vec<(Gprs, Result<Gprs, SeamCallFault>)>,
}

impl Script {
    fn one(input: Gprs, output: Gprs) -> Self {
        Self { calls: std::vec![(input, Ok(output))] }
    }
}

impl SeamCall for Script {
    fn seamcall(&mut self, gprs: &mut Gprs) -> Result<(), SeamCallFault> {
        let (expected, answer) = self.calls.remove(0);
        assert_eq!(*gprs, expected, "registers of the call");
        *gprs = answer?;
        Ok(())
    }
}

const TDR: Tdr = Tdr(Hpa::new(0x1_0020_0000));
const TDVPR: Tdvpr = Tdvpr(Hpa::new(0x1_0021_0000));

fn answer(rax: u64, rcx: u64, rdx: u64) -> Gprs {
    Gprs { rax, rcx, rdx, ..Gprs::ZERO }
}

#[test]
fn a_recorded_sept_add_passes_its_operands_in_the_recorded_registers() {
    let gpa = GpaLevel::new(Gpa::new(0x8000_0000), Level::L1G);
    let input = Gprs { rax: 3, rcx: 0x8000_0002, rdx: 0x1_0020_0000, r8: 0x1_0020_8000, ..Gprs::ZERO };
    let mut lp = Script::one(input, answer(0, 0, 0));
    assert_eq!(tdh_mem_sept_add(&mut lp, TDR, gpa, Hpa::new(0x1_0020_8000)), Ok(()));
}

#[test]
fn a_refused_sept_remove_describes_the_entry() {
    let gpa = GpaLevel::new(Gpa::new(0x8000_0000), Level::L1G);
    let input = Gprs { rax: 0x1e, rcx: 0x8000_0002, rdx: 0x1_0020_0000, ..Gprs::ZERO };
    let mut lp = Script::one(input, answer(0xc000_0b0e_0000_0001, 7, 0x8402));
    let error = tdh_mem_sept_remove(&mut lp, TDR, gpa).unwrap_err();
    assert_eq!(error.code(), Some(StatusCode::EPT_PAGE_NOT_FREE));
    assert_eq!(error.details(), Some(&SeptInfo { entry: 7, level_state: 0x8402 }));
    assert_eq!(error.retry(), None);
}

#[test]
fn missing_tlb_tracking_carries_no_entry() {
    let gpa = GpaLevel::page(Gpa::new(0x1000));
    let input = Gprs { rax: 39, rcx: 0x1000, rdx: 0x1_0020_0000, ..Gprs::ZERO };
    let mut lp = Script::one(input, answer(0xc000_0b08_0000_0092, 0, 0));
    let error = tdh_mem_range_unblock(&mut lp, TDR, gpa).unwrap_err();
    assert_eq!(error.details(), None);
    assert_eq!(error.status().unwrap().operand(), Operand::SEPT_TREE);
}

#[test]
fn blocking_a_blocked_entry_is_an_outcome_and_no_error() {
    let gpa = GpaLevel::page(Gpa::new(0x1000));
    let input = Gprs { rax: 7, rcx: 0x1000, rdx: 0x1_0020_0000, ..Gprs::ZERO };
    let mut lp = Script::one(input, answer(0x0000_0b07_0000_0001, 0x80_00f0, 0x100));
    let info = SeptInfo { entry: 0x80_00f0, level_state: 0x100 };
    assert_eq!(tdh_mem_range_block(&mut lp, TDR, gpa), Ok(BlockOutcome::AlreadyBlocked(info)));
    let mut lp = Script::one(input, answer(0, 0, 0));
    assert_eq!(tdh_mem_range_block(&mut lp, TDR, gpa), Ok(BlockOutcome::Blocked));
}

#[test]
fn busy_and_interrupted_are_control_flow() {
    let gpa = GpaLevel::new(Gpa::new(0x20_0000), Level::L2M);
    let input = Gprs { rax: 15, rcx: 0x20_0001, rdx: 0x1_0020_0000, r8: 0x5000, ..Gprs::ZERO };
    for (rax, retry) in [
        (0x8000_0004_0000_0000, Retry::InterruptedRestartable),
        (0x8000_0200_0000_0092, Retry::Busy { operand: Operand::SEPT_TREE }),
    ] {
        let mut lp = Script::one(input, answer(rax, 0, 0));
        let error = tdh_mem_page_demote(&mut lp, TDR, gpa, Hpa::new(0x5000)).unwrap_err();
        assert_eq!(error.retry(), Some(retry));
    }
}

#[test]
fn an_instruction_fault_is_a_value() {
    let input = Gprs { rax: 33, ..Gprs::ZERO };
    let mut lp = Script { calls: std::vec![(input, Err(SeamCallFault::VmFailInvalid))] };
    let error = tdh_sys_init(&mut lp).unwrap_err();
    assert_eq!(error, SeamError::Fault { leaf: TdhLeaf::SYS_INIT, fault: SeamCallFault::VmFailInvalid });
}

#[test]
fn statuses_with_a_code_that_are_no_errors_come_back_as_outcomes() {
    let mut lp = Script::one(Gprs { rax: 40, ..Gprs::ZERO }, answer(0x0000_0821_0000_0000, 0, 0));
    assert_eq!(tdh_phymem_cache_wb(&mut lp, CacheWb::Start), Ok(CacheWbOutcome::NothingToDo));
    let mut lp = Script::one(Gprs { rax: 40, rcx: 1, ..Gprs::ZERO }, answer(0x8000_0003_0000_0000, 1, 0));
    assert_eq!(tdh_phymem_cache_wb(&mut lp, CacheWb::Resume), Ok(CacheWbOutcome::Interrupted));
    let input = Gprs { rax: 36, rcx: 0x4000_0000, ..Gprs::ZERO };
    let mut lp = Script::one(input, answer(0x0000_0a03_0000_0000, 0, 0));
    assert_eq!(tdh_sys_tdmr_init(&mut lp, Hpa::new(0x4000_0000)), Ok(TdmrInitOutcome::AlreadyInitialized));
    let input = Gprs { rax: 8, rcx: TDR.0.get(), ..Gprs::ZERO };
    let mut lp = Script::one(input, answer(0x0000_0815_0000_0000, 0, 0));
    assert_eq!(tdh_mng_key_config(&mut lp, TDR), Ok(KeyConfigOutcome::AlreadyConfigured));
}

#[test]
fn iteration_over_metadata_starts_with_the_null_identifier() {
    let input = Gprs { rax: 0x1_000b, rcx: TDR.0.get(), rdx: u64::MAX, ..Gprs::ZERO };
    let mut lp = Script::one(input, answer(0x0000_0c0b_0000_0000, 0, 0x8010_0000_0000_0001));
    assert_eq!(
        tdh_mng_rd_next(&mut lp, TDR, FieldId::NULL),
        Ok(MetadataStep::First(FieldId(0x8010_0000_0000_0001)))
    );
}

#[test]
fn a_refused_cpuid_configuration_names_the_leaf() {
    let input = Gprs { rax: 21, rcx: TDR.0.get(), rdx: 0x400, ..Gprs::ZERO };
    let mut lp = Script::one(input, answer(0xc000_0100_0000_0045, 0x1_0000_0007, 0));
    let error = tdh_mng_init(&mut lp, TDR, Hpa::new(0x400)).unwrap_err();
    assert_eq!(error.details(), Some(&RefusedCpuid { leaf: 7, subleaf: 1 }));
}

#[test]
fn a_reclaim_that_comes_too_early_still_reports_the_page() {
    let input = Gprs { rax: 28, rcx: 0x5000, ..Gprs::ZERO };
    let mut lp = Script::one(input, answer(0xc000_0607_0000_0000, 4, 0x5000));
    let error = tdh_phymem_page_reclaim(&mut lp, Hpa::new(0x5000)).unwrap_err();
    let metadata = error.details().unwrap();
    assert_eq!(metadata.page_type, crate::tdmr::PageType::TDR);
    assert_eq!(metadata.owner, Hpa::new(0x5000));
}

#[test]
fn interrupted_sept_add_returns_the_pages_to_resume_with() {
    let gpa = GpaLevel::new(Gpa::new(0), Level::L2M);
    let pages = SeptPages::new([Some(Hpa::new(0x1000)), Some(Hpa::new(0x2000)), None, None]);
    let input = Gprs {
        rax: 0x1_0003,
        rcx: 1,
        rdx: TDR.0.get() | 1,
        r8: 0x1000,
        r9: 0x2000,
        r10: u64::MAX,
        r11: u64::MAX,
        ..Gprs::ZERO
    };
    let interrupted = Gprs { rax: 0x8000_0003_0000_0000, r8: u64::MAX, ..input };
    let mut lp = Script::one(input, interrupted);
    let outcome = tdh_mem_sept_add_l2(&mut lp, TDR, gpa, ExistingTable::Allow, pages).unwrap();
    let SeptAddOutcome::Interrupted(pages) = outcome else { panic!("{outcome:?}") };
    let resumed = Gprs { rax: 0x1_0003, ..interrupted };
    let done = Gprs { rax: 0, r9: 0x8000_0000_0000_2000, ..resumed };
    let mut lp = Script::one(resumed, done);
    let outcome = tdh_mem_sept_add_l2(&mut lp, TDR, gpa, ExistingTable::Allow, pages).unwrap();
    let SeptAddOutcome::Done(pages) = outcome else { panic!("{outcome:?}") };
    assert_eq!([0, 1, 2].map(|index| pages.unused(index)), [None, Some(Hpa::new(0x2000)), None]);
    assert_eq!(pages.unused(9), None);
}

#[test]
fn a_vmcall_exit_shows_only_the_exposed_registers_and_takes_the_answer_back() {
    let out = Gprs { rax: 77, rcx: 0xfc00, r10: 0, r11: 10, r12: 7, rbx: 99, ..Gprs::ZERO };
    let input = Gprs { rcx: TDVPR.0.get(), ..Gprs::ZERO };
    let mut lp = Script::one(input, out);
    let TdExit::TdVmCall(mut call) = tdh_vp_enter(&mut lp, TDVPR, Entry::new()).unwrap() else {
        panic!("a TDVMCALL");
    };
    assert_eq!(call.gprs.get(Reg::R11), Some(10));
    assert_eq!(call.gprs.get(Reg::Rbx), None, "not exposed");
    assert!(call.gprs.set(Reg::R10, 5));
    assert!(!call.gprs.set(Reg::Rbx, 5));
    let reentry = Gprs { rcx: TDVPR.0.get(), r10: 5, r11: 10, r12: 7, ..Gprs::ZERO };
    let mut lp = Script::one(reentry, Gprs { rax: 1, ..Gprs::ZERO });
    let exit = tdh_vp_enter(&mut lp, TDVPR, Entry::answering(call.gprs)).unwrap();
    let TdExit::Async(exit) = exit else { panic!("an interrupt") };
    assert_eq!(exit.reason.basic(), ExitReason::EXTERNAL_INTERRUPT);
    assert_eq!(exit.kind, AsyncKind::Resumable);
}

#[test]
fn asynchronous_exits_are_typed_as_recorded() {
    let accept = Gprs { rax: 48, rcx: 2, rdx: 1, r8: 0x8000_1000, ..Gprs::ZERO };
    let Some(TdExit::Async(exit)) = TdExit::from_gprs(&accept) else { panic!("an EPT violation") };
    assert_eq!((exit.qualification, exit.gpa), (2, Gpa::new(0x8000_1000)));
    assert_eq!(exit.extended, ExtendedQualification(1));

    let kind = |rax| match TdExit::from_gprs(&Gprs { rax, ..Gprs::ZERO }) {
        Some(TdExit::Async(exit)) => Some(exit.kind),
        _ => None,
    };
    assert_eq!(kind(0x4000_0001_0000_0002), Some(AsyncKind::VcpuDead));
    assert_eq!(kind(0x6000_0002_8000_0021), Some(AsyncKind::TdDead(TdDeath::GuestState)));
    assert_eq!(kind(0xe000_0007_0000_0000), Some(AsyncKind::TdDead(TdDeath::WrongApicMode)));
    assert_eq!(kind(0x9000_0205_0000_0000), Some(AsyncKind::HostPriorityBusyTimeout));
    assert_eq!(
        kind(0x0000_1140_0000_0000),
        Some(AsyncKind::Partitioning(StatusCode::TD_EXIT_BEFORE_L2_ENTRY))
    );
    assert_eq!(kind(0xe000_0604_0000_0000), None, "TD_FATAL means that the guest did not run");
    assert_eq!(kind(0xc000_0700_0000_0000), None);
}

#[test]
fn entry_flags_are_bits_52_and_53_of_rcx() {
    let input = Gprs { rcx: TDVPR.0.get() | 3 << 52, ..Gprs::ZERO };
    let mut lp = Script::one(input, answer(0xc000_0100_0000_0001, 0, 0));
    let entry = Entry::new().with_host_recoverability_hint().resuming_l1();
    let error = tdh_vp_enter(&mut lp, TDVPR, entry).unwrap_err();
    assert_eq!(error.status(), Some(Status::with_operand(StatusCode::OPERAND_INVALID, Operand::RCX)));
}

#[test]
fn the_remaining_wrappers_put_their_operands_where_the_abi_says() {
    let page = Hpa::new(0x7000);
    let ok = Gprs::ZERO;
    let gpa = Gpa::new(0x8000_0000);
    let tdr = TDR.0.get();
    let vp = TDVPR.0.get();
    let regs = |rax, rcx, rdx, r8, r9| Gprs { rax, rcx, rdx, r8, r9, ..Gprs::ZERO };

    tdh_mem_page_add(
        &mut Script::one(regs(2, gpa.get(), tdr, 0x7000, 0x9000), ok),
        TDR,
        gpa,
        page,
        Hpa::new(0x9000),
    )
    .unwrap();
    tdh_mem_page_aug(
        &mut Script::one(regs(6, 0x8000_0001, tdr, 0x20_0000, 0), ok),
        TDR,
        GpaLevel::new(gpa, Level::L2M),
        Hpa::new(0x20_0000),
    )
    .unwrap();
    let removed = Gprs { rcx: 0x7000, ..ok };
    assert_eq!(
        tdh_mem_page_remove(
            &mut Script::one(regs(29, gpa.get(), tdr, 0, 0), removed),
            TDR,
            GpaLevel::page(gpa)
        ),
        Ok(page)
    );
    assert_eq!(
        tdh_mem_page_relocate(
            &mut Script::one(regs(5, gpa.get(), tdr, 0x8000, 0), removed),
            TDR,
            gpa,
            Hpa::new(0x8000)
        ),
        Ok(page)
    );
    assert_eq!(
        tdh_mem_page_promote(
            &mut Script::one(regs(23, gpa.get() | 1, tdr, 0, 0), removed),
            TDR,
            GpaLevel::new(gpa, Level::L2M)
        ),
        Ok(page)
    );
    tdh_mem_track(&mut Script::one(regs(38, tdr, 0, 0, 0), ok), TDR).unwrap();
    let read = Gprs { r8: 5, ..ok };
    assert_eq!(tdh_mem_rd(&mut Script::one(regs(12, gpa.get(), tdr, 0, 0), read), TDR, gpa), Ok(5));
    assert_eq!(tdh_mem_wr(&mut Script::one(regs(14, gpa.get(), tdr, 6, 0), read), TDR, gpa, 6), Ok(5));
    assert_eq!(
        tdh_mng_create(&mut Script::one(regs(9, 0x7000, 33, 0, 0), ok), page, KeyId::new(33)),
        Ok(Tdr(page))
    );
    tdh_mng_addcx(&mut Script::one(regs(1, 0x7000, tdr, 0, 0), ok), TDR, page).unwrap();
    tdh_mng_vpflushdone(&mut Script::one(regs(19, tdr, 0, 0, 0), ok), TDR).unwrap();
    tdh_mng_key_freeid(&mut Script::one(regs(20, tdr, 0, 0, 0), ok), TDR).unwrap();
    tdh_mng_key_reclaimid(&mut Script::one(regs(27, tdr, 0, 0, 0), ok), TDR).unwrap();
    let field = FieldId(0x9110_0003_0000_0011);
    assert_eq!(tdh_mng_rd(&mut Script::one(regs(11, tdr, field.0, 0, 0), read), TDR, field), Ok(5));
    let write = FieldWrite::all(9);
    assert_eq!(
        tdh_mng_wr(&mut Script::one(regs(13, tdr, field.0, 9, u64::MAX), read), TDR, field, write),
        Ok(5)
    );
    tdh_mr_extend(&mut Script::one(regs(16, gpa.get() + 0x100, tdr, 0, 0), ok), TDR, gpa.wrapping_add(0x100))
        .unwrap();
    tdh_mr_finalize(&mut Script::one(regs(17, tdr, 0, 0, 0), ok), TDR).unwrap();
    assert_eq!(tdh_vp_create(&mut Script::one(regs(10, 0x7000, tdr, 0, 0), ok), TDR, page), Ok(Tdvpr(page)));
    tdh_vp_addcx(&mut Script::one(regs(4, 0x7000, vp, 0, 0), ok), TDVPR, page).unwrap();
    tdh_vp_init(&mut Script::one(regs(22, vp, 0x80_8000, 0, 0), ok), TDVPR, 0x80_8000).unwrap();
    tdh_vp_flush(&mut Script::one(regs(18, vp, 0, 0, 0), ok), TDVPR).unwrap();
    assert_eq!(tdh_vp_rd(&mut Script::one(regs(26, vp, field.0, 0, 0), read), TDVPR, field), Ok(5));
    assert_eq!(
        tdh_vp_wr(&mut Script::one(regs(43, vp, field.0, 9, u64::MAX), read), TDVPR, field, write),
        Ok(5)
    );
    tdh_sys_lp_init(&mut Script::one(regs(35, 0, 0, 0, 0), ok)).unwrap();
    tdh_sys_config(&mut Script::one(regs(45, 0x200, 2, 32, 0), ok), Hpa::new(0x200), 2, KeyId::new(32))
        .unwrap();
    tdh_sys_key_config(&mut Script::one(regs(31, 0, 0, 0, 0), ok)).unwrap();
    let buffers =
        SysInfoBuffers { info: Hpa::new(0x400), info_bytes: 1024, cmrs: Hpa::new(0x800), cmr_entries: 32 };
    let sizes = Gprs { rdx: 1024, r9: 32, ..ok };
    assert_eq!(
        tdh_sys_info(&mut Script::one(regs(32, 0x400, 1024, 0x800, 32), sizes), buffers),
        Ok(SysInfoSizes { info_bytes: 1024, cmr_entries: 32 })
    );
    let next = Gprs { r8: 64, rdx: 8, ..ok };
    assert_eq!(
        tdh_sys_rd(&mut Script::one(regs(34, 0, field.0, 0, 0), next), field),
        Ok(MetadataStep::Value { value: 64, next: FieldId(8) })
    );
    assert_eq!(
        tdh_sys_rdall(&mut Script::one(regs(37, 0, 0x7000, field.0, 0), read), page, field),
        Ok(FieldId(5))
    );
    tdh_sys_lp_shutdown(&mut Script::one(regs(44, 0, 0, 0, 0), ok)).unwrap();
    tdh_sys_shutdown(&mut Script::one(regs(52, 3, 0, 0, 0), ok), 3).unwrap();
    tdh_sys_update(&mut Script::one(regs(53, 0, 0, 0, 0), ok)).unwrap();
    let keyed = crate::handles::KeyedHpa::new(page, KeyId::new(33), 46).unwrap();
    tdh_phymem_page_wbinvd(&mut Script::one(regs(41, 0x7000 | 33 << 46, 0, 0, 0), ok), keyed).unwrap();
    let metadata = Gprs { rcx: 3, rdx: tdr, r8: 1, r9: 7, ..ok };
    let (page_metadata, bepoch) =
        tdh_phymem_page_rdmd(&mut Script::one(regs(24, 0x7000, 0, 0, 0), metadata), page).unwrap();
    assert_eq!((page_metadata.size, bepoch), (Some(Level::L2M), 7));
    let info = Gprs { rcx: 7, rdx: 0x8401, ..ok };
    assert_eq!(
        tdh_mem_sept_rd(
            &mut Script::one(regs(25, gpa.get() | 1, tdr, 0, 0), info),
            TDR,
            GpaLevel::new(gpa, Level::L2M)
        ),
        Ok(SeptInfo { entry: 7, level_state: 0x8401 })
    );
}

#[test]
fn the_leaves_of_dynamic_pamt_name_a_range_of_2m_and_two_pages() {
    let (range, pair) = (Hpa::new(0x1_0020_3000), [Hpa::new(0x1_4000_0000), Hpa::new(0x1_4000_1000)]);
    let input = Gprs { rax: 58, rcx: 0x1_0020_0001, rdx: 0x1_4000_0000, r8: 0x1_4000_1000, ..Gprs::ZERO };
    let mut lp = Script::one(input, Gprs::ZERO);
    assert_eq!(tdh_phymem_pamt_add(&mut lp, range, pair), Ok(()));

    let input = Gprs { rax: 59, rcx: 0x1_0020_0001, ..Gprs::ZERO };
    let output = Gprs { rdx: 0x1_4000_0000, r8: 0x1_4000_1000, ..Gprs::ZERO };
    let mut lp = Script::one(input, output);
    assert_eq!(tdh_phymem_pamt_remove(&mut lp, range), Ok(pair));

    let gpa = GpaLevel::new(Gpa::new(0x8000_0000), Level::L2M);
    let table = Hpa::new(0x1_0020_8000);
    let input = Gprs {
        rax: 15,
        rcx: 0x8000_0001,
        rdx: 0x1_0020_0000,
        r8: 0x1_0020_8000,
        r12: 0x1_4000_0000,
        r13: 0x1_4000_1000,
        ..Gprs::ZERO
    };
    let mut lp = Script::one(input, Gprs::ZERO);
    assert_eq!(tdh_mem_page_demote_with_pamt(&mut lp, TDR, gpa, table, pair), Ok(()));

    let input = Gprs { rax: 45, rcx: 0x1000, rdx: 2, r8: 1 << 16 | 33, ..Gprs::ZERO };
    let mut lp = Script::one(input, Gprs::ZERO);
    assert_eq!(tdh_sys_config_with_dynamic_pamt(&mut lp, Hpa::new(0x1000), 2, KeyId::new(33)), Ok(()));
}
