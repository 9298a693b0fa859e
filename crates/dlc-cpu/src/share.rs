//! Who executes which units of a launch.
//!
//! Shares are cut by estimated cost, contiguous and in order, once when a program is built. They
//! never change a result.

use crate::codegen::Part;

/// Work that is not worth another thread, in nanoseconds.
const GRAIN: f64 = 4000.0;

/// Units of one part for one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Position of the part.
    pub part: usize,
    /// The first unit.
    pub begin: i64,
    /// The end of the units.
    pub end: i64,
}

/// For each worker, what it executes of one of `steps` steps; at most `threads` workers, at least
/// one.
pub fn share_out(parts: &[Part], steps: i64, threads: usize) -> Vec<Vec<Share>> {
    let size = |p: &Part| (p.units / steps.max(1), p.unit_cost);
    let sizes: Vec<(i64, f64)> = parts.iter().map(size).collect();
    share_out_units(&sizes, threads)
}

/// [`share_out`] of parts given by units and cost of a unit.
fn share_out_units(parts: &[(i64, f64)], threads: usize) -> Vec<Vec<Share>> {
    let total: f64 = parts.iter().map(|(units, cost)| *units as f64 * cost).sum();
    let units = parts.iter().map(|(units, _)| *units).sum::<i64>();
    let most = threads.min(usize::try_from(units).unwrap_or(0)).max(1);
    let workers = ((total / GRAIN) as usize).clamp(1, most);
    let mut shares = vec![Vec::new(); workers];
    let mut before = 0.0;
    for (part, &(units, cost)) in parts.iter().enumerate() {
        // The unit at which worker `w` begins.
        let cut = |w: usize| match w {
            0 => 0,
            w if w == workers => units,
            w => {
                let position = (total * w as f64 / workers as f64 - before) / cost;
                (position.round() as i64).clamp(0, units)
            }
        };
        for (w, share) in shares.iter_mut().enumerate() {
            let (begin, end) = (cut(w), cut(w + 1));
            if begin < end {
                share.push(Share { part, begin, end });
            }
        }
        before += units as f64 * cost;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_has_one_owner_and_loads_are_even() {
        let parts = [(1000, 10.0), (1, 5000.0), (0, 3.0), (77, 100.0), (3, 9000.0)];
        for threads in 1..6 {
            let shares = share_out_units(&parts, threads);
            assert_eq!(shares.len(), threads);
            for (part, &(units, _)) in parts.iter().enumerate() {
                let mut next = 0;
                for share in shares.iter().flatten().filter(|s| s.part == part) {
                    assert_eq!(share.begin, next);
                    next = share.end;
                }
                assert_eq!(next, units);
            }
            let cost = |s: &Share| (s.end - s.begin) as f64 * parts[s.part].1;
            let loads = shares.iter().map(|s| s.iter().map(cost).sum::<f64>());
            let total: f64 = parts.iter().map(|(u, c)| *u as f64 * c).sum();
            assert!(loads.into_iter().all(|l| l <= total / threads as f64 + 9000.0));
        }
    }

    #[test]
    fn small_work_stays_with_the_caller() {
        assert_eq!(share_out_units(&[(10, 1.0)], 8).len(), 1);
        assert_eq!(share_out_units(&[], 8).len(), 1);
        assert_eq!(share_out_units(&[(1, 1e6)], 8).len(), 1);
        assert_eq!(share_out_units(&[(1, 1e6), (2, 1e6)], 8).len(), 3);
    }
}
