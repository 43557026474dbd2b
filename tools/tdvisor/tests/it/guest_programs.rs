//! Programs of a distribution run in a TD, and what an unprivileged process does to its processor ends the process at most.
//!
//! `tools/guests/programs/build.sh` makes the initrd from the machine's own Debian, `tools/guests/linux/distribution.sh` brings
//! the kernel, and `scripts/nightly` runs this test: python3, perl and gcc take minutes on a software CPU.

use crate::cli::tdvisor;
use tdvisor_test_data::linux;

#[test]
#[ignore = "needs tools/guests/programs/build.sh, distribution.sh and some minutes: scripts/nightly runs it"]
fn nightly_programs_of_a_distribution_give_their_known_answers() {
    let kernel = linux::find_distribution_kernel().unwrap_or_else(|missing| panic!("{missing}"));
    let initrd = linux::guest_programs().unwrap_or_else(|missing| panic!("{missing}"));
    let answer = tdvisor(&[
        "run",
        "--kernel",
        &kernel.display().to_string(),
        "--initrd",
        &initrd.display().to_string(),
        "--memory",
        "1G",
        "--cmdline",
        "console=ttyS0 panic=-1 quiet",
        "--timeout",
        "1800",
    ])
    .ends_with(0);
    let console = answer.stdout();
    let lines = || console.lines().map(str::trim);
    let wrong: Vec<&str> = lines().filter(|line| line.contains("FAILED")).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(lines().any(|line| line == "programs end"), "{console}");
    // The kernel found the XSAVE area to be what CPUID says: otherwise it does without it, and without protection keys.
    let begin = lines().find(|line| line.starts_with("programs begin, flags")).unwrap_or_default();
    assert!(begin.split(' ').any(|flag| flag == "pku"), "{begin}");
    let skipped: Vec<&str> =
        lines().filter(|line| line.starts_with("program ") && line.ends_with("skipped")).collect();
    assert!(skipped.is_empty(), "{skipped:#?}");
    for name in ["checks", "python3 hashlib", "perl POSIX", "dd", "gcc -O2", "rust", "go", "x86-64-v3"] {
        assert!(lines().any(|line| line == format!("program {name} ok")), "{name}: {console}");
    }
}
