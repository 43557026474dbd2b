use super::*;

#[test]
fn a_participant_leaves_its_slot_to_the_next() {
    let core = Arc::new(Core::new(1).unwrap());
    let first = Participant::join(&core).unwrap();
    assert!(Participant::join(&core).is_none());
    drop(first);
    assert!(Participant::join(&core).is_some());
}

#[test]
fn an_epoch_is_old_until_its_reader_is_gone() {
    let core = Arc::new(Core::new(2).unwrap());
    let mut reader = Participant::join(&core).unwrap();
    let section = reader.rcu();
    let stamp = core.advance_epoch();
    assert!(core.oldest_reader() < stamp);
    drop(section);
    assert!(core.oldest_reader() >= stamp);
    let late = reader.rcu();
    assert!(core.oldest_reader() >= stamp, "a reader that starts later holds nothing back");
    drop(late);
}

#[test]
fn a_word_written_only_exclusively_is_stable_for_readers() {
    let core = Arc::new(Core::new(4).unwrap());
    let words = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (mut me, words) = (Participant::join(&core).unwrap(), words.clone());
            scope.spawn(move || {
                for _ in 0..2000 {
                    let _guard = me.shared();
                    assert_eq!(words[0].load(Ordering::Relaxed), words[1].load(Ordering::Relaxed));
                }
            });
        }
        let (mut me, words) = (Participant::join(&core).unwrap(), words.clone());
        scope.spawn(move || {
            for turn in 1..500 {
                let _guard = me.exclusive();
                words[0].store(turn, Ordering::Relaxed);
                words[1].store(turn, Ordering::Relaxed);
            }
        });
    });
}
