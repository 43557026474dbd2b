//! The notes of a core file: registers, and what the guest's kernel says of itself.

use phys_memory::Arena;
use x86_arch::{CpuState, Gpr, Seg};

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

/// Bytes of a note's header: lengths of name and contents, and its type.
const NOTE_HEADER: usize = 12;
/// Names and contents are padded to this.
const NOTE_ALIGNMENT: usize = 4;

/// Bytes of `struct elf_prstatus` of x86-64.
const PRSTATUS_BYTES: usize = 336;
/// Where it has the process.
const PRSTATUS_PID: usize = 32;
/// Where it has the registers.
const PRSTATUS_REGISTERS: usize = 112;

fn note(name: &[u8], kind: u32, contents: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    for word in [name.len() as u32, contents.len() as u32, kind] {
        note.extend(word.to_le_bytes());
    }
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
    let word = |at: usize| Some(u32::from_le_bytes(*memory.get(at..)?.first_chunk()?));
    let name = memory.get(NOTE_HEADER..NOTE_HEADER + VMCOREINFO.len())?;
    if word(0)? as usize != VMCOREINFO.len() || word(8)? != NT_VMCOREINFO || name != VMCOREINFO {
        return None;
    }
    let contents = memory.get(NOTE_HEADER + VMCOREINFO.len().next_multiple_of(NOTE_ALIGNMENT)..)?;
    contents.get(..word(4)? as usize).filter(|text| text.starts_with(FIRST_LINE))
}
