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

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn set(bytes: &mut [u8], at: usize, value: f32) {
    bytes[4 * at..][..4].copy_from_slice(&value.to_le_bytes());
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

/// The stored values, from the sum and the inputs: elements of the streams, then values. Truth values
/// are 0 or 1.
pub type Wanted = fn(f32, &[f32]) -> Vec<f32>;

/// The first of the integers that count up, and what is added from row to row.
const COUNTING: [i64; 2] = [5, 1000];

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
    /// Address and step of each stream; then the values, two at a time.
    rest: [i64; 2 * MAX_STREAMS + MAX_VALUES / 2],
}

const MAX_VALUES: usize = 4;

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
    /// Their bytes; none of what is counted.
    streams: Vec<Vec<u8>>,
    values: Vec<f32>,
}

impl<'b> Bench<'b> {
    pub fn new(tile: GemmTile, ending: Option<&'b Ending>, call: Call) -> Bench<'b> {
        let (rows, columns) = (usize::from(tile.rows), usize::from(tile.columns));
        let block = (call.tiles * rows * (columns + MARGIN)).saturating_sub(MARGIN);
        let stream = |(k, &spread): (usize, &Spread)| {
            let moves = ending.is_some_and(|e| e.moves[k]);
            let count = match spread {
                Spread::Counting => 0,
                Spread::Still if moves => call.tiles * rows,
                Spread::Still => 1,
                Spread::Neighbours | Spread::Truths if moves => block,
                Spread::Neighbours | Spread::Truths => columns,
            };
            match spread {
                Spread::Truths => (0..count).map(|i| u8::from((i + k) % 3 == 0)).collect(),
                _ => bytes(&numbers(count, 4 + k)),
            }
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
            values: numbers(ending.map_or(0, |e| e.epilogue.values.into()), 9),
        }
    }

    fn columns(&self) -> usize {
        self.tile.columns.into()
    }

    /// The element of a stream at a row and column.
    fn element(&self, stream: usize, row: usize, column: usize) -> usize {
        let moves = self.ending.is_some_and(|e| e.moves[stream]);
        let row = if moves { row } else { 0 };
        match self.spread(stream) {
            Spread::Neighbours | Spread::Truths => row * (self.columns() + MARGIN) + column,
            Spread::Counting => (COUNTING[0] + COUNTING[1] * row as i64) as usize + column,
            Spread::Still => row,
        }
    }

    /// What an element of a stream is as an input.
    fn input(&self, stream: usize, row: usize, column: usize) -> f32 {
        let at = self.element(stream, row, column);
        let bytes = &self.streams[stream];
        match self.spread(stream) {
            Spread::Counting => at as f32,
            Spread::Truths => bytes[at].into(),
            Spread::Neighbours | Spread::Still => {
                f32::from_le_bytes(bytes[4 * at..][..4].try_into().expect("four bytes"))
            }
        }
    }

    fn spread(&self, stream: usize) -> Spread {
        self.ending.expect("streams are those of an epilogue").epilogue.streams[stream]
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
    fn expected(&self, fused: bool) -> Option<Vec<Vec<u8>>> {
        let mut all: Vec<Vec<u8>> =
            [bytes(&self.c)].into_iter().chain(self.streams.clone()).collect();
        for row in 0..self.call.tiles * usize::from(self.tile.rows) {
            for column in 0..self.columns() {
                let sum = self.sum(row, column, fused);
                let Some(ending) = self.ending.filter(|_| self.call.finish) else {
                    set(&mut all[0], row * (self.columns() + MARGIN) + column, sum);
                    continue;
                };
                let input = |k: usize| self.input(k, row, column);
                let streams = (0..self.streams.len()).map(input);
                let inputs: Vec<f32> = streams.chain(self.values.iter().copied()).collect();
                let values = ending.wanted?(sum, &inputs);
                for (&(stream, _), value) in ending.epilogue.stores.iter().zip(values) {
                    let stream = usize::from(stream);
                    let at = self.element(stream, row, column);
                    match self.spread(stream) {
                        Spread::Truths => all[1 + stream][at] = value as u8,
                        _ => set(&mut all[1 + stream], at, value),
                    }
                }
            }
        }
        Some(all)
    }

    /// What is added to the address of a stream from one row to the next.
    fn step(&self, stream: usize) -> i64 {
        let rows = self.element(stream, 1, 0) - self.element(stream, 0, 0);
        let bytes = match self.spread(stream) {
            Spread::Neighbours | Spread::Still => 4,
            Spread::Truths | Spread::Counting => 1,
        };
        bytes * rows as i64
    }

    /// The tile and the streams after a call with memory that touches unreadable memory.
    fn run(&self, code: &Callable, side: Side) -> Vec<Vec<u8>> {
        let [a, b, c] = [&self.a, &self.b, &self.c].map(|values| Guarded::new(values, side));
        let streams: Vec<Guarded> =
            self.streams.iter().map(|s| Guarded::from_bytes(s, side)).collect();
        let first = |k: usize| match self.spread(k) {
            Spread::Counting => COUNTING[0],
            _ => streams[k].pointer() as i64,
        };
        let mut block = Block { args: self.args([&a, &b, &c]), rest: [0; _] };
        for k in 0..streams.len() {
            block.rest[2 * k..][..2].copy_from_slice(&[first(k), self.step(k)]);
        }
        let values = bytes(&self.values);
        for (k, two) in values.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..two.len()].copy_from_slice(two);
            block.rest[2 * streams.len() + k] = i64::from_le_bytes(word);
        }
        code.call(&raw mut block);
        let moved =
            if self.call.finish { self.call.tiles * usize::from(self.tile.rows) } else { 0 };
        for k in 0..streams.len() {
            let end = first(k) + moved as i64 * self.step(k);
            assert_eq!(block.rest[2 * k], end, "stream {k} of {} {:?}", self.tile, self.call);
        }
        [c].iter().chain(&streams).map(Guarded::read_bytes).collect()
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

/// Levels with assembled code, and whether their vectors are short.
const ASSEMBLED: [(Level, bool); 3] =
    [(Level::X86_64V3, false), (Level::X86_64V4, false), (Level::X86_64V4, true)];

/// A leaf as every compiler of this machine makes it, in long and short vectors; the portable one is the
/// first.
pub fn native(leaf: &Leaf, tile: GemmTile) -> Vec<Compiled> {
    let best = Level::detect().expect("tests run on a machine with a level");
    let portable = [best, Level::X86_64V2].into_iter().filter(|l| l.runs_here());
    let mut all: Vec<(Level, _)> =
        portable.map(|level| (level, compile_portable_leaf(level, leaf))).collect();
    let Leaf::Gemm(_, epilogue) = leaf else { panic!("a tile's leaf has a tile") };
    for (level, short) in ASSEMBLED.into_iter().filter(|(level, _)| level.runs_here()) {
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

/// Code that AVX2 and AVX-512 have for a leaf, in long and short vectors, interpreted.
pub fn interpreted(leaf: &Leaf, tile: GemmTile) -> Vec<Compiled> {
    let Leaf::Gemm(_, epilogue) = leaf else { panic!("a tile's leaf has a tile") };
    let compiled = |(level, short): (Level, bool)| {
        let tile = GemmTile { short, ..tile };
        let leaf = Leaf::Gemm(tile, epilogue.clone());
        let bytes = holds(level, tile).then(|| compile_leaf(level, &leaf))?;
        let name = format!("{}, short: {short}, interpreted", level.name());
        let code = Callable::Interpreted(bytes.expect("the leaf assembles").bytes);
        Some(Compiled { name, code, fused: true })
    };
    ASSEMBLED.into_iter().filter_map(compiled).collect()
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
