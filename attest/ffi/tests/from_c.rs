//! The library from C: a program is compiled against the header, linked with the static library, and run.

use std::path::{Path, PathBuf};
use std::process::Command;

use tdvisor_attest::UnixSeconds;
use tdvisor_attest::issue::{CollateralSpec, PlatformSpec, QuoteBody, QuoteSpec, TestPlatform};
use tdvisor_attest::quote::{CertificationType, TdAttributes, TdReport10, TeeType};
use zerocopy::FromZeros;

/// 2026-07-01.
const AT: UnixSeconds = UnixSeconds(1_782_864_000);

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn scratch(name: &str, contents: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, contents).expect("a file can be written");
    path
}

/// The static library beside this test's own program.
fn library() -> PathBuf {
    let test = std::env::current_exe().expect("this program has a path");
    let library = test.with_file_name("libtdvisor_attest_ffi.a");
    assert!(library.exists(), "cargo builds it with the crate: {}", library.display());
    library
}

#[test]
fn a_c_program_verifies_a_quote_and_learns_what_is_wrong_with_others() {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("from_c");
    let compiled = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I"])
        .arg(source("include"))
        .arg(source("tests/from_c.c"))
        .arg(library())
        .args(["-lpthread", "-ldl", "-lm", "-o"])
        .arg(&program)
        .output()
        .expect("a C compiler, which links Rust programs too");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));

    let platform = TestPlatform::new([5; 32], PlatformSpec::default());
    let td = TdReport10 {
        td_attributes: TdAttributes::from_bits(TdAttributes::SEPT_VE_DISABLE),
        ..TdReport10::new_zeroed()
    };
    let quote = platform.quote(&QuoteBody::Td10(td), &QuoteSpec::default()).expect("a quote");
    let spec = CollateralSpec::up_to_date(platform.spec(), TeeType::TDX, &[0; 16], 4, AT);
    let collateral = platform.collateral(&spec, CertificationType::PCK_CHAIN).to_json();
    let ran = Command::new(&program)
        .arg(scratch("quote.bin", &quote))
        .arg(scratch("collateral.json", collateral.as_bytes()))
        .arg(scratch("root.pem", platform.pki().root_pem().as_bytes()))
        .arg(AT.0.to_string())
        .output()
        .expect("the program starts");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

/// What is between `before` and `after` wherever both are on a line.
fn names<'a>(text: &'a str, before: &str, after: char) -> Vec<&'a str> {
    let mut names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once(before)?.1.split_once(after).map(|(name, _)| name))
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn the_header_declares_what_the_library_exports_and_nothing_else() {
    let header = std::fs::read_to_string(source("include/tdvisor_attest.h")).expect("the header");
    let border = std::fs::read_to_string(source("src/abi.rs")).expect("the source");
    let exported = names(&border, "extern \"C\" fn ", '(');
    let code = header.lines().filter(|line| !line.trim_start().starts_with(['*', '/']));
    let declared: String = code.collect::<Vec<_>>().join("\n");
    let mut declared: Vec<&str> = declared
        .split(|char: char| !char.is_ascii_alphanumeric() && char != '_' && char != '(')
        .filter_map(|word| word.split_once('(').map(|(name, _)| name))
        .filter(|name| name.starts_with("tdvisor_"))
        .collect();
    declared.sort_unstable();
    assert_eq!(declared, exported);
    assert!(header.contains(&format!("#define TDVISOR_ATTEST_ABI {}", tdvisor_attest_ffi::abi::ABI)));
    use tdvisor_attest_ffi::Outcome;
    for (name, outcome) in [
        ("ACCEPTED", Outcome::Accepted),
        ("REJECTED", Outcome::Rejected),
        ("UNUSABLE", Outcome::Unusable),
        ("FAULT", Outcome::Fault),
    ] {
        let line = format!("#define TDVISOR_{name} {} ", outcome as i32);
        assert!(header.contains(&line), "{line}");
    }
}
