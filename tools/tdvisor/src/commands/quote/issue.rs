//! `tdvisor quote issue`: a quote of the test PKI, with collateral and root.

use std::path::PathBuf;

use clap::ValueEnum;
use tdvisor_attest::collateral::{Bundle, TcbStatus};
use tdvisor_attest::issue::{CollateralSpec, PlatformSpec, QuoteBody, QuoteSpec, Role, TestPlatform};
use tdvisor_attest::quote::{CertificationType, EnclaveReport, TdAttributes, TeeType};
use tdvisor_attest::report::{TdReport, ToQuoteBody};
use tdvisor_attest::{UnixSeconds, Validity};

use crate::commands::verify::inputs::{now, parse_time, read};
use crate::files::{Claims, Output};
use crate::outcome::{Failure, Status};
use crate::streams::print;

/// Issue a quote from the test PKI, with the collateral that verifies it.
///
/// The same seed gives the same keys. Nothing but a verifier that is told to (`tdvisor verify --test-root`)
/// trusts what comes out.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to write the quote.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Where to write the collateral, as one bundle.
    #[arg(long, value_name = "FILE")]
    collateral: PathBuf,
    /// Where to write the test root (PEM).
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// A TDREPORT (1024 bytes) to quote; its hashes must hold. Without it, a made-up TD or enclave is quoted.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// What the quote speaks for.
    #[arg(long, value_enum, default_value_t = Body::Td10)]
    body: Body,
    /// Quote version: 3 or 4 for `sgx`, 4 for `td10`, 5 for all. Default: the oldest that carries the body.
    #[arg(long, value_name = "VERSION")]
    quote_version: Option<u16>,
    /// When the collateral is issued: seconds since 1970 or YYYY-MM-DDThh:mm:ssZ. Default: now.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    at: Option<UnixSeconds>,
    /// For how many days the collateral is valid.
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    days: u32,
    /// TCB status of the platform, as the collateral names it.
    #[arg(long, value_name = "STATUS", default_value = "UpToDate", value_parser = parse_status)]
    status: TcbStatus,
    /// Evaluation number of TCB info and QE identity.
    #[arg(long, value_name = "NUMBER", default_value_t = 17)]
    evaluation_number: u32,
    /// Advisories of the platform's TCB level; may be given more than once.
    #[arg(long, value_name = "ID")]
    advisory: Vec<String>,
    /// Revoke a certificate; may be given more than once.
    #[arg(long, value_enum)]
    revoke: Vec<Revoke>,
    /// Bytes of QE authentication data.
    #[arg(long, value_name = "BYTES", default_value_t = 32)]
    qe_auth: u16,
    /// Type of the certification data, 1 to 5.
    #[arg(long, value_name = "TYPE", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=5))]
    certification: u16,
    /// Zero bytes after the quote.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    padding: u16,
    /// Makes another PKI.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Body {
    Sgx,
    Td10,
    Td15,
    Td15ex,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Revoke {
    Pck,
    PckCa,
    TcbSigner,
}

fn parse_status(name: &str) -> Result<TcbStatus, String> {
    TcbStatus::from_name(name)
        .filter(|status| status.is_of_platform())
        .ok_or_else(|| "not a status that a platform's TCB level can have".to_string())
}

pub fn run(args: Args) -> Result<Status, Failure> {
    let at = args.at.map_or_else(now, Ok)?;
    let mut claims = Claims::new();
    if let Some(report) = &args.report {
        claims.reads("--report", report)?;
    }
    let [out, collateral_file, root] =
        [("--out", &args.out), ("--collateral", &args.collateral), ("--root", &args.root)]
            .map(|(what, path)| claims.writes(what, path).and_then(|()| Output::open(path)));
    let (out, collateral_file, root) = (out?, collateral_file?, root?);
    let report = match &args.report {
        Some(path) => {
            let bytes = read(path)?;
            let report = TdReport::from_bytes(&bytes)
                .and_then(|report| report.check_hashes().map(|()| *report))
                .map_err(|error| Failure::input(path.display(), error))?;
            Some(report)
        }
        None => None,
    };
    let body = body(args.body, report)?;
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&args.seed.to_le_bytes());
    let platform = TestPlatform::new(seed, PlatformSpec::default());
    let spec = QuoteSpec {
        version: args.quote_version.unwrap_or(match args.body {
            Body::Sgx => 3,
            Body::Td10 => 4,
            Body::Td15 | Body::Td15ex => 5,
        }),
        qe_auth: (0..args.qe_auth).map(|at| at as u8).collect(),
        certification: CertificationType(args.certification),
        padding: usize::from(args.padding),
        ..QuoteSpec::default()
    };
    let quote = platform.quote(&body, &spec).map_err(|error| Failure::input("quote", error))?;
    let bundle = collateral(&args, &platform, &body, &spec, at);
    out.write(&quote)?;
    collateral_file.write(bundle.to_json().as_bytes())?;
    root.write(platform.pki().root_pem().as_bytes())?;
    print(&format!(
        "{}: test quote of version {}, verify it with --collateral {} --test-root {} --at {}\n",
        args.out.display(),
        spec.version,
        args.collateral.display(),
        args.root.display(),
        at
    ))?;
    Ok(Status::Success)
}

/// The body of a report, or of a made-up TD or enclave.
fn body(kind: Body, report: Option<TdReport>) -> Result<QuoteBody, Failure> {
    if kind == Body::Sgx {
        return match report {
            Some(_) => Err(Failure::input("--report", "a TDREPORT cannot become an SGX quote")),
            None => Ok(QuoteBody::Sgx(made_up_enclave())),
        };
    }
    let report = report.unwrap_or_else(made_up_td);
    Ok(match kind {
        Body::Td15 => QuoteBody::Td15(report.to_td15()),
        Body::Td15ex => QuoteBody::Td15Ex(report.to_td15_ex()),
        Body::Sgx | Body::Td10 => QuoteBody::Td10(report.to_td10()),
    })
}

fn made_up_td() -> TdReport {
    let mut report = TdReport::zeroed();
    report.tee_tcb_info.tee_tcb_svn = [5, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    report.tee_tcb_info.tee_tcb_svn2 = report.tee_tcb_info.tee_tcb_svn;
    report.td_info.attributes = TdAttributes::from_bits(TdAttributes::SEPT_VE_DISABLE);
    report
}

fn made_up_enclave() -> EnclaveReport {
    let mut report = EnclaveReport::zeroed();
    // INIT and MODE64BIT.
    report.attributes[0] = 5;
    report
}

fn collateral(
    args: &Args,
    platform: &TestPlatform,
    body: &QuoteBody,
    quote: &QuoteSpec,
    at: UnixSeconds,
) -> Bundle {
    let (tee, svn) = match body {
        QuoteBody::Sgx(_) => (TeeType::SGX, [0; 16]),
        QuoteBody::Td10(td) => (TeeType::TDX, td.tee_tcb_svn),
        QuoteBody::Td15(td) => (TeeType::TDX, td.base.tee_tcb_svn),
        QuoteBody::Td15Ex(td) => (TeeType::TDX, td.base.base.tee_tcb_svn),
    };
    let mut spec = CollateralSpec::up_to_date(platform.spec(), tee, &svn, quote.qe_isv_svn, at);
    let until = at.0.saturating_add(u64::from(args.days) * 86_400);
    spec.json_validity = Validity { from: at, until: UnixSeconds(until) };
    spec.crl_validity = spec.json_validity;
    spec.evaluation_number = args.evaluation_number;
    for level in &mut spec.levels {
        level.status = args.status;
        level.advisories.clone_from(&args.advisory);
    }
    spec.revoked = args
        .revoke
        .iter()
        .map(|revoke| match revoke {
            Revoke::Pck => Role::Pck,
            Revoke::PckCa => Role::PckCa,
            Revoke::TcbSigner => Role::TcbSigner,
        })
        .collect();
    platform.collateral(&spec, quote.certification)
}
