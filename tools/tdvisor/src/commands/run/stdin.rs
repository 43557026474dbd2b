//! What is typed.

use std::io::Read as _;

use tdvisor_runtime::Watch as _;

use super::supervisor::Supervisor;

/// Feeds a console from stdin, as fast as the guest reads. The thread ends with stdin, or with the process.
pub fn read_stdin_into(push: impl Fn(&[u8]) -> usize + Send + 'static, supervisor: Supervisor) {
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = [0; 256];
        while let Ok(count @ 1..) = stdin.read(&mut buffer) {
            let mut rest = buffer.get(..count).unwrap_or_default();
            while !rest.is_empty() {
                let taken = push(rest);
                rest = rest.get(taken..).unwrap_or_default();
                supervisor.ring();
            }
        }
    });
}
