//! KVM_TDX_GET_CPUID: Linux's KVM asks for a TD's CPUID leaf by leaf, first without a subleaf, then by subleaf until one
//! is refused. What it gets is what the guest reads; leaves that the module does not answer are refused in the right way,
//! because KVM takes every refusal for "no such leaf".

use seam_emu::guest::GuestRegisters;
use seam_emu::{GuestEnv, GuestState, ModuleProfile, ScriptedGuest, VmExit};
use tdx_module_iface::exit::ExitReason;
use tdx_module_iface::{Gprs, Status, StatusCode, TdhLeaf};

use super::World;

/// More subleaves than any leaf has.
const SUBLEAVES: u32 = 0x3f;

/// Reads one leaf as KVM does: EAX, EBX, ECX, EDX.
fn read(world: &World, leaf: u32, subleaf: Option<u32>) -> Result<[u32; 4], StatusCode> {
    let subleaf = subleaf.map_or(0x1fe, |subleaf| subleaf << 1);
    let code = leaf >> 31 << 16 | (leaf & 0x7f) << 9 | subleaf;
    let word = |element: u32| {
        let rdx = 0x9410_0003_0000_0000 | u64::from(code | element);
        let seen = world.host.call(0, TdhLeaf::MNG_RD, Gprs { rcx: world.td.tdr, rdx, ..Gprs::ZERO });
        if seen.rax == 0 { Ok(seen.r8) } else { Err(Status::from_raw(seen.rax).code()) }
    };
    let (low, high) = (word(0)?, word(1)?);
    Ok([low as u32, (low >> 32) as u32, high as u32, (high >> 32) as u32])
}

/// All subleaves of a leaf that KVM finds, or why it found none.
fn leaf(world: &World, leaf: u32) -> Result<Vec<(u32, [u32; 4])>, StatusCode> {
    if let Ok(values) = read(world, leaf, None) {
        return Ok(vec![(0, values)]);
    }
    let mut found = Vec::new();
    for subleaf in 0..SUBLEAVES {
        match read(world, leaf, Some(subleaf)) {
            Ok(values) => found.push((subleaf, values)),
            Err(why) if found.is_empty() => return Err(why),
            Err(_) => break,
        }
    }
    Ok(found)
}

/// What a CPUID instruction of the guest gives; `None`: #VE.
fn in_the_guest(world: &World, leaf: u32, subleaf: u32) -> Option<[u32; 4]> {
    let mut asked = false;
    let mut answer = None;
    let mut guest = ScriptedGuest(|state: &mut GuestState, _: &GuestEnv<'_>| {
        state.enter_64_bit_mode();
        if !core::mem::replace(&mut asked, true) {
            state.set_gprs(Gprs { rax: leaf.into(), rcx: subleaf.into(), ..Gprs::ZERO });
            return VmExit::instruction(ExitReason::CPUID, 2, 0);
        }
        let gprs = state.gprs();
        answer = match state.event.take() {
            Some(_) => None,
            None => Some([gprs.rax, gprs.rbx, gprs.rcx, gprs.rdx].map(|register| register as u32)),
        };
        VmExit::plain(ExitReason::EXTERNAL_INTERRUPT)
    });
    let mut gprs = Gprs { rcx: world.td.vcpus[0], ..Gprs::ZERO };
    world.host.machine.lp(0).unwrap().seamcall_with(&mut gprs, &mut guest).unwrap();
    answer
}

/// Bits that are filled in when the guest asks.
fn dynamic(leaf: u32, subleaf: u32) -> [u32; 4] {
    match (leaf, subleaf) {
        (1, _) => [0, 0xff << 24, 1 << 27, 0],
        (7, 0) => [0, 0, 1 << 4, 0],
        (0xd, 0 | 1) => [0, u32::MAX, 0, 0],
        (0x8000_0001, _) => [0, 0, 0, 1 << 11],
        _ => [0; 4],
    }
}

#[test]
fn what_kvm_reads_of_a_td_s_cpuid_is_what_its_guest_gets_and_every_other_leaf_is_refused() {
    // Leaf and, from the second on, subleaves that there are.
    const OF_1_5_01: &[(u32, usize)] = &[
        (0, 1),
        (1, 1),
        (3, 1),
        (4, 5),
        (5, 1),
        (7, 3),
        (8, 1),
        (0xa, 1),
        (0xd, 19),
        (0xe, 1),
        (0x11, 1),
        (0x12, 1),
        (0x13, 1),
        (0x14, 2),
        (0x15, 1),
        (0x19, 1),
        (0x1c, 1),
        (0x1d, 2),
        (0x1e, 1),
        (0x20, 1),
        (0x21, 1),
        (0x22, 1),
        (0x23, 4),
        (0x8000_0000, 1),
        (0x8000_0001, 1),
        (0x8000_0007, 1),
        (0x8000_0008, 1),
    ];
    const SINCE_1_5_05: &[(u32, usize)] = &[(0xb, 3), (0x1a, 1), (0x1f, 6)];
    for (profile, more) in [(ModuleProfile::V1_5_01, &[][..]), (ModuleProfile::V1_5_05, SINCE_1_5_05)] {
        let world = World::new(profile, 0, 0);
        let last = |leaf: u32| read(&world, leaf, None).expect("KVM needs this leaf")[0];
        for number in (0..=last(0)).chain(0x8000_0000..=last(0x8000_0000)) {
            let what = format!("{profile}, leaf {number:#x}");
            let expected = OF_1_5_01.iter().chain(more).find(|(leaf, _)| *leaf == number);
            let (found, subleaves) = match (leaf(&world, number), expected) {
                (Ok(found), Some((_, subleaves))) => (found, *subleaves),
                (Err(why), None) => {
                    let faults = matches!(number, 6 | 0x1f | 0x8000_0006);
                    let refusal = if faults {
                        StatusCode::METADATA_FIELD_NOT_READABLE
                    } else {
                        StatusCode::METADATA_FIELD_ID_INCORRECT
                    };
                    assert_eq!(why, refusal, "{what}");
                    assert_eq!(in_the_guest(&world, number, 0), None, "{what}: #VE");
                    continue;
                }
                (found, expected) => panic!("{what}: {found:x?} instead of {expected:?}"),
            };
            assert_eq!(found.len(), subleaves, "{what}: subleaves");
            for (subleaf, values) in found {
                let seen = in_the_guest(&world, number, subleaf);
                if matches!(number, 0xb | 0x1f) {
                    assert_eq!(seen, None, "{what}: the guest has not asked for the topology");
                    continue;
                }
                let seen = seen.unwrap_or_else(|| panic!("{what}.{subleaf}: #VE"));
                for (register, bits) in dynamic(number, subleaf).into_iter().enumerate() {
                    let (read, seen) = (values[register] & !bits, seen[register] & !bits);
                    assert_eq!(read, seen, "{what}.{subleaf}: register {register}");
                }
            }
        }
    }
}
