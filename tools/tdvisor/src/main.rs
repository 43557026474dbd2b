//! `tdvisor`: run, measure, explain and verify TDs from one command line.
//!
//! This program only wires: arguments in, a crate's API called, text or JSON out, and an exit status that
//! scripts can use. Logic belongs to the crates below it.
//!
//! A new subcommand is one file in `commands/` (its clap `Args` and `fn run(Args) -> Result<Status, Failure>`)
//! and one variant of [`Command`].

// A print macro panics when nobody reads, and cannot be told to give up: `streams` has what to use.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod commands;
mod files;
mod guest_log;
mod outcome;
mod read_bounded;
mod streams;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use outcome::Failure;

/// A confidential-computing (Intel TDX) hypervisor with an emulated TDX module.
///
/// Without a subcommand, `tdvisor` runs the built-in `hello-td` guest.
#[derive(Debug, Parser)]
#[command(name = "tdvisor", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What `tdvisor` can be asked to do.
#[derive(Debug, Subcommand)]
enum Command {
    AttestServe(commands::attest_serve::Args),
    Collateral(commands::collateral::Args),
    Completions(commands::completions::Args),
    Conformance(commands::conformance::Args),
    Decode(commands::decode::Args),
    Doctor(commands::doctor::Args),
    Dump(commands::dump::Args),
    Eventlog(commands::eventlog::Args),
    Image(commands::image::Args),
    KvmSelftest(commands::kvm_selftest::Args),
    List(commands::list::Args),
    Man(commands::man::Args),
    Measure(commands::measure::Args),
    Quote(commands::quote::Args),
    Run(Box<commands::run::Args>),
    Serve(commands::serve::Args),
    ServeWorker(commands::serve_worker::Args),
    Server(commands::server::Args),
    Test(commands::test::Args),
    Verify(commands::verify::Args),
    Version(commands::version::Args),
    Vmm(commands::vmm::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse_from(with_run(with_vmm(std::env::args_os().collect())));
    let result: Result<outcome::Status, Failure> = match cli.command {
        Command::AttestServe(args) => commands::attest_serve::run(args),
        Command::Collateral(args) => commands::collateral::run(args),
        Command::Completions(args) => commands::completions::run(args, Cli::command()),
        Command::Conformance(args) => commands::conformance::run(args),
        Command::Decode(args) => commands::decode::run(args),
        Command::Doctor(args) => commands::doctor::run(args),
        Command::Dump(args) => commands::dump::run(args),
        Command::Eventlog(args) => commands::eventlog::run(args),
        Command::Image(args) => commands::image::run(args),
        Command::KvmSelftest(args) => commands::kvm_selftest::run(args),
        Command::List(args) => commands::list::run(args),
        Command::Man(args) => commands::man::run(args, Cli::command()),
        Command::Measure(args) => commands::measure::run(args),
        Command::Quote(args) => commands::quote::run(args),
        Command::Run(args) => commands::run::run(*args),
        Command::Serve(args) => commands::serve::run(args),
        Command::ServeWorker(args) => commands::serve_worker::run(args),
        Command::Server(args) => commands::server::run(args),
        Command::Test(args) => commands::test::run(args),
        Command::Verify(args) => commands::verify::run(args),
        Command::Version(args) => commands::version::run(args),
        Command::Vmm(args) => commands::vmm::run(args),
    };
    outcome::report(result)
}

/// What clients of Cloud Hypervisor call the program that they start.
const OF_CLIENTS: &str = "cloud-hypervisor";

/// Puts the word `vmm` where a client starts this program by the name of its own.
fn with_vmm(mut arguments: Vec<OsString>) -> Vec<OsString> {
    if arguments.first().is_some_and(|name| Path::new(name).file_name() == Some(OF_CLIENTS.as_ref())) {
        arguments.insert(1, "vmm".into());
    }
    arguments
}

/// Puts the word `run` where its user left it out: before options of it, an image, and nothing at all.
fn with_run(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let is_of_run = arguments.get(1).is_none_or(|first| {
        let text = first.to_string_lossy();
        let is_known = Cli::command().get_subcommands().any(|command| command.get_name() == text);
        if text.starts_with('-') {
            !matches!(&*text, "-h" | "--help" | "-V" | "--version")
        } else {
            !is_known && text != "help" && (commands::run::is_guest(&text) || Path::new(first).is_file())
        }
    });
    if is_of_run {
        arguments.insert(arguments.len().min(1), "run".into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> String {
        let arguments = with_run(text.split_whitespace().map(OsString::from).collect());
        arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_word_run_can_be_left_out() {
        assert_eq!(words("tdvisor"), "tdvisor run");
        assert_eq!(words("tdvisor --vcpus 2"), "tdvisor run --vcpus 2");
        assert_eq!(words("tdvisor hello-td --json"), "tdvisor run hello-td --json");
        assert_eq!(words("tdvisor -q"), "tdvisor run -q");
        for whole in
            ["tdvisor run --vcpus 2", "tdvisor --help", "tdvisor -V", "tdvisor help run", "tdvisor rnu"]
        {
            assert_eq!(words(whole), whole);
        }
    }

    #[test]
    fn a_client_that_calls_this_program_cloud_hypervisor_means_the_vmm() {
        let called = |name: &str| with_vmm(vec![name.into(), "--api-socket".into()]).len();
        assert_eq!(["/usr/bin/cloud-hypervisor", "cloud-hypervisor", "tdvisor"].map(called), [3, 3, 2]);
    }

    #[test]
    fn the_arguments_are_sound() {
        Cli::command().debug_assert();
    }
}
