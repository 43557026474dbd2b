//! Alignment of two event lists with the fewest edits.

use alloc::vec;
use alloc::vec::Vec;

use super::LoggedEvent;
use crate::predict::PredictedEvent;

/// Larger tables than this are not built: the lists are then paired in order behind their common start.
const MAX_CELLS: usize = 4 << 20;

/// What an event costs that is there with another digest: less than a loss and a gain.
const CHANGED: u32 = 3;
/// A loss, or a gain.
const ONE_SIDED: u32 = 2;

pub(super) type Pair<'a> = (Option<&'a LoggedEvent>, Option<&'a PredictedEvent>);

/// What it costs to pair two events; `None` if they are different things.
fn cost(event: &LoggedEvent, predicted: &PredictedEvent) -> Option<u32> {
    match predicted.expectation.admits(&event.digest) {
        // A known digest is the same thing whatever the log calls it.
        Some(true) => Some(0),
        None if event.part == predicted.part => Some(0),
        Some(false) if event.part == predicted.part => Some(CHANGED),
        _ => None,
    }
}

pub(super) fn align<'a>(logged: &[&'a LoggedEvent], predicted: &[&'a PredictedEvent]) -> Vec<Pair<'a>> {
    let (rows, columns) = (logged.len() + 1, predicted.len() + 1);
    if rows.saturating_mul(columns) > MAX_CELLS {
        return in_order(logged, predicted);
    }
    // table[row][column]: the cheapest alignment of what follows row and column.
    let mut table = vec![0u32; rows * columns];
    let at = |row: usize, column: usize| row * columns + column;
    let get = |table: &[u32], row, column| table.get(at(row, column)).copied().unwrap_or(u32::MAX / 2);
    for row in (0..rows).rev() {
        for column in (0..columns).rev() {
            let (event, expected) = (logged.get(row), predicted.get(column));
            let value = match (event, expected) {
                (None, None) => 0,
                (Some(_), None) => ONE_SIDED + get(&table, row + 1, column),
                (None, Some(_)) => ONE_SIDED + get(&table, row, column + 1),
                (Some(event), Some(expected)) => {
                    let apart = ONE_SIDED + get(&table, row + 1, column).min(get(&table, row, column + 1));
                    let paired = cost(event, expected).map(|cost| cost + get(&table, row + 1, column + 1));
                    paired.map_or(apart, |paired| paired.min(apart))
                }
            };
            if let Some(cell) = table.get_mut(at(row, column)) {
                *cell = value;
            }
        }
    }
    let mut pairs = Vec::with_capacity(rows.max(columns));
    let (mut row, mut column) = (0, 0);
    loop {
        let here = get(&table, row, column);
        match (logged.get(row), predicted.get(column)) {
            (None, None) => return pairs,
            (Some(event), Some(expected))
                if cost(event, expected)
                    .is_some_and(|cost| cost + get(&table, row + 1, column + 1) == here) =>
            {
                pairs.push((Some(*event), Some(*expected)));
                row += 1;
                column += 1;
            }
            (Some(event), _) if ONE_SIDED + get(&table, row + 1, column) == here => {
                pairs.push((Some(*event), None));
                row += 1;
            }
            (_, Some(expected)) => {
                pairs.push((None, Some(*expected)));
                column += 1;
            }
            (Some(event), None) => {
                pairs.push((Some(*event), None));
                row += 1;
            }
        }
    }
}

fn in_order<'a>(logged: &[&'a LoggedEvent], predicted: &[&'a PredictedEvent]) -> Vec<Pair<'a>> {
    let length = logged.len().max(predicted.len());
    (0..length)
        .flat_map(|index| match (logged.get(index), predicted.get(index)) {
            (Some(event), Some(expected)) if cost(event, expected).is_some() => {
                [Some((Some(*event), Some(*expected))), None]
            }
            (event, expected) => {
                [event.map(|event| (Some(*event), None)), expected.map(|expected| (None, Some(*expected)))]
            }
        })
        .flatten()
        .collect()
}
