//! The notes of a core file: registers, and what the guest's kernel says of itself.

use phys_memory::Arena;
use x86_arch::{CpuState, Gpr, Seg};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::DumpError;
use super::memory::{Bytes as _, PAGE, Piece};

/// `NT_PRSTATUS` of elf.h.
const NT_PRSTATUS: u32 = 1;
/// The name of notes that Linux's core files share with everybody's.
const CORE: &[u8] = b"CORE\0";

/// The note that Linux keeps for whoever dumps it (admin-guide/kdump/vmcoreinfo.rst), of type 0.
const VMCOREINFO: &[u8] = b"VMCOREINFO\0";
const NT_VMCOREINFO: u32 = 0;
/// What the text of a VMCOREINFO begins with.
const FIRST_LINE: &[u8] = b"OSRELEASE=";

/// The header of a note (`Elf64_Nhdr`).
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct NoteHeader {
    name_bytes: U32,
    contents_bytes: U32,
    kind: U32,
}

const _: () = assert!(size_of::<NoteHeader>() == 12);

/// Names and contents are padded to this.
const NOTE_ALIGNMENT: usize = 4;

/// Bytes of `struct elf_prstatus` of x86-64.
const PRSTATUS_BYTES: usize = 336;
/// Where `struct elf_prstatus` has the process.
const PRSTATUS_PID: usize = 32;
/// Where `struct elf_prstatus` has the registers.
const PRSTATUS_REGISTERS: usize = 112;

fn note(name: &[u8], kind: u32, contents: &[u8]) -> Vec<u8> {
    // Names and contents are of this program, or at most a page of the guest's.
    let bytes = |part: &[u8]| u32::try_from(part.len()).unwrap_or(u32::MAX).into();
    let header = NoteHeader { name_bytes: bytes(name), contents_bytes: bytes(contents), kind: kind.into() };
    let mut note = header.as_bytes().to_vec();
    for part in [name, contents] {
        note.extend(part);
        note.resize(note.len().next_multiple_of(NOTE_ALIGNMENT), 0);
    }
    note
}

/// The notes of a core file: a set of registers for each vCPU, and what the kernel says of itself.
pub(super) fn notes(vcpus: &[CpuState], vmcoreinfo: Option<&[u8]>) -> Vec<u8> {
    let mut notes = Vec::new();
    for (vcpu, number) in vcpus.iter().zip(1u32..) {
        notes.extend(note(CORE, NT_PRSTATUS, &prstatus(vcpu, number)));
    }
    if let Some(text) = vmcoreinfo {
        notes.extend(note(VMCOREINFO, NT_VMCOREINFO, text));
    }
    notes
}

/// `struct elf_prstatus`: what belongs to a process is zero but for its number, which is the vCPU's from 1 on.
fn prstatus(vcpu: &CpuState, number: u32) -> [u8; PRSTATUS_BYTES] {
    let mut bytes = [0; PRSTATUS_BYTES];
    let mut put = |at: usize, data: &[u8]| {
        if let Some(place) = bytes.get_mut(at..at + data.len()) {
            place.copy_from_slice(data);
        }
    };
    put(PRSTATUS_PID, &number.to_le_bytes());
    for (index, register) in registers(vcpu).into_iter().enumerate() {
        put(PRSTATUS_REGISTERS + index * size_of::<u64>(), &register.to_le_bytes());
    }
    bytes
}

/// `struct user_regs_struct` of x86-64.
fn registers(vcpu: &CpuState) -> [u64; 27] {
    let gpr = |register| vcpu.gpr(register);
    let selector = |segment| u64::from(vcpu.segment(segment).selector);
    let base = |segment| vcpu.segment(segment).base;
    // No system call is being made: Linux says so with -1.
    const NO_SYSTEM_CALL: u64 = u64::MAX;
    [
        gpr(Gpr::R15),
        gpr(Gpr::R14),
        gpr(Gpr::R13),
        gpr(Gpr::R12),
        gpr(Gpr::Rbp),
        gpr(Gpr::Rbx),
        gpr(Gpr::R11),
        gpr(Gpr::R10),
        gpr(Gpr::R9),
        gpr(Gpr::R8),
        gpr(Gpr::Rax),
        gpr(Gpr::Rcx),
        gpr(Gpr::Rdx),
        gpr(Gpr::Rsi),
        gpr(Gpr::Rdi),
        NO_SYSTEM_CALL,
        vcpu.rip(),
        selector(Seg::Cs),
        vcpu.flags.get(),
        gpr(Gpr::Rsp),
        selector(Seg::Ss),
        base(Seg::Fs),
        base(Seg::Gs),
        selector(Seg::Ds),
        selector(Seg::Es),
        selector(Seg::Fs),
        selector(Seg::Gs),
    ]
}

/// Finds the note that a Linux kernel keeps of itself: it begins with a page, and may reach into the next.
pub(super) fn find_vmcoreinfo(pieces: &[Piece], memory: &Arena) -> Result<Option<Vec<u8>>, DumpError> {
    let mut found = None;
    for piece in pieces {
        // A page and the one before it.
        let mut window = Vec::new();
        piece.each_page(&mut |hpa| {
            if found.is_none() {
                window.extend(memory.page(hpa)?);
                found = window.get(PAGE..).and_then(|_| vmcoreinfo(&window)).map(<[u8]>::to_vec);
                window.drain(..window.len() - PAGE);
            }
            Ok(())
        })?;
        found = found.or_else(|| vmcoreinfo(&window).map(<[u8]>::to_vec));
    }
    Ok(found)
}

/// The text of a VMCOREINFO, if memory begins with one.
pub(super) fn vmcoreinfo(memory: &[u8]) -> Option<&[u8]> {
    let (header, rest) = NoteHeader::ref_from_prefix(memory).ok()?;
    let bytes = |field: U32| usize::try_from(field.get()).ok();
    if bytes(header.name_bytes)? != VMCOREINFO.len()
        || header.kind != NT_VMCOREINFO
        || !rest.starts_with(VMCOREINFO)
    {
        return None;
    }
    let contents = rest.get(VMCOREINFO.len().next_multiple_of(NOTE_ALIGNMENT)..)?;
    contents.get(..bytes(header.contents_bytes)?).filter(|text| text.starts_with(FIRST_LINE))
}
