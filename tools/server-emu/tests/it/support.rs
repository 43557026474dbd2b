//! Assembles a host, wraps it as an ELF file, and runs it.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use server_emu::record::Record;
use server_emu::saved::SavedServer;
use server_emu::{BootFiles, Described, Ending, Server, ServerConfig};
use tdvisor_base::{PAGE_SIZE, Pfn};
use tdvisor_board::address;
use tdvisor_devices::Devices;
use tdvisor_devices::ExitPort;

/// Where a host is loaded and entered.
pub const ENTRY: u64 = 0x10_0000;

/// Numbers of the leaves that hosts here use.
#[derive(Clone, Copy)]
pub struct LeafNumber(u64);

impl LeafNumber {
    pub const SYS_INIT: Self = Self(33);
    pub const SYS_RD: Self = Self(34);
    pub const SYS_LP_INIT: Self = Self(35);
}

/// A host on a server.
pub struct Host(Server);

impl Host {
    /// A server on which this code runs from [`ENTRY`].
    pub fn assemble(config: ServerConfig, mut code: CodeAssembler) -> Self {
        let code = code.assemble(ENTRY).expect("the code can be assembled");
        let kernel = elf(&code);
        let files = BootFiles { kernel: &kernel, initrd: None, command_line: "" };
        let described: &[Described] = &[];
        Self(
            Server::new(config, devices(), described, Record::default(), &files)
                .expect("the host can be loaded"),
        )
    }

    /// A server that goes on from the saved state of this one, with its memory.
    pub fn resume(&self, saved: SavedServer) -> Self {
        let server = Server::resume(saved, devices(), Record::default()).expect("it is a server's state");
        let (from, to) = (self.0.machine().memory(), server.machine().memory());
        let mut page = [0; PAGE_SIZE as usize];
        for pfn in (0..from.bytes() / PAGE_SIZE).map(Pfn::new).filter(|pfn| !from.is_absent(pfn.base())) {
            let key = from.page_key(pfn).expect("it is memory");
            from.read(pfn.base(), key, &mut page).expect("it is the page's key");
            to.clear_page(pfn, key).expect("it is memory");
            let _ = to.write(pfn.base(), key, &page).expect("it is the page's key");
        }
        Self(server)
    }

    /// Runs it to its end.
    pub fn run(&self) -> Ending {
        self.0.run()
    }

    /// The server that the host ran on.
    pub fn server(&self) -> &Server {
        &self.0
    }
}

fn devices() -> Devices {
    let mut devices = Devices::default();
    devices.ports.attach(address::EXIT, 1, Box::new(ExitPort)).expect("the port is free");
    devices
}

/// An ELF file with one segment.
fn elf(code: &[u8]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    const EXECUTABLE: u16 = 2;
    const X86_64: u16 = 62;
    const LOAD: u32 = 1;
    const READ_EXECUTE: u32 = 5;
    let bytes = code.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend(EXECUTABLE.to_le_bytes());
    file.extend(X86_64.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    for offset in [ENTRY, 64, 0] {
        file.extend(offset.to_le_bytes());
    }
    file.extend(0u32.to_le_bytes());
    for number in [64u16, 56, 1, 64, 0, 0] {
        file.extend(number.to_le_bytes());
    }
    file.extend(LOAD.to_le_bytes());
    file.extend(READ_EXECUTE.to_le_bytes());
    for number in [HEADERS, ENTRY, ENTRY, bytes, bytes, 0x1000] {
        file.extend(number.to_le_bytes());
    }
    file.extend(code);
    file
}

/// What every VMXON region and VMCS begins with here (IA32_VMX_BASIC).
pub const VMX_REVISION: i32 = 1;

/// CR4.VMXE, a VMXON region, and VMXON. RSP is usable afterwards.
pub fn begin_vmx(a: &mut CodeAssembler) -> Result<(), IcedError> {
    const VMXE: i32 = 1 << 13;
    const REGION: u64 = 0x6000;
    a.mov(rsp, 0x7000u64)?;
    a.mov(rax, cr4)?;
    a.or(rax, VMXE)?;
    a.mov(cr4, rax)?;
    a.mov(rax, REGION)?;
    a.mov(dword_ptr(rax), VMX_REVISION)?;
    a.mov(qword_ptr(rsp - 8), rax)?;
    a.vmxon(qword_ptr(rsp - 8))
}

/// A SEAMCALL; where it does not succeed, the host ends with this code.
pub fn seamcall_or_exit(a: &mut CodeAssembler, leaf: LeafNumber, code: u32) -> Result<(), IcedError> {
    let mut succeeded = a.create_label();
    a.mov(rax, leaf.0)?;
    a.seamcall()?;
    a.test(rax, rax)?;
    a.je(succeeded)?;
    a.mov(eax, code)?;
    exit_with(a)?;
    a.set_label(&mut succeeded)
}

/// Ends the machine with the code in AL.
pub fn exit_with(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(dx, i32::from(address::EXIT))?;
    a.out(dx, al)
}
