//! What there is to say of a server when it has ended.

use seam_emu::HostViolation;
use seam_emu::audit::AuditFinding;
use server_emu::record::Counts;
use server_emu::report::Notice;
use server_emu::{Ending, Server};

use super::marks::Executed;

/// The facts of a server's run.
#[derive(Clone, Debug)]
pub struct ServerReport {
    /// How the server ended.
    pub ending: Ending,
    /// SEAMCALLs of its host, by leaf and status.
    pub calls: Counts,
    /// What the server's host did that deserves a line, in order.
    pub notices: Vec<Notice>,
    /// How many notices there were beyond the bound of what is kept.
    pub lost_notices: u64,
    /// What the module and the memory noticed the host doing wrong.
    pub violations: Vec<HostViolation>,
    /// Where the module's structures disagree with each other.
    pub audit: Vec<AuditFinding>,
    /// What was executed.
    pub executed: Executed,
}

impl ServerReport {
    pub(super) fn of(server: &Server, ending: &Ending) -> Self {
        let (notices, lost_notices) = server.report().notices();
        Self {
            ending: ending.clone(),
            calls: server.record().counts(),
            notices,
            lost_notices,
            violations: server.machine().violations(),
            audit: server.machine().audit(),
            executed: Executed::by(server),
        }
    }
}
