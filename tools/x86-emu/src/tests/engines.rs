//! The tests of this crate, once more with the other engine.

use std::process::Command;

use crate::engine::EngineKind;

const ENGINE: &str = "X86_EMU_ENGINE";

/// Every test that runs a machine, with everything compiled before it runs.
#[test]
fn the_compiler_passes_the_tests_of_the_interpreter() {
    if std::env::var_os(ENGINE).is_some() {
        return;
    }
    let this = std::env::current_exe().expect("this program");
    let output = Command::new(this)
        .args(["tests::", "--skip", "softfloat"])
        .env(ENGINE, EngineKind::Compiler.name())
        .output()
        .expect("this program again");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
