//! One TD under test: does what a schedule says, has the reference do it too, and compares.

use mirror_ept::{Access, Age, GfnRange};
use td_host::memory::{HugeShared, Prefaulted, Reached, Resolution};
use tdvisor_base::{Gfn, Gpa, Level, Side};
use tdx_module_iface::StatusCode;

use crate::memory::guest::{Act, Did, Guest};
use crate::memory::{
    Accepted, EmulatedHost, EmulatedSeat, EmulatedTd, convert, frames, module_maps, module_state, touch,
};
use crate::model::operation::{FRAMES, Operation, Span, Vcpu};
use crate::model::reference::{Private, Reference};

/// A TD, a seat at its memory, its vCPUs, and what is expected of it.
pub struct Subject<'t, 'h> {
    td: &'t EmulatedTd<'h>,
    seat: EmulatedSeat<'t, 'h>,
    vcpus: Vec<Guest<'h>>,
    reference: Reference,
}

fn gfn(frame: u64) -> Gfn {
    frames(frame, 1).start()
}

fn range(span: Span) -> GfnRange {
    frames(span.first, span.frames)
}

/// Repeats what says how far it got until it got all the way.
fn until_all(mut again: impl FnMut() -> Reached) {
    for _ in 0..1000 {
        if again() == Reached::All {
            return;
        }
    }
    panic!("an operation makes no progress");
}

impl<'t, 'h> Subject<'t, 'h> {
    /// Gives the TD the slot that schedules work on.
    pub fn new(host: &'h EmulatedHost, td: &'t EmulatedTd<'h>, mut seat: EmulatedSeat<'t, 'h>) -> Self {
        let vcpus = Guest::all(host, td);
        td.memory().add_slot(&mut seat, frames(0, FRAMES)).expect("there is room for a slot");
        Self { td, seat, vcpus, reference: Reference::new() }
    }

    /// Does something, and has the reference do it too.
    pub fn step(&mut self, operation: Operation) {
        let memory = self.td.memory();
        match operation {
            Operation::PrivateFault { frame, max_level } => {
                let got = touch(&mut self.seat, gfn(frame), max_level);
                self.private_was_resolved(frame, got);
                assert!(
                    module_maps(&mut self.seat, self.td, gfn(frame)).is_none_or(|level| level <= max_level),
                    "frame {frame} is mapped larger than the guest takes"
                );
            }
            Operation::SharedFault { frame } => {
                let got = memory.shared_fault(&mut self.seat, gfn(frame), Access::Write, || false);
                self.shared_was_resolved(frame, got.expect("a shared fault is resolved"));
            }
            Operation::Accept { vcpu, frame, level } => self.accept(vcpu, frame, level),
            Operation::PrivateWrite { vcpu, frame, value } => {
                let did = self.act(vcpu, Act::Write { gpa: gfn(frame).base(), value });
                if self.private_access_ended(frame, did) {
                    self.reference.write(frame, value);
                }
            }
            Operation::PrivateRead { vcpu, frame } => {
                let did = self.act(vcpu, Act::Read { gpa: gfn(frame).base() });
                if self.private_access_ended(frame, did) {
                    assert_eq!(did, Did::Word(self.reference.frame(frame).word), "contents of frame {frame}");
                }
            }
            Operation::SharedWrite { vcpu, frame, value } => {
                let did = self.act(vcpu, Act::Write { gpa: self.shared(frame), value });
                if self.shared_access_ended(frame, did) {
                    self.reference.write(frame, value);
                }
            }
            Operation::SharedRead { vcpu, frame } => {
                let did = self.act(vcpu, Act::Read { gpa: self.shared(frame) });
                if self.shared_access_ended(frame, did) {
                    assert_eq!(did, Did::Word(self.reference.frame(frame).word), "contents of frame {frame}");
                }
            }
            Operation::HostWrite { frame, value } => {
                let shared = self.reference.frame(frame).attribute == Side::Shared;
                let wrote = memory.write_shared(gfn(frame).base(), &value.to_le_bytes());
                assert_eq!(wrote.is_ok(), shared, "the host's access to frame {frame}");
                if shared {
                    self.reference.write(frame, value);
                }
            }
            Operation::Convert { span, to } => {
                convert(&mut self.seat, range(span), to);
                self.reference.convert(span, to);
                self.edges_agree(span);
            }
            Operation::Punch { span } => {
                let mut at = range(span).start();
                until_all(|| {
                    let rest = GfnRange::new(at, range(span).end());
                    let reached = memory.punch_hole(&mut self.seat, rest).expect("a hole is punched");
                    if let Reached::Upto(next) = reached {
                        at = next;
                    }
                    reached
                });
                self.reference.punch(span);
                self.edges_agree(span);
            }
            Operation::Prefault { span } => {
                let done = memory.prefault(&mut self.seat, range(span), Level::L2M, || false);
                assert!(matches!(done, Ok(Prefaulted::All { .. })), "{done:?}");
                for frame in span.first..span.first + span.frames {
                    if self.reference.frame(frame).attribute == Side::Private {
                        self.is_mapped_now(frame);
                    }
                }
            }
            Operation::Collapse { span } => {
                memory.collapse(&mut self.seat, range(span)).expect("merging may be refused, not fail");
            }
            Operation::RecoverHuge => {
                memory.recover_huge(&mut self.seat).expect("merging may be refused, not fail");
            }
            Operation::ReclaimTables => {
                memory.reclaim_tables(&mut self.seat).expect("tables stay or go");
            }
            Operation::Age { span } => {
                let _ = memory.age(&mut self.seat, range(span)).expect("a range can be aged");
                assert_eq!(
                    memory.test_age(&mut self.seat, range(span)),
                    Ok(Age::Old),
                    "aged, not used since"
                );
            }
            Operation::StartLog => {
                let how = HugeShared::SplitNow;
                let started = memory.start_dirty_log(&mut self.seat, gfn(0), how);
                assert_eq!(started.is_ok(), self.reference.log.is_none(), "{started:?}");
                self.reference.log.get_or_insert_default();
            }
            Operation::Harvest => self.harvest(),
            Operation::StopLog => {
                let stopped = memory.stop_dirty_log(&mut self.seat, gfn(0));
                assert_eq!(stopped.is_ok(), self.reference.log.is_some(), "{stopped:?}");
                self.reference.log = None;
            }
            Operation::ReplaceSlot => {
                let slot = frames(0, FRAMES);
                until_all(|| memory.remove_slot(&mut self.seat, slot).expect("a slot is removed"));
                assert_eq!(touch(&mut self.seat, gfn(0), Level::L2M), Resolution::NoMemoryThere);
                memory.add_slot(&mut self.seat, slot).expect("a slot comes back");
                self.reference.replace();
            }
            Operation::Audit => {
                self.td.audit().unwrap_or_else(|error| panic!("audit: {error}"));
            }
        }
    }

    fn shared(&self, frame: u64) -> Gpa {
        self.td.shared_bit().join(Side::Shared, gfn(frame).base())
    }

    fn act(&mut self, vcpu: Vcpu, act: Act) -> Did {
        let guest = &mut self.vcpus[vcpu.index];
        if vcpu.interrupted {
            guest.interrupt();
        }
        guest.act(self.td, &mut self.seat, act)
    }

    /// A frame that should be mapped is; if it was not before, the reference learns with what.
    fn is_mapped_now(&mut self, frame: u64) {
        if self.reference.frame(frame).private != Private::Unmapped {
            return;
        }
        match module_maps(&mut self.seat, self.td, gfn(frame)) {
            Some(Level::L2M) => Reference::huge(frame).for_each(|frame| self.reference.map(frame)),
            Some(_) => self.reference.map(frame),
            None => panic!("frame {frame} is not mapped"),
        }
    }

    fn private_was_resolved(&mut self, frame: u64, got: Resolution) {
        match self.reference.frame(frame).attribute {
            Side::Private => {
                assert!(matches!(got, Resolution::Mapped(_)), "private frame {frame}: {got:?}");
                self.is_mapped_now(frame);
            }
            Side::Shared => {
                assert_eq!(got, Resolution::WrongSide(Side::Shared), "shared frame {frame}");
            }
        }
    }

    fn shared_was_resolved(&mut self, frame: u64, got: Resolution) {
        match self.reference.frame(frame).attribute {
            Side::Shared => {
                assert!(matches!(got, Resolution::Mapped(_)), "shared frame {frame}: {got:?}");
                self.reference.note_write(frame);
            }
            Side::Private => {
                assert_eq!(got, Resolution::WrongSide(Side::Private), "private frame {frame}");
            }
        }
    }

    /// Whether the access went through; it must exactly if the guest had accepted the frame.
    fn private_access_ended(&mut self, frame: u64, did: Did) -> bool {
        if let Did::Stuck(why) = did {
            self.private_was_resolved(frame, why);
            return false;
        }
        self.is_mapped_now(frame);
        let accepted = self.reference.frame(frame).private == Private::Accepted;
        assert_eq!(did == Did::NotAccepted, !accepted, "an access to frame {frame}: {did:?}");
        accepted
    }

    fn shared_access_ended(&mut self, frame: u64, did: Did) -> bool {
        if let Did::Stuck(why) = did {
            self.shared_was_resolved(frame, why);
            return false;
        }
        assert_eq!(self.reference.frame(frame).attribute, Side::Shared, "frame {frame}: {did:?}");
        true
    }

    fn accept(&mut self, vcpu: Vcpu, frame: u64, level: Level) {
        let did = self.act(vcpu, Act::Accept { gpa: gfn(frame).base(), level });
        let status = match did {
            Did::Status(status) => status,
            Did::Stuck(why) => return self.private_was_resolved(frame, why),
            other => panic!("an ACCEPT ended with {other:?}"),
        };
        let all = if level == Level::L2M { Reference::huge(frame) } else { frame..frame + 1 };
        match status.code() {
            StatusCode::SUCCESS => {
                self.is_mapped_now(frame);
                all.for_each(|frame| self.reference.accept(frame));
            }
            StatusCode::PAGE_ALREADY_ACCEPTED => {
                let accepted = self.reference.frame(frame).private == Private::Accepted;
                assert!(accepted, "frame {frame} was never accepted");
            }
            StatusCode::PAGE_SIZE_MISMATCH => {
                assert_eq!(level, Level::L2M, "4K is never too large");
                assert_ne!(module_maps(&mut self.seat, self.td, gfn(frame)), Some(Level::L2M));
                // The exit before may have mapped a small page.
                if module_maps(&mut self.seat, self.td, gfn(frame)).is_some() {
                    self.is_mapped_now(frame);
                }
            }
            code => panic!("ACCEPT of frame {frame} at {level} ended with {code:?}"),
        }
    }

    fn harvest(&mut self) {
        let mut written = Vec::new();
        let got = self.td.memory().harvest_dirty(&mut self.seat, gfn(0), |at| {
            written.push(at.get() - gfn(0).get());
        });
        let Some(log) = &mut self.reference.log else {
            assert!(got.is_err(), "{got:?}");
            return;
        };
        let expected: Vec<u64> = std::mem::take(log).into_iter().collect();
        assert_eq!(written, expected, "frames written since the last harvest");
    }

    /// The attribute of a frame, and the module's mapping of it, are the reference's.
    fn agrees_at(&mut self, frame: u64) -> Option<Level> {
        let expected = self.reference.frame(frame);
        assert_eq!(self.td.memory().attribute(gfn(frame)), Some(expected.attribute), "attribute of {frame}");
        let got = module_state(&mut self.seat, self.td, gfn(frame));
        let state = match got {
            None => Private::Unmapped,
            Some((_, Accepted::NotYet)) => Private::Pending,
            Some((_, Accepted::Yes)) => Private::Accepted,
        };
        assert_eq!(state, expected.private, "private mapping of frame {frame}");
        got.map(|(level, _)| level)
    }

    /// What an operation on a span may have cut: its ends, and its neighbours, which keep what they had
    /// (invariant 40).
    fn edges_agree(&mut self, span: Span) {
        let end = span.first + span.frames;
        for frame in [span.first.wrapping_sub(1), span.first, end - 1, end] {
            if frame < FRAMES {
                self.agrees_at(frame);
            }
        }
    }

    /// A rest point: the audit holds, and every frame is what the reference says.
    pub fn rest(&mut self) {
        self.td.audit().unwrap_or_else(|error| panic!("audit: {error}"));
        let mut frame = 0;
        while frame < FRAMES {
            if self.agrees_at(frame) == Some(Level::L2M) {
                let expected = self.reference.frame(frame);
                let alike = |other: crate::model::reference::Frame| {
                    (other.attribute, other.private) == (expected.attribute, expected.private)
                };
                assert!(
                    self.reference.all(Reference::huge(frame), alike),
                    "one page over {frame} and others"
                );
                frame += 512;
            } else {
                frame += 1;
            }
        }
    }
}
