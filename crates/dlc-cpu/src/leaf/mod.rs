//! The leaf boundary: small, hot functions that several compilers can write.
//!
//! A [`Leaf`] is a description; equal descriptions share one function of the module. Kernel code
//! calls a leaf with one pointer to its argument block and never knows who wrote it. What must
//! hold: every implementation of a leaf reads and writes exactly what the description says, and
//! sums in the order it says.
//!
//! - Register tiles, and what becomes of their sums ([`epilogue`]): [`portable`] and
//!   [`portable_epilogue`] in Cranelift's 128-bit vectors, [`wide`] in those of AVX2 and AVX-512.
//! - Loops ([`loops`]) over straight-line code ([`lanes`]): [`portable_loop`] in Cranelift's vectors,
//!   where [`clif`] writes the operations, [`wide`] in those of AVX2 and AVX-512.
//! - [`run`]: a leaf with memory of its own, to be timed.

pub mod clif;
pub mod epilogue;
pub use dlc_kernel::lanes;
pub mod loops;
pub mod portable;
pub mod portable_epilogue;
pub mod portable_loop;
pub mod random;
pub mod run;
pub mod wide;

use cranelift_codegen::ir;
use epilogue::Epilogue;
use loops::Loop;
use std::hash::{Hash, Hasher};
use std::mem::offset_of;
use std::sync::Arc;

/// A small function, by what it computes. The name in a module is its `Display` form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Leaf {
    /// A register tile of a matrix product, and what becomes of its sums; its arguments begin with
    /// [`GemmArgs`].
    Gemm(GemmTile, Option<Arc<Epilogue>>),
    /// A loop over elements, which describes its own argument block.
    Loop(Arc<Loop>),
}

/// `c[i][j] += sum over p of a[p][i] * b[p][j]`, `i < rows`, `j < columns`, summed in the order of
/// `p`, each step a fused multiply-add where the level has one. The steps `p` are a loop nest, so
/// that an operand with a window can be read where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GemmTile {
    /// Rows held in registers, at least 1.
    pub rows: u8,
    /// Columns held in registers, at least 1.
    pub columns: u8,
    /// Whether vectors are half as wide as the level's, if those are the widest there are.
    pub short: bool,
    /// How the left panel lies in memory.
    pub left: Left,
    /// Loops of the steps, 1 to [`MAX_LEVELS`].
    pub levels: u8,
    /// The count of the innermost loop, if it is written out.
    pub run: Option<u8>,
    /// What is to be brought near meanwhile.
    pub ahead: Ahead,
}

impl GemmTile {
    /// The tile over packed panels, in one loop that asks for nothing ahead.
    pub fn packed(rows: u8, columns: u8) -> GemmTile {
        let (left, ahead) = (Left::Packed, Ahead::default());
        GemmTile { rows, columns, short: false, left, levels: 1, run: None, ahead }
    }
}

/// What a tile asks for before anybody reads it. It changes no result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ahead {
    /// Bytes from a step of the left panel to that of the next one, which is packed, too; 0 if it is
    /// near.
    pub left: i32,
    /// What comes after the right panel.
    pub right: AheadRight,
}

/// What a tile asks for of what comes after its right panel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AheadRight {
    /// Nothing.
    #[default]
    Nothing,
    /// With every step as many columns, so many bytes after it: no other tile reads this panel.
    Step(i32),
    /// With every step so many bytes more from [`GemmArgs::next`] on: all tiles below one another
    /// ask for one panel together. Two loops of steps at most.
    Share(u16),
}

impl AheadRight {
    /// Whether tiles share in asking for a panel.
    pub fn is_shared(self) -> bool {
        matches!(self, AheadRight::Share(_))
    }
}

/// The most loops of a tile's steps.
pub const MAX_LEVELS: usize = 3;

/// The longest innermost loop that is written out.
pub const MAX_RUN: u8 = 8;

/// How the rows of a left panel lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Left {
    /// Neighbours: [`GemmArgs::a_row`] is 4.
    Packed,
    /// [`GemmArgs::a_row`] bytes apart.
    Strided,
}

/// The argument block of [`Leaf::Gemm`]. Steps and moves are in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct GemmArgs {
    /// The left panel: element `i` of a step is `i * a_row` after the first one.
    pub a: *const f32,
    /// The right panel: element `j` of a step is `4 * j` after the first one. Every step may be
    /// read up to a whole vector.
    pub b: *const f32,
    /// The tile: element `i, j` is at `c + i * c_step + 4 * j`.
    pub c: *mut f32,
    /// The counts of the loops of steps, innermost first. Only the first may be 0.
    pub counts: [i64; MAX_LEVELS],
    /// How the left panel moves when a loop goes on, from where the loop inside it ended.
    pub a_moves: [i64; MAX_LEVELS],
    /// The same of the right panel.
    pub b_moves: [i64; MAX_LEVELS],
    /// From one row of the left panel to the next.
    pub a_row: i64,
    /// From one row of the tile to the next.
    pub c_step: i64,
    /// How many tiles to compute, one below the other, all with the same right panel.
    pub tiles: i64,
    /// From the left panel of one tile to that of the next.
    pub a_tile: i64,
    /// The right panel after this one.
    pub next: *const f32,
    /// 0 to start from zero, 1 to start from what `c` holds.
    pub accumulate: i64,
    /// 0 to leave the sums in `c`, 1 to give them to the epilogue instead, if there is one.
    pub finish: i64,
}

/// Byte offsets of the fields of [`GemmArgs`], as code sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum GemmField {
    /// [`GemmArgs::a`].
    A = offset_of!(GemmArgs, a) as i32,
    /// [`GemmArgs::b`].
    B = offset_of!(GemmArgs, b) as i32,
    /// [`GemmArgs::c`].
    C = offset_of!(GemmArgs, c) as i32,
    /// [`GemmArgs::counts`].
    Counts = offset_of!(GemmArgs, counts) as i32,
    /// [`GemmArgs::a_moves`].
    AMoves = offset_of!(GemmArgs, a_moves) as i32,
    /// [`GemmArgs::b_moves`].
    BMoves = offset_of!(GemmArgs, b_moves) as i32,
    /// [`GemmArgs::a_row`].
    ARow = offset_of!(GemmArgs, a_row) as i32,
    /// [`GemmArgs::c_step`].
    CStep = offset_of!(GemmArgs, c_step) as i32,
    /// [`GemmArgs::tiles`].
    Tiles = offset_of!(GemmArgs, tiles) as i32,
    /// [`GemmArgs::a_tile`].
    ATile = offset_of!(GemmArgs, a_tile) as i32,
    /// [`GemmArgs::next`].
    Next = offset_of!(GemmArgs, next) as i32,
    /// [`GemmArgs::accumulate`].
    Accumulate = offset_of!(GemmArgs, accumulate) as i32,
    /// [`GemmArgs::finish`].
    Finish = offset_of!(GemmArgs, finish) as i32,
}

impl GemmField {
    /// Where the value of a loop is, counted from the innermost; of the other fields there is one.
    pub const fn at(self, level: usize) -> i32 {
        self as i32 + 8 * level as i32
    }
}

/// Bytes of [`GemmArgs`].
pub const GEMM_ARGS_BYTES: u32 = size_of::<GemmArgs>() as u32;

impl Leaf {
    /// The signature all leaves share: one pointer, nothing returned.
    pub fn signature(call_conv: cranelift_codegen::isa::CallConv) -> ir::Signature {
        let mut signature = ir::Signature::new(call_conv);
        signature.params.push(ir::AbiParam::new(ir::types::I64));
        signature
    }
}

impl std::fmt::Display for Leaf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Leaf::Gemm(tile, None) => tile.fmt(f),
            Leaf::Gemm(tile, Some(epilogue)) => write!(f, "{tile}_{:016x}", fingerprint(epilogue)),
            Leaf::Loop(code) => write!(f, "loop_{:016x}", fingerprint(code)),
        }
    }
}

/// A number that equal descriptions share.
fn fingerprint(description: &impl Hash) -> u64 {
    let mut hasher = rustc_hash::FxHasher::default();
    description.hash(&mut hasher);
    hasher.finish()
}

impl std::fmt::Display for GemmTile {
    /// `gemm_6x16`, `gemm_6x16_short`, `gemm_6x16_strided`, `gemm_5x16_nest3_run5`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "gemm_{}x{}", self.rows, self.columns)?;
        f.write_str(if self.short { "_short" } else { "" })?;
        f.write_str(if self.left == Left::Strided { "_strided" } else { "" })?;
        if self.levels > 1 {
            write!(f, "_nest{}", self.levels)?;
        }
        self.run.map_or(Ok(()), |run| write!(f, "_run{run}"))?;
        self.ahead.fmt(f)
    }
}

impl std::fmt::Display for Ahead {
    /// Nothing, `_ahead4096`, `_next3`, `_left24576_next3`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.left != 0 {
            write!(f, "_left{}", self.left)?;
        }
        match self.right {
            AheadRight::Nothing => Ok(()),
            AheadRight::Step(bytes) => write!(f, "_ahead{bytes}"),
            AheadRight::Share(bytes) => write!(f, "_next{bytes}"),
        }
    }
}
