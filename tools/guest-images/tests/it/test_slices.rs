//! Memory cut into blocks.

use crate::hob::Range;
use crate::mib;
use crate::slices::Slices;

const FRAME: u64 = 2 << 20;

fn blocks(slices: Slices<'_>) -> Vec<Range> {
    (0..).map_while(|number| slices.block(number)).collect()
}

#[test]
fn the_blocks_are_the_ranges_without_what_was_done() {
    let ranges = [
        Range { start: 0, end: 0xA_0000 },
        Range { start: 0x1F_2000, end: 64 << 20 },
        Range { start: 4 << 30, end: (4 << 30) + FRAME + 0x1000 },
    ];
    let done = mib(2, 8);
    let blocks = blocks(Slices::new(&ranges, done));
    for block in &blocks {
        assert!(block.end - block.start <= FRAME, "{block:x?}");
        assert!(block.start == block.end || block.start / FRAME == (block.end - 1) / FRAME, "{block:x?}");
        assert!(block.start == block.end || block.end <= done.start || block.start >= done.end, "{block:x?}");
    }
    let mut covered: Vec<Range> = Vec::new();
    for block in blocks.into_iter().filter(|block| block.start < block.end) {
        match covered.last_mut() {
            Some(last) if last.end == block.start => last.end = block.end,
            _ => covered.push(block),
        }
    }
    let expected = [
        ranges[0],
        Range { start: ranges[1].start, end: done.start },
        Range { start: done.end, end: ranges[1].end },
        ranges[2],
    ];
    assert_eq!(covered, expected, "every byte once");
}

#[test]
fn sixteen_gibibytes_are_8192_blocks_and_most_are_whole_frames() {
    let ranges = [mib(0, 2048), mib(4096, 4096 + 14336)];
    let blocks = blocks(Slices::new(&ranges, mib(2, 4)));
    assert_eq!(blocks.len(), 8192);
    assert_eq!(blocks.iter().filter(|block| block.end - block.start == FRAME).count(), 8191);
}

#[test]
fn empty_and_extreme_ranges_have_no_blocks_or_end() {
    let ranges = [Range { start: 5, end: 5 }, Range { start: 9, end: 3 }];
    assert_eq!(Slices::new(&ranges, mib(2, 4)).block(0), None);
    assert_eq!(Slices::new(&[], mib(2, 4)).block(u64::MAX), None);
    let highest = [Range { start: (1 << 47) - FRAME, end: 1 << 47 }];
    assert_eq!(blocks(Slices::new(&highest, mib(2, 4))).len(), 1);
}

#[test]
fn what_is_needed_must_be_in_one_range() {
    let ranges = [mib(0, 1), mib(1, 3), mib(4, 9)];
    let slices = Slices::new(&ranges, mib(2, 4));
    assert!(slices.contain(mib(4, 9)) && slices.contain(mib(5, 6)));
    assert!(!slices.contain(mib(2, 5)) && !slices.contain(mib(8, 10)) && !slices.contain(mib(0, 2)));
}
