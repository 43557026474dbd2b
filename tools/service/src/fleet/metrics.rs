//! The numbers of many processes as those of one.
//!
//! Workers give their numbers in the OpenMetrics form. Samples of one name and one set of labels are added up; of a metric that
//! says what something is (`info`) one is enough. What is named after a TD goes with its worker, the rest is kept.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

/// Metrics, added up.
#[derive(Clone, Debug, Default)]
pub(super) struct Sum {
    families: BTreeMap<String, Family>,
}

#[derive(Clone, Debug, Default)]
struct Family {
    /// The family's kind: counter, gauge, histogram, info.
    kind: String,
    help: String,
    /// Samples in the order in which they came first.
    samples: Vec<(String, f64)>,
}

impl Sum {
    /// Adds the numbers of a process. A line that is none is left out.
    pub(super) fn add(&mut self, text: &str) {
        let mut family = String::new();
        for line in text.lines() {
            if let Some(meta) = line.strip_prefix("# ") {
                let mut words = meta.splitn(3, ' ');
                let (Some(what), Some(name)) = (words.next(), words.next()) else { continue };
                let rest = words.next().unwrap_or_default().to_owned();
                family = name.to_owned();
                let entry = self.families.entry(family.clone()).or_default();
                match what {
                    "TYPE" => entry.kind = rest,
                    "HELP" => entry.help = rest,
                    _ => {}
                }
            } else if let Some((name, number)) = line.rsplit_once(' ')
                && let Ok(number) = number.parse::<f64>()
                && let Some(family) = self.families.get_mut(&family)
            {
                let is_info = family.kind == "info";
                match family.samples.iter_mut().find(|(other, _)| other == name) {
                    Some(_) if is_info => {}
                    Some((_, sum)) => *sum += number,
                    None => family.samples.push((name.to_owned(), number)),
                }
            }
        }
    }

    /// Takes away what is named after this TD, and gauges, which are of what there is.
    fn forget(&mut self, td: &str) {
        let label = format!("td=\"{td}\"");
        self.families.retain(|name, family| family.kind != "gauge" || name == "tdvisor_audit_mismatches");
        for family in self.families.values_mut() {
            family.samples.retain(|(name, _)| !name.contains(&label));
        }
    }

    /// All of it, with the number of TDs by their phase.
    pub(super) fn text(&self, phases: &BTreeMap<&'static str, u64>) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        for (name, Family { kind, help, samples }) in &self.families {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (sample, number) in samples {
                let _ = writeln!(text, "{sample} {number}");
            }
        }
        let name = "tdvisor_service_tds";
        let _ = writeln!(text, "# HELP {name} TDs of the service by their phase.\n# TYPE {name} gauge");
        for (phase, count) in phases {
            let _ = writeln!(text, "{name}{{phase=\"{phase}\"}} {count}");
        }
        text.push_str("# EOF\n");
        text
    }
}

/// The numbers of TDs that have ended.
#[derive(Debug, Default)]
pub(super) struct Totals(Mutex<Sum>);

impl Totals {
    /// Adds the last numbers of a TD.
    pub(super) fn add_gone(&self, td: &str, text: &str) {
        let mut sum = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut last = Sum::default();
        last.add(text);
        last.forget(td);
        sum.add(&last.text(&BTreeMap::new()));
        // What `text` adds of its own.
        sum.families.remove("tdvisor_service_tds");
    }

    /// A copy of them, to which those of TDs that run are added.
    pub(super) fn gone(&self) -> Sum {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "# HELP calls Calls.\n# TYPE calls counter\ncalls_total{leaf=\"A B\"} 2\n\
        # HELP bytes Bytes.\n# TYPE bytes gauge\nbytes{td=\"one\"} 5\n\
        # HELP exits Exits.\n# TYPE exits counter\nexits_total{td=\"one\"} 3\n\
        # HELP build What.\n# TYPE build info\nbuild_info{version=\"1\"} 1\n# EOF\n";

    #[test]
    fn numbers_of_one_name_are_added_up_and_what_something_is_is_not() {
        let mut sum = Sum::default();
        sum.add(ONE);
        sum.add(&ONE.replace("one", "two"));
        let text = sum.text(&BTreeMap::from([("running", 2)]));
        for line in [
            "calls_total{leaf=\"A B\"} 4",
            "bytes{td=\"one\"} 5",
            "bytes{td=\"two\"} 5",
            "build_info{version=\"1\"} 1",
            "tdvisor_service_tds{phase=\"running\"} 2",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in:\n{text}");
        }
        assert_eq!(text.matches("# TYPE calls counter").count(), 1);
        assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1);
    }

    #[test]
    fn of_a_td_that_is_gone_only_what_is_not_named_after_it_stays() {
        let totals = Totals::default();
        totals.add_gone("one", ONE);
        totals.add_gone("two", &ONE.replace("one", "two"));
        let text = totals.gone().text(&BTreeMap::new());
        assert!(text.contains("calls_total{leaf=\"A B\"} 4"), "{text}");
        assert!(!text.contains("td=\"") && !text.contains("bytes"), "{text}");
    }
}
