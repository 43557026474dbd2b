//! Runs a few bytes of machine code on the host CPU with every register given, and reports every register.
//!
//! # Why this is sound
//! - All memory that the code is meant to touch is mapped here at fixed addresses, chosen once with
//!   `MAP_FIXED_NOREPLACE`, so nothing of the process is ever replaced. No Rust reference to it exists
//!   while code runs: this module copies in and out through raw pointers.
//! - The code is entered through a prologue that saves the callee-saved registers of the C ABI and the
//!   stack pointer in the state page, and left through an epilogue that restores them; in between it owns
//!   all registers and uses no host stack.
//! - A fault arrives on an alternate stack. The handler only records the signal and moves RIP to the
//!   epilogue, which depends on no register.
//! - The generator gives instructions only memory operands inside the mapped data, and only unprivileged
//!   instructions whose effects are the registers and that memory. One [`Native`] exists at a time.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![expect(unsafe_code, reason = "generated machine code is run on the host; the proof is in the module docs")]

use std::sync::{Mutex, MutexGuard};

/// Registers and flags before or after a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    pub gpr: [u64; 16],
    pub flags: u64,
    pub xmm: [u128; 16],
    /// Bits 255:128 of the YMM registers; zero on a host without AVX.
    pub ymm_high: [u128; 16],
    pub mxcsr: u32,
    pub fcw: u16,
    pub fsw: u16,
    /// One bit per physical x87 register: not empty.
    pub ftw: u8,
    /// ST(0) to ST(7).
    pub st: [u128; 8],
}

const STATE: u64 = 0x2000_0000;
/// Where code is, on the host and in the emulator.
pub const CODE: u64 = 0x2001_0000;
/// The snippet's offset in the code page; the prologue is in front of it.
pub const SNIPPET: u64 = CODE + 0x400;
const EPILOGUE: u64 = CODE + 0x800;
/// Three pages of operands.
pub const DATA: u64 = 0x3000_0000;
pub const DATA_BYTES: usize = 3 * 4096;

/// An x87 register in its 16 bytes.
pub const ST_BITS: u128 = (1 << 80) - 1;

const FLAGS: u64 = STATE + 128;
const HOST_RSP: u64 = STATE + 136;
const HOST_MXCSR: u64 = STATE + 144;
const SIGNAL: u64 = STATE + 152;
const FX_IN: u64 = STATE + 0x200;
const FX_OUT: u64 = STATE + 0x400;
/// The upper halves of the YMM registers, before and after.
const HIGH_IN: u64 = STATE + 0x600;
const HIGH_OUT: u64 = STATE + 0x700;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The host CPU, ready to run snippets.
pub struct Native {
    _alone: MutexGuard<'static, ()>,
}

fn map(address: u64, bytes: usize, protection: i32) {
    // SAFETY: a fresh anonymous mapping; NOREPLACE refuses to cover anything that exists.
    let at = unsafe {
        libc::mmap(
            address as *mut libc::c_void,
            bytes,
            protection,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
            -1,
            0,
        )
    };
    assert_eq!(at as u64, address, "address {address:#x} is taken");
}

fn poke(address: u64, bytes: &[u8]) {
    // SAFETY: callers pass ranges inside what `map` mapped writable, and no reference covers it.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
}

fn peek(address: u64, out: &mut [u8]) {
    // SAFETY: as in `poke`.
    unsafe { std::ptr::copy_nonoverlapping(address as *const u8, out.as_mut_ptr(), out.len()) };
}

fn peek_u64(address: u64) -> u64 {
    let mut bytes = [0; 8];
    peek(address, &mut bytes);
    u64::from_le_bytes(bytes)
}

extern "C" fn on_fault(signal: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the kernel passes a valid context; RIP is only moved when the fault came from the snippet.
    unsafe {
        let registers = &mut (*context).uc_mcontext.gregs;
        let rip = registers[libc::REG_RIP as usize] as u64;
        if (SNIPPET..=EPILOGUE).contains(&rip) {
            std::ptr::write_volatile(SIGNAL as *mut u64, signal as u64);
            registers[libc::REG_RIP as usize] = EPILOGUE as i64;
        } else {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}

/// Instructions with one absolute 32-bit address: opcode bytes, then the address.
fn absolute(code: &mut Vec<u8>, opcode: &[u8], register: u8, address: u64) {
    code.extend_from_slice(opcode);
    code.push((register & 7) << 3 | 4);
    code.push(0x25);
    code.extend_from_slice(&(address as u32).to_le_bytes());
}

fn move_register(code: &mut Vec<u8>, opcode: u8, register: u8, address: u64) {
    absolute(code, &[0x48 | register >> 3 << 2, opcode], register, address);
}

/// VINSERTF128 (opcode 18H) or VEXTRACTF128 (19H) of the upper half of a register, from or to memory.
fn upper_half(code: &mut Vec<u8>, opcode: u8, register: u8, address: u64) {
    // VEX with the register's high bit, map 0F3A, and the same register as first source where there is one.
    let first = if opcode == 0x18 { register } else { 0 };
    code.extend_from_slice(&[0xC4, 0x63 | (!register >> 3 & 1) << 7, (!first & 15) << 3 | 5]);
    absolute(code, &[opcode], register, address);
    code.push(1);
}

/// Whether the host has AVX, without which upper halves are zero.
pub fn has_avx() -> bool {
    std::is_x86_feature_detected!("avx")
}

const CALLEE_SAVED: [u8; 6] = [3, 5, 12, 13, 14, 15];

fn prologue() -> Vec<u8> {
    let mut code = Vec::new();
    for register in CALLEE_SAVED {
        code.extend_from_slice(if register > 7 { &[0x41] } else { &[] });
        code.push(0x50 | register & 7);
    }
    move_register(&mut code, 0x89, 4, HOST_RSP);
    absolute(&mut code, &[0x0F, 0xAE], 3, HOST_MXCSR);
    absolute(&mut code, &[0x48, 0x0F, 0xAE], 1, FX_IN);
    for register in (0..16).filter(|_| has_avx()) {
        upper_half(&mut code, 0x18, register, HIGH_IN + 16 * u64::from(register));
    }
    absolute(&mut code, &[0xFF], 6, FLAGS);
    code.push(0x9D);
    for register in 0..16 {
        move_register(&mut code, 0x8B, register, STATE + 8 * u64::from(register));
    }
    code.push(0xE9);
    let next = CODE + code.len() as u64 + 4;
    code.extend_from_slice(&((SNIPPET - next) as u32).to_le_bytes());
    code
}

fn epilogue() -> Vec<u8> {
    let mut code = Vec::new();
    for register in 0..16 {
        move_register(&mut code, 0x89, register, STATE + 8 * u64::from(register));
    }
    move_register(&mut code, 0x8B, 4, HOST_RSP);
    code.push(0x9C);
    absolute(&mut code, &[0x8F], 0, FLAGS);
    absolute(&mut code, &[0x48, 0x0F, 0xAE], 0, FX_OUT);
    for register in (0..16).filter(|_| has_avx()) {
        upper_half(&mut code, 0x19, register, HIGH_OUT + 16 * u64::from(register));
    }
    if has_avx() {
        // VZEROUPPER: Rust's code has no upper halves.
        code.extend_from_slice(&[0xC5, 0xF8, 0x77]);
    }
    absolute(&mut code, &[0x0F, 0xAE], 2, HOST_MXCSR);
    // FNINIT: nothing pends when Rust goes on.
    code.extend_from_slice(&[0xDB, 0xE3]);
    // The direction flag is clear by the calling convention; the trap and alignment flags are never set.
    code.push(0xFC);
    for register in CALLEE_SAVED.iter().rev() {
        code.extend_from_slice(if *register > 7 { &[0x41] } else { &[] });
        code.push(0x58 | register & 7);
    }
    code.push(0xC3);
    code
}

impl Native {
    /// Maps memory and installs the fault handler.
    pub fn new() -> Self {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        map(STATE, 4096, libc::PROT_READ | libc::PROT_WRITE);
        map(CODE, 4096, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC);
        map(DATA, DATA_BYTES, libc::PROT_READ | libc::PROT_WRITE);
        poke(CODE, &prologue());
        poke(EPILOGUE, &epilogue());
        // The alternate stack lives as long as the process.
        let stack = vec![0u8; 1 << 16].leak();
        // SAFETY: valid structures; the handler is async-signal-safe.
        unsafe {
            let alternate =
                libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
            assert_eq!(libc::sigaltstack(&alternate, std::ptr::null_mut()), 0);
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_fault as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            for signal in [libc::SIGSEGV, libc::SIGFPE, libc::SIGILL, libc::SIGBUS, libc::SIGTRAP] {
                assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
            }
        }
        Self { _alone: alone }
    }

    /// Runs a snippet; gives the state afterwards and the signal that ended it, 0 if none did.
    pub fn run(&mut self, snippet: &[u8], before: &State, data: &mut [u8; DATA_BYTES]) -> (State, u64) {
        assert!(SNIPPET + snippet.len() as u64 + 5 <= EPILOGUE);
        for (n, value) in (0u64..).zip(before.gpr) {
            poke(STATE + 8 * n, &value.to_le_bytes());
        }
        poke(FLAGS, &before.flags.to_le_bytes());
        poke(SIGNAL, &0u64.to_le_bytes());
        let mut image = [0u8; 512];
        image[0..2].copy_from_slice(&before.fcw.to_le_bytes());
        image[2..4].copy_from_slice(&before.fsw.to_le_bytes());
        image[4] = before.ftw;
        image[24..28].copy_from_slice(&before.mxcsr.to_le_bytes());
        for (slot, st) in image[32..160].chunks_exact_mut(16).zip(before.st) {
            slot.copy_from_slice(&st.to_le_bytes());
        }
        for (slot, xmm) in image[160..416].chunks_exact_mut(16).zip(before.xmm) {
            slot.copy_from_slice(&xmm.to_le_bytes());
        }
        poke(FX_IN, &image);
        for (at, high) in (HIGH_IN..).step_by(16).zip(before.ymm_high) {
            poke(at, &high.to_le_bytes());
        }
        poke(DATA, data);
        poke(SNIPPET, snippet);
        let end = SNIPPET + snippet.len() as u64;
        let mut jump = [0xE9, 0, 0, 0, 0];
        jump[1..].copy_from_slice(&((EPILOGUE - end - 5) as u32).to_le_bytes());
        poke(end, &jump);

        // SAFETY: prologue and epilogue keep the C ABI; see the module docs.
        unsafe {
            let enter: extern "sysv64" fn() = std::mem::transmute(CODE as *const ());
            enter();
        }

        peek(DATA, data);
        peek(FX_OUT, &mut image);
        let word = |at: usize| u16::from_le_bytes([image[at], image[at + 1]]);
        let state = State {
            gpr: std::array::from_fn(|n| peek_u64(STATE + 8 * n as u64)),
            flags: peek_u64(FLAGS),
            xmm: std::array::from_fn(|n| {
                u128::from_le_bytes(image[160 + 16 * n..176 + 16 * n].try_into().expect("16 bytes"))
            }),
            ymm_high: std::array::from_fn(|n| {
                let mut high = [0; 16];
                peek(HIGH_OUT + 16 * n as u64, &mut high);
                u128::from_le_bytes(high)
            }),
            mxcsr: u32::from_le_bytes(image[24..28].try_into().expect("4 bytes")),
            fcw: word(0),
            fsw: word(2),
            ftw: image[4],
            st: std::array::from_fn(|n| {
                u128::from_le_bytes(image[32 + 16 * n..48 + 16 * n].try_into().expect("16 bytes")) & ST_BITS
            }),
        };
        (state, peek_u64(SIGNAL))
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        for (address, bytes) in [(STATE, 4096), (CODE, 4096), (DATA, DATA_BYTES)] {
            // SAFETY: exactly what `new` mapped; nothing refers to it any more.
            unsafe { libc::munmap(address as *mut libc::c_void, bytes) };
        }
    }
}
