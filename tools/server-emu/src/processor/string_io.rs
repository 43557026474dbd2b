//! INS and OUTS: one element at a time, each an access to a port and one to memory.
//!
//! A repeated instruction stays where it is until its count is 0, so that interrupts have their chance between two
//! elements (SDM volume 2, "INS/INSB/INSW/INSD").

use tdvisor_devices::{AccessSize, DeviceRequest};
use x86_arch::{CpuState, Gpr, flags};
use x86_emu::{Io, IoDirection, NotPerformed, StringIo};

use super::Processor;
use crate::bus::{Dma, PrivateKey};

impl Processor<'_> {
    /// Performs one element. Gives what the device asks for.
    pub(super) fn string_port(
        &mut self,
        io: Io,
        string: StringIo,
        size: AccessSize,
        length: u8,
    ) -> Result<DeviceRequest, NotPerformed<PrivateKey>> {
        let bytes = usize::from(io.size);
        let mut data = [0; 8];
        let mut request = DeviceRequest::None;
        let server = self.server;
        let index = match io.direction {
            IoDirection::In => {
                // What a device gives away must not be lost to a fault.
                self.cpu.check_write_operand(&mut self.bus, string.address, bytes)?;
                data = server.devices.ports.read(io.port, size).to_le_bytes();
                self.cpu.write_operand(
                    &mut self.bus,
                    string.address,
                    data.get(..bytes).unwrap_or_default(),
                )?;
                Gpr::Rdi
            }
            IoDirection::Out => {
                let part = data.get_mut(..bytes).unwrap_or_default();
                self.cpu.read_operand(&mut self.bus, string.address, part)?;
                request = server.devices.ports.write(
                    io.port,
                    size,
                    u64::from_le_bytes(data),
                    &Dma(&server.machine),
                );
                Gpr::Rsi
            }
        };
        let state = &mut self.cpu.state;
        let backwards = state.flags.rest() & flags::DF != 0;
        let step = if backwards { (bytes as u64).wrapping_neg() } else { bytes as u64 };
        add(state, index, step, string.index_mask);
        let mut done = true;
        if string.rep {
            done = add(state, Gpr::Rcx, u64::MAX, string.index_mask) == 0;
        }
        if done {
            self.cpu.advance(length);
        }
        self.pass_time(1);
        Ok(request)
    }
}

/// Adds to a register as far as the address size uses it, and gives that part.
fn add(state: &mut CpuState, register: Gpr, amount: u64, mask: u64) -> u64 {
    const WORD: u64 = 0xffff;
    let old = state.gpr(register);
    let part = old.wrapping_add(amount) & mask;
    // Sixteen bits leave the others alone; thirty-two clear them.
    let kept = if mask == WORD { old & !WORD } else { 0 };
    state.set_gpr(register, kept | part);
    part
}
