//! Writes to control registers, XCR0 and MSRs, with the checks of the architecture.
//!
//! The same functions serve the CPU's own MOV to CR and an owner that completes an intercepted access.

use crate::cpu::{CodeMode, Cpu};
use x86_arch::{Event, Gpr, Seg, cr0, cr4, efer, msr, vector};

/// The event to inject instead of a write.
fn refused() -> Event {
    Event::exception_with_code(vector::GP, 0)
}

/// What became of an access to an MSR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MsrError {
    /// The CPU does not keep this MSR: the owner decides.
    NotKept,
    /// The value is not allowed: inject this.
    Refused(Event),
}

impl Cpu {
    /// What MOV from CR0 gives: owned bits come from the shadow.
    pub const fn visible_cr0(&self) -> u64 {
        self.state.control.cr0 & !self.controls.cr0_owned | self.controls.cr0_shadow & self.controls.cr0_owned
    }

    /// What MOV from CR4 gives.
    pub const fn visible_cr4(&self) -> u64 {
        self.state.control.cr4 & !self.controls.cr4_owned | self.controls.cr4_shadow & self.controls.cr4_owned
    }

    /// Writes a control register with the architecture's checks; owned bits are written like the others.
    ///
    /// # Errors
    /// The event to inject. Nothing was changed.
    pub fn write_cr(&mut self, register: u8, value: u64) -> Result<(), Event> {
        match register {
            0 => self.write_cr0(value),
            3 => self.write_cr3(value),
            4 => self.write_cr4(value),
            8 if value <= 15 => {
                self.state.control.cr8 = value;
                Ok(())
            }
            8 => Err(refused()),
            _ => Err(Event::exception(vector::UD)),
        }
    }

    fn write_cr0(&mut self, value: u64) -> Result<(), Event> {
        let old = self.state.control.cr0;
        let paging = value & cr0::PG != 0;
        let bad = value >> 32 != 0
            || paging && value & cr0::PE == 0
            || value & cr0::NW != 0 && value & cr0::CD == 0;
        if bad {
            return Err(refused());
        }
        let mut new_efer = self.state.control.efer;
        self.refresh_mode();
        if paging && old & cr0::PG == 0 && self.state.control.efer & efer::LME != 0 {
            let code_is_long = self.state.segment(Seg::Cs).attributes.long();
            if self.state.control.cr4 & cr4::PAE == 0 || code_is_long {
                return Err(refused());
            }
            new_efer |= efer::LMA;
        }
        if !paging && old & cr0::PG != 0 {
            if self.mode == CodeMode::Code64 || self.state.control.cr4 & cr4::PCIDE != 0 {
                return Err(refused());
            }
            new_efer &= !efer::LMA;
        }
        self.state.control.efer = new_efer;
        self.state.control.cr0 = value & cr0::DEFINED | cr0::ET;
        if (old ^ self.state.control.cr0) & (cr0::PG | cr0::WP | cr0::PE) != 0 {
            self.tlb.flush_linear();
        }
        self.changed_mode();
        Ok(())
    }

    fn write_cr3(&mut self, value: u64) -> Result<(), Event> {
        const NO_FLUSH: u64 = 1 << 63;
        let pcids = self.state.control.cr4 & cr4::PCIDE != 0;
        let value = if pcids { value & !NO_FLUSH } else { value };
        let value = if self.state.is_ia32e() { value } else { value & 0xFFFF_FFFF };
        if value >> self.controls.physical_bits.clamp(32, 52) != 0 {
            return Err(refused());
        }
        // Bit 63 only permits the CPU to keep translations; dropping them is always right.
        self.state.control.cr3 = value;
        self.tlb.flush_not_global();
        self.changed_mode();
        Ok(())
    }

    fn write_cr4(&mut self, value: u64) -> Result<(), Event> {
        let old = self.state.control.cr4;
        let ia32e = self.state.is_ia32e();
        let bad = value & !self.controls.cr4_supported & !self.controls.cr4_owned != 0
            || ia32e && value & cr4::PAE == 0
            || ia32e && (value ^ old) & cr4::LA57 != 0
            || value & !old & cr4::PCIDE != 0 && (!ia32e || self.state.control.cr3 & 0xFFF != 0);
        if bad {
            return Err(refused());
        }
        self.state.control.cr4 = value;
        if value != old {
            self.tlb.flush_linear();
        }
        self.arm_breakpoints();
        self.changed_mode();
        Ok(())
    }

    fn changed_mode(&mut self) {
        self.attention = true;
        self.refresh_mode();
    }

    /// Writes XCR0 as XSETBV does.
    ///
    /// # Errors
    /// The event to inject. Nothing was changed.
    pub fn write_xcr0(&mut self, index: u32, value: u64) -> Result<(), Event> {
        const X87: u64 = 1;
        const SSE: u64 = 2;
        const AVX: u64 = 4;
        let bad = index != 0
            || value & X87 == 0
            || value & AVX != 0 && value & SSE == 0
            || value & !self.controls.xcr0_supported != 0;
        if bad {
            return Err(refused());
        }
        self.state.control.xcr0 = value;
        Ok(())
    }

    /// Reads an MSR that the CPU keeps.
    ///
    /// # Errors
    /// [`MsrError::NotKept`].
    pub fn read_msr(&self, index: u32) -> Result<u64, MsrError> {
        Ok(match index {
            msr::IA32_SYSENTER_CS => self.state.msrs.sysenter_cs,
            msr::IA32_SYSENTER_ESP => self.state.msrs.sysenter_esp,
            msr::IA32_SYSENTER_EIP => self.state.msrs.sysenter_eip,
            msr::IA32_PAT => self.state.msrs.pat,
            msr::IA32_XSS => self.state.msrs.xss,
            msr::IA32_EFER => self.state.control.efer,
            msr::IA32_STAR => self.state.msrs.star,
            msr::IA32_LSTAR => self.state.msrs.lstar,
            msr::IA32_CSTAR => self.state.msrs.cstar,
            msr::IA32_FMASK => self.state.msrs.fmask,
            msr::IA32_FS_BASE => self.state.segment(Seg::Fs).base,
            msr::IA32_GS_BASE => self.state.segment(Seg::Gs).base,
            msr::IA32_KERNEL_GSBASE => self.state.msrs.kernel_gs_base,
            msr::IA32_TSC_AUX => self.state.msrs.tsc_aux,
            _ => return Err(MsrError::NotKept),
        })
    }

    /// Writes an MSR that the CPU keeps, with the architecture's checks.
    ///
    /// # Errors
    /// [`MsrError`]. Nothing was changed.
    pub fn write_msr(&mut self, index: u32, value: u64) -> Result<(), MsrError> {
        let refuse = Err(MsrError::Refused(refused()));
        let canonical = self.canonical(value);
        match index {
            msr::IA32_LSTAR
            | msr::IA32_CSTAR
            | msr::IA32_FS_BASE
            | msr::IA32_GS_BASE
            | msr::IA32_KERNEL_GSBASE
            | msr::IA32_SYSENTER_ESP
            | msr::IA32_SYSENTER_EIP
                if !canonical =>
            {
                return refuse;
            }
            msr::IA32_SYSENTER_CS => self.state.msrs.sysenter_cs = value & 0xFFFF_FFFF,
            msr::IA32_SYSENTER_ESP => self.state.msrs.sysenter_esp = value,
            msr::IA32_SYSENTER_EIP => self.state.msrs.sysenter_eip = value,
            msr::IA32_PAT => {
                if value.to_le_bytes().iter().any(|memory_type| !matches!(memory_type, 0 | 1 | 4..=7)) {
                    return refuse;
                }
                self.state.msrs.pat = value;
            }
            msr::IA32_XSS if value == 0 => self.state.msrs.xss = value,
            msr::IA32_XSS => return refuse,
            msr::IA32_EFER => return self.write_efer(value).map_err(MsrError::Refused),
            msr::IA32_STAR => self.state.msrs.star = value,
            msr::IA32_LSTAR => self.state.msrs.lstar = value,
            msr::IA32_CSTAR => self.state.msrs.cstar = value,
            msr::IA32_FMASK if value >> 32 != 0 => return refuse,
            msr::IA32_FMASK => self.state.msrs.fmask = value,
            msr::IA32_FS_BASE => self.state.segment_mut(Seg::Fs).base = value,
            msr::IA32_GS_BASE => self.state.segment_mut(Seg::Gs).base = value,
            msr::IA32_KERNEL_GSBASE => self.state.msrs.kernel_gs_base = value,
            msr::IA32_TSC_AUX if value >> 32 != 0 => return refuse,
            msr::IA32_TSC_AUX => self.state.msrs.tsc_aux = value,
            _ => return Err(MsrError::NotKept),
        }
        Ok(())
    }

    fn write_efer(&mut self, value: u64) -> Result<(), Event> {
        const WRITABLE: u64 = efer::SCE | efer::LME | efer::NXE;
        let old = self.state.control.efer;
        let paging = self.state.control.cr0 & cr0::PG != 0;
        if value & !(WRITABLE | efer::LMA) != 0 || paging && (value ^ old) & efer::LME != 0 {
            return Err(refused());
        }
        self.state.control.efer = value & WRITABLE | old & efer::LMA;
        if (value ^ old) & efer::NXE != 0 {
            self.tlb.flush_linear();
        }
        self.changed_mode();
        Ok(())
    }

    /// Puts the result of an IN into AL, AX or EAX. Step over the instruction with [`Cpu::advance`].
    pub fn complete_in(&mut self, size: u8, value: u32) {
        let rax = self.state.gpr(Gpr::Rax);
        self.state.set_gpr(
            Gpr::Rax,
            match size {
                1 => rax & !0xFF | u64::from(value & 0xFF),
                2 => rax & !0xFFFF | u64::from(value & 0xFFFF),
                _ => u64::from(value),
            },
        );
    }
}
