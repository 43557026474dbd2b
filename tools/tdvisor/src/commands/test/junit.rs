//! The results in JUnit's form: a suite for each target, a case for each point of its TAP, or one for the whole.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::target::{Outcome, Verdict};
use crate::outcome::Failure;

/// The report.
///
/// # Errors
/// It cannot be written, which would be a fault of this program.
pub fn report(outcomes: &[Outcome]) -> Result<String, Failure> {
    let mut report = Report::new("tdvisor");
    for outcome in outcomes {
        let mut suite = TestSuite::new(outcome.name.as_str());
        suite.set_time(outcome.time);
        for (name, holds) in outcome.tap().into_iter().flat_map(|tap| tap.points) {
            suite.add_test_case(case(&name, holds, "not ok"));
        }
        let mut whole = case("exit status", outcome.verdict == Verdict::Pass, &outcome.why());
        whole.set_time(outcome.time);
        whole.set_system_out(outcome.out.as_str());
        whole.set_system_err(outcome.err.as_str());
        suite.add_test_case(whole);
        report.add_test_suite(suite);
    }
    report.to_string().map_err(|error| Failure::Internal(format!("the JUnit report: {error}")))
}

fn case(name: &str, passed: bool, why: &str) -> TestCase {
    if passed {
        return TestCase::new(name, TestCaseStatus::success());
    }
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
    status.set_message(why);
    TestCase::new(name, status)
}
