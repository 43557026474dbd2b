//! Threads, and the locks under which one waits: those of the standard library, or shuttle's, which chooses who runs.
//!
//! Everything else that processors share comes from [`tdvisor_base::sync`]. Locks that are not waited under, and that guard
//! nothing but a look at plain values, stay those of the standard library: no schedule changes what they do.

#[cfg(not(shuttle))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(shuttle))]
pub(crate) use std::thread;

#[cfg(shuttle)]
pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard};
#[cfg(shuttle)]
pub(crate) use shuttle::thread;

/// Starts a thread with this name.
///
/// # Errors
/// The operating system has no more.
#[cfg(not(shuttle))]
pub(crate) fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    name: String,
    run: impl FnOnce() -> T + Send + 'scope,
) -> std::io::Result<thread::ScopedJoinHandle<'scope, T>> {
    thread::Builder::new().name(name).spawn_scoped(scope, run)
}

/// Starts a thread; shuttle's have no names.
///
/// # Errors
/// None.
#[cfg(shuttle)]
pub(crate) fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    _name: String,
    run: impl FnOnce() -> T + Send + 'scope,
) -> std::io::Result<thread::ScopedJoinHandle<'scope, T>> {
    Ok(scope.spawn(run))
}
