//! Whether loops run beside each other, and who runs which.

use super::Neighbours;
use crate::codegen::{Phase, When};
use crate::lower::ScheduledEntry;
use crate::schedule::Schedule;
use crate::share::{Share, share_out};
use std::ops::Range;

/// What it costs to hand a kernel of a step to several threads, and to wait for them, in nanoseconds.
const REGION: f64 = 700.0;
/// Cycles of a nanosecond.
const CYCLES: f64 = 3.0;
/// How much longer a step takes that has more to read than a core's own caches hold, while other threads
/// read as much.
const FROM_AFAR: f64 = 1.25;

/// Neighbours that run beside each other, and who runs which.
pub struct Beside<'f> {
    /// The neighbours.
    pub neighbours: &'f Neighbours,
    /// By thread: which of them. Threads that have nothing to do run steps of others' free loops.
    pub threads: Vec<Range<usize>>,
}

/// Those of an entry's neighbours that run beside each other, of so many threads.
pub fn beside<'f>(
    scheduled: &ScheduledEntry<'f>,
    phases: &[Vec<Phase>],
    threads: usize,
) -> Vec<Beside<'f>> {
    let of = |neighbours: &'f Neighbours| {
        let times = neighbours.loops.clone().map(|top| times(scheduled, phases, top, threads));
        let (alone, shared): (Vec<f64>, Vec<f64>) = times.unzip();
        let beside = Beside::new(neighbours, &alone, threads);
        (beside.time(&alone) < shared.iter().sum()).then_some(beside)
    };
    scheduled.facts.neighbours.iter().filter_map(of).collect()
}

impl<'f> Beside<'f> {
    /// Neighbours dealt out to at most so many threads, given how long each takes on one.
    fn new(neighbours: &'f Neighbours, alone: &[f64], threads: usize) -> Beside<'f> {
        let own = alone.iter().zip(&neighbours.members);
        let own: Vec<f64> = own.map(|(time, m)| if m.is_free { 0.0 } else { *time }).collect();
        Beside { neighbours, threads: evenly(&own, threads) }
    }

    /// How long it takes, given how long each loop takes on one thread, in nanoseconds. Threads begin when
    /// earlier ones have done what their first steps need.
    fn time(&self, alone: &[f64]) -> f64 {
        let members = &self.neighbours.members;
        let mut begins: Vec<(f64, f64)> = Vec::new();
        for loops in &self.threads {
            let thread_of = |of: usize| self.threads.iter().position(|own| own.contains(&of));
            let needs = members[loops.clone()].iter().flat_map(|member| &member.needs);
            let before = needs.filter(|need| !loops.contains(&need.of)).map(|need| {
                let (begin, work) = begins[thread_of(need.of).expect("all loops have a thread")];
                begin + work * need.before(0) as f64 / need.all as f64
            });
            let begin = before.fold(0.0, f64::max);
            let own = loops.clone().filter(|&k| !members[k].is_free);
            begins.push((begin, own.map(|k| alone[k]).sum()));
        }
        let idle: f64 = begins.iter().map(|(begin, _)| begin).sum();
        let even = (idle + alone.iter().sum::<f64>()) / self.threads.len() as f64;
        begins.into_iter().map(|(begin, work)| begin + work).fold(even, f64::max)
    }
}

/// Loops dealt out to at most so many threads, in order, so that the longest share is as short as can be:
/// as many as can be to the last ones, for what leads to a loop is best made where it is read.
fn evenly(times: &[f64], threads: usize) -> Vec<Range<usize>> {
    let deal = |most: f64| {
        let mut shares: Vec<Range<usize>> = Vec::new();
        let mut sum = f64::INFINITY;
        for (at, time) in times.iter().enumerate().rev() {
            match shares.last_mut().filter(|_| sum + time <= most) {
                Some(share) => {
                    share.start = at;
                    sum += time;
                }
                None => {
                    shares.push(at..at + 1);
                    sum = *time;
                }
            }
        }
        shares.reverse();
        shares
    };
    let from =
        |first: usize| (first..times.len()).map(move |last| times[first..=last].iter().sum());
    let mut sums: Vec<f64> = (0..times.len()).flat_map(from).collect();
    sums.sort_by(f64::total_cmp);
    let mut dealt = sums.into_iter().map(deal);
    dealt.find(|shares| shares.len() <= threads.max(1)).unwrap_or_default()
}

/// How long the steps of a loop take on one thread beside others, and shared out to as many as there are,
/// in nanoseconds.
fn times(
    scheduled: &ScheduledEntry,
    phases: &[Vec<Phase>],
    top: usize,
    threads: usize,
) -> (f64, f64) {
    let leaves = scheduled.leaves.iter().zip(&scheduled.schedules).zip(phases);
    let (mut alone, mut shared) = (0.0, 0.0);
    for ((leaf, schedule), phases) in leaves.filter(|((leaf, _), _)| leaf.top == top) {
        let (mut work, mut longest, mut regions) = (0.0, 0.0, 0);
        for phase in phases.iter().filter(|phase| phase.when == When::Call) {
            let loops = phase.loops.unwrap_or(leaf.loops.len());
            let steps = leaf.loops[..loops].iter().product::<i64>();
            let shares = share_out(&phase.parts, steps, threads);
            let cost = |s: &Share| (s.end - s.begin) as f64 * phase.parts[s.part].unit_cost;
            let of_worker = |shares: &Vec<Share>| shares.iter().map(cost).sum::<f64>();
            work += steps as f64 * shares.iter().map(of_worker).sum::<f64>();
            longest += steps as f64 * shares.iter().map(of_worker).fold(0.0, f64::max);
            regions += if shares.len() > 1 { steps } else { 0 };
        }
        let (time, is_far) = match schedule {
            Schedule::Contract(contract) => {
                let steps = leaf.loops.iter().product::<i64>() as f64;
                (contract.cycles * steps / CYCLES, contract.reads_from_afar())
            }
            _ => (work, false),
        };
        alone += time * if is_far { FROM_AFAR } else { 1.0 };
        shared += time * (longest / work.max(1.0)) + regions as f64 * REGION;
    }
    match scheduled.step_workers(top, threads) {
        1 => (alone, shared),
        workers => (alone, alone / workers as f64 + REGION),
    }
}
