//! PE files, as far as firmware measures them.

/// A PE file for x86-64 with these sections: name and contents.
pub fn pe(sections: &[(&str, &[u8])]) -> Vec<u8> {
    const PE: usize = 0x80;
    const TABLE: usize = PE + 24 + 240;
    let mut file = vec![0u8; 0x600];
    file[..2].copy_from_slice(b"MZ");
    let word = |file: &mut [u8], at: usize, value: usize| {
        file[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
    };
    word(&mut file, 0x3c, PE);
    file[PE..PE + 4].copy_from_slice(b"PE\0\0");
    file[PE + 4..PE + 6].copy_from_slice(&0x8664u16.to_le_bytes());
    file[PE + 6..PE + 8].copy_from_slice(&(sections.len() as u16).to_le_bytes());
    file[PE + 20..PE + 22].copy_from_slice(&240u16.to_le_bytes());
    file[PE + 24..PE + 26].copy_from_slice(&0x20bu16.to_le_bytes());
    word(&mut file, PE + 24 + 60, 0x600);
    word(&mut file, PE + 24 + 108, 16);
    for (index, (name, contents)) in sections.iter().enumerate() {
        let (start, entry) = (file.len(), TABLE + index * 40);
        file.extend(*contents);
        file.resize(file.len().next_multiple_of(0x200), 0);
        file[entry..entry + name.len()].copy_from_slice(name.as_bytes());
        let size = file.len() - start;
        for (at, value) in [(8, contents.len()), (16, size), (20, start)] {
            word(&mut file, entry + at, value);
        }
    }
    file
}
