//! Attention. Both contractions are those of [`super::contract`]: the tile of scores that threads hold
//! becomes powers, which go to shared memory as words that the second one multiplies.
//!
//! Of scores and of sums, a thread holds the same rows, which are queries. The largest score so far of
//! a query is known to all threads that hold its row; of the sum of its powers each has a part.

use super::contract::finish::{self, Line, line};
use super::contract::multiply;
use super::contract::tiled::{Held, Pipeline, Task, both};
use super::plane::{Block, Factor, reserve, rows};
use super::point::Point;
use super::writer::Writer;
use crate::Math;
use crate::ir::{
    Address, B32, CacheHint, Compare, F32, FloatOp, IntOp, MemType, Shuffle, Space, Special, Value,
};
use crate::schedule::WARP;
use crate::schedule::attention::Attention;
use crate::schedule::plane::TILE;
use dlc_kernel::lanes::{Vector, ops};
use dlc_kernel::{DType, Scalar, Store, UnaryOp};
use smallvec::smallvec;

/// Warps that share a row.
const ACROSS: u32 = 2;

/// Writes attention; `stores` are those of the sums of values.
pub fn write(w: &mut Writer<'_>, schedule: &Attention<'_>, stores: &[Store]) {
    let block = Block::new(w, &schedule.plane, [&schedule.scores, &schedule.values]);
    let task = block.task(&schedule.values, block.zero);
    let sums = multiply::hold(w, &task);
    let work = Work::new(w, schedule, &block, &task, &sums);
    block.each_tile(w, |w, key| work.step(w, key));
    work.scale(w);
    finish::write(w, &task, &sums, stores);
}

/// A query that a thread holds scores and sums of.
struct Row {
    /// From the thread's first row.
    offset: u32,
    line: Line,
    /// The largest score so far.
    max: F32,
    /// The thread's part of the sum of powers so far.
    sum: F32,
}

/// A thread's share of a block.
struct Work<'t, 's, 'k> {
    schedule: &'s Attention<'k>,
    block: &'t Block<'s, 'k>,
    /// The sums of values.
    task: &'t Task<'t, 'k>,
    sums: &'t Held,
    scores: Held,
    rows: Vec<Row>,
    /// Powers.
    factor: Factor<'s, 'k>,
    /// In shared memory: folds of warps.
    folds: B32,
}

impl<'t, 's, 'k> Work<'t, 's, 'k> {
    fn new(
        w: &mut Writer<'_>,
        schedule: &'s Attention<'k>,
        block: &'t Block<'s, 'k>,
        task: &'t Task<'t, 'k>,
        sums: &'t Held,
    ) -> Work<'t, 's, 'k> {
        let of_scores = block.task(&schedule.scores, block.zero);
        let scores = multiply::hold(w, &of_scores);
        let lines = rows(w, &of_scores, &scores);
        let row = |(offset, line)| {
            let (max, sum) = (w.b.mov_f32(f32::NEG_INFINITY), w.b.mov_f32(0.0));
            Row { offset, line, max, sum }
        };
        let rows = lines.into_iter().map(row).collect();
        let factor = Factor::new(w, &schedule.values, &scores);
        let folds = reserve(w, 4 * TILE * ACROSS);
        Work { schedule, block, task, sums, scores, rows, factor, folds }
    }

    /// Goes on with the keys from `key` on.
    fn step(&self, w: &mut Writer<'_>, key: B32) {
        let (block, Attention { scores, softmax, .. }) = (self.block, self.schedule);
        // All have left the stages.
        w.b.barrier();
        let held = self.scores.fragments.iter().flat_map(|fragment| &fragment.sums);
        held.for_each(|&sum| w.b.mov_f32_to(sum, 0.0));
        let task = block.task(scores, key);
        let depth = w.b.mov32(scores.sum.points() as u32);
        Pipeline::new(w, &task, &self.scores, [block.zero, depth], None).run(w, block.stages);
        let mut scores = self.masked(w, &task);
        let most = self.by_row(&scores, |x, y| w.b.float(FloatOp::Max, x, y));
        let most = self.across(w, &most, FloatOp::Max);
        for (row, most) in self.rows.iter().zip(most) {
            let most = w.b.float(FloatOp::Max, row.max, most);
            let [before, after] = [row.max, most].map(|max| {
                let max = w.scope.input(max.into());
                self.of_row(&row.line, &[max]).value(w, softmax.shift)[0]
            });
            let scale = power(w, before, after);
            let own = self.scores.fragments.iter().zip(&mut scores);
            for (_, scores) in own.filter(|(fragment, _)| fragment.row == row.offset) {
                for score in scores {
                    let value = w.scope.input((*score).into());
                    *score = power(w, value, after);
                }
            }
            self.scale_row(w, row, scale);
            let sum = w.b.float(FloatOp::Mul, row.sum, scale);
            w.b.mov_f32_to(row.sum, sum);
            w.b.mov_f32_to(row.max, most);
        }
        let powers = self.by_row(&scores, |x, y| w.b.float(FloatOp::Add, x, y));
        for (row, powers) in self.rows.iter().zip(powers) {
            let sum = w.b.float(FloatOp::Add, row.sum, powers);
            w.b.mov_f32_to(row.sum, sum);
        }
        self.drop(w, &task, &mut scores);
        self.factor.put(w, &self.scores, &scores);
        let range = block.range(w, key);
        let powers = Some(self.factor.base);
        Pipeline::new(w, self.task, self.sums, range, powers).run(w, block.stages);
    }

    /// What is the same along a row of weights, given its folds so far.
    fn of_row(&self, row: &Line, folds: &[Vector]) -> Point<'s, 'k> {
        let keys = vec![Value::Literal(0); self.schedule.plane.groups[2].axes.len()];
        let mut point = self.block.point(&row.axes, &keys, 1).within(row.exists);
        for (step, &fold) in folds.iter().enumerate() {
            point.fold(step as u32, smallvec![fold]);
        }
        point
    }

    /// Replaces the powers of weights that are not kept by 0.
    fn drop(&self, w: &mut Writer<'_>, task: &Task<'_, '_>, powers: &mut [Vec<F32>]) {
        let Some(keeps) = self.schedule.softmax.keeps else { return };
        self.each(w, task, powers, |w, [row, col], powers| {
            let exists = both(w, row.exists, col.exists);
            let point = self.block.point(&row.axes, &col.axes, powers.len());
            let kept = point.within(exists).value(w, keeps);
            for (lane, power) in powers.iter_mut().enumerate() {
                let zero = ops::constant(&mut w.scope.lanes, Scalar::new(DType::F32, 0.0));
                let value = w.scope.input((*power).into());
                let value = w.scope.lanes.select(kept[lane % kept.len()], value, zero);
                let value = w.scope.f32(&mut w.b, value);
                *power = value.register().unwrap_or_else(|| w.b.mov_f32(value));
            }
        });
    }

    /// Changes values of a tile, by fragment: neighbours along columns at once.
    fn each<'w, 'p>(
        &self,
        w: &'w mut Writer<'p>,
        task: &Task<'_, '_>,
        values: &mut [Vec<F32>],
        mut change: impl FnMut(&mut Writer<'p>, [&Line; 2], &mut [F32]),
    ) {
        let lanes = task.tiling.result.lanes;
        let mut cols = Vec::new();
        for (fragment, values) in self.scores.fragments.iter().zip(values) {
            let row = self.rows.iter().find(|row| row.offset == fragment.row);
            let row = &row.expect("rows are those of fragments").line;
            for (i, values) in values.chunks_mut(lanes).enumerate() {
                let col = fragment.col + (i * lanes) as u32;
                let col = line(w, task, &self.scores, 1, col, &mut cols);
                change(w, [row, &cols[col].1], values);
            }
        }
    }

    /// By fragment, what the softmax is of; -inf where there is no key.
    fn masked(&self, w: &mut Writer<'_>, task: &Task<'_, '_>) -> Vec<Vec<F32>> {
        let Attention { scores, softmax, score, .. } = self.schedule;
        let mut values: Vec<Vec<F32>> =
            self.scores.fragments.iter().map(|fragment| fragment.sums.clone()).collect();
        self.each(w, task, &mut values, |w, [row, col], values| {
            let exists = both(w, row.exists, col.exists);
            let mut of_score = self.block.result(scores, [row, col], values.len()).within(exists);
            of_score.fold(0, values.iter().map(|&sum| w.scope.input(sum.into())).collect());
            let score = of_score.value(w, *score);
            let point = self.block.point(&row.axes, &col.axes, values.len());
            let mut point = point.within(exists);
            point.know_load(w, softmax.score, &score);
            let masked = point.value(w, softmax.masked);
            for (lane, value) in values.iter_mut().enumerate() {
                let masked = w.scope.f32(&mut w.b, masked[lane % masked.len()]);
                *value = match col.exists {
                    Some(exists) => w.b.select_f32(exists, masked, f32::NEG_INFINITY),
                    None => masked.register().unwrap_or_else(|| w.b.mov_f32(masked)),
                };
            }
        });
        values
    }

    /// By row, the thread's values taken together.
    fn by_row(&self, values: &[Vec<F32>], mut fold: impl FnMut(F32, F32) -> F32) -> Vec<F32> {
        let of_row = |row: &Row| {
            let own = self.scores.fragments.iter().zip(values);
            let own = own.filter(|(fragment, _)| fragment.row == row.offset);
            let values = own.flat_map(|(_, values)| values).copied();
            values.reduce(&mut fold).expect("a row has scores")
        };
        self.rows.iter().map(of_row).collect()
    }

    /// What all threads have of each row, taken together in an order that is always the same.
    fn across(&self, w: &mut Writer<'_>, values: &[F32], op: FloatOp) -> Vec<F32> {
        let lanes = if self.schedule.scores.math == Math::F32 { 8 } else { 4 };
        let mut folded = values.to_vec();
        for value in &mut folded {
            let mut distance = lanes / 2;
            while distance > 0 {
                let other = w.b.shuffle(Shuffle::Butterfly, *value, distance, WARP);
                *value = w.b.float(op, *value, other);
                distance /= 2;
            }
        }
        let [row, col] = self.scores.first;
        let warp = w.b.int(IntOp::DivU, col, TILE / ACROSS);
        let own = w.b.mad(warp, TILE, row);
        let (to, from) = (w.b.mad(own, 4, self.folds), w.b.mad(row, 4, self.folds));
        let lane = w.b.special(Special::Lane);
        let lane = w.b.int(IntOp::And, lane, lanes - 1);
        let speaks = w.b.set_int(Compare::Eq, lane, 0);
        let at = |base: B32, row: &Row, warp: u32| {
            Address::shared(base, (4 * (warp * TILE + row.offset)) as i32)
        };
        for (row, &value) in self.rows.iter().zip(&folded) {
            w.b.guarded(speaks, true, |b| {
                b.store(Space::Shared, MemType::F32, at(to, row, 0), &[value.into()]);
            });
        }
        w.b.barrier();
        let total = |row: &Row| {
            let warps = (0..ACROSS).map(|warp| {
                let from = at(from, row, warp);
                F32(w.b.load(Space::Shared, MemType::F32, 1, from, CacheHint::None)[0].number)
            });
            let warps: Vec<F32> = warps.collect();
            warps.into_iter().reduce(|x, y| w.b.float(op, x, y)).expect("there are some")
        };
        self.rows.iter().map(total).collect()
    }

    /// Scales the sums of all rows by what the sums of their powers make of them, and stores what is
    /// kept of rows.
    fn scale(&self, w: &mut Writer<'_>) {
        let parts: Vec<F32> = self.rows.iter().map(|row| row.sum).collect();
        let totals = self.across(w, &parts, FloatOp::Add);
        let first = w.b.set_int(Compare::Eq, self.scores.first[1], 0);
        for (row, total) in self.rows.iter().zip(totals) {
            let folds = [row.max, total].map(|fold| w.scope.input(fold.into()));
            let mut point = self.of_row(&row.line, &folds);
            for &scale in &self.schedule.softmax.scales {
                let scale = point.value(w, scale)[0];
                let scale = w.scope.f32(&mut w.b, scale);
                let scale = scale.register().unwrap_or_else(|| w.b.mov_f32(scale));
                self.scale_row(w, row, scale);
            }
            if self.schedule.kept.is_empty() {
                continue;
            }
            let speaks = both(w, Some(first), row.line.exists).expect("one of both is there");
            w.if_(speaks, |w| {
                let mut point = self.of_row(&row.line, &folds);
                for (at, store) in self.schedule.kept.iter().enumerate() {
                    point.store(w, at, store.value, None);
                }
            });
        }
    }

    fn scale_row(&self, w: &mut Writer<'_>, row: &Row, scale: F32) {
        let own = self.sums.fragments.iter().filter(|fragment| fragment.row == row.offset);
        for &sum in own.flat_map(|fragment| &fragment.sums) {
            let scaled = w.b.float(FloatOp::Mul, sum, scale);
            w.b.mov_f32_to(sum, scaled);
        }
    }
}

/// `exp(x - shift)`
fn power(w: &mut Writer<'_>, x: Vector, shift: Vector) -> F32 {
    let lanes = &mut w.scope.lanes;
    let centred = lanes.difference(x, shift);
    let power = ops::unary(lanes, UnaryOp::Exp, DType::F32, centred);
    let power = w.scope.f32(&mut w.b, power);
    power.register().unwrap_or_else(|| w.b.mov_f32(power))
}
