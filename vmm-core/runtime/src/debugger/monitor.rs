//! `monitor` commands: what gdb has no register for.

use seam_emu::guest::debug::DebugPort;
use x86_arch::{CpuState, Seg};

use super::Words;

/// Answers a command about processors.
pub(super) fn answer(command: &str, port: &DebugPort, lps: &[usize], named: Words) -> String {
    let mut words = command.split_whitespace();
    match (words.next(), words.next()) {
        (Some("vcpus" | "cpus"), None) => processors(port, lps, named),
        (Some("registers"), number) => {
            let index = number.map_or(Some(0), |text| text.parse::<usize>().ok());
            let state = index.and_then(|index| lps.get(index)).and_then(|lp| port.state(*lp));
            state.map_or_else(
                || format!("no such {}, or it has not run yet\n", named.one),
                |state| registers(&state),
            )
        }
        _ => format!(
            "monitor cpus           where each {0} is\n\
             monitor registers [N]  control, descriptor-table, debug and model-specific registers of {0} N\n",
            named.one
        ),
    }
}

fn processors(port: &DebugPort, lps: &[usize], named: Words) -> String {
    let line = |(index, lp): (usize, &usize)| {
        let rip = port
            .state(*lp)
            .map_or_else(|| "has not run yet".to_owned(), |state| format!("rip {:#x}", state.rip()));
        let Words { one, inside, outside } = named;
        if port.is_parked(*lp) {
            format!("{one} {index}: {rip}, {inside}\n")
        } else {
            format!("{one} {index}: {rip}, {outside}: registers can be read only\n")
        }
    };
    lps.iter().enumerate().map(line).collect()
}

fn registers(state: &CpuState) -> String {
    let (control, msrs, debug) = (&state.control, &state.msrs, &state.debug);
    let mut text = String::new();
    let mut values = |pairs: &[(&str, u64)]| {
        let line: Vec<_> = pairs.iter().map(|(name, value)| format!("{name} {value:#x}")).collect();
        text.push_str(&line.join("  "));
        text.push('\n');
    };
    values(&[("cr0", control.cr0), ("cr2", control.cr2), ("cr3", control.cr3)]);
    values(&[("cr4", control.cr4), ("cr8", control.cr8), ("xcr0", control.xcr0)]);
    values(&[("efer", control.efer), ("pkru", u64::from(state.pkru)), ("cpl", u64::from(state.cpl()))]);
    values(&[("gdt", state.gdtr.base), ("limit", u64::from(state.gdtr.limit))]);
    values(&[("idt", state.idtr.base), ("limit", u64::from(state.idtr.limit))]);
    values(&[("tr", u64::from(state.tr.selector)), ("base", state.tr.base)]);
    values(&[("fs base", state.segment(Seg::Fs).base), ("gs base", state.segment(Seg::Gs).base)]);
    values(&[("star", msrs.star), ("lstar", msrs.lstar), ("fmask", msrs.fmask)]);
    values(&[("kernel gs base", msrs.kernel_gs_base), ("tsc aux", msrs.tsc_aux), ("pat", msrs.pat)]);
    values(&[("xss", msrs.xss), ("debugctl", msrs.debugctl), ("spec ctrl", msrs.spec_ctrl)]);
    let [dr0, dr1, dr2, dr3] = debug.address;
    values(&[("dr0", dr0), ("dr1", dr1), ("dr2", dr2), ("dr3", dr3)]);
    values(&[("dr6", debug.dr6), ("dr7", debug.dr7)]);
    text
}
