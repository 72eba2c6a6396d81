//! Merging, which both kinds of BPE do: of all neighbours the best pair first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Stands for a part that is no token, and for the inside of a merged one.
pub(super) const NONE: u32 = u32::MAX;

/// A merge that can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Made {
    /// The lowest goes first.
    pub(super) order: u32,
    /// The token it makes.
    pub(super) token: u32,
}

/// A token of a piece while it is merged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// Byte range.
    pub(super) start: usize,
    pub(super) end: usize,
    /// A token, in whatever numbering the rule has, or [`NONE`].
    pub(super) token: u32,
    /// The part before this one, by its start.
    previous: usize,
}

/// Merges parts that lie end to end, each given by its length in bytes and its token: the lowest
/// order first, of equals the leftmost, in n log n steps; `done` sees each merge.
pub(super) fn merge(
    parts: impl Iterator<Item = (usize, u32)>,
    rule: impl Fn(Part, Part) -> Option<Made>,
    mut done: impl FnMut(Part, Part, Made),
) -> Vec<Part> {
    // By the first byte; the entries inside a part are left over from its making.
    let mut slots: Vec<Part> = Vec::new();
    let mut previous = usize::MAX;
    for (len, token) in parts {
        let start = slots.len();
        let part = Part {
            start,
            end: start + len,
            token,
            previous,
        };
        slots.push(part);
        let inside = Part {
            token: NONE,
            ..part
        };
        slots.resize(start + len, inside);
        previous = start;
    }
    let mut queue = BinaryHeap::new();
    let candidate = |slots: &[Part], left: usize| {
        let l = *slots.get(left)?;
        let r = *slots.get(l.end)?;
        let made = rule(l, r)?;
        // The ends of both sides: a candidate is stale when they changed.
        Some(Reverse((made.order, left, made.token, l.end, r.end)))
    };
    let mut left = 0;
    while let Some(part) = slots.get(left) {
        let end = part.end;
        queue.extend(candidate(&slots, left));
        left = end;
    }
    while let Some(Reverse((order, left, token, middle, end))) = queue.pop() {
        let l = slots[left];
        // The left part may have grown or been merged into the one before it, and so may the right.
        if l.start != left || l.end != middle || slots[middle].end != end {
            continue;
        }
        let r = slots[middle];
        done(l, r, Made { order, token });
        // A candidate that begins inside the merged part can never be good again.
        slots[middle].start = left;
        slots[left] = Part { end, token, ..l };
        if let Some(next) = slots.get_mut(end) {
            next.previous = left;
        }
        queue.extend(candidate(&slots, l.previous));
        queue.extend(candidate(&slots, left));
    }
    let mut merged = Vec::new();
    let mut at = 0;
    while let Some(part) = slots.get(at) {
        merged.push(*part);
        at = part.end;
    }
    merged
}
