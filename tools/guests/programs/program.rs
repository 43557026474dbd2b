//! A Rust program with the standard library: threads, floats, formatting, panics that unwind.

use std::collections::HashMap;
use std::sync::mpsc::channel;

fn main() {
    let (sender, receiver) = channel();
    let threads: Vec<_> = (0..8u64)
        .map(|n| {
            let sender = sender.clone();
            std::thread::spawn(move || {
                let sum: f64 = (1..=10_000).map(|k| 1.0 / (k as f64 + n as f64)).sum();
                sender.send((n, sum)).expect("the receiver waits");
            })
        })
        .collect();
    drop(sender);
    let sums: HashMap<u64, f64> = receiver.iter().collect();
    for thread in threads {
        thread.join().expect("no thread panics");
    }
    let caught = std::panic::catch_unwind(|| {
        let empty: Vec<u32> = Vec::new();
        empty[sums.len()]
    });
    println!("{:.10} {:.10} {}", sums[&0], sums[&7], caught.is_err());
    assert_eq!(format!("{:.10} {:.10}", sums[&0], sums[&7]), "9.7876060360 7.1954486133");
    assert!(caught.is_err());
}
