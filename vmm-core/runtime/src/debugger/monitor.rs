//! `monitor` commands: what gdb has no register for.

use std::fmt::Display;

use seam_emu::guest::debug::{Catch, Catches, DebugPort, StopReason};
use tdx_module_iface::TdhLeaf;
use tdx_module_iface::exit::ExitReason;
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
        (Some("catch"), what) => catch(what, words.collect::<Vec<_>>().join(" ").as_str(), port),
        (Some("why"), None) => format!("{}\n", why(port, lps, named)),
        _ => format!(
            "monitor cpus           where each {0} is\n\
             monitor registers [N]  control, descriptor-table, debug and model-specific registers of {0} N\n\
             monitor catch WHAT     stop at 'exits' of a TD (but interrupts), 'exit NAME|NUMBER', 'seamcalls', 'seamcall LEAF'; or 'nothing'\n\
             monitor why            what stopped it last\n",
            named.one
        ),
    }
}

/// Changes what is caught, and says what is.
fn catch(what: Option<&str>, of: &str, port: &DebugPort) -> String {
    let now = port.catches();
    let next = match (what, of) {
        (Some("nothing"), "") => Some(Catches::default()),
        (Some("exits"), "") => Some(Catches { exits: Catch::All, ..now }),
        (Some("exit"), of) => exit_of(of).map(|reason| Catches { exits: Catch::Only(reason), ..now }),
        (Some("seamcalls"), "") => Some(Catches { calls: Catch::All, ..now }),
        (Some("seamcall"), of) => leaf_of(of).map(|leaf| Catches { calls: Catch::Only(leaf), ..now }),
        (None, _) => Some(now),
        _ => None,
    };
    let Some(next) = next else { return "neither an exit nor a SEAMCALL, by name or number\n".to_owned() };
    port.set_catches(next);
    format!("caught: exits: {}; SEAMCALLs: {}\n", caught(next.exits), caught(next.calls))
}

fn caught<T: Display>(catch: Catch<T>) -> String {
    match catch {
        Catch::None => "none".to_owned(),
        Catch::All => "all".to_owned(),
        Catch::Only(only) => only.to_string(),
    }
}

fn number(text: &str) -> Option<u16> {
    match text.strip_prefix("0x") {
        Some(digits) => u16::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// A basic exit reason by its name, in letters of either case, or its number.
fn exit_of(text: &str) -> Option<ExitReason> {
    let named = ExitReason::ALL.iter().find(|reason| reason.to_string().eq_ignore_ascii_case(text));
    named.copied().or_else(|| number(text).map(ExitReason))
}

fn leaf_of(text: &str) -> Option<TdhLeaf> {
    TdhLeaf::from_name(&text.to_ascii_uppercase()).or_else(|| number(text).map(TdhLeaf))
}

/// What the last stop was.
fn why(port: &DebugPort, lps: &[usize], named: Words) -> String {
    let Some(stop) = port.last_stop() else { return "nothing has stopped it yet".to_owned() };
    let who = match lps.iter().position(|lp| *lp == stop.lp) {
        Some(index) => format!("{} {index}", named.one),
        None => format!("LP {}", stop.lp),
    };
    match stop.reason {
        StopReason::Point(point) => format!("{who}: a point at {:#x}", point.address),
        StopReason::Step => format!("{who}: its step was done"),
        StopReason::TripleFault => format!("{who}: a triple fault"),
        StopReason::Unimplemented => format!("{who}: an instruction that the emulator does not have"),
        StopReason::Exit(reason) => format!("{who} left its guest: {reason}"),
        StopReason::Call(leaf) => format!("the host called the module on {who}: {leaf}"),
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
