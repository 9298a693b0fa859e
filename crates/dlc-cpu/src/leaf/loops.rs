//! Loops over elements that are neighbours in memory.
//!
//! A [`Loop`] computes its code for elements `0..count`, stores some of the values and folds
//! others. Everything it touches is found through its argument block: the count, addresses of
//! streams, one scalar for each uniform, room for the result of each fold. A stream may be loaded
//! and stored; another stream must not overlap one that is stored. Loads and stores touch
//! exactly the elements `0..count`. The order of a fold depends on count and level alone.
//!
//! A loop may go over many *lines*, one after the other: each does the same a constant distance
//! further on, by address. Neighbouring lines that read the same elements (windows, one below the other)
//! are computed together, so that these are loaded once. Folds go over the elements of all lines, or each
//! over a *column*: the elements one below the other. Then some columns are computed down all lines,
//! with their states in registers, before the next.

use super::lanes::{Kind, Lanes, Op, Vector, ops};
use dlc_kernel::{DType, FoldOp};
use rustc_hash::FxHashMap;

/// The most addresses a loop may have.
pub const MAX_ADDRESSES: usize = 16;

/// How many of them have registers; the others are loaded whenever they are used.
pub const NEAR_ADDRESSES: usize = 8;

/// The largest [`Stream::stride`].
pub const MAX_STRIDE: u8 = 2;

/// The most lines that are computed together.
pub const MOST_LINES: u8 = 8;

/// Operations of which each waits for the one before it, that are so many that a processor does not
/// look beyond them for others: then more lines give it some.
const LONG_CHAIN: usize = 32;

/// A loop, by what it computes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Loop {
    /// What is computed for an element. `Input(_, k)` is the element of stream `k`.
    pub lanes: Lanes,
    /// What is loaded and stored.
    pub streams: Vec<Stream>,
    /// How many uniforms there are.
    pub uniforms: u16,
    /// Streams, and what is stored to them.
    pub stores: Vec<(u16, Vector)>,
    /// What is folded; `Carry(_, k)` is the state of fold `k`.
    pub folds: Vec<Fold>,
    /// Vectors computed before the loop is closed; each has fold states of its own.
    pub unroll: u8,
    /// Streams of which the elements so many bytes on are wanted next: they are brought near.
    pub ahead: Vec<(u16, i32)>,
    /// Whether stores pass by the caches, where they are as aligned as that wants; all of them are
    /// of four bytes. Other threads see them after the caller's next fence.
    pub streaming: bool,
    /// Whether elements may be computed and stored more than once: none that is stored is loaded.
    pub repeats: bool,
    /// The lines, if there is more than one.
    pub lines: Option<Lines>,
}

/// Lines of elements, each a constant distance after the one before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lines {
    /// By address: bytes from one line to the next.
    pub steps: Vec<i32>,
    /// How many are computed together, while there are as many; a power of two. Folds are of one.
    pub together: u8,
    /// If folds are over columns, by fold: the stream that a column's state is merged into. Its lines
    /// are one.
    pub states: Vec<u16>,
}

/// Vectors that are computed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// So many neighbours along a line.
    Vectors(u8),
    /// One of each of so many lines.
    Lines(u8),
}

impl Copies {
    /// How many they are.
    pub fn count(self) -> usize {
        let (Copies::Vectors(count) | Copies::Lines(count)) = self;
        usize::from(count)
    }
}

/// Elements that are neighbours in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stream {
    /// Their type.
    pub dtype: DType,
    /// Which of the addresses it is found by.
    pub address: u16,
    /// Bytes from there to its first element.
    pub offset: i32,
    /// From one of its elements to the next: 1, or up to [`MAX_STRIDE`] if they are words.
    pub stride: u8,
}

/// A fold over the elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fold {
    /// The operation, whose result is not a position.
    pub op: FoldOp,
    /// The type of the elements: `F32` or `I32`.
    pub dtype: DType,
    /// The state after the current vector.
    pub next: Vector,
}

impl Loop {
    /// A loop over these streams that computes nothing yet.
    pub fn over(streams: Vec<Stream>) -> Loop {
        Loop {
            lanes: Lanes::default(),
            streams,
            uniforms: 0,
            stores: Vec::new(),
            folds: Vec::new(),
            unroll: 1,
            ahead: Vec::new(),
            streaming: false,
            repeats: false,
            lines: None,
        }
    }

    /// Where the count (`i64`) is in the argument block.
    pub const COUNT: i32 = 0;

    /// Where the number of lines (`i64`) is, if there are any; it is counted down.
    pub const LINES: i32 = 8;

    /// How many addresses there are.
    pub fn addresses(&self) -> usize {
        self.streams.iter().map(|s| usize::from(s.address) + 1).max().unwrap_or(0)
    }

    /// Where an address is.
    pub fn address_at(&self, address: usize) -> i32 {
        8 + 8 * i32::from(self.lines.is_some()) + 8 * address as i32
    }

    /// Where a uniform is: four bytes, a mask as an integer.
    pub fn uniform_at(&self, uniform: usize) -> i32 {
        self.address_at(self.addresses()) + 4 * uniform as i32
    }

    /// Where the result of a fold goes: four bytes.
    pub fn fold_at(&self, fold: usize) -> i32 {
        self.uniform_at(usize::from(self.uniforms)) + 4 * fold as i32
    }

    /// Bytes of the argument block.
    pub fn args_bytes(&self) -> u32 {
        (self.fold_at(self.folds.len()) as u32).next_multiple_of(8)
    }

    /// Everything that is computed.
    pub fn roots(&self) -> Vec<Vector> {
        let folded = self.folds.iter().map(|f| f.next);
        folded.chain(self.stores.iter().map(|s| s.1)).collect()
    }

    /// Whether the elements of a stream are loaded.
    pub fn loads(&self, stream: usize) -> bool {
        let loads = |v| matches!(self.lanes.op(v), Op::Input(_, k) if usize::from(k) == stream);
        self.lanes.reachable(&self.roots()).into_iter().any(loads)
    }

    /// Whether a value may be stored while others are still to be loaded: it overwrites none of
    /// them, and needs no more registers than its own.
    pub fn may_store_early(&self) -> bool {
        self.stores.iter().all(|&(stream, _)| {
            let Stream { dtype, stride, .. } = self.streams[usize::from(stream)];
            dtype.bytes() == 4 && stride == 1 && !self.loads(stream.into())
        })
    }

    /// Makes its folds go over columns, of one line so far; by fold, the stream of the states.
    pub fn fold_columns(&mut self, states: Vec<u16>) {
        self.lines = Some(Lines { steps: vec![0; self.addresses()], together: 1, states });
    }

    /// By fold over columns: the stream of the states.
    pub fn column_states(&self) -> &[u16] {
        self.lines.as_ref().map_or(&[], |lines| &lines.states)
    }

    /// Gives it lines `steps` apart, by address. Several are computed together if that saves loads.
    pub fn set_lines(&mut self, steps: Vec<i32>) {
        let states = self.lines.take().map_or(Vec::new(), |lines| lines.states);
        let is_by_column = !states.is_empty();
        self.lines = Some(Lines { steps, together: 1, states });
        if is_by_column {
            return;
        }
        let stored = |stream| self.stores.iter().any(|s| usize::from(s.0) == stream);
        let plain =
            |(k, s): (usize, &Stream)| s.dtype.bytes() == 4 && (s.stride == 1 || !stored(k));
        let plain = self.streams.iter().enumerate().all(plain);
        let loads = |code: &Lanes, roots: &[Vector]| {
            let all = code.reachable(roots).into_iter();
            all.filter(|&v| matches!(code.op(v), Op::Input(..))).count()
        };
        let (pair, roots) = self.copied(Copies::Lines(2), 0);
        let saves = loads(&pair, &roots) < 2 * loads(&self.lanes, &self.roots());
        let together = if self.chain() < LONG_CHAIN { MOST_LINES / 2 } else { MOST_LINES };
        if let Some(lines) = &mut self.lines
            && plain
            && saves
            && self.folds.is_empty()
        {
            (lines.together, self.unroll) = (together, 1);
        }
    }

    /// The most operations on an element of which each waits for the one before it.
    fn chain(&self) -> usize {
        let mut lengths = vec![0; self.lanes.len()];
        for v in self.lanes.reachable(&self.roots()) {
            let operands = self.lanes.op(v).operands();
            let before = operands.map(|x| lengths[x.0 as usize]).max().unwrap_or(0);
            lengths[v.0 as usize] = before + 1;
        }
        lengths.into_iter().max().unwrap_or(0)
    }

    /// Bytes from one line to the next by that address.
    pub fn line_step(&self, address: u16) -> i32 {
        self.lines.as_ref().map_or(0, |lines| lines.steps[usize::from(address)])
    }

    /// How many lines are computed together.
    pub fn lines_together(&self) -> u8 {
        self.lines.as_ref().map_or(1, |lines| lines.together)
    }

    /// The code of several vectors. `Input(_, k)` of copy `c` is number `c * streams + k`, and so for
    /// carries; indices count on by `lanes`. The roots are those of the first copy, then the next.
    ///
    /// Neighbours along a line are written operation by operation, so that none waits for another. Of
    /// lines, one below the other, the one whose next load is nearest goes on; what several of them load,
    /// the first does.
    pub fn copied(&self, copies: Copies, lanes: i32) -> (Lanes, Vec<Vector>) {
        let order = self.lanes.reachable(&self.roots());
        let (mut code, mut loaded) = (Lanes::default(), FxHashMap::default());
        let mut done = vec![0; copies.count()];
        let mut new = vec![vec![Vector(0); self.lanes.len()]; copies.count()];
        let next = |done: &[usize]| {
            let open = (0..copies.count()).filter(|&copy| done[copy] < order.len());
            open.min_by_key(|&copy| match (copies, self.lanes.op(order[done[copy]])) {
                (Copies::Vectors(_), _) => (None, done[copy]),
                (Copies::Lines(_), Op::Input(_, k)) => (Some(self.reach(copy as u16, k)), 0),
                (Copies::Lines(_), _) => (None, 0),
            })
        };
        let (streams, folds) = (self.streams.len() as u16, self.folds.len() as u16);
        while let Some(at) = next(&done) {
            let (copy, v) = (at as u16, order[done[at]]);
            let own = match (self.lanes.op(v).map(|x| new[at][x.0 as usize]), copies) {
                (Op::Input(kind, k), Copies::Lines(_)) => {
                    let first = *loaded.entry(self.reach(copy, k)).or_insert(copy * streams + k);
                    code.add(Op::Input(kind, first))
                }
                (Op::Input(kind, k), _) => code.add(Op::Input(kind, copy * streams + k)),
                (Op::Carry(kind, k), _) => code.add(Op::Carry(kind, copy * folds + k)),
                (Op::Index, Copies::Vectors(_)) if at > 0 => {
                    let (first, distance) = (code.add(Op::Index), code.int(at as i32 * lanes));
                    code.sum(first, distance)
                }
                (op, _) => code.add(op),
            };
            new[at][v.0 as usize] = own;
            done[at] += 1;
        }
        let roots = new.iter().flat_map(|new| self.roots().into_iter().map(|v| new[v.0 as usize]));
        let roots = roots.collect();
        (code, roots)
    }

    /// Where a stream is in a line, counted from the first one.
    fn reach(&self, line: u16, stream: u16) -> (u16, i32, DType, u8) {
        let Stream { dtype, address, offset, stride } = self.streams[usize::from(stream)];
        (address, offset + i32::from(line) * self.line_step(address), dtype, stride)
    }

    /// Whether some of its numbers are random.
    pub fn has_random(&self) -> bool {
        let random = |v| matches!(self.lanes.op(v), Op::Random(..));
        self.lanes.reachable(&self.roots()).into_iter().any(random)
    }

    /// Whether some elements are not neighbours.
    pub fn has_strides(&self) -> bool {
        self.streams.iter().any(|stream| stream.stride > 1)
    }
}

impl Fold {
    /// What the lanes of its state hold.
    pub fn kind(self) -> Kind {
        ops::kind(self.dtype)
    }

    /// The bits of the state before the first element.
    pub fn neutral(self) -> u32 {
        ops::neutral(self.op, self.dtype)
    }

    /// Code that merges `Carry(_, 0)` and `Carry(_, 1)`, and its result.
    pub fn merge(self) -> (Lanes, Vector) {
        let mut lanes = Lanes::default();
        let [a, b] = [0, 1].map(|k| lanes.add(Op::Carry(self.kind(), k)));
        let merged = ops::merge(&mut lanes, self.op, self.dtype, a, b);
        (lanes, merged)
    }
}

impl std::fmt::Display for Stream {
    /// `f32 a2+64 by 2`: type, address, bytes from there, stride.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} a{}", self.dtype, self.address)?;
        if self.offset != 0 {
            write!(f, "{:+}", self.offset)?;
        }
        if self.stride > 1 { write!(f, " by {}", self.stride) } else { Ok(()) }
    }
}

impl std::fmt::Display for Loop {
    /// Streams, then the code, then what becomes of its values.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let streams: Vec<String> = self.streams.iter().map(Stream::to_string).collect();
        let streaming = if self.streaming { ", streaming" } else { "" };
        writeln!(f, "streams {}; x{}{streaming}", streams.join(", "), self.unroll)?;
        if let Some(Lines { steps, together, states }) = &self.lines {
            writeln!(f, "  lines by {steps:?}, {together} together")?;
            if !states.is_empty() {
                writeln!(f, "  columns folded into {states:?}")?;
            }
        }
        for (stream, bytes) in &self.ahead {
            writeln!(f, "  ahead {stream} by {bytes}")?;
        }
        write!(f, "{}", self.lanes)?;
        for (k, fold) in self.folds.iter().enumerate() {
            writeln!(f, "  carry {k} = {} v{}", fold.op, fold.next.0)?;
        }
        for (stream, v) in &self.stores {
            writeln!(f, "  store {stream} = v{}", v.0)?;
        }
        Ok(())
    }
}
