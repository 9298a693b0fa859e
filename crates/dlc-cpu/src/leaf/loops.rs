//! Loops over elements that are neighbours in memory.
//!
//! A [`Loop`] computes its code for elements `0..count`, stores some of the values and folds
//! others. Everything it touches is found through its argument block: the count, addresses of
//! streams, one scalar for each uniform, room for the result of each fold. A stream may be loaded
//! and stored; another stream must not overlap one that is stored. Loads and stores touch
//! exactly the elements `0..count`. The order of a fold depends on count and level alone.

use super::lanes::{Kind, Lanes, Op, Vector, ops};
use dlc_kernel::{DType, FoldOp};

/// The most addresses a loop may have.
pub const MAX_ADDRESSES: usize = 16;

/// How many of them have registers; the others are loaded whenever they are used.
pub const NEAR_ADDRESSES: usize = 8;

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
    /// Where the count (`i64`) is in the argument block.
    pub const COUNT: i32 = 0;

    /// How many addresses there are.
    pub fn addresses(&self) -> usize {
        self.streams.iter().map(|s| usize::from(s.address) + 1).max().unwrap_or(0)
    }

    /// Where an address is.
    pub fn address_at(&self, address: usize) -> i32 {
        8 + 8 * address as i32
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
            let stream = usize::from(stream);
            self.streams[stream].dtype.bytes() == 4 && !self.loads(stream)
        })
    }

    /// The code of `copies` vectors, one after the other, written operation by operation so that
    /// none waits for another. `Input(_, k)` of copy `c` is number `c * streams + k`, and so for
    /// carries; indices count on by `lanes`. The roots are those of the first copy, then the next.
    pub fn interleaved(&self, copies: u16, lanes: i32) -> (Lanes, Vec<Vector>) {
        let mut code = Lanes::default();
        let (streams, folds) = (self.streams.len() as u16, self.folds.len() as u16);
        let mut new = vec![vec![Vector(0); self.lanes.len()]; usize::from(copies)];
        for v in self.lanes.reachable(&self.roots()) {
            for copy in 0..copies {
                let map = |x: Vector| new[usize::from(copy)][x.0 as usize];
                let own = match self.lanes.op(v).map(map) {
                    Op::Input(kind, k) => code.add(Op::Input(kind, copy * streams + k)),
                    Op::Carry(kind, k) => code.add(Op::Carry(kind, copy * folds + k)),
                    Op::Index if copy > 0 => {
                        let (first, distance) =
                            (code.add(Op::Index), code.int(copy as i32 * lanes));
                        code.sum(first, distance)
                    }
                    op => code.add(op),
                };
                new[usize::from(copy)][v.0 as usize] = own;
            }
        }
        let roots = new.iter().flat_map(|new| self.roots().into_iter().map(|v| new[v.0 as usize]));
        let roots = roots.collect();
        (code, roots)
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
    /// `f32 a2+64`: type, address, bytes from there.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} a{}", self.dtype, self.address)?;
        if self.offset != 0 { write!(f, "{:+}", self.offset) } else { Ok(()) }
    }
}

impl std::fmt::Display for Loop {
    /// Streams, then the code, then what becomes of its values.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let streams: Vec<String> = self.streams.iter().map(Stream::to_string).collect();
        let streaming = if self.streaming { ", streaming" } else { "" };
        writeln!(f, "streams {}; x{}{streaming}", streams.join(", "), self.unroll)?;
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
