//! The guests' TD HOB parser.

use crate::hob::{ADDRESS_LIMIT, Hob, HobError, MAX_COMMAND, MAX_RANGES, Range};

fn entry(kind: u16, body: &[u8]) -> Vec<u8> {
    let length = (8 + body.len()) as u16;
    let mut bytes = [kind.to_le_bytes(), length.to_le_bytes()].concat();
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes
}

fn handoff() -> Vec<u8> {
    entry(1, &[0; 48])
}

fn resource(kind: u32, start: u64, length: u64) -> Vec<u8> {
    let mut body = vec![0; 16];
    body.extend(kind.to_le_bytes());
    body.extend(7u32.to_le_bytes());
    body.extend(start.to_le_bytes());
    body.extend(length.to_le_bytes());
    entry(3, &body)
}

fn command(text: &[u8]) -> Vec<u8> {
    let mut body = crate::hob::COMMAND_GUID.to_vec();
    body.extend(text);
    body.resize(body.len().next_multiple_of(8), 0);
    entry(4, &body)
}

fn end() -> Vec<u8> {
    entry(0xFFFF, &[])
}

#[test]
fn unaccepted_ranges_are_kept_and_other_memory_is_not() {
    let list = [
        handoff(),
        resource(0, 0, 0x10_0000),
        resource(7, 0x20_0000, 0x60_0000),
        resource(1, 0xF000_0000, 0x1000),
        end(),
    ];
    let list = list.concat();
    let hob = Hob::parse(&list).unwrap();
    assert_eq!(hob.unaccepted(), [Range { start: 0x20_0000, end: 0x80_0000 }]);
    assert_eq!(hob.command(), "");
    assert_eq!(hob.length(), list.len(), "the end entry belongs to the list");
}

#[test]
fn the_command_is_read_without_its_padding() {
    assert_eq!(Hob::parse(&[handoff(), command(b"quote"), end()].concat()).unwrap().command(), "quote");
    assert_eq!(Hob::parse(&[handoff(), command(b""), end()].concat()).unwrap().command(), "");
}

#[test]
fn a_command_that_is_not_ascii_is_no_command_and_a_long_one_is_cut() {
    assert_eq!(Hob::parse(&[handoff(), command(b"\xFFquote"), end()].concat()).unwrap().command(), "");
    let long = Hob::parse(&[handoff(), command(&[b'a'; 500]), end()].concat()).unwrap();
    assert_eq!(long.command().len(), MAX_COMMAND);
}

#[test]
fn the_command_guid_and_limits_are_those_that_hosts_are_told() {
    assert_eq!(crate::hob::COMMAND_GUID, tdvisor_guest_images::COMMAND_HOB_GUID);
    assert_eq!(MAX_COMMAND, tdvisor_guest_images::COMMAND_MAX);
}

#[test]
fn ranges_are_cut_to_whole_pages_below_the_limit() {
    let list = [
        handoff(),
        resource(7, 0x1001, 0x2FFF),
        resource(7, ADDRESS_LIMIT - 0x1000, 1 << 40),
        resource(7, ADDRESS_LIMIT, 1 << 30),
        resource(7, u64::MAX - 5, u64::MAX),
        resource(7, 0x5001, 0x10),
        end(),
    ];
    let hob = Hob::parse(&list.concat()).unwrap();
    let expected =
        [Range { start: 0x2000, end: 0x4000 }, Range { start: ADDRESS_LIMIT - 0x1000, end: ADDRESS_LIMIT }];
    assert_eq!(hob.unaccepted(), expected);
}

#[test]
fn more_ranges_than_there_is_room_for_are_left_alone() {
    let mut list = handoff();
    for index in 0..100 {
        list.extend(resource(7, index * 0x10_0000, 0x1000));
    }
    list.extend(end());
    assert_eq!(Hob::parse(&list).unwrap().unaccepted().len(), MAX_RANGES);
}

#[test]
fn malformed_lists_are_refused_by_name() {
    assert_eq!(Hob::parse(&[]).unwrap_err(), HobError::NoEnd);
    assert_eq!(Hob::parse(&end()).unwrap_err(), HobError::NoHandOff);
    assert_eq!(Hob::parse(&handoff()).unwrap_err(), HobError::NoEnd);
    let short = [handoff(), entry(3, &[0; 32]), end()].concat();
    assert_eq!(Hob::parse(&short).unwrap_err(), HobError::BadLength { offset: 56 });
    for length in [0u16, 1, 7, 12, 0xFFF8] {
        let mut list = [handoff(), resource(7, 0, 0x1000), end()].concat();
        list[58..60].copy_from_slice(&length.to_le_bytes());
        assert_eq!(Hob::parse(&list).unwrap_err(), HobError::BadLength { offset: 56 }, "length {length}");
    }
}

#[test]
fn no_truncation_or_changed_byte_makes_the_parser_panic_or_run_on() {
    let list = [handoff(), resource(7, 0x20_0000, 0x60_0000), command(b"spin"), end()].concat();
    for length in 0..list.len() {
        assert!(Hob::parse(&list[..length]).is_err() || length + 4 >= list.len());
    }
    for place in 0..list.len() {
        for value in 0..=255 {
            let mut changed = list.clone();
            changed[place] = value;
            let _ = Hob::parse(&changed);
        }
    }
}
