//! A lock that is waited for until a deadline.

use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A value that one thread at a time has.
#[derive(Debug, Default)]
pub struct Gate<T> {
    value: Mutex<T>,
    taken: Mutex<bool>,
    freed: Condvar,
}

/// The value, until it is dropped.
#[derive(Debug)]
pub struct Entered<'g, T> {
    /// Nobody else holds this lock: it is taken by whoever has the gate.
    value: Option<MutexGuard<'g, T>>,
    gate: &'g Gate<T>,
}

impl<T> Gate<T> {
    /// Waits for the value; `None` if others have it until the deadline.
    pub fn enter(&self, deadline: Instant) -> Option<Entered<'_, T>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while *taken {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            taken = self.freed.wait_timeout(taken, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *taken = true;
        drop(taken);
        let value = Some(self.value.lock().unwrap_or_else(PoisonError::into_inner));
        Some(Entered { value, gate: self })
    }
}

impl<T> Drop for Entered<'_, T> {
    fn drop(&mut self) {
        self.value = None;
        *self.gate.taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.gate.freed.notify_one();
    }
}

impl<T> Deref for Entered<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_deref().unwrap_or_else(|| unreachable!("the value is there until the drop"))
    }
}

impl<T> DerefMut for Entered<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_deref_mut().unwrap_or_else(|| unreachable!("the value is there until the drop"))
    }
}
