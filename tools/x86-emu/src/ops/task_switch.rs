//! Task switches of 32-bit protected mode. A virtual machine never performs one: what is checked before its VM exit is checked
//! here, and its owner gets the rest (SDM vol. 3, "Treatment of Task Switches").

use crate::cpu::{Cpu, Env};
use crate::delivery::ext;
use crate::exits::{InstructionExit, TaskSwitch, TaskSwitchBy};
use crate::segments::{is_null, selector_code};
use crate::stop::{Step, Stop};
use x86_arch::{Event, vector};

/// Descriptor types of a TSS: bit 1 says busy, bit 3 says 32-bit.
const AVAILABLE: [u8; 2] = [1, 9];
const BUSY: [u8; 2] = [3, 11];
/// The least limits of a 16-bit and of a 32-bit TSS.
const LEAST_16: u32 = 0x2B;
const LEAST_32: u32 = 0x67;

impl Cpu {
    /// Leads to the task whose TSS this selector names, or to the exception that keeps it from being entered.
    pub(crate) fn switch_task(&mut self, env: &mut Env<'_>, selector: u16, by: TaskSwitchBy) -> Stop {
        match self.check_task(env, selector, &by) {
            Ok(()) => self.instruction_exit(InstructionExit::TaskSwitch(TaskSwitch { selector, by })),
            Err(stop) => stop,
        }
    }

    /// IRET with NT set: the task whose selector the present TSS links to.
    pub(super) fn return_task(&mut self, env: &mut Env<'_>) -> Stop {
        if self.state.tr.attributes.unusable() || self.state.tr.limit < 1 {
            let code = selector_code(self.state.tr.selector);
            return self.raise(Event::exception_with_code(vector::TS, code));
        }
        let linear = self.table_linear(self.state.tr.base);
        match self.load_system::<u16>(env, linear) {
            Ok(link) => self.switch_task(env, link, TaskSwitchBy::Iret),
            Err(stop) => stop,
        }
    }

    /// A return finds the task busy, and its faults are #TS; everything else finds it available.
    fn check_task(&mut self, env: &mut Env<'_>, selector: u16, by: &TaskSwitchBy) -> Step {
        let (wrong, kinds, ext) = match by {
            TaskSwitchBy::Iret => (vector::TS, BUSY, 0),
            TaskSwitchBy::Call | TaskSwitchBy::Jump => (vector::GP, AVAILABLE, 0),
            TaskSwitchBy::Gate(event) => (vector::GP, AVAILABLE, ext(event)),
        };
        let code = selector_code(selector) | ext;
        let wrong = Event::exception_with_code(wrong, code);
        let in_gdt = selector & 4 == 0 && u32::from(selector | 7) <= u32::from(self.state.gdtr.limit);
        if is_null(selector) || !in_gdt {
            return Err(self.raise(wrong));
        }
        let descriptor = self.descriptor(env, selector)?;
        let attributes = descriptor.attributes();
        if attributes.is_code_or_data() || !kinds.contains(&attributes.kind()) {
            return Err(self.raise(wrong));
        }
        if !attributes.present() {
            return Err(self.raise(Event::exception_with_code(vector::NP, code)));
        }
        let least = if attributes.kind() & 8 == 0 { LEAST_16 } else { LEAST_32 };
        if descriptor.limit() < least {
            return Err(self.raise(Event::exception_with_code(vector::TS, code)));
        }
        Ok(())
    }
}
