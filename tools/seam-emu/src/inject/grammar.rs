//! Plans as text, as `--inject` takes them.
//!
//! ```text
//! plan   = item { "," item }
//! item   = rule | "chaos:" SEED "/" ONE-IN
//! rule   = target "#" count "=" effect
//! target = ( LEAF | "*" ) [ "@" LP ]
//! count  = N | N ".." | N ".." M          counted from 1; M is the last one
//! effect = "irq" | STATUS [ ":" OPERAND | ":" DETAILS ]
//! ```
//!
//! LEAF, STATUS and OPERAND are the ABI's names: `TDH.MEM.PAGE.DEMOTE#1..3=INTERRUPTED_RESTARTABLE`,
//! `TDH.MEM.RANGE.BLOCK@1#2=OPERAND_BUSY:SEPT_TREE`, `chaos:7/100`.

use core::fmt;
use core::ops::RangeInclusive;
use core::str::FromStr;

use tdx_module_iface::{Operand, Status, StatusCode};

use super::{Chaos, Effect, FaultPlan, Leaf, Rule, Target};

/// What is wrong with a plan's text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlanError {
    /// The item at fault.
    pub item: String,
    /// What is wrong with it.
    pub problem: String,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fault plan item {:?}: {}", self.item, self.problem)
    }
}

impl std::error::Error for PlanError {}

/// Most items of a plan.
const MAX_ITEMS: usize = 1024;

impl FromStr for FaultPlan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let mut plan = Self::default();
        for (number, item) in text.split(',').map(str::trim).filter(|item| !item.is_empty()).enumerate() {
            let error = |problem: String| PlanError { item: item.to_owned(), problem };
            if number >= MAX_ITEMS {
                return Err(error(format!("more than {MAX_ITEMS} items")));
            }
            match item.strip_prefix("chaos:") {
                Some(chaos) => plan.chaos = Some(parse_chaos(chaos).map_err(error)?),
                None => plan.rules.push(rule(item).map_err(error)?),
            }
        }
        Ok(plan)
    }
}

fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("{text:?} is not a number"))
}

fn parse_chaos(text: &str) -> Result<Chaos, String> {
    let (seed, one_in) = text.split_once('/').ok_or("expected chaos:SEED/ONE-IN")?;
    let chaos = Chaos { seed: number(seed)?, one_in: number(one_in)? };
    if chaos.one_in == 0 { Err("one call in 0 cannot fail".to_owned()) } else { Ok(chaos) }
}

fn rule(item: &str) -> Result<Rule, String> {
    let expected = "expected LEAF[@LP]#COUNT=EFFECT";
    let (calls, effect) = item.split_once('=').ok_or(expected)?;
    let (target, count) = calls.split_once('#').ok_or(expected)?;
    Ok(Rule { target: parse_target(target)?, nth: parse_count(count)?, effect: parse_effect(effect)? })
}

fn parse_target(text: &str) -> Result<Target, String> {
    let (leaf, lp) = match text.split_once('@') {
        Some((leaf, lp)) => (leaf, Some(number(lp)? as usize)),
        None => (text, None),
    };
    let leaf = match leaf {
        "*" => None,
        name => Some(Leaf::from_name(name).ok_or_else(|| format!("there is no leaf {name:?}"))?),
    };
    Ok(Target { leaf, lp })
}

fn parse_count(text: &str) -> Result<RangeInclusive<u64>, String> {
    let range = match text.split_once("..") {
        None => {
            let only = number(text)?;
            only..=only
        }
        Some((first, "")) => number(first)?..=u64::MAX,
        Some((first, last)) => number(first)?..=number(last)?,
    };
    if *range.start() == 0 || range.is_empty() {
        return Err(format!("{text:?} matches no call: calls are counted from 1"));
    }
    Ok(range)
}

fn parse_effect(text: &str) -> Result<Effect, String> {
    if text == "irq" {
        return Ok(Effect::Interrupt);
    }
    let (code, details) = match text.split_once(':') {
        Some((code, details)) => (code, Some(details)),
        None => (text, None),
    };
    let code = StatusCode::ALL
        .iter()
        .find(|known| known.name() == Some(code))
        .ok_or_else(|| format!("there is no status {code:?}"))?;
    let details = match details {
        None => 0,
        Some(name) => match Operand::ALL.iter().find(|known| known.name() == Some(name)) {
            Some(operand) => operand.0,
            None => {
                u32::try_from(number(name)?).map_err(|_| format!("details {name} have more than 32 bits"))?
            }
        },
    };
    Ok(Effect::Return(Status::with_details(*code, details)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_says_in_words_what_is_wrong_with_it() {
        for (text, problem) in [
            ("TDH.MEM.PAGE.AUG", "expected LEAF"),
            ("TDH.NOTHING#1=irq", "no leaf"),
            ("*#0=irq", "counted from 1"),
            ("*#3..2=irq", "matches no call"),
            ("*#1=NO_SUCH_CODE", "no status"),
            ("*#1=OPERAND_BUSY:NOWHERE", "not a number"),
            ("chaos:1", "chaos:SEED"),
            ("chaos:1/0", "cannot fail"),
        ] {
            let error = text.parse::<FaultPlan>().unwrap_err();
            assert!(error.problem.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn all_parts_of_the_grammar_are_understood() {
        let plan: FaultPlan =
            "TDH.MEM.TRACK@2#1..=PREVIOUS_TLB_EPOCH_BUSY, *#0x10=OPERAND_BUSY:SEPT_TREE,chaos:9/50"
                .parse()
                .unwrap();
        assert_eq!(plan.rules.len(), 2);
        assert_eq!(plan.rules[0].target.lp, Some(2));
        assert_eq!(plan.rules[0].nth, 1..=u64::MAX);
        assert_eq!(plan.rules[1].effect, Effect::Return(Status::from_raw(0x8000_0200_0000_0092)));
        assert_eq!(plan.chaos, Some(Chaos { seed: 9, one_in: 50 }));
    }
}
