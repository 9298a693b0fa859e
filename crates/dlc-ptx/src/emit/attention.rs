//! Attention. Both contractions are those of [`super::contract`]: the tile of scores that threads hold
//! becomes powers, which go to shared memory as words that the second one multiplies.
//!
//! Of scores and of sums, a thread holds the same rows, which are queries. The largest score so far of
//! a query is known to all threads that hold its row; of the sum of its powers each has a part.

use super::contract::fill::{fresh_word, line_place, row_place, store_words, word};
use super::contract::finish::{self, Line, line};
use super::contract::multiply;
use super::contract::tiled::{Held, Pipeline, Task, both, point_axes};
use super::map::coordinates;
use super::point::Point;
use super::writer::Writer;
use crate::Math;
use crate::ir::{
    Address, B32, CacheHint, Compare, F32, FloatOp, IntOp, LogicOp, MemType, Pred, Shuffle, Space,
    Special, Value,
};
use crate::place::coef;
use crate::schedule::WARP;
use crate::schedule::attention::{Attention, TILE};
use crate::schedule::contract::{Tiling, WORDS};
use dlc_kernel::lanes::{Vector, ops};
use dlc_kernel::place::Check;
use dlc_kernel::{DType, Store, UnaryOp};
use smallvec::smallvec;

/// Warps that share a row.
const ACROSS: u32 = 2;

/// Writes attention; `stores` are those of the sums of values.
pub fn write(w: &mut Writer<'_>, schedule: &Attention<'_>, stores: &[Store]) {
    let block = Block::new(w, schedule);
    let task = block.task(&schedule.values, block.zero);
    let sums = multiply::hold(w, &task);
    let work = Work::new(w, &block, &task, &sums);
    w.for_range(block.zero, schedule.groups[2].points() as u32, TILE, |w, key| {
        match block.is_seen(w, key) {
            Some(seen) => w.if_(seen, |w| work.step(w, key)),
            None => work.step(w, key),
        }
    });
    work.scale(w);
    finish::write(w, &task, &sums, stores);
}

/// A block: some queries.
struct Block<'s, 'k> {
    schedule: &'s Attention<'k>,
    batch: Vec<Value<B32>>,
    batch_at: B32,
    /// The first query.
    first: B32,
    zero: B32,
    thread: B32,
    /// In shared memory: stages of both contractions, which take turns; powers; and folds of warps.
    stages: B32,
    powers: B32,
    folds: B32,
}

impl<'s, 'k> Block<'s, 'k> {
    fn new(w: &mut Writer<'_>, schedule: &'s Attention<'k>) -> Block<'s, 'k> {
        let Attention { scores, values, groups, .. } = schedule;
        let (block, thread) = (w.b.special(Special::BlockX), w.b.special(Special::Thread));
        let tile = w.b.int(IntOp::RemU, block, scores.tiles(0));
        let batch_at = w.b.int(IntOp::DivU, block, scores.tiles(0));
        let [one, other] = [scores, values].map(|t| t.stages() * t.stage_bytes());
        let powers = TILE / values.depth() * values.part_bytes(0);
        let [stages, powers, folds] = [one.max(other), powers, 4 * TILE * ACROSS].map(|bytes| {
            let offset = w.b.reserve_shared(bytes);
            w.b.shared_base(offset)
        });
        let batch = coordinates(w, batch_at.into(), &groups[0].extents, 1);
        let (first, zero) = (w.b.int(IntOp::Mul, tile, TILE), w.b.mov32(0));
        Block { schedule, batch, batch_at, first, zero, thread, stages, powers, folds }
    }

    /// A contraction for the block's queries, from that column on.
    fn task<'t>(&self, tiling: &'t Tiling<'k>, column: B32) -> Task<'t, 'k> {
        let (batch, batch_at, thread) = (self.batch.clone(), self.batch_at, self.thread);
        Task { tiling, batch, batch_at, origin: [self.first, column], part: self.zero, thread }
    }

    /// The weights of a query and some keys.
    fn point(&self, query: &[Value<B32>], keys: &[Value<B32>], lanes: usize) -> Point<'s, 'k> {
        let Attention { weights, groups: [batch, queries, all], .. } = self.schedule;
        let groups: [(_, &[_]); 3] = [(batch, &self.batch), (queries, query), (all, keys)];
        Point::new(&weights.domain, point_axes(weights, &groups), lanes)
    }

    /// What is the same along a row of weights, given its folds so far.
    fn of_row(&self, row: &Line, folds: &[Vector]) -> Point<'s, 'k> {
        let keys = vec![Value::Literal(0); self.schedule.groups[2].axes.len()];
        let mut point = self.point(&row.axes, &keys, 1).within(row.exists);
        for (step, &fold) in folds.iter().enumerate() {
            point.fold(step as u32, smallvec![fold]);
        }
        point
    }

    /// Whether masks let the block's queries see any of the keys from `key` on; `None` if they surely
    /// do.
    fn is_seen(&self, w: &mut Writer<'_>, key: B32) -> Option<Pred> {
        let [_, queries, keys] = &self.schedule.groups;
        let [query, key] = [(queries, self.first), (keys, key)]
            .map(|(group, at)| coordinates(w, at.into(), &group.extents, 1));
        let point = self.point(&query, &key, 1);
        let mut seen = None;
        for check in &self.schedule.needs {
            let Some((low, high)) = self.reach(check) else { continue };
            let first = point.linear(w, &check.index, 0);
            let last = w.b.int(IntOp::Add, first, high);
            let above = w.b.set_int(Compare::Ge, last, 0);
            let least = w.b.int(IntOp::Add, first, low);
            let below = w.b.set_int(Compare::Lt, least, check.extent as i32);
            let own = w.b.logic(LogicOp::And, above, below);
            seen = both(w, seen, Some(own));
        }
        seen
    }

    /// How far the index of a check goes down and up within a tile, from where its first query meets
    /// its first key; `None` where that is not the least or the most along each axis.
    fn reach(&self, check: &Check) -> Option<(i32, i32)> {
        let Attention { weights, groups, .. } = self.schedule;
        let (mut low, mut high) = (0, 0);
        for group in &groups[1..] {
            let axes = group.axes.iter().map(|axis| weights.order.iter().position(|a| a == axis));
            let coefs = axes.flatten().map(|axis| coef(&check.index, axis));
            let coefs: Vec<i64> = coefs.filter(|&c| c != 0).collect();
            if coefs.is_empty() {
                continue;
            }
            let &[coef] = coefs.as_slice() else { return None };
            let far = coef.checked_mul(i64::from(TILE - 1)).filter(|_| group.axes.len() == 1)?;
            (low, high) = (low + far.min(0), high + far.max(0));
        }
        (check.div == 1).then_some((i32::try_from(low).ok()?, i32::try_from(high).ok()?))
    }

    /// What the softmax is of, at neighbouring scores; -inf where there is no key.
    fn masked(&self, w: &mut Writer<'_>, [row, col]: [&Line; 2], sums: &[F32]) -> Vec<F32> {
        let Attention { scores, softmax, score, .. } = self.schedule;
        let exists = both(w, row.exists, col.exists);
        let [queries, keys] = &scores.sides;
        let groups: [(_, &[_]); 3] =
            [(&scores.batch, &self.batch), (&queries.group, &row.axes), (&keys.group, &col.axes)];
        let axes = point_axes(&scores.result, &groups);
        let of_score = Point::new(&scores.result.domain, axes, sums.len());
        let mut of_score = of_score.within(exists);
        of_score.fold(0, sums.iter().map(|&sum| w.scope.input(sum.into())).collect());
        let score = of_score.value(w, *score);
        let mut point = self.point(&row.axes, &col.axes, sums.len()).within(exists);
        point.know_load(w, softmax.score, &score);
        let masked = point.value(w, softmax.masked);
        (0..sums.len())
            .map(|lane| {
                let value = w.scope.f32(&mut w.b, masked[lane % masked.len()]);
                match col.exists {
                    Some(exists) => w.b.select_f32(exists, value, f32::NEG_INFINITY),
                    None => value.register().unwrap_or_else(|| w.b.mov_f32(value)),
                }
            })
            .collect()
    }
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
    block: &'t Block<'s, 'k>,
    /// The sums of values.
    task: &'t Task<'t, 'k>,
    sums: &'t Held,
    scores: Held,
    rows: Vec<Row>,
    /// Where powers go: of each column of the first fragment, or of the first.
    places: Vec<B32>,
}

impl<'t, 's, 'k> Work<'t, 's, 'k> {
    fn new(
        w: &mut Writer<'_>,
        block: &'t Block<'s, 'k>,
        task: &'t Task<'t, 'k>,
        sums: &'t Held,
    ) -> Work<'t, 's, 'k> {
        let of_scores = block.task(&block.schedule.scores, block.zero);
        let scores = multiply::hold(w, &of_scores);
        let mut lines = Vec::new();
        for fragment in &scores.fragments {
            line(w, &of_scores, &scores, 0, fragment.row, &mut lines);
        }
        let row = |(offset, line)| {
            let (max, sum) = (w.b.mov_f32(f32::NEG_INFINITY), w.b.mov_f32(0.0));
            Row { offset, line, max, sum }
        };
        let rows = lines.into_iter().map(row).collect();
        let places = places(w, block, &scores);
        Work { block, task, sums, scores, rows, places }
    }

    /// Goes on with the keys from `key` on.
    fn step(&self, w: &mut Writer<'_>, key: B32) {
        let (block, Attention { scores, softmax, groups, .. }) = (self.block, self.block.schedule);
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
                block.of_row(&row.line, &[max]).value(w, softmax.shift)[0]
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
        self.hand_over(w, &scores);
        let until = w.b.int(IntOp::Add, key, TILE);
        let until = w.b.int(IntOp::MinU, until, groups[2].points() as u32);
        let powers = Some(block.powers);
        Pipeline::new(w, self.task, self.sums, [key, until], powers).run(w, block.stages);
    }

    /// By fragment, what the softmax is of.
    fn masked(&self, w: &mut Writer<'_>, task: &Task<'_, '_>) -> Vec<Vec<F32>> {
        let lanes = task.tiling.result.lanes;
        let mut cols = Vec::new();
        let mut values = Vec::new();
        for fragment in &self.scores.fragments {
            let row = self.rows.iter().find(|row| row.offset == fragment.row);
            let row = &row.expect("rows are those of fragments").line;
            let mut own = Vec::new();
            for (i, sums) in fragment.sums.chunks(lanes).enumerate() {
                let col = fragment.col + (i * lanes) as u32;
                let col = line(w, task, &self.scores, 1, col, &mut cols);
                own.extend(self.block.masked(w, [row, &cols[col].1], sums));
            }
            values.push(own);
        }
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
        let block = self.block;
        let lanes = if block.schedule.scores.math == Math::F32 { 8 } else { 4 };
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
        let (to, from) = (w.b.mad(own, 4, block.folds), w.b.mad(row, 4, block.folds));
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

    /// Puts powers where the sums of values read them.
    fn hand_over(&self, w: &mut Writer<'_>, powers: &[Vec<F32>]) {
        let tiling = self.task.tiling;
        if tiling.math == Math::F32 {
            // Neighbours along a line are rows.
            for (col, &place) in self.places.iter().enumerate() {
                let rows: Vec<_> = powers.iter().map(|row| row[col].into()).collect();
                store_words(w, Address::shared(place, 0), &rows);
            }
            return;
        }
        for (fragment, powers) in self.scores.fragments.iter().zip(powers) {
            let words = powers.chunks(tiling.math.per_word() as usize).map(|parts| {
                let to = fresh_word(w, tiling.math);
                word(w, tiling.math, to, parts);
                to
            });
            let words: Vec<_> = words.collect();
            let first = fragment.col / tiling.math.per_word();
            let place = w.b.int(IntOp::Xor, self.places[0], 4 * (first % WORDS));
            let offset = first / WORDS * tiling.part_bytes(0) + 4 * WORDS * fragment.row;
            store_words(w, Address::shared(place, offset as i32), &words);
        }
    }

    /// Scales the sums of all rows by what the sums of their powers make of them.
    fn scale(&self, w: &mut Writer<'_>) {
        let parts: Vec<F32> = self.rows.iter().map(|row| row.sum).collect();
        let totals = self.across(w, &parts, FloatOp::Add);
        for (row, total) in self.rows.iter().zip(totals) {
            let folds = [row.max, total].map(|fold| w.scope.input(fold.into()));
            let mut point = self.block.of_row(&row.line, &folds);
            for &scale in &self.block.schedule.softmax.scales {
                let scale = point.value(w, scale)[0];
                let scale = w.scope.f32(&mut w.b, scale);
                let scale = scale.register().unwrap_or_else(|| w.b.mov_f32(scale));
                self.scale_row(w, row, scale);
            }
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

/// Where a thread's powers go in shared memory: see [`Work::places`].
fn places(w: &mut Writer<'_>, block: &Block<'_, '_>, scores: &Held) -> Vec<B32> {
    let tiling = &block.schedule.values;
    let [row, col] = scores.first;
    let by_line = tiling.math == Math::F32;
    let count = if by_line { scores.fragments[0].sums.len() as u32 } else { 1 };
    (0..count)
        .map(|i| {
            let col = w.b.int(IntOp::Add, col, i);
            let word = w.b.int(IntOp::DivU, col, tiling.math.per_word());
            let (stage, word) =
                (w.b.int(IntOp::DivU, word, WORDS), w.b.int(IntOp::RemU, word, WORDS));
            let within = match by_line {
                true => line_place(w, TILE, row, word),
                false => row_place(w, row, word),
            };
            let within = w.b.int(IntOp::Add, within, block.powers);
            w.b.mad(stage, tiling.part_bytes(0), within)
        })
        .collect()
}
