//! A unified kernel image: systemd's stub with a kernel and what belongs to it as further sections, as `ukify` lays them out.
//!
//! UAPI Group specification 5, "Unified Kernel Image", and the PE format: a section header has 40 bytes.

const SECTION_HEADER: usize = 40;
/// Initialised data that may be read.
const READ_ONLY_DATA: u32 = 0x4000_0040;

/// The stub with these sections behind its own: name and contents.
pub fn uki(stub: &[u8], sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut file = stub.to_vec();
    let pe = dword(&file, 0x3c);
    assert_eq!(&file[pe..pe + 4], b"PE\0\0", "the stub is a PE file");
    let count = word(&file, pe + 6);
    let optional = pe + 24;
    let table = optional + word(&file, pe + 20);
    let (in_memory, in_file) = (dword(&file, optional + 32), dword(&file, optional + 36));
    let headers = dword(&file, optional + 60);
    assert!(table + (count + sections.len()) * SECTION_HEADER <= headers, "no room for section headers");
    let mut address = dword(&file, optional + 56).next_multiple_of(in_memory);
    file.resize(file.len().next_multiple_of(in_file), 0);
    for (index, (name, contents)) in sections.iter().enumerate() {
        let header = table + (count + index) * SECTION_HEADER;
        let offset = file.len();
        file.extend_from_slice(contents);
        file.resize(file.len().next_multiple_of(in_file), 0);
        file[header..header + name.len()].copy_from_slice(name.as_bytes());
        let stored = file.len() - offset;
        for (at, value) in [(8, contents.len()), (12, address), (16, stored), (20, offset)] {
            put(&mut file, header + at, value as u32);
        }
        put(&mut file, header + 36, READ_ONLY_DATA);
        address = (address + contents.len()).next_multiple_of(in_memory);
    }
    let all = (count + sections.len()) as u16;
    file[pe + 6..pe + 8].copy_from_slice(&all.to_le_bytes());
    put(&mut file, optional + 56, address as u32);
    file
}

fn word(file: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([file[at], file[at + 1]]))
}

fn dword(file: &[u8], at: usize) -> usize {
    word(file, at) | word(file, at + 2) << 16
}

fn put(file: &mut [u8], at: usize, value: u32) {
    file[at..at + 4].copy_from_slice(&value.to_le_bytes());
}
