//! What happens to a TD, as JSON lines for programs that watch it.
//!
//! # Form
//! One JSON object a line, with `event`, its name, and `seconds`, the machine's time since it was switched on: virtual time
//! in a deterministic run, which therefore gives the same lines every time.
//!
//! | event | with |
//! |---|---|
//! | `booted` | `schema`, the version of this form; `vcpus`; `backend`: `emulated` or `kvm`; `inspectable`: whether somebody may look into the TD, which nobody may into one of KVM |
//! | `paused`, `resumed` | |
//! | `conversion` | `vcpu`, `gpa`, `bytes`, and `to`: `private` or `shared` |
//! | `quote` | `vcpu`; `bytes` of the quote, or `error` |
//! | `powered-off` | `code` |
//! | `panicked`, `reset`, `stopped` | |
//! | `fatal-error` | `code`, and what the guest says: `message` |
//! | `died` | `reason` |
//!
//! One of the last six is the last line. Fields may be added; what is there keeps its meaning while `schema` is the same.

use std::fmt::Display;
use std::time::Duration;

use serde_json::{Value, json};
use tdvisor_base::Side;
use tdvisor_vm::Ending;

use crate::backend::BackendKind;
use crate::drive::Happening;
use crate::dump::Secrecy;

/// The version of the form.
pub const SCHEMA: u32 = 1;

/// The line of a TD whose vCPUs are about to run.
pub fn booted(vcpus: u32, backend: BackendKind, secrecy: Secrecy, at: Duration) -> String {
    let inspectable = secrecy == Secrecy::Inspectable;
    let value = json!({
        "event": "booted",
        "schema": SCHEMA,
        "vcpus": vcpus,
        "backend": backend,
        "inspectable": inspectable,
    });
    line(value, at)
}

/// The line of something that happened while a TD runs.
pub fn happened(happening: &Happening, at: Duration) -> String {
    let value = match happening {
        Happening::Paused => json!({"event": "paused"}),
        Happening::Resumed => json!({"event": "resumed"}),
        Happening::Converted(conversion) => json!({
            "event": "conversion",
            "vcpu": conversion.vcpu,
            "gpa": format!("{:#x}", conversion.gpa.get()),
            "bytes": conversion.bytes,
            "to": match conversion.to {
                Side::Private => "private",
                Side::Shared => "shared",
            },
        }),
        Happening::Quoted { vcpu, quote: Ok(bytes) } => {
            json!({"event": "quote", "vcpu": vcpu, "bytes": bytes})
        }
        Happening::Quoted { vcpu, quote: Err(error) } => {
            json!({"event": "quote", "vcpu": vcpu, "error": error.to_string()})
        }
    };
    line(value, at)
}

/// The last line.
pub fn ended<D: Display>(ending: &Ending<D>, at: Duration) -> String {
    let value = match ending {
        Ending::PoweredOff { code } => json!({"event": "powered-off", "code": code}),
        Ending::FatalError { code, message } => {
            json!({"event": "fatal-error", "code": code, "message": message})
        }
        Ending::Died(death) => json!({"event": "died", "reason": death.to_string()}),
        Ending::Reset => json!({"event": "reset"}),
        Ending::Panicked => json!({"event": "panicked"}),
        Ending::Stopped => json!({"event": "stopped"}),
    };
    line(value, at)
}

fn line(mut value: Value, at: Duration) -> String {
    value["seconds"] = json!(at.as_secs_f64());
    format!("{value}\n")
}

#[cfg(test)]
mod tests {
    use tdvisor_base::Gpa;
    use tdvisor_monitor::{Conversion, QuoteUnavailable};

    use super::*;

    const AT: Duration = Duration::from_millis(1500);

    fn parsed(line: &str) -> Value {
        assert_eq!(line.find('\n'), Some(line.len() - 1), "one line");
        serde_json::from_str(line).unwrap()
    }

    #[test]
    fn every_event_is_one_line_with_its_name_and_its_time() {
        let conversion = Conversion { vcpu: 1, gpa: Gpa::new(0x1000), bytes: 0x2000, to: Side::Shared };
        let refused = Happening::Quoted { vcpu: 0, quote: Err(QuoteUnavailable::Service) };
        let message = "a \"message\"\nof two lines".to_owned();
        let fatal: Ending<String> = Ending::FatalError { code: 1, message };
        for (line, name) in [
            (booted(2, BackendKind::Emulated, Secrecy::Inspectable, AT), "booted"),
            (happened(&Happening::Paused, AT), "paused"),
            (happened(&Happening::Resumed, AT), "resumed"),
            (happened(&Happening::Converted(conversion), AT), "conversion"),
            (happened(&Happening::Quoted { vcpu: 0, quote: Ok(5) }, AT), "quote"),
            (happened(&refused, AT), "quote"),
            (ended(&fatal, AT), "fatal-error"),
            (ended(&Ending::<String>::PoweredOff { code: 3 }, AT), "powered-off"),
            (ended(&Ending::Died("of a reason"), AT), "died"),
            (ended(&Ending::<String>::Reset, AT), "reset"),
            (ended(&Ending::<String>::Panicked, AT), "panicked"),
            (ended(&Ending::<String>::Stopped, AT), "stopped"),
        ] {
            let value = parsed(&line);
            assert_eq!((&value["event"], &value["seconds"]), (&json!(name), &json!(1.5)));
        }
        let value = parsed(&happened(&Happening::Converted(conversion), AT));
        assert_eq!((&value["gpa"], &value["to"]), (&json!("0x1000"), &json!("shared")));
        let value = parsed(&booted(2, BackendKind::Kvm, Secrecy::Kept, AT));
        assert_eq!((&value["backend"], &value["inspectable"]), (&json!("kvm"), &json!(false)));
    }
}
