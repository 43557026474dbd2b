//! A TD from building to its end, against a kernel with a script.

use td_image::tdvf::{Attributes, SectionKind};
use td_image::testing::{Entry, Image};
use tdvisor_base::{Gpa, Side};
use tdvisor_vm::{AccessSize, Destination, Message, Transfer, Vcpu as _};

use super::*;
use crate::build::TdSpec;
use crate::cpuid::DropReason;
use crate::error::{BuildError, Refusal};
use crate::kernel::Capability;
use crate::kernel::fake::{FakeKernel, Return};
use crate::uapi::ATTRIBUTE_PRIVATE;

/// Firmware of two measured pages below 4 GiB, a TD HOB and a page of memory that is not measured.
fn image() -> Vec<u8> {
    let firmware = Entry {
        raw_size: 0x2000,
        gpa: 0xffff_e000,
        mem_size: 0x2000,
        kind: SectionKind::BFV,
        attributes: Attributes::MR_EXTEND,
        ..Entry::default()
    };
    let hob = Entry { gpa: 0x80_9000, kind: SectionKind::TD_HOB, ..Entry::default() };
    let stack = Entry { gpa: 0x81_0000, ..Entry::default() };
    Image { size: 0x3000, entries: vec![firmware, hob, stack], ..Image::hello() }.build()
}

fn spec() -> TdSpec {
    TdSpec { memory: 16 << 20, vcpus: 2, ..TdSpec::default() }
}

fn build(kernel: &FakeKernel) -> Result<Td<FakeKernel>, BuildError> {
    Td::build(kernel, &spec(), &image(), |_| {})
}

fn refused(kernel: &FakeKernel) -> Error {
    match build(kernel) {
        Err(BuildError::Refused(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_td_is_built_in_the_order_that_kvm_demands() {
    let kernel = FakeKernel::usual();
    let td = build(&kernel).unwrap();
    let calls = kernel.take_calls();
    let expected = [
        "create",
        "capabilities 16",
        "supported-cpuid",
        "enable ExitHypercall 0x1000",
        "enable SplitIrqchip 0x18",
        "enable X2ApicApi 0x3",
        "enable ApicBusCycles 0x28",
        "init-vm 0x10000000 0x3 3",
        "map 0x1000000",
        "memfd 0x1000000",
        "slot 0 0x0 +0x1000000",
        "attributes 0x0 +0x1000000 = 0x8",
        "map 0x2000",
        "memfd 0x2000",
        "slot 1 0xffffe000 +0x2000",
        "attributes 0xffffe000 +0x2000 = 0x8",
        "vcpu 0",
        "get-cpuid",
        "set-cpuid 10",
        "init-vcpu 0x809000",
        "vcpu 1",
        "get-cpuid",
        "set-cpuid 10",
        "init-vcpu 0x809000",
        "map 0x100000",
        "add 0xffffe000 2 1",
        "add 0x809000 1 0",
        "add 0x810000 1 0",
        "finalize",
    ];
    assert_eq!(calls, expected);
    assert_eq!(kernel.pages(), (4, 2), "pages added and measured");
    assert_eq!(kernel.contents_at(0xffff_e000).unwrap()[..], image()[..4096]);
    assert!(kernel.contents_at(0x81_0000).unwrap().iter().all(|byte| *byte == 0));
    let dropped: Vec<_> = td.dropped_features().iter().map(|one| (one.leaf, one.bit, one.why)).collect();
    assert!(dropped.contains(&(7, 1, DropReason::NotGiven)), "{dropped:?}");
    assert!(dropped.contains(&(7, 2, DropReason::NotOfKvm)), "{dropped:?}");
    drop(td);
    assert_eq!(kernel.take_calls(), ["close"]);
}

#[test]
fn pages_are_added_on_from_where_the_kernel_stopped() {
    let kernel = FakeKernel::usual();
    kernel.fail("add", [libc::EINTR, libc::EAGAIN]);
    kernel.add_before_failing(1);
    build(&kernel).unwrap();
    let added: Vec<_> = kernel.take_calls().into_iter().filter(|call| call.starts_with("add")).collect();
    assert_eq!(added, ["add 0xffffe000 2 1", "add 0xfffff000 1 1", "add 0x809000 1 0", "add 0x810000 1 0"]);
    assert_eq!(kernel.pages(), (4, 2), "none twice");
    assert_eq!(kernel.contents_at(0xffff_f000).unwrap()[..], image()[4096..8192]);
}

#[test]
fn a_busy_module_is_asked_again_but_not_for_ever() {
    let kernel = FakeKernel::usual();
    kernel.fail("init-vm", [libc::EAGAIN; 3]);
    kernel.fail("finalize", [libc::EBUSY; 2]);
    build(&kernel).unwrap();
    for name in ["init-vm", "init-vcpu", "add", "finalize"] {
        let kernel = FakeKernel::usual();
        kernel.fail(name, [libc::EAGAIN; 500]);
        assert_eq!(refused(&kernel).errno, Errno(libc::EAGAIN), "{name}");
    }
}

#[test]
fn the_limit_of_the_cgroup_is_not_asked_again() {
    let kernel = FakeKernel::usual();
    kernel.fail("init-vm", [libc::EBUSY]);
    let sentence = refused(&kernel).to_string();
    assert!(sentence.contains("misc.max"), "{sentence}");
}

#[test]
fn every_request_that_fails_says_which_one_it_was_and_leaves_no_td() {
    for (name, words) in [
        ("create", "KVM_CREATE_VM"),
        ("capabilities", "KVM_TDX_CAPABILITIES"),
        ("supported-cpuid", "KVM_GET_SUPPORTED_CPUID"),
        ("enable", "KVM_ENABLE_CAP"),
        ("init-vm", "KVM_TDX_INIT_VM"),
        ("map", "memory cannot be mapped"),
        ("memfd", "KVM_CREATE_GUEST_MEMFD"),
        ("slot", "KVM_SET_USER_MEMORY_REGION2"),
        ("attributes", "KVM_SET_MEMORY_ATTRIBUTES"),
        ("vcpu", "KVM_CREATE_VCPU"),
        ("get-cpuid", "KVM_TDX_GET_CPUID"),
        ("set-cpuid", "KVM_SET_CPUID2"),
        ("init-vcpu", "KVM_TDX_INIT_VCPU"),
        ("add", "KVM_TDX_INIT_MEM_REGION"),
        ("finalize", "KVM_TDX_FINALIZE_VM"),
    ] {
        let kernel = FakeKernel::usual();
        kernel.fail(name, [libc::EIO]);
        let sentence = refused(&kernel).to_string();
        assert!(sentence.contains(words) && sentence.contains("EIO"), "{name}: {sentence}");
        assert!(name == "create" || kernel.take_calls().ends_with(&["close".to_owned()]), "{name}");
    }
}

#[test]
fn what_the_module_says_is_part_of_the_sentence() {
    let kernel = FakeKernel::usual();
    kernel.fail("init-vm", [libc::EINVAL]);
    kernel.module_says(0xc000_0100_0000_0040);
    let error = refused(&kernel);
    let refusal = Refusal { errno: Errno(libc::EINVAL), module: 0xc000_0100_0000_0040 };
    assert_eq!(error, Error::refused(Asked::InitVm, refusal));
    assert!(error.to_string().contains("OPERAND_INVALID, operand ATTRIBUTES"), "{error}");
}

#[test]
fn what_cannot_be_had_is_said_before_a_key_id_is_taken() {
    let no = |kernel: &FakeKernel, spec: &TdSpec| Td::build(kernel, spec, &image(), |_| {}).unwrap_err();
    let kernel = FakeKernel::usual();
    kernel.lacks(Capability::GuestMemfd);
    assert_eq!(no(&kernel, &spec()), BuildError::Missing("KVM_CAP_GUEST_MEMFD"));
    let kernel = FakeKernel::usual();
    for (vcpus, limit) in [(0, 4), (5, 4)] {
        let spec = TdSpec { vcpus, ..spec() };
        assert_eq!(no(&kernel, &spec), BuildError::Vcpus { asked: vcpus, limit });
    }
    let debug = TdSpec { attributes: 1 | 1 << 28, ..spec() };
    assert_eq!(no(&kernel, &debug), BuildError::Attributes { refused: 1, supported: 1 << 28 });
    assert_eq!(no(&kernel, &TdSpec { memory: 4097, ..spec() }), BuildError::OddMemory(4097));
    assert!(no(&kernel, &debug).to_string().contains("DEBUG"));
    assert!(!kernel.take_calls().iter().any(|call| call.starts_with("init-vm")));
}

#[test]
fn an_exit_is_answered_at_the_next_run() {
    let kernel = FakeKernel::usual();
    let td = build(&kernel).unwrap();
    let details = [
        (run::io::DIRECTION, &[0u8, 1][..]),
        (run::io::COUNT, &[1, 0, 0, 0]),
        (run::io::DATA_OFFSET, &[0, 8]),
    ];
    kernel.will_return([Return::exit(reason::IO, &details)]);
    let mut vcpu = td.vcpu(0).unwrap();
    assert_eq!(
        vcpu.run(Answer::Done),
        VmExit::Io { port: 0, size: AccessSize::Byte, transfer: Transfer::Read }
    );
    td.interrupt(0);
    assert_eq!(vcpu.run(Answer::Value(0x5a)), VmExit::Interrupted);
    let mut data = [0];
    td.vcpus[0].kernel.page().read(0x800, &mut data);
    assert_eq!(data, [0x5a]);
}

#[test]
fn a_conversion_goes_to_the_kernel_and_its_answer_to_the_guest() {
    let kernel = FakeKernel::usual();
    let td = build(&kernel).unwrap();
    kernel.take_calls();
    let map = |pages: u64, encrypted: u64| {
        let arguments: Vec<u8> =
            [0x20_0000, pages, encrypted].iter().flat_map(|word| u64::to_le_bytes(*word)).collect();
        let details = [
            (run::hypercall::NUMBER, &[12u8, 0, 0, 0, 0, 0, 0, 0][..]),
            (run::hypercall::ARGUMENTS, &arguments),
        ];
        Return::exit(reason::HYPERCALL, &details)
    };
    kernel.will_return([map(2, 0), map(2, run::hypercall::ENCRYPTED)]);
    let mut vcpu = td.vcpu(0).unwrap();
    let shared = td.shared_bit().join(Side::Shared, Gpa::new(0x20_0000));
    assert_eq!(vcpu.run(Answer::Done), VmExit::MapGpa { gpa: shared, size: 0x2000 });
    assert_eq!(vcpu.convert(Gfn::new(0x200), Gfn::new(0x202), Side::Shared), Ok(Gfn::new(0x202)));
    let private = VmExit::MapGpa { gpa: Gpa::new(0x20_0000), size: 0x2000 };
    assert_eq!(vcpu.run(Answer::Invalid), private);
    assert_eq!(vcpu.convert(Gfn::new(0x200), Gfn::new(0x202), Side::Private), Ok(Gfn::new(0x202)));
    let calls = kernel.take_calls();
    assert_eq!(calls.last().map(String::as_str), Some("pre-fault 0x200000 +0x2000"));
    assert_eq!(kernel.answers()[1][0], libc::EINVAL as u64);
    assert_eq!(
        vcpu.convert(Gfn::new(0x1000), Gfn::new(0x1001), Side::Shared),
        Err(ConvertError::NoMemory(Gfn::new(0x1000)))
    );
}

#[test]
fn a_quotes_buffer_is_shared_although_kvm_took_the_bit_out_of_its_address() {
    let kernel = FakeKernel::usual();
    let td = build(&kernel).unwrap();
    // As KVM gives it: the function, the address and the size.
    let arguments = [0x30_0000u64, 0x4000].map(u64::to_le_bytes).concat();
    let number = 0x1_0002u64.to_le_bytes();
    let details = [(run::tdx::NUMBER, &number[..]), (run::tdx::ARGUMENTS, &arguments)];
    kernel.will_return([Return::exit(reason::TDX, &details)]);
    let gpa = td.shared_bit().join(Side::Shared, Gpa::new(0x30_0000));
    assert_eq!(td.vcpu(0).unwrap().run(Answer::Done), VmExit::GetQuote { gpa, size: 0x4000 });
}

#[test]
fn a_fault_that_another_vcpus_conversion_has_mended_is_none() {
    let kernel = FakeKernel::usual();
    let td = build(&kernel).unwrap();
    let fault = |flags: u64| {
        let details = [flags, 0x3000, 0x1000].map(u64::to_le_bytes).concat();
        Return {
            result: Err(Errno(libc::EFAULT)),
            ..Return::exit(reason::MEMORY_FAULT, &[(run::DETAILS, &details)])
        }
    };
    kernel.will_return([fault(ATTRIBUTE_PRIVATE), fault(0)]);
    let mut vcpu = td.vcpu(0).unwrap();
    let wrong = MemoryFault { gpa: Gpa::new(0x3000), touched: Side::Shared, reason: FaultReason::WrongSide };
    assert_eq!(vcpu.run(Answer::Done), VmExit::MemoryFault(wrong));
    assert_eq!(td.exits(ExitKind::MemoryFault), 2, "the first was on the right side by now");
}

#[test]
fn a_kick_ends_a_run_and_the_first_ending_stays() {
    let kernel = FakeKernel::usual();
    let td = build(&kernel).unwrap();
    let mut vcpu = td.vcpu(1).unwrap();
    td.interrupt(1);
    assert_eq!(vcpu.run(Answer::Done), VmExit::Interrupted);
    td.end(Ending::Stopped);
    td.end(Ending::Panicked);
    assert_eq!(vcpu.run(Answer::Done), VmExit::Ended(Ending::Stopped));
    assert_eq!(vcpu.run(Answer::Done), VmExit::Ended(Ending::Stopped));
}

#[test]
fn what_ends_a_td_is_said_and_ends_it_for_every_vcpu() {
    for (what, words) in [
        (Return::exit(reason::SHUTDOWN, &[]), "triple fault on vCPU 0"),
        (Return::exit(reason::FAIL_ENTRY, &[(run::fail_entry::REASON, &[33u8][..])]), "exit reason 0x21"),
        (Return::error(libc::EIO), "has not accepted"),
        (Return::error(libc::EFAULT), "KVM_RUN"),
    ] {
        let kernel = FakeKernel::usual();
        let td = build(&kernel).unwrap();
        kernel.will_return([what]);
        let VmExit::Ended(ending) = td.vcpu(0).unwrap().run(Answer::Done) else { panic!("no ending") };
        assert!(ending.to_string().contains(words), "{ending}");
        assert_eq!(td.vcpu(1).unwrap().run(Answer::Done), VmExit::Ended(ending));
    }
    let kernel = FakeKernel::usual();
    let td = build(&kernel).unwrap();
    assert_eq!(td.vcpu(2).map(|_| ()), Err(Death { vcpu: 2, cause: DeathCause::NoSuchVcpu }));
}

#[test]
fn messages_have_whole_ids_and_vanish_where_nobody_is_meant() {
    let kernel = FakeKernel::usual();
    let td = build(&kernel).unwrap();
    kernel.take_calls();
    let to = |destination| td.deliver(Message { destination, mode: 0, vector: 0x41 });
    kernel.fail("msi", [libc::EPERM]);
    assert_eq!(to(Destination::Physical(0x1_02)), Ok(()));
    to(Destination::Logical(0x0001_0003)).unwrap();
    to(Destination::All).unwrap();
    to(Destination::AllBut(1)).unwrap();
    td.post_interrupt(1, 0x30).unwrap();
    assert_eq!(
        kernel.take_calls(),
        [
            "msi 0x100:0xfee02000 0x41",
            "msi 0x10000:0xfee03004 0x41",
            "msi 0xffffff00:0xfeeff000 0x41",
            "msi 0x0:0xfee00000 0x41",
            "msi 0x0:0xfee01000 0x30",
        ]
    );
    kernel.fail("msi", [libc::EINVAL]);
    assert!(to(Destination::Physical(0)).unwrap_err().to_string().contains("KVM_SIGNAL_MSI"));
}
