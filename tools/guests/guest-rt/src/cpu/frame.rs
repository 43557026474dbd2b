//! The registers of interrupted code, in the order in which exceptions.s and the hardware push them.

use tdx_guest::TdxTrapFrame;

/// Registers at an exception; what a handler changes here is what the interrupted code gets back.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[expect(missing_docs, reason = "the fields are the registers of the same name")]
pub struct Frame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rax: u64,
    pub vector: u64,
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

const _: () = assert!(size_of::<Frame>() == 22 * 8);

macro_rules! accessors {
    ($($register:ident $setter:ident),*) => {
        impl TdxTrapFrame for Frame {
            $(
                fn $register(&self) -> usize {
                    self.$register as usize
                }
                fn $setter(&mut self, value: usize) {
                    self.$register = value as u64;
                }
            )*
        }
    };
}

accessors!(
    rax set_rax, rbx set_rbx, rcx set_rcx, rdx set_rdx, rsi set_rsi, rdi set_rdi, rip set_rip, r8 set_r8, r9 set_r9,
    r10 set_r10, r11 set_r11, r12 set_r12, r13 set_r13, r14 set_r14, r15 set_r15, rbp set_rbp
);
