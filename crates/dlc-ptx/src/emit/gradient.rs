//! Gradients of attention: tiles of a plane, what becomes of them, and sums of it over columns. All
//! contractions are those of [`super::contract`].

use super::contract::finish::{self, Line, line};
use super::contract::multiply;
use super::contract::tiled::{Held, Pipeline, Task, both};
use super::plane::{Block, Factor, rows};
use super::point::Side;
use super::writer::Writer;
use crate::ir::{B32, F32};
use crate::schedule::gradient::{Gradient, Tile};

/// Values of a tile that a thread holds, by fragment.
type Values = Vec<Vec<F32>>;

/// Writes gradients.
pub fn write(w: &mut Writer<'_>, schedule: &Gradient<'_>) {
    let tilings = schedule.tiles.iter().map(|tile| &tile.tiling);
    let tilings = tilings.chain(schedule.sums.iter().map(|sum| &sum.tiling));
    let block = Block::new(w, &schedule.plane, tilings);
    let tasks: Vec<Task<'_, '_>> =
        schedule.sums.iter().map(|sum| block.task(&sum.tiling, block.zero)).collect();
    let sums: Vec<Held> = tasks.iter().map(|task| multiply::hold(w, task)).collect();
    let work = Work::new(w, schedule, &block);
    block.each_tile(w, |w, column| {
        work.fill(w, column);
        for ((sum, task), held) in schedule.sums.iter().zip(&tasks).zip(&sums) {
            // All have left the stages.
            w.b.barrier();
            let range = block.range(w, column);
            let factor = Some(work.factors[sum.value].base);
            Pipeline::new(w, task, held, range, factor).run(w, block.stages);
        }
    });
    for ((sum, task), held) in schedule.sums.iter().zip(&tasks).zip(&sums) {
        finish::write(w, task, held, sum.stores);
    }
}

/// A thread's share of a block.
struct Work<'t, 's, 'k> {
    schedule: &'s Gradient<'k>,
    block: &'t Block<'s, 'k>,
    /// By tile of the schedule.
    held: Vec<Held>,
    rows: Vec<(u32, Line)>,
    /// By value of the last tile.
    factors: Vec<Factor<'s, 'k>>,
}

impl<'t, 's, 'k> Work<'t, 's, 'k> {
    fn new(
        w: &mut Writer<'_>,
        schedule: &'s Gradient<'k>,
        block: &'t Block<'s, 'k>,
    ) -> Work<'t, 's, 'k> {
        let tasks: Vec<Task<'_, '_>> =
            schedule.tiles.iter().map(|tile| block.task(&tile.tiling, block.zero)).collect();
        let held: Vec<Held> = tasks.iter().map(|task| multiply::hold(w, task)).collect();
        let rows = rows(w, &tasks[0], &held[0]);
        let values = schedule.tiles.last().map_or(0, |tile| tile.values.len());
        let of_value = |value| schedule.sums.iter().find(|sum| sum.value == value);
        let factors = (0..values).map(|value| {
            let sum = of_value(value).expect("a value is read");
            Factor::new(w, &sum.tiling, &held[0])
        });
        let factors = factors.collect();
        Work { schedule, block, held, rows, factors }
    }

    /// Computes the plane at the columns from `column` on, and puts what is summed where sums read it.
    fn fill(&self, w: &mut Writer<'_>, column: B32) {
        let mut known: Vec<Vec<Values>> = Vec::new();
        for (tile, held) in self.schedule.tiles.iter().zip(&self.held) {
            // All have left the stages.
            w.b.barrier();
            let fragments = held.fragments.iter().flat_map(|fragment| &fragment.sums);
            fragments.for_each(|&sum| w.b.mov_f32_to(sum, 0.0));
            let task = self.block.task(&tile.tiling, column);
            let depth = w.b.mov32(tile.tiling.sum.points() as u32);
            let pipeline = Pipeline::new(w, &task, held, [self.block.zero, depth], None);
            pipeline.run(w, self.block.stages);
            known.push(self.values(w, (tile, held), &task, &known));
        }
        let (last, held) = (known.last().expect("there are tiles"), &self.held[0]);
        for (factor, values) in self.factors.iter().zip(last) {
            factor.put(w, held, values);
        }
    }

    /// What becomes of a tile, by value; 0 where there is no column.
    fn values(
        &self,
        w: &mut Writer<'_>,
        (tile, held): (&Tile<'k>, &Held),
        task: &Task<'_, 'k>,
        known: &[Vec<Values>],
    ) -> Vec<Values> {
        let lanes = task.tiling.result.lanes;
        let mut cols = Vec::new();
        let mut values = vec![Values::new(); tile.values.len()];
        for (number, fragment) in held.fragments.iter().enumerate() {
            values.iter_mut().for_each(|values| values.push(Vec::new()));
            let row = self.rows.iter().find(|(offset, _)| *offset == fragment.row);
            let row = &row.expect("rows are those of fragments").1;
            for (i, sums) in fragment.sums.chunks(lanes).enumerate() {
                let col = fragment.col + (i * lanes) as u32;
                let col = line(w, task, held, 1, col, &mut cols);
                let col = &cols[col].1;
                let exists = both(w, row.exists, col.exists);
                let mut point =
                    self.block.result(&tile.tiling, [row, col], sums.len()).within(exists);
                let sums_of = |w: &mut Writer<'_>, sums: &[F32]| -> Side {
                    sums.iter().map(|&sum| w.scope.input(sum.into())).collect()
                };
                let folded = sums_of(w, sums);
                point.fold(0, folded);
                for (&load, values) in tile.loads.iter().zip(known) {
                    let known = &values[0][number][i * lanes..i * lanes + sums.len()];
                    let known = sums_of(w, known);
                    point.know_load(w, load, &known);
                }
                for (&value, values) in tile.values.iter().zip(&mut values) {
                    let side = point.value(w, value);
                    for lane in 0..sums.len() {
                        let x = w.scope.f32(&mut w.b, side[lane % side.len()]);
                        values[number].push(match col.exists {
                            Some(exists) => w.b.select_f32(exists, x, 0.0),
                            None => x.register().unwrap_or_else(|| w.b.mov_f32(x)),
                        });
                    }
                }
            }
        }
        values
    }
}
