//! What a program needs before it can start: its loader, and the names of libraries.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use object::elf::{
    DT_NEEDED, DT_NULL, DT_RPATH, DT_RUNPATH, DT_STRTAB, EM_X86_64, FileHeader64, PT_DYNAMIC, PT_INTERP,
    PT_LOAD,
};
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _};
use object::{LittleEndian, ReadRef as _};

/// What an ELF file asks of the loader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The loader; none for a static program or a library.
    pub loader: Option<PathBuf>,
    /// Libraries, by the names that the file gives them.
    pub libraries: Vec<OsString>,
    /// Folders to look for them in, before the system's, with `$ORIGIN` replaced.
    pub folders: Vec<PathBuf>,
}

/// Reads them from the file that was found at `path`; `None` if it is no x86-64 ELF file.
pub fn needs(path: &Path, file: &[u8]) -> Option<Needs> {
    type Header = FileHeader64<LittleEndian>;
    const LE: LittleEndian = LittleEndian;
    let header = Header::parse(file).ok()?;
    if header.e_machine(LE) != EM_X86_64 {
        return None;
    }
    let segments = header.program_headers(LE, file).ok()?;
    let mut needs = Needs::default();
    let text_at = |offset: u64| {
        let rest = file.get(usize::try_from(offset).ok()?..)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        Some(OsString::from_vec(rest.get(..end)?.to_vec()))
    };
    let offset_of = |address: u64| {
        segments.iter().find_map(|segment| {
            let inside = address.checked_sub(segment.p_vaddr(LE))?;
            let is_here = segment.p_type(LE) == PT_LOAD && inside < segment.p_filesz(LE);
            is_here.then(|| segment.p_offset(LE).checked_add(inside)).flatten()
        })
    };
    for segment in segments {
        if segment.p_type(LE) == PT_INTERP {
            needs.loader = text_at(segment.p_offset(LE)).map(PathBuf::from);
        }
        if segment.p_type(LE) != PT_DYNAMIC {
            continue;
        }
        let bytes = segment.p_filesz(LE);
        let size = size_of::<object::elf::Dyn64<LittleEndian>>() as u64;
        let entries: &[object::elf::Dyn64<LittleEndian>] =
            file.read_slice_at(segment.p_offset(LE), usize::try_from(bytes / size).ok()?).ok()?;
        let entries = || entries.iter().take_while(|entry| entry.d_tag(LE) != DT_NULL);
        let strings =
            entries().find(|entry| entry.d_tag(LE) == DT_STRTAB).and_then(|entry| offset_of(entry.d_val(LE)));
        let Some(strings) = strings else { continue };
        let has_runpath = entries().any(|entry| entry.d_tag(LE) == DT_RUNPATH);
        for entry in entries() {
            let text = || strings.checked_add(entry.d_val(LE)).and_then(text_at);
            match entry.d_tag(LE) {
                DT_NEEDED => needs.libraries.extend(text()),
                // The older of the two is ignored where both are.
                DT_RPATH if has_runpath => {}
                DT_RPATH | DT_RUNPATH => {
                    needs.folders.extend(text().iter().flat_map(|list| folders(list, path)))
                }
                _ => {}
            }
        }
    }
    Some(needs)
}

/// A list of folders, separated by colons, as the loader reads it for a file at `path`.
fn folders(list: &OsString, path: &Path) -> Vec<PathBuf> {
    let origin = path.parent().unwrap_or(Path::new("/")).display().to_string();
    let list = list.to_string_lossy().replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin);
    list.split(':').filter(|folder| folder.starts_with('/')).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_program_needs_a_loader_and_a_c_library() {
        let path = std::env::current_exe().unwrap();
        let needs = needs(&path, &std::fs::read(&path).unwrap()).expect("a test program is an ELF file");
        assert!(needs.loader.is_some_and(|loader| loader.is_absolute()));
        assert!(needs.libraries.iter().any(|name| name.to_string_lossy().starts_with("libc.so")));
    }

    #[test]
    fn what_is_no_elf_file_needs_nothing() {
        for bytes in [&b""[..], b"#!/bin/sh\n", b"\x7fELF\x02\x01\x01 and then nothing of use"] {
            assert_eq!(needs(Path::new("/x"), bytes), None);
        }
    }
}
