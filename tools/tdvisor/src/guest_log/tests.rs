//! From bytes of the port to lines.

use tdvisor_guest_images::HELLO_TD;
use tdvisor_test_data::chance::Chance;

use super::recorded::{FRAMES, STRINGS};
use super::table::Table;
use super::text::MAX_TEXT;
use super::*;

/// rzCOBS, by its description in `frame`: the reverse of what is tested.
fn encode(message: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        let run = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
        if run >= 134 {
            wire.extend(&rest[..134]);
            wire.push(0xFF);
            rest = &rest[134..];
        } else if run >= 7 {
            wire.extend(&rest[..run]);
            wire.push(0x80 | (run - 7) as u8);
            rest = rest.get(run + 1..).unwrap_or_default();
        } else {
            let mut block = [0; 7];
            let len = rest.len().min(7);
            block[..len].copy_from_slice(&rest[..len]);
            wire.extend(block.iter().filter(|byte| **byte != 0));
            wire.push((0..7).fold(0, |zeros, at| zeros | u8::from(block[at] == 0) << at));
            rest = &rest[len..];
        }
    }
    wire.push(0);
    wire
}

fn decoder(table: Table) -> Decoder {
    Decoder { table: Some(table), deframer: Deframer::default(), malformed: 0 }
}

/// The lines of these bytes, and how many frames could not be decoded.
fn lines(table: Table, wire: &[u8]) -> (Vec<String>, u64) {
    let mut decoder = decoder(table);
    let mut lines = Vec::new();
    decoder.receive(wire, |line| lines.push(line.to_owned()));
    (lines, decoder.malformed)
}

/// The line of one message, with strings of which the first has index 1.
fn line(strings: &[(&str, &str)], message: &[u8]) -> String {
    let table = Table::of_strings((1..).zip(strings).map(|(index, (tag, text))| (index, *tag, *text)));
    let (lines, malformed) = lines(table, &encode(message));
    let cut = lines.concat();
    assert_eq!(malformed != 0, cut.contains("<cannot decode") || lines.is_empty(), "{cut}");
    cut
}

fn bytes_of_hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

#[test]
fn frames_recorded_from_a_defmt_logger_are_read() {
    let mut wire = vec![0];
    for (frame, _) in FRAMES {
        wire.extend(bytes_of_hex(frame));
        wire.push(0);
    }
    let (lines, malformed) = lines(Table::of_strings(STRINGS.iter().copied()), &wire);
    let expected: Vec<_> = FRAMES.iter().map(|(_, text)| text.to_string()).collect();
    assert_eq!(lines, expected);
    assert_eq!(malformed, 0);
}

#[test]
fn frames_may_arrive_byte_by_byte_and_the_first_may_be_cut_off() {
    let mut decoder = decoder(Table::of_strings([(1, "info", "one"), (2, "warn", "two {=u16}")]));
    let mut wire = vec![9, 9, 0];
    wire.extend(encode(&[1, 0]));
    wire.extend(encode(&[2, 0, 0x39, 0x30]));
    let mut lines = Vec::new();
    for byte in wire {
        decoder.receive(&[byte], |line| lines.push(line.to_owned()));
    }
    assert_eq!(lines, ["INFO one", "WARN two 12345"]);
    assert_eq!(decoder.malformed, 1);
}

#[test]
fn a_built_in_guests_frames_are_read_with_its_elf_file() {
    let table = || Table::of_elf(HELLO_TD.elf).expect("a good ELF file").expect("it logs");
    let index_of = |text: &str| {
        let found = table().entries().find(|(_, entry)| entry.text == text).map(|(index, _)| index);
        found.expect("the guest has this statement").to_le_bytes()
    };
    let mut message = index_of("vCPU {=u32} accepted {=u64} KiB").to_vec();
    message.extend(7_u32.to_le_bytes());
    message.extend(1_u32.to_le_bytes());
    message.extend(2048_u64.to_le_bytes());
    let (lines, malformed) = lines(table(), &encode(&message));
    assert_eq!(lines, ["7 DEBUG vCPU 1 accepted 2048 KiB"]);
    assert_eq!(malformed, 0);
}

#[test]
fn a_broken_argument_says_why_and_ends_its_line() {
    let strings = [
        ("info", "a {=bool} b {=u32} c"),
        ("info", "{=str}!"),
        ("info", "{=char}!"),
        ("info", "{}!"),
        ("derived", "A|B({=u8})"),
        ("info", "{=istr}!"),
        ("str", "text"),
        ("info", "{1=u8} {0=bool}"),
        ("prim", "{=__internal_Debug}"),
        ("write", "{=u7}"),
    ];
    let line = |message: &[u8]| line(&strings, message);
    assert_eq!(line(&[1, 0, 2, 1, 0, 0, 0]), "INFO a <cannot decode: bool 2>");
    assert_eq!(line(&[1, 0, 1, 7, 7]), "INFO a true b 1799 c");
    assert_eq!(line(&[2, 0, 255, 255, 255, 255, 1]), "INFO <cannot decode: the frame is too short>");
    assert_eq!(line(&[2, 0, 1, 0, 0, 0, 0xC0]), "INFO <cannot decode: the text is not UTF-8>");
    assert_eq!(line(&[3, 0, 0, 0xD8, 0, 0]), "INFO <cannot decode: char 0xd800>");
    assert_eq!(line(&[4, 0, 99, 0, 1]), "INFO <cannot decode: no format 99>");
    assert_eq!(line(&[4, 0, 7, 0, 1]), "INFO <cannot decode: no format 7>", "a string is no format");
    assert_eq!(line(&[4, 0, 1, 0, 1]), "INFO <cannot decode: no format 1>", "a statement is no value");
    assert_eq!(line(&[4, 0, 10, 0, 1]), "INFO <cannot decode: no format 10>", "it cannot be parsed");
    assert_eq!(line(&[4, 0, 5, 0, 2]), "INFO <cannot decode: no variant 2>");
    assert_eq!(line(&[4, 0, 9, 0, b'x']), "INFO <cannot decode: the frame is too short>");
    assert_eq!(line(&[6, 0, 98, 0, 1]), "INFO <cannot decode: no string 98>");
    assert_eq!(line(&[8, 0, 9, 5]), "INFO <cannot decode: bool 9>");
    assert_eq!(line(&[1, 0, 1, 7, 0, 0, 0, 9, 9]), "INFO a true b 7 c <cannot decode: 7 bytes too many>");
    assert_eq!(line(&[5, 0, 1, 1]), "", "no log statement");
    assert_eq!(line(&[77, 0, 1, 1]), "", "no string");
}

#[test]
fn a_broken_timestamp_leaves_the_message_out() {
    let table = Table::of_strings([(1, "info", "hello"), (2, "timestamp", "{=bool}")]);
    let (lines, malformed) = lines(table, &encode(&[1, 0, 5]));
    assert_eq!((lines, malformed), (vec!["<cannot decode: bool 5> INFO ".to_owned()], 1));
}

#[test]
fn a_guest_cannot_forge_a_line_or_command_the_terminal() {
    let mut message = vec![1, 0, 10, 0, 0, 0];
    message.extend(b"a\n[b]\x1B[2J\r");
    assert_eq!(line(&[("info", "{=str}|")], &message), r"INFO a\n[b]\u{1b}[2J\r|");
}

#[test]
fn values_without_bytes_and_deep_values_come_to_an_end() {
    let strings = [
        ("info", "{=[?]}"),
        ("prim", "()"),
        ("info", "{}"),
        ("derived", "Box({=?})"),
        ("info", "{=[?;1000000000]}"),
        ("prim", "{=__internal_FormatSequence}"),
    ];
    let all = [1, 0, 255, 255, 255, 255, 2, 0];
    assert_eq!(line(&strings, &all), "INFO <cannot decode: more than 4096 values>");
    assert_eq!(line(&strings, &[5, 0, 2, 0]), "INFO <cannot decode: more than 4096 values>");
    let deep = |depth: usize| [vec![3, 0], [4, 0].repeat(depth), vec![2, 0]].concat();
    assert_eq!(line(&strings, &deep(15)), format!("INFO {}(){}", "Box(".repeat(15), ")".repeat(15)));
    assert_eq!(line(&strings, &deep(16)), "INFO <cannot decode: nested deeper than 16>");
    let sequences = [vec![3, 0], [6, 0].repeat(100)].concat();
    assert_eq!(line(&strings, &sequences), "INFO <cannot decode: nested deeper than 16>");
}

#[test]
fn a_long_line_is_cut_off() {
    let message = [vec![1, 0], 2000_u32.to_le_bytes().to_vec(), vec![0xFF; 2000]].concat();
    let line = line(&[("info", "{=[u8]}")], &message);
    assert!(line.len() <= MAX_TEXT + '…'.len_utf8() && line.ends_with('…'), "{line}");
    assert!(line.starts_with("INFO [255, 255, "));
}

#[test]
fn whatever_a_guest_sends_the_decoder_goes_on() {
    for seed in 1..=2000_u64 {
        let mut chance = Chance::new(seed);
        let mut decoder = decoder(Table::of_strings(STRINGS.iter().copied()));
        let mut longest = 0;
        for _ in 0..16 {
            // Half of the frames name a real statement, so that their arguments are reached.
            let mut message: Vec<u8> = (0..chance.index(200)).map(|_| chance.byte()).collect();
            if chance.index(2) == 0 && message.len() >= 2 {
                message[0] = 14 + chance.index(15) as u8;
                message[1] = 0;
            }
            // Small numbers are lengths, indices and discriminants that mean something.
            for byte in message.iter_mut().skip(2) {
                *byte = if chance.index(2) == 0 { *byte % 14 } else { *byte };
            }
            let mut wire = encode(&message);
            if chance.index(4) == 0 {
                let at = chance.index(wire.len());
                wire[at] = chance.byte();
            }
            decoder.receive(&wire, |line| longest = longest.max(line.len()));
        }
        assert!(longest <= MAX_TEXT + 3, "seed {seed}: a line of {longest} bytes");
        decoder.receive(&[0], |_| {});
        let mut after = Vec::new();
        decoder.receive(&encode(&[16, 0, 1, 0, 0, 0]), |line| after.push(line.to_owned()));
        assert_eq!(after, ["0.000001 INFO no arguments"], "seed {seed}: the decoder has lost its way");
    }
}

#[test]
fn without_an_elf_file_frames_are_dropped() {
    let mut log = GuestLog::new(None, Outlet::new(std::io::sink(), 1 << 10));
    log.write_all(&encode(&[1, 0])).expect("the log takes all bytes");
    let decoder = log.0.lock().expect("nobody panicked with the lock");
    assert_eq!(decoder.decoder.malformed, 0);
    assert!(!decoder.decoder.deframer.is_inside_frame());
}
