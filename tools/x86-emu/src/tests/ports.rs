//! The I/O permission bitmap, swept: one bit denied at a time, every size, and every limit of the TSS around its end (SDM vol. 1,
//! "I/O Permission Bit Map").

use crate::exits::{Exit, InstructionExit};
use crate::testing::{Machine, layout};
use x86_arch::{Gpr, vector};

/// Where the bitmap begins in the TSS.
const MAP: u64 = 0x68;
const MAP_BASE: u64 = 0x66;
/// in al, dx; in ax, dx; in eax, dx.
const READS: [(u64, &[u8]); 3] = [(1, &[0xEC]), (2, &[0x66, 0xED]), (4, &[0xED])];

fn user() -> Machine {
    let mut m = Machine::long();
    m.gate(vector::GP, 0);
    m.make_user();
    m.write(layout::TSS + MAP_BASE, &(MAP as u16).to_le_bytes());
    m
}

/// Whether an access gets to the owner; otherwise it is #GP(0).
fn reaches(m: &mut Machine, port: u64, read: &[u8]) -> bool {
    m.code(read);
    let before = m.cpu.state.clone();
    m.cpu.state.set_gpr(Gpr::Rdx, port);
    let exit = m.run();
    let allowed = matches!(exit, Exit::Instruction { what: InstructionExit::Io(_), .. });
    if !allowed {
        assert_eq!(m.cpu.state.rip(), layout::HANDLERS + 16 * u64::from(vector::GP), "{exit:?}");
        assert_eq!(m.peek(m.cpu.state.gpr(Gpr::Rsp)), 0, "the error code");
    }
    m.cpu.state = before;
    allowed
}

#[test]
fn an_access_is_refused_if_and_only_if_the_bit_of_one_of_its_ports_is_set() {
    let mut m = user();
    m.cpu.state.tr.limit = 0x68 + 0x40;
    m.write(layout::TSS + MAP, &[0; 0x41]);
    for denied in 0x40..0x60u64 {
        let at = layout::TSS + MAP + denied / 8;
        m.write(at, &[1 << (denied % 8)]);
        for (size, read) in READS {
            for port in 0x38..0x68 {
                let refused = (port..port + size).contains(&denied);
                assert_eq!(
                    reaches(&mut m, port, read),
                    !refused,
                    "port {port:#x}, {size} bytes, {denied:#x} denied"
                );
            }
        }
        m.write(at, &[0]);
    }
}

#[test]
fn both_bytes_that_hold_an_accesses_bits_must_lie_in_the_tss() {
    let mut m = user();
    m.write(layout::TSS + MAP, &[0; 0x20]);
    for limit in MAP - 4..MAP + 0x10 {
        m.cpu.state.tr.limit = limit as u32;
        for (_, read) in READS {
            for port in (0..0x80).step_by(7) {
                let inside = MAP + port / 8 < limit;
                assert_eq!(reaches(&mut m, port, read), inside, "port {port:#x}, limit {limit:#x}");
            }
        }
    }
}
