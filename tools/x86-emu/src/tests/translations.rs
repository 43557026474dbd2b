//! What the translation caches hold, and what is gone after an invalidation.

use tdvisor_base::{Gpa, Hpa, KeyId, Level};

use crate::bus::Translation;
use crate::paging::Want;
use crate::tlb::{Fill, Tlb, View};

const HERE: u64 = 0x10_0000;
/// As far apart as an array of eight mebibytes and the next one.
const APART: u64 = 8 << 20;

fn fill(tlb: &mut Tlb, linear: u64, writable: bool) {
    let translation = Translation {
        hpa: Hpa::new(linear),
        key: KeyId::DEFAULT,
        level: Level::L4K,
        readable: true,
        writable: true,
        executable: false,
    };
    let fill = Fill {
        gpa: Gpa::new(linear),
        translation,
        read: true,
        write: writable,
        execute: false,
        page_bytes: 4096,
        global: false,
    };
    tlb.fill(View::User, linear, &fill);
}

fn is_held(tlb: &Tlb, linear: u64) -> bool {
    let listed = tlb.entries().any(|entry| entry.linear == Some(linear));
    let held = tlb.held_at(View::User, linear + 8);
    assert_eq!(held, listed.then(|| Hpa::new(linear + 8)), "what is used is what is listed");
    listed
}

#[test]
fn pages_a_power_of_two_apart_are_held_together() {
    let mut tlb = Tlb::default();
    for array in 0..4 {
        fill(&mut tlb, HERE + array * APART, true);
    }
    assert!((0..4).all(|array| is_held(&tlb, HERE + array * APART)));
    assert!(tlb.held_at(View::Supervisor, HERE).is_none(), "of another view");
}

#[test]
fn an_invalidation_finds_a_page_wherever_it_is_kept() {
    let invalidations: [fn(&mut Tlb, u64); 2] =
        [|tlb, page| tlb.flush_linear_page(page), |tlb, page| tlb.flush_guest_page(Gpa::new(page))];
    for invalidate in invalidations {
        for gone in [HERE, HERE + APART] {
            let mut tlb = Tlb::default();
            fill(&mut tlb, HERE, true);
            fill(&mut tlb, HERE + APART, true);
            invalidate(&mut tlb, gone);
            assert_eq!([HERE, HERE + APART].map(|page| is_held(&tlb, page)), [gone != HERE, gone == HERE]);
        }
    }
    let mut tlb = Tlb::default();
    fill(&mut tlb, HERE, true);
    fill(&mut tlb, HERE + APART, true);
    tlb.flush_not_global();
    assert_eq!(tlb.entries().count(), 0);
}

#[test]
fn a_page_that_lost_a_right_has_no_older_entry_that_grants_it() {
    let mut tlb = Tlb::default();
    fill(&mut tlb, HERE, true);
    fill(&mut tlb, HERE + APART, true);
    assert!(tlb.older(View::User, HERE).is_some_and(|entry| entry.allows(Want::Write)));
    fill(&mut tlb, HERE, false);
    fill(&mut tlb, HERE + APART, true);
    assert!(tlb.older(View::User, HERE).is_some_and(|entry| !entry.allows(Want::Write)));
}

#[test]
fn only_an_invalidation_that_may_concern_code_moves_the_state_of_its_half() {
    let mut tlb = Tlb::default();
    let upper = HERE | 0xFFFF << 48;
    let stamps = |tlb: &Tlb| [tlb.stamp(HERE), tlb.stamp(upper)];
    let before = stamps(&tlb);
    tlb.flush_linear_page(HERE);
    assert_eq!(stamps(&tlb), before);
    tlb.note_code(HERE);
    tlb.flush_linear_page(HERE + 4096);
    tlb.flush_linear_page(upper);
    assert_eq!(stamps(&tlb), before);
    tlb.flush_linear_page(HERE);
    assert_ne!(tlb.stamp(HERE), before[0]);
    assert_eq!(tlb.stamp(upper), before[1]);
}
