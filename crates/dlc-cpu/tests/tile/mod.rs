//! A tile with everything it computes from and to, in memory that touches unreadable memory.

use crate::guard::{Code, Guarded, SIDES, Side};
use crate::interpret::Callable;
use dlc_cpu::jit::{compile_leaf, compile_portable_leaf};
use dlc_cpu::leaf::epilogue::{Epilogue, MAX_STREAMS, Spread};
use dlc_cpu::leaf::wide::{Width, gemm};
use dlc_cpu::leaf::{GemmArgs, GemmTile, Leaf, Left, MAX_LEVELS};
use dlc_cpu::level::Level;
use std::sync::Arc;

fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 37 + seed * 11) % 101) as f32 / 7.0 - 7.0).collect()
}

/// What a leaf is called for.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Counts of the loops, innermost first.
    pub counts: [usize; MAX_LEVELS],
    pub tiles: usize,
    pub accumulate: bool,
    pub finish: bool,
}

impl Call {
    fn depth(&self) -> usize {
        self.counts.iter().product()
    }

    /// What moves a pointer at every level, if the steps lie `step` bytes apart and every loop but
    /// the innermost leaves out one step.
    fn moves(&self, step: usize) -> [i64; MAX_LEVELS] {
        [step as i64; MAX_LEVELS]
    }

    /// The position of a step in memory: each round of a loop around others skips one.
    fn place(&self, p: usize) -> usize {
        let (inner, middle) = (self.counts[0].max(1), self.counts[1]);
        p + p / inner + p / (inner * middle)
    }

    /// How many places there are.
    fn places(&self) -> usize {
        self.depth().checked_sub(1).map_or(0, |last| self.place(last) + 1)
    }
}

/// Floats from one row of panels, tile and streams to the next.
const MARGIN: usize = 3;

/// The stored values, from the sum and the inputs.
pub type Wanted = fn(f32, &[f32]) -> Vec<f32>;

/// An epilogue, and what it must compute.
pub struct Ending {
    pub epilogue: Arc<Epilogue>,
    /// By stream: whether it moves from row to row.
    pub moves: Vec<bool>,
    /// None if only the implementations are compared with one another.
    pub wanted: Option<Wanted>,
}

/// The argument block.
#[repr(C)]
struct Block {
    args: GemmArgs,
    /// Address and step.
    streams: [[i64; 2]; MAX_STREAMS],
}

/// A leaf as one compiler made it.
pub struct Compiled {
    pub name: String,
    pub code: Callable,
    /// Whether its steps round once.
    pub fused: bool,
}

/// A tile with everything it computes from and to.
pub struct Bench<'b> {
    tile: GemmTile,
    ending: Option<&'b Ending>,
    call: Call,
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
    streams: Vec<Vec<f32>>,
}

impl<'b> Bench<'b> {
    pub fn new(tile: GemmTile, ending: Option<&'b Ending>, call: Call) -> Bench<'b> {
        let (rows, columns) = (usize::from(tile.rows), usize::from(tile.columns));
        let block = (call.tiles * rows * (columns + MARGIN)).saturating_sub(MARGIN);
        let stream = |(k, &spread): (usize, &Spread)| {
            let count = match (spread, ending.is_some_and(|e| e.moves[k])) {
                (Spread::Neighbours, true) => block,
                (Spread::Neighbours, false) => columns,
                (Spread::Still, true) => call.tiles * rows,
                (Spread::Still, false) => 1,
                (Spread::Truths | Spread::Counting, _) => unreachable!("streams here are floats"),
            };
            numbers(count, 4 + k)
        };
        let spreads = ending.map_or(&[][..], |e| &e.epilogue.streams);
        Bench {
            tile,
            ending,
            call,
            a: numbers(call.tiles * call.places() * rows, 1),
            b: numbers(call.places() * right_step(tile), 2),
            c: numbers(block, 3),
            streams: spreads.iter().enumerate().map(stream).collect(),
        }
    }

    fn columns(&self) -> usize {
        self.tile.columns.into()
    }

    /// The element of a stream at a row and column.
    fn element(&self, stream: usize, row: usize, column: usize) -> usize {
        let ending = self.ending.expect("streams are those of an epilogue");
        let row = if ending.moves[stream] { row } else { 0 };
        match ending.epilogue.streams[stream] {
            Spread::Neighbours => row * (self.columns() + MARGIN) + column,
            Spread::Still => row,
            Spread::Truths | Spread::Counting => unreachable!("streams here are floats"),
        }
    }

    fn sum(&self, row: usize, column: usize, fused: bool) -> f32 {
        let at = row * (self.columns() + MARGIN) + column;
        let first = if self.call.accumulate { self.c[at] } else { 0.0 };
        (0..self.call.depth()).fold(first, |sum, p| {
            let x = self.a[left_at(self.tile, self.call, row, p)];
            let y = self.b[self.call.place(p) * right_step(self.tile) + column];
            if fused { x.mul_add(y, sum) } else { x * y + sum }
        })
    }

    /// The tile and the streams afterwards, if the epilogue says what it computes.
    fn expected(&self, fused: bool) -> Option<Vec<Vec<f32>>> {
        let mut all: Vec<Vec<f32>> = [&self.c].into_iter().chain(&self.streams).cloned().collect();
        for row in 0..self.call.tiles * usize::from(self.tile.rows) {
            for column in 0..self.columns() {
                let sum = self.sum(row, column, fused);
                let Some(ending) = self.ending.filter(|_| self.call.finish) else {
                    all[0][row * (self.columns() + MARGIN) + column] = sum;
                    continue;
                };
                let value = |k: usize| self.streams[k][self.element(k, row, column)];
                let inputs: Vec<f32> = (0..self.streams.len()).map(value).collect();
                let values = ending.wanted?(sum, &inputs);
                for (&(stream, _), value) in ending.epilogue.stores.iter().zip(values) {
                    let stream = usize::from(stream);
                    all[1 + stream][self.element(stream, row, column)] = value;
                }
            }
        }
        Some(all)
    }

    /// Bytes from one row of a stream to the next.
    fn step(&self, stream: usize) -> i64 {
        if !self.ending.is_some_and(|e| e.moves[stream]) {
            return 0;
        }
        4 * self.element(stream, 1, 0) as i64
    }

    /// The tile and the streams after a call with memory that touches unreadable memory.
    fn run(&self, code: &Callable, side: Side) -> Vec<Vec<f32>> {
        let [a, b, c] = [&self.a, &self.b, &self.c].map(|values| Guarded::new(values, side));
        let streams: Vec<Guarded> = self.streams.iter().map(|s| Guarded::new(s, side)).collect();
        let mut block = Block { args: self.args([&a, &b, &c]), streams: [[0; 2]; MAX_STREAMS] };
        for (k, stream) in streams.iter().enumerate() {
            block.streams[k] = [stream.pointer() as i64, self.step(k)];
        }
        code.call(&raw mut block);
        let moved =
            if self.call.finish { self.call.tiles * usize::from(self.tile.rows) } else { 0 };
        for (k, stream) in streams.iter().enumerate() {
            let end = stream.pointer() as i64 + moved as i64 * self.step(k);
            assert_eq!(block.streams[k][0], end, "stream {k} of {} {:?}", self.tile, self.call);
        }
        [c].iter().chain(&streams).map(Guarded::read).collect()
    }

    fn args(&self, [a, b, c]: [&Guarded; 3]) -> GemmArgs {
        let (tile, call) = (self.tile, self.call);
        let rows = usize::from(tile.rows);
        let (a_row, a_step) = match tile.left {
            Left::Packed => (4, 4 * rows),
            Left::Strided => (4 * call.places(), 4),
        };
        GemmArgs {
            a: a.pointer(),
            b: b.pointer(),
            c: c.pointer(),
            counts: call.counts.map(|n| n as i64),
            a_moves: call.moves(a_step),
            b_moves: call.moves(4 * right_step(tile)),
            a_row: a_row as i64,
            c_step: 4 * (self.columns() + MARGIN) as i64,
            tiles: call.tiles as i64,
            a_tile: 4 * (rows * call.places()) as i64,
            next: b.pointer(),
            accumulate: i64::from(call.accumulate),
            finish: i64::from(call.finish),
        }
    }
}

fn left_at(tile: GemmTile, call: Call, row: usize, p: usize) -> usize {
    let rows = usize::from(tile.rows);
    match tile.left {
        Left::Packed => (row / rows * call.places() + call.place(p)) * rows + row % rows,
        Left::Strided => row * call.places() + call.place(p),
    }
}

fn right_step(tile: GemmTile) -> usize {
    usize::from(tile.columns).next_multiple_of(16)
}

/// Whether a level has code of its own for a tile.
fn holds(level: Level, tile: GemmTile) -> bool {
    Width::of(level).is_some_and(|widest| gemm::holds(gemm::width(widest, tile), tile))
}

/// A leaf as every compiler of this machine makes it, in long and short vectors; the portable one is the
/// first.
pub fn native(leaf: &Leaf, tile: GemmTile) -> Vec<Compiled> {
    let best = Level::detect().expect("tests run on a machine with a level");
    let portable = [best, Level::X86_64V2].into_iter().filter(|l| l.runs_here());
    let mut all: Vec<(Level, _)> =
        portable.map(|level| (level, compile_portable_leaf(level, leaf))).collect();
    let Leaf::Gemm(_, epilogue) = leaf else { panic!("a tile's leaf has a tile") };
    let assembled = [(Level::X86_64V3, false), (Level::X86_64V4, false), (Level::X86_64V4, true)];
    for (level, short) in assembled.into_iter().filter(|(level, _)| level.runs_here()) {
        let tile = GemmTile { short, ..tile };
        let leaf = Leaf::Gemm(tile, epilogue.clone());
        all.extend(holds(level, tile).then(|| (level, compile_leaf(level, &leaf))));
    }
    let compiled = |(level, compiled): (Level, Result<dlc_cpu::jit::Compiled, String>)| {
        let code = Callable::Native(Code::new(&compiled.expect("the leaf compiles").bytes));
        Compiled { name: level.name().into(), code, fused: level.has_fma() }
    };
    all.into_iter().map(compiled).collect()
}

/// The same for a level's assembled code, interpreted.
pub fn interpreted(leaf: &Leaf, tile: GemmTile, level: Level) -> Option<Compiled> {
    let bytes =
        holds(level, tile).then(|| compile_leaf(level, leaf).expect("the leaf assembles").bytes)?;
    let name = format!("{}, interpreted", level.name());
    Some(Compiled { name, code: Callable::Interpreted(bytes), fused: true })
}

/// Compares what all implementations leave behind with what is wanted, or with the first of them.
pub fn compare(bench: &Bench, all: &[Compiled]) {
    for fused in [true, false] {
        let mut wanted = bench.expected(fused);
        for Compiled { name, code, .. } in all.iter().filter(|c| c.fused == fused) {
            for side in SIDES {
                let found = bench.run(code, side);
                let wanted = wanted.get_or_insert_with(|| found.clone());
                assert_eq!(&found, wanted, "{} {:?} {name} {side:?}", bench.tile, bench.call);
            }
        }
    }
}
