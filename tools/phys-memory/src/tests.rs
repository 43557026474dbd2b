//! What the arena promises, case by case.

use super::*;

const HOST: KeyId = KeyId::DEFAULT;
const TD: KeyId = KeyId::new(40);
const MIB2: u64 = 2 << 20;

fn arena() -> Arena {
    Arena::new(16 << 20, KeySpace { first_private: 32 })
}

#[test]
fn absent_memory_reads_as_zero_and_reserves_nothing() {
    let memory = arena();
    assert_eq!(memory.load::<u64>(Hpa::new(0x3000), HOST), Ok(0));
    assert_eq!(memory.reserved_bytes(), 0);
    memory.store(Hpa::new(0x3000), HOST, 1u8).unwrap();
    assert_eq!(memory.reserved_bytes(), MIB2);
}

#[test]
fn words_of_every_size_round_trip_at_odd_addresses() {
    let memory = arena();
    let at = Hpa::new(0x1235);
    memory.store(at, HOST, 0x0123_4567_89ab_cdefu64).unwrap();
    assert_eq!(memory.load::<u8>(at, HOST), Ok(0xef));
    assert_eq!(memory.load::<u16>(at, HOST), Ok(0xcdef));
    assert_eq!(memory.load::<u32>(at, HOST), Ok(0x89ab_cdef));
    memory.store(at, HOST, u128::MAX - 5).unwrap();
    assert_eq!(memory.load::<u128>(at, HOST), Ok(u128::MAX - 5));
}

#[test]
fn an_access_that_leaves_its_page_or_the_arena_is_refused() {
    let memory = arena();
    let edge = Hpa::new(0x1ffd);
    assert_eq!(memory.load::<u32>(edge, HOST), Err(MemoryFault::Misaligned(edge)));
    let end = Hpa::new(16 << 20);
    assert_eq!(memory.load::<u8>(end, HOST), Err(MemoryFault::OutOfRange(end)));
    assert_eq!(
        memory.write(Hpa::new((16 << 20) - 1), HOST, &[1, 2]).unwrap_err(),
        MemoryFault::OutOfRange(Hpa::new((16 << 20) - 1))
    );
    assert_eq!(memory.load::<u8>(Hpa::new((16 << 20) - 1), HOST), Ok(0), "nothing was written");
}

#[test]
fn compare_exchange_replaces_only_what_it_expects() {
    let memory = arena();
    let at = Hpa::new(0x40);
    assert!(memory.compare_exchange(at, HOST, 0u32, 7).unwrap().1);
    assert_eq!(memory.compare_exchange(at, HOST, 0u32, 9).unwrap(), (7, false, StoreEffect::Plain));
    assert!(memory.compare_exchange(at, HOST, 7u128, 1 << 100).unwrap().1);
    assert_eq!(memory.load::<u128>(at, HOST), Ok(1 << 100));
    assert!(memory.compare_exchange(Hpa::new(0x48), HOST, 0u128, 1).is_err());
    assert_eq!(memory.fetch_update(at, HOST, |old: u8| old.wrapping_add(3)).unwrap().0, 0);
    assert_eq!(memory.load::<u8>(at, HOST), Ok(3));
}

#[test]
fn the_host_never_sees_private_plaintext_and_reading_harms_nothing() {
    let memory = arena();
    let page = Pfn::new(5);
    memory.clear_page(page, TD).unwrap();
    memory.store(page.base(), TD, 0x5e_c2e7_u64).unwrap();
    let before = memory.load::<u64>(page.base(), HOST).unwrap();
    assert_ne!(before, 0x5e_c2e7);
    memory.store(page.base(), TD, 0x1111u64).unwrap();
    assert_eq!(memory.load::<u64>(page.base(), HOST), Ok(before), "independent of the contents");
    assert_eq!(memory.load::<u64>(page.base(), TD), Ok(0x1111));
}

#[test]
fn a_host_write_breaks_the_page_for_its_owner_until_it_is_cleared() {
    let memory = arena();
    let page = Pfn::new(5);
    let at = page.base();
    memory.clear_page(page, TD).unwrap();
    memory.store(at, TD, 77u64).unwrap();
    memory.store(at.wrapping_add(8), HOST, 1u8).unwrap();
    assert_eq!(memory.load::<u64>(at, TD), Err(MemoryFault::Integrity(at)));
    assert_eq!(memory.store(at, TD, 1u8), Err(MemoryFault::Integrity(at)));
    assert_ne!(memory.load::<u64>(at, HOST), Ok(77), "the plaintext is gone, not exposed");
    assert_eq!(memory.load::<u8>(at.wrapping_add(8), HOST), Ok(1));
    memory.clear_page(page, TD).unwrap();
    assert_eq!(memory.load::<u64>(at, TD), Ok(0));
}

#[test]
fn a_store_into_decoded_code_moves_the_generation_once_per_watch() {
    let memory = arena();
    let page = Pfn::new(9);
    let first = memory.watch_code(page).unwrap();
    assert_eq!(memory.store(page.base(), HOST, 1u8), Ok(StoreEffect::CodeModified));
    assert_eq!(memory.store(page.base(), HOST, 2u8), Ok(StoreEffect::Plain));
    assert_ne!(memory.code_generation(page), first);
    let second = memory.watch_code(page).unwrap();
    assert_eq!(memory.write(page.base(), HOST, &[3; 16]), Ok(StoreEffect::CodeModified));
    assert_ne!(memory.code_generation(page), second);
}

#[test]
fn bulk_copies_cross_pages_and_chunks() {
    let memory = arena();
    let at = Hpa::new(MIB2 - 100);
    let data: Vec<u8> = (0..10_000u32).map(|i| (i * 7) as u8).collect();
    let _ = memory.write(at, HOST, &data).unwrap();
    let mut back = vec![0; data.len()];
    memory.read(at, HOST, &mut back).unwrap();
    assert_eq!(back, data);
}

#[test]
fn machines_from_one_snapshot_do_not_see_each_other() {
    let mut first = arena();
    let at = Hpa::new(0x5000);
    first.store(at, HOST, 1u64).unwrap();
    let snapshot = first.snapshot();
    let second = snapshot.to_arena();
    let third = snapshot.to_arena();
    second.store(at, HOST, 2u64).unwrap();
    first.store(at, HOST, 3u64).unwrap();
    assert_eq!(
        (first.load(at, HOST), second.load(at, HOST), third.load(at, HOST)),
        (Ok(3u64), Ok(2u64), Ok(1u64))
    );
    drop(first);
    drop(snapshot);
    assert_eq!(third.load::<u64>(at, HOST), Ok(1));
}

#[test]
fn a_table_is_the_page_itself() {
    let memory = arena();
    let page = Pfn::new(0x300);
    memory.table(page).unwrap()[3].store(0xabcd, Ordering::Release);
    assert_eq!(memory.load::<u16>(page.base().wrapping_add(24), HOST), Ok(0xabcd));
}

#[test]
fn locked_increments_of_two_threads_all_count() {
    let memory = arena();
    let at = Hpa::new(0x123);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    let _ = memory.fetch_update(at, HOST, |old: u32| old + 1).unwrap();
                }
            });
        }
    });
    assert_eq!(memory.load::<u32>(at, HOST), Ok(40_000));
}

#[test]
fn a_copy_as_long_as_an_aligned_word_is_never_seen_in_halves() {
    fn race<const N: usize>(a: [u8; N], b: [u8; N]) {
        let arena = arena();
        let at = Hpa::new(0x40);
        let _ = arena.write(at, KeyId::DEFAULT, &a).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..100_000 {
                    let _ = arena.write(at, KeyId::DEFAULT, &b).unwrap();
                    let _ = arena.write(at, KeyId::DEFAULT, &a).unwrap();
                }
            });
            for _ in 0..200_000 {
                let mut found = [0; N];
                arena.read(at, KeyId::DEFAULT, &mut found).unwrap();
                assert!(found == a || found == b, "{found:x?} is neither {a:x?} nor {b:x?}");
            }
        });
    }
    race(0x00ffu16.to_le_bytes(), 0x0100u16.to_le_bytes());
    race([0; 4], [0xff; 4]);
    race([0; 8], [0xff; 8]);
}

#[test]
fn a_table_of_the_arena_is_filled_in_place() {
    let memory = Arena::new(2 << 20, KeySpace::SHARED_ONLY);
    let page = Pfn::new(3);
    tdvisor_base::table::fill(memory.table(page).unwrap(), 7, 4096);
    let last = page.base().wrapping_add(511 * 8);
    assert_eq!(memory.load(last, KeyId::DEFAULT), Ok(7 + 511 * 4096u64));
}

#[test]
fn a_page_that_nobody_wrote_is_zeros_for_whoever_takes_it_and_is_not_touched_for_it() {
    let memory = arena();
    let [here, other] = [5, 6].map(Pfn::new);
    // The chunk is there, and so are its pages.
    memory.store(other.base(), HOST, 1u8).unwrap();
    let is_written = |pfn: Pfn| PageWord::is_written(memory.owned(pfn.base()).unwrap().word(pfn.base()));
    memory.clear_page(here, TD).unwrap();
    assert_eq!(memory.load::<u64>(here.base(), TD), Ok(0));
    memory.clear_page(here, HOST).unwrap();
    assert_eq!((is_written(here), is_written(other)), (false, true));
    for (n, write) in [
        (|m, at| assert!(m.store(at, HOST, 7u8).is_ok())) as fn(&Arena, Hpa),
        |m, at| assert!(m.write(at, HOST, &[7]).is_ok()),
        |m, at| assert!(m.compare_exchange(at, HOST, 0u8, 7).is_ok()),
        |m, at| m.table(at.frame()).unwrap()[0].store(7, Ordering::Relaxed),
    ]
    .into_iter()
    .enumerate()
    {
        let page = Pfn::new(10 + n as u64);
        write(&memory, page.base());
        assert!(is_written(page), "way {n}");
        memory.clear_page(page, TD).unwrap();
        assert_eq!(memory.load::<u64>(page.base(), TD), Ok(0), "way {n}");
    }
}
