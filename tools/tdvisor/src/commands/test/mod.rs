//! `tdvisor test`: several kernels, images and commands, one after the other, and a table of what passed.

mod ci;
mod junit;
mod plan;
mod sarif;
mod target;

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::files::{Claims, Output};
use crate::outcome::{Failure, Status};
use crate::streams::{print, say_at_the_end};
use plan::Plan;
use target::{Outcome, Verdict};

/// Run the targets of a plan, each as `tdvisor run` would, and tell which passed.
///
/// The plan is a TOML file with a table `[[target]]` for each: `name`, then `kernel`, `initrd`, `cmdline`, `append`, `copy`,
/// `image`, `firmware-command`, `memory`, `vcpus`, `profile`, `deterministic` as the options of `run`; `command` (a list of
/// words, or a text for sh); `expect`, the exit status that passes (0); `timeout` in seconds (600). Relative paths are of the
/// plan's folder. Where a CI says that it is one (GITHUB_ACTIONS, GITHUB_STEP_SUMMARY), failures become annotations
/// and the table goes into its summary.
///
/// Exit status: 0 all targets passed, 1 one did not, 2 the plan cannot be used, 6 a report could not be written.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The plan.
    #[arg(default_value = "tdvisor.toml", value_name = "FILE")]
    plan: PathBuf,
    /// Run only the target of this name; may be repeated.
    #[arg(long, value_name = "NAME")]
    target: Vec<String>,
    /// Also write the results to FILE, in JUnit's form. A command that prints TAP has a test case for each of its points.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Also write what failed to FILE, in SARIF, each at the line of the plan where its target begins.
    #[arg(long, value_name = "FILE")]
    sarif: Option<PathBuf>,
    /// Print the table as JSON.
    #[arg(long)]
    json: bool,
    /// Print the output of targets that passed, too.
    #[arg(short, long)]
    verbose: bool,
}

/// The version of the JSON form, `schemas/test.schema.json`.
const JSON_SCHEMA: u32 = 1;

/// Runs the targets.
pub fn run(args: Args) -> Result<Status, Failure> {
    let mut claims = Claims::new();
    claims.reads("the plan", &args.plan)?;
    args.junit.as_deref().map_or(Ok(()), |junit| claims.writes("--junit", junit))?;
    args.sarif.as_deref().map_or(Ok(()), |sarif| claims.writes("--sarif", sarif))?;
    let plan = Plan::load(&args.plan)?.only(&args.target)?;
    let junit = args.junit.as_deref().map(Output::open).transpose()?;
    let sarif = args.sarif.as_deref().map(Output::open).transpose()?;

    let mut outcomes = Vec::new();
    for target in &plan.targets {
        let outcome = target::run(target, &plan.folder)?;
        if !args.json {
            print(&line(&outcome))?;
        }
        if outcome.verdict != Verdict::Pass || args.verbose {
            say_at_the_end(outcome.excerpt().trim_end());
        }
        ci::annotate(&outcome);
        outcomes.push(outcome);
    }
    let passed = outcomes.iter().filter(|outcome| outcome.verdict == Verdict::Pass).count();
    if args.json {
        print(&format!("{:#}\n", to_json(&outcomes)))?;
    } else {
        print(&format!("{passed} of {} targets passed\n", outcomes.len()))?;
    }
    ci::summarise(&outcomes);
    if let Some(file) = junit {
        file.write(junit::report(&outcomes)?.as_bytes())?;
    }
    if let Some(file) = sarif {
        file.write(format!("{:#}\n", sarif::log(&args.plan, &outcomes)).as_bytes())?;
    }
    Ok(if passed == outcomes.len() { Status::Success } else { Status::Negative })
}

fn line(outcome: &Outcome) -> String {
    let seconds = outcome.time.as_secs_f64();
    format!("{}  {:<24} {seconds:>7.1} s  {}\n", outcome.verdict.word(), outcome.name, outcome.why())
}

fn to_json(outcomes: &[Outcome]) -> Value {
    let targets: Vec<_> = outcomes
        .iter()
        .map(|outcome| {
            json!({
                "name": outcome.name,
                "verdict": outcome.verdict.word().to_lowercase(),
                "status": outcome.status,
                "expected": outcome.expected,
                "seconds": outcome.time.as_secs_f64(),
                "tap": outcome.tap().map(|tap| json!({"points": tap.points.len(), "failed": tap.failed()})),
            })
        })
        .collect();
    json!({"schema": JSON_SCHEMA, "targets": targets})
}
