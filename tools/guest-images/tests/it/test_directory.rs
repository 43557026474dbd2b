//! fw_cfg's directory.

use crate::directory::{Directory, DirectoryError, ENTRY, File};
use tdvisor_board::files::{COMMAND_LINE, INITRD, KERNEL};

fn entry(length: u32, selector: u16, name: &str) -> [u8; ENTRY] {
    let mut bytes = [0; ENTRY];
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes[4..6].copy_from_slice(&selector.to_be_bytes());
    bytes[8..8 + name.len()].copy_from_slice(name.as_bytes());
    bytes
}

#[test]
fn the_three_files_are_found_among_others() {
    let mut directory = Directory::default();
    for (index, name) in ["etc/e820", COMMAND_LINE, KERNEL, "opt/other", INITRD].iter().enumerate() {
        directory.note(&entry(100 + index as u32, 0x20 + index as u16, name)).unwrap();
    }
    assert_eq!(directory.command_line, Some(File { selector: 0x21, length: 101 }));
    assert_eq!(directory.kernel, Some(File { selector: 0x22, length: 102 }));
    assert_eq!(directory.initrd, Some(File { selector: 0x24, length: 104 }));
}

#[test]
fn names_are_those_that_hosts_are_told() {
    assert_eq!(KERNEL, tdvisor_guest_images::KERNEL_FILE);
    assert_eq!(INITRD, tdvisor_guest_images::INITRD_FILE);
    assert_eq!(COMMAND_LINE, tdvisor_guest_images::COMMAND_LINE_FILE);
}

#[test]
fn a_name_is_compared_as_a_whole() {
    let mut directory = Directory::default();
    for name in ["opt/org.tdvisor/kernel2", "opt/org.tdvisor/kerne", "pt/org.tdvisor/kernel", ""] {
        directory.note(&entry(1, 0x20, name)).unwrap();
    }
    directory.note(&[0xFF; ENTRY]).unwrap();
    assert_eq!(directory, Directory::default());
}

#[test]
fn a_file_that_is_there_twice_or_is_no_file_is_refused() {
    let mut directory = Directory::default();
    directory.note(&entry(1, 0x20, KERNEL)).unwrap();
    assert_eq!(directory.note(&entry(1, 0x21, KERNEL)), Err(DirectoryError::Twice(KERNEL)));
    let item = directory.note(&entry(1, 0x19, INITRD));
    assert_eq!(item, Err(DirectoryError::BadSelector(INITRD, 0x19)));
}
