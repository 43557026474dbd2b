//! What a process holds when nothing goes on, before and after a test.

use std::time::{Duration, Instant};

/// Far more than a process takes to come to rest.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often in a row the same has to be seen.
const SAME: u32 = 1000;

/// Descriptors and threads of this process, and processes that it started.
fn held() -> [usize; 3] {
    let count = |folder| std::fs::read_dir(folder).expect("/proc").count();
    let children = std::fs::read_dir("/proc/self/task")
        .expect("/proc")
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok())
        .map(|children| children.split_whitespace().count())
        .sum();
    [count("/proc/self/fd"), count("/proc/self/task"), children]
}

/// What is held when nothing goes on: many times the same, for connections end a moment after their clients.
pub fn at_rest() -> [usize; 3] {
    let deadline = Instant::now() + PATIENCE;
    let (mut last, mut same) = (held(), 0);
    while same < SAME {
        let now = held();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        assert!(Instant::now() < deadline, "the process does not come to rest");
        std::thread::yield_now();
    }
    last
}

/// Waits until nothing more is held than before: connections end a moment after their clients.
pub fn settle(before: [usize; 3]) {
    let deadline = Instant::now() + PATIENCE;
    while held().iter().zip(before).any(|(now, before)| *now > before) {
        assert!(Instant::now() < deadline, "{before:?} before, {:?} after", held());
        std::thread::yield_now();
    }
}
