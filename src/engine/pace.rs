//! How much work goes into one submission: by what earlier ones took.
//!
//! Windows resets a GPU that is at one submission for two seconds, and a stream of tokens should be
//! smooth. So a slow device gets short chunks of a prompt, single steps, and steps that are cut into
//! several submissions; a fast one gets long chunks and many steps at once.

use std::time::Duration;

/// Seconds one submission of tokens should take: short enough for a smooth stream.
const STREAM: f64 = 0.04;
/// Seconds any submission should take at most: a quarter of the shortest watchdog's patience, since
/// the next chunk may take longer than the last.
const MOST: f64 = 0.5;
/// Steps in one submission at most; two submissions must fit the ring of results.
pub(super) const MOST_STEPS: usize = 32;
/// Rows of a chunk at least, and of the first.
const FEW_ROWS: usize = 16;
/// Submissions that the very first chunk is cut into, when nothing is known.
const FIRST_PIECES: usize = 8;

/// What a device took so far, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// A row of a prompt's chunk.
    row: Option<f64>,
    /// A step of decode.
    step: Option<f64>,
}

fn pieces(seconds: f64, launches: usize) -> usize {
    ((seconds / MOST).ceil() as usize).clamp(1, launches.max(1))
}

impl Pace {
    /// Rows of the next chunk, of `most`.
    pub(super) fn rows(&self, most: usize) -> usize {
        let fit = self.row.map_or(FEW_ROWS, |row| (MOST / row) as usize);
        (fit / FEW_ROWS * FEW_ROWS)
            .clamp(FEW_ROWS, most.max(FEW_ROWS))
            .min(most)
    }

    /// Submissions for a chunk of `rows` in `launches`.
    pub(super) fn chunk_pieces(&self, rows: usize, launches: usize) -> usize {
        match self.row {
            Some(row) => pieces(row * rows as f64, launches),
            None => FIRST_PIECES.min(launches.max(1)),
        }
    }

    /// Steps of the next submission, of `left`.
    pub(super) fn steps(&self, left: usize) -> usize {
        let fit = self.step.map_or(1, |step| (STREAM / step) as usize);
        fit.clamp(1, MOST_STEPS).min(left.max(1))
    }

    /// Submissions for one step in `launches`.
    pub(super) fn step_pieces(&self, launches: usize) -> usize {
        // Before any step: one costs no more than the shortest chunk.
        let guess = self.row.map_or(0.0, |row| row * FEW_ROWS as f64);
        pieces(self.step.unwrap_or(guess), launches)
    }

    /// A chunk of `rows` took this long.
    pub(super) fn chunk_took(&mut self, rows: usize, took: Duration) {
        self.row = Some((took.as_secs_f64() / rows.max(1) as f64).max(1e-9));
    }

    /// `steps` steps took this long.
    pub(super) fn steps_took(&mut self, steps: usize, took: Duration) {
        self.step = Some((took.as_secs_f64() / steps.max(1) as f64).max(1e-9));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device on which a row and a step take so many seconds: the longest submission of a long
    /// prompt and many tokens, after the first chunk of it.
    fn longest(row: f64, step: f64) -> f64 {
        let mut pace = Pace::default();
        let mut longest = 0f64;
        for i in 0..50 {
            let rows = pace.rows(512);
            // Later rows have more to attend to: up to twice as much.
            let took = row * rows as f64 * (1.0 + i as f64 / 50.0);
            let pieces = pace.chunk_pieces(rows, 200);
            if i > 0 {
                longest = longest.max(took / pieces as f64);
            }
            pace.chunk_took(rows, Duration::from_secs_f64(took));
        }
        for _ in 0..20 {
            let steps = pace.steps(1000);
            let pieces = if steps == 1 { pace.step_pieces(200) } else { 1 };
            longest = longest.max(step * steps as f64 / pieces as f64);
            pace.steps_took(steps, Duration::from_secs_f64(step * steps as f64));
        }
        longest
    }

    #[test]
    fn submissions_stay_short_on_any_device() {
        for row in [1e-6, 1e-4, 1e-2, 0.1, 1.0, 5.0] {
            for step in [row / 4.0, row, row * 8.0] {
                let longest = longest(row, step);
                assert!(longest < 1.1, "{row} s a row, {step} s a step: {longest} s");
            }
        }
    }

    #[test]
    fn a_fast_device_gets_much_at_once() {
        let mut pace = Pace::default();
        assert_eq!((pace.rows(128), pace.steps(100)), (16, 1));
        assert_eq!(pace.chunk_pieces(16, 100), 8);
        pace.chunk_took(16, Duration::from_millis(2));
        pace.steps_took(1, Duration::from_micros(900));
        assert_eq!((pace.rows(128), pace.chunk_pieces(128, 100)), (128, 1));
        assert_eq!((pace.steps(100), pace.steps(3)), (32, 3));
        assert_eq!(pace.step_pieces(100), 1);
        assert_eq!(Pace::default().rows(2), 2);
    }
}
