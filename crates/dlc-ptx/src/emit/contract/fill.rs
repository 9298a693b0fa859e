//! Factors on their way into shared memory: through registers, where they are computed and rounded, or
//! as copies that arrive by themselves.

use super::tiled::{Task, below, both, chunk_place, point_axes, turn_bytes};
use crate::Math;
use crate::emit::map::coordinates;
use crate::emit::point::Point;
use crate::emit::writer::Writer;
use crate::ir::{
    Address, B32, Builder, Class, Compare, Convert, F32, Inst, IntOp, MemType, Pred, Reg, Space,
    Value,
};
use crate::schedule::contract::{CHUNK, Side, Supply, Tiling, WORDS};

/// What a thread brings of one factor: items, each a few words along a line, or across lines.
pub struct Fill {
    side: usize,
    shape: Shape,
    /// The word line of the first element, from the stage's first.
    line: B32,
    /// Holds in the threads that have items; `None` if all have.
    busy: Option<Pred>,
    items: Vec<Item>,
}

/// How a thread's words lie.
#[derive(Clone, Copy)]
struct Shape {
    /// Words side by side in a line.
    along: u32,
    /// Lines.
    lines: u32,
    /// Words that lie side by side in shared memory.
    together: u32,
}

/// A point of the sum.
struct Summand {
    axes: Vec<Value<B32>>,
    /// `None` if it surely does.
    exists: Option<Pred>,
}

/// Some words that are brought together.
struct Item {
    /// Lines from the thread's first.
    line: u32,
    /// Axes of its row.
    row: Vec<Value<B32>>,
    /// Whether its row exists; `None` if it does.
    exists: Option<Pred>,
    /// Bytes from the start of the factor's part of a stage, of the words that lie side by side.
    places: Vec<B32>,
    /// As they lie side by side, place by place; none if they are copied.
    words: Vec<Reg>,
}

impl Fill {
    /// The fill of the rows' (0) or columns' (1) factor; works out what stays the same.
    pub fn new(w: &mut Writer<'_>, task: &Task<'_, '_>, side: usize) -> Fill {
        let tiling = task.tiling;
        let this = &tiling.sides[side];
        let lanes = this.view.lanes as u32;
        let packed = tiling.math.per_word();
        let (along, lines) = match this.along_sum {
            true => (1, (lanes / packed).max(1)),
            false if this.by_rows => (lanes, CHUNK),
            false => (lanes, 1),
        };
        let (rows, words) = (this.tile / along, WORDS / lines);
        let threads = tiling.threads;
        // A warp has items that lie on different banks: of lines, 8 do.
        let fastest = match this.along_sum {
            true if this.by_rows => words,
            true => words.min(8),
            false => rows,
        };
        let (fast, slow) = (
            w.b.int(IntOp::RemU, task.thread, fastest),
            w.b.int(IntOp::DivU, task.thread, fastest),
        );
        let (row, line) = if this.along_sum { (slow, fast) } else { (fast, slow) };
        let row = w.b.int(IntOp::Mul, row, along);
        let line = w.b.int(IntOp::Mul, line, lines);
        let together = if this.by_rows { lines } else { along };
        let shape = Shape { along, lines, together };
        let count = rows * words;
        let busy = (count < threads).then(|| w.b.set_uint(Compare::Lt, task.thread, count));
        let step = (threads / fastest).max(1);
        // Rows and lines from the thread's first item to another one.
        let steps: Vec<[u32; 2]> = match this.along_sum {
            true => (0..words / fastest)
                .flat_map(|i| (0..rows.div_ceil(step)).map(move |j| [j * step, i * fastest]))
                .collect(),
            false => (0..count.div_ceil(threads)).map(|i| [0, i * step * lines]).collect(),
        };
        let items =
            steps.into_iter().map(|steps| Item::new(w, task, side, shape, [row, line], steps));
        let items = items.collect();
        Fill { side, shape, line, busy, items }
    }

    /// Loads, or computes, the words of the stage whose sum begins at `at`.
    pub fn load(&self, w: &mut Writer<'_>, task: &Task<'_, '_>, at: B32) {
        let tiling = task.tiling;
        let sum = tiling.sum.points();
        let mut known: Option<(u32, Vec<Summand>)> = None;
        for item in &self.items {
            if known.as_ref().is_none_or(|(line, _)| *line != item.line) {
                let points = self.sum_points(w, tiling, at, item.line, sum);
                known = Some((item.line, points));
            }
            let points = &known.as_ref().expect("just made").1;
            self.load_item(w, task, item, points);
        }
    }

    /// Begins to copy the words of the stage at `stage`, whose sum begins at `at`; what does not
    /// exist is 0.
    pub fn copy(&self, w: &mut Writer<'_>, task: &Task<'_, '_>, at: B32, stage: B32, offset: u32) {
        let (tiling, side) = (task.tiling, &task.tiling.sides[self.side]);
        let bytes = 4 * self.shape.together;
        for item in &self.items {
            let summands = self.sum_points(w, tiling, at, item.line, tiling.sum.points());
            let [Summand { axes, exists }] = summands.as_slice() else {
                panic!("what is copied is one vector");
            };
            let exists = both(w, item.exists, *exists);
            let axes = self.axes(task, item, axes);
            let point = Point::new(&side.view.domain, axes, side.view.lanes).within(exists);
            let (from, inside) = point.source(w, side.factor);
            let size = inside.map(|inside| w.b.select32(inside, bytes, 0));
            let to = Address::shared(w.b.int(IntOp::Add, stage, item.places[0]), offset as i32);
            let copy = |b: &mut Builder| b.push(Inst::CopyAsync { to, from, bytes, size });
            match self.busy {
                Some(busy) => w.b.guarded(busy, true, copy),
                None => copy(&mut w.b),
            }
        }
    }

    /// The axes of an item's points, as its side views them.
    fn axes(&self, task: &Task<'_, '_>, item: &Item, sum: &[Value<B32>]) -> Vec<Value<B32>> {
        let (tiling, side) = (task.tiling, &task.tiling.sides[self.side]);
        let groups: [(_, &[_]); 3] =
            [(&tiling.batch, &task.batch), (&side.group, &item.row), (&tiling.sum, sum)];
        point_axes(&side.view, &groups)
    }

    /// Where a word's elements stand in the sum: one point for each element, or one for all that
    /// are read together along the sum.
    fn sum_points(
        &self,
        w: &mut Writer<'_>,
        tiling: &Tiling<'_>,
        at: B32,
        first: u32,
        sum: i64,
    ) -> Vec<Summand> {
        let side = &tiling.sides[self.side];
        let together = if side.along_sum { side.view.lanes as u32 } else { 1 };
        let elements = self.shape.lines * tiling.math.per_word();
        let base = w.b.mad(self.line, tiling.math.per_word(), at);
        (0..elements / together)
            .map(|i| {
                let at = w.b.int(IntOp::Add, base, first * tiling.math.per_word() + i * together);
                let exists = below(w, at, sum, tiling.depth());
                Summand { axes: coordinates(w, at.into(), &tiling.sum.extents, 1), exists }
            })
            .collect()
    }

    fn load_item(
        &self,
        w: &mut Writer<'_>,
        task: &Task<'_, '_>,
        item: &Item,
        summands: &[Summand],
    ) {
        let (tiling, side) = (task.tiling, &task.tiling.sides[self.side]);
        let mut elements: Vec<Vec<F32>> = Vec::new();
        for Summand { axes, exists } in summands {
            let axes = self.axes(task, item, axes);
            let exists = both(w, item.exists, *exists);
            let exists = both(w, exists, self.busy);
            let values = values(w, side, axes, exists);
            if side.along_sum {
                elements.extend(values.into_iter().map(|x| vec![x]));
            } else {
                elements.push(values);
            }
        }
        let packed = tiling.math.per_word() as usize;
        let [along, lines] = [self.shape.along, self.shape.lines].map(|n| n as usize);
        for (line, pair) in elements.chunks(packed).enumerate() {
            for position in 0..along {
                let parts: Vec<F32> = pair.iter().map(|lane| lane[position]).collect();
                let at =
                    if side.by_rows { position * lines + line } else { line * along + position };
                word(w, tiling.math, item.words[at], &parts);
            }
        }
    }

    /// Stores the words to the stage at `stage`.
    pub fn store(&self, w: &mut Writer<'_>, stage: B32, offset: u32) {
        let write = |w: &mut Writer<'_>| {
            for item in &self.items {
                let together = self.shape.together as usize;
                for (place, words) in item.places.iter().zip(item.words.chunks(together)) {
                    let to = w.b.int(IntOp::Add, stage, *place);
                    store_words(w, Address::shared(to, offset as i32), words);
                }
            }
        };
        match self.busy {
            Some(busy) => w.if_(busy, write),
            None => write(w),
        }
    }
}

impl Item {
    fn new(
        w: &mut Writer<'_>,
        task: &Task<'_, '_>,
        side: usize,
        shape: Shape,
        [row, line]: [B32; 2],
        [rows, lines]: [u32; 2],
    ) -> Item {
        let row = w.b.int(IntOp::Add, row, rows);
        let line = w.b.int(IntOp::Add, line, lines);
        let this = &task.tiling.sides[side];
        let at = w.b.int(IntOp::Add, task.origin[side], row);
        let exists = below(w, at, this.group.points(), this.tile);
        let places = if this.by_rows {
            let rows: Vec<B32> = (0..shape.along).map(|i| w.b.int(IntOp::Add, row, i)).collect();
            rows.into_iter().map(|row| row_place(w, row, line)).collect()
        } else {
            let lines = (0..shape.lines).map(|i| w.b.int(IntOp::Add, line, i));
            let lines: Vec<B32> = lines.collect();
            lines.into_iter().map(|line| line_place(w, this.tile, row, line)).collect()
        };
        let held = if this.supply == Supply::Copied { 0 } else { shape.along * shape.lines };
        let words = (0..held).map(|_| fresh_word(w, task.tiling.math)).collect();
        let row = coordinates(w, at.into(), &this.group.extents, 1);
        Item { line: lines, row, exists, places, words }
    }
}

/// Where a word is in a stage that lies by lines.
pub fn line_place(w: &mut Writer<'_>, tile: u32, row: B32, line: B32) -> B32 {
    let turn = turn_bytes(w, line);
    let row = w.b.int(IntOp::Shl, row, 2);
    let row = w.b.int(IntOp::Xor, row, turn);
    w.b.mad(line, 4 * tile, row)
}

/// Where a word is in a stage that lies by rows: `line` words from the row's first.
pub fn row_place(w: &mut Writer<'_>, row: B32, line: B32) -> B32 {
    let chunk = w.b.int(IntOp::ShrU, line, 2);
    let start = chunk_place(w, row, chunk);
    let within = w.b.int(IntOp::And, line, 3);
    w.b.mad(within, 4, start)
}

/// The factor at a point and its neighbours, 0 where it does not exist.
fn values(
    w: &mut Writer<'_>,
    side: &Side<'_>,
    axes: Vec<Value<B32>>,
    exists: Option<Pred>,
) -> Vec<F32> {
    let mut point = Point::new(&side.view.domain, axes, side.view.lanes).within(exists);
    let vectors = point.value(w, side.factor);
    (0..side.view.lanes)
        .map(|lane| {
            let value = w.scope.f32(&mut w.b, vectors[lane % vectors.len()]);
            match exists {
                Some(exists) if !side.is_plain => w.b.select_f32(exists, value, 0.0),
                _ => value.register().unwrap_or_else(|| w.b.mov_f32(value)),
            }
        })
        .collect()
}

/// Stores words side by side in shared memory.
pub fn store_words(w: &mut Writer<'_>, to: Address, words: &[Reg]) {
    let ty = if words[0].class == Class::F32 { MemType::F32 } else { MemType::B32 };
    w.b.store(Space::Shared, ty, to, words);
}

/// A register for a word.
pub fn fresh_word(w: &mut Writer<'_>, math: Math) -> Reg {
    match math {
        Math::Tf32 | Math::F16 | Math::Bf16 => w.b.fresh::<B32>().into(),
        Math::F32 | Math::Tf32x3 => w.b.fresh::<F32>().into(),
    }
}

/// Rounds the elements of a word as they are multiplied.
pub fn word(w: &mut Writer<'_>, math: Math, to: Reg, parts: &[F32]) {
    match math {
        Math::F32 | Math::Tf32x3 => w.b.mov_f32_to(F32(to.number), parts[0]),
        Math::Tf32 => {
            let rounded = w.b.convert(|dst| Convert::F32ToTf32 { dst, src: parts[0] });
            w.b.mov32_to(B32(to.number), rounded);
        }
        Math::F16 | Math::Bf16 => {
            let [low, high] = [parts[0], parts[1]];
            let pair = w.b.convert(|dst| match math {
                Math::F16 => Convert::PackF16 { dst, low, high },
                _ => Convert::PackBf16 { dst, low, high },
            });
            w.b.mov32_to(B32(to.number), pair);
        }
    }
}
