//! One TD, from the module's bring-up to its teardown.

use alloc::vec::Vec;

use mirror_ept::LevelCounts;
use td_host::host::Progress;
use td_host::platform::{Frames as _, LpId};
use td_host::td::{Ending, Td};
use td_host::vcpu::Vcpu;
use td_host::{Error, Host};
use td_image::mrtd;
use td_image::tdvf::{HostContents, LoaderModel, TdvfImage};
use tdvisor_bare_metal::machine::BareMetal;
use tdvisor_monitor::{Monitor, RunsOn};
use tdx_module_iface::SeamCallFault;
use tdx_module_iface::outcome::SeamError;

use crate::board;
use crate::options::Options;
use crate::say;
use crate::status::Status;

/// Bytes as hexadecimal digits.
struct Hex<'a>(&'a [u8]);

impl core::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Runs a TD made from `image`.
pub fn run(machine: BareMetal, options: &Options, image: &[u8]) -> Status {
    let host = match Host::bring_up(machine, |progress| {
        if progress == Progress::Initialised {
            say!("the module is initialised on every processor");
        }
    }) {
        Ok(host) => host,
        Err(error) => return no_module(&error),
    };
    let usable: u64 = host.tdmrs().iter().map(|tdmr| tdmr.range.size).sum();
    say!("the module is up: {} TDMRs of {} MiB together", host.tdmrs().len(), usable >> 20);
    match run_td(&host, options, image) {
        Ok(status) => status,
        Err(error) => {
            say!("the TD cannot be built: {error}");
            match error.blame() {
                td_host::Blame::Caller => Status::Usage,
                td_host::Blame::Guest => Status::TdFailed,
                _ => Status::HostFailed,
            }
        }
    }
}

/// The module did not come up: nobody answers SEAMCALL, or it refuses.
fn no_module(error: &Error) -> Status {
    match error {
        Error::Seam(SeamError::Fault { fault: SeamCallFault::VmFailInvalid, .. }) => {
            say!("no TDX: no TDX module is loaded (SEAMCALL ended with VMfailInvalid)");
            Status::NoTdx
        }
        Error::Seam(SeamError::Fault { fault, .. }) => {
            say!("no TDX: {fault}");
            Status::NoTdx
        }
        error => {
            say!("the module did not come up: {error}");
            Status::HostFailed
        }
    }
}

fn run_td(host: &Host<BareMetal>, options: &Options, image: &[u8]) -> Result<Status, Error> {
    let (frames, hkids) = (host.platform().free_frames(), host.hkid_counts());
    let mut pages = (0, 0);
    let td = Td::build(host, &options.config, image, |progress| pages = (progress.added, progress.measured))?;
    say!("a TD of {} MiB: {} pages added, {} measured", options.config.memory >> 20, pages.0, pages.1);
    let devices = match board::board() {
        Ok(devices) => devices,
        Err(error) => {
            say!("{error}");
            return Ok(Status::HostFailed);
        }
    };
    let monitor = Monitor::new(devices, None);
    let lps: Vec<LpId> = td.vcpus().iter().map(Vcpu::lp).collect();
    host.platform().on_processors(&lps, &|lp| {
        if let Some(vcpu) = td.vcpus().iter().find(|vcpu| vcpu.lp() == lp) {
            monitor.run_vcpu(&td, vcpu.index(), &RunsOn);
        }
    });
    let ending = td.ending().unwrap_or(Ending::Stopped);
    let mut status = say_ending(&ending);

    let measured = td.mrtd();
    match (&measured, predicted(image)) {
        (Ok(mrtd), Some(predicted)) if *mrtd == predicted => say!("MRTD {}, as predicted", Hex(mrtd)),
        (Ok(mrtd), Some(predicted)) => {
            say!("MRTD {}, but {} was predicted", Hex(mrtd), Hex(&predicted));
            status = Status::HostFailed;
        }
        (Ok(mrtd), None) => say!("MRTD {}, of which there is no prediction", Hex(mrtd)),
        (Err(error), _) => say!("MRTD cannot be read: {error}"),
    }
    let statistics = td.memory().statistics();
    say!("private memory {}, shared {}", Counts(&statistics.mirror), Counts(&statistics.direct));
    match td.audit() {
        Ok(report) => say!("mirror, Secure EPT and PAMT agree: {} entries", report.compared),
        // A TD that the module calls dead cannot be read.
        Err(_) if matches!(ending, Ending::Died(_)) => say!("a dead TD cannot be compared"),
        Err(error) => {
            say!("the comparison of mirror, Secure EPT and PAMT failed: {error}");
            status = Status::HostFailed;
        }
    }
    drop(monitor);
    let report = td.teardown();
    if let Some(failure) = &report.first_failure {
        say!("teardown: {failure}");
        status = Status::HostFailed;
    }
    let lost = host.platform().free_frames().abs_diff(frames);
    let key_lost = host.hkid_counts() != hkids;
    if lost != 0 || key_lost || report.quarantined_frames != 0 {
        say!(
            "{lost} frames and {} key ids did not come back, {} frames are in quarantine",
            u32::from(key_lost),
            report.quarantined_frames
        );
        status = Status::HostFailed;
    } else {
        say!("everything came back: {} frames, {} key ids", report.freed_frames, hkids.free);
    }
    Ok(status)
}

/// What the image measures to, for the order in which this host adds pages.
fn predicted(image: &[u8]) -> Option<[u8; 48]> {
    let image = TdvfImage::parse(image).ok()?;
    let plan = image.build_plan(LoaderModel::INTERLEAVED, HostContents::default()).ok()?;
    Some(mrtd::of_plan(&plan).0)
}

fn say_ending(ending: &Ending) -> Status {
    say!("the TD: {ending}");
    if matches!(ending, Ending::PoweredOff { code: 0 }) { Status::Success } else { Status::TdFailed }
}

/// Pages of each size.
struct Counts<'a>(&'a LevelCounts);

impl core::fmt::Display for Counts<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let LevelCounts { leaves_4k, leaves_2m, leaves_1g, .. } = self.0;
        write!(f, "{leaves_4k} pages of 4K, {leaves_2m} of 2M, {leaves_1g} of 1G")
    }
}
