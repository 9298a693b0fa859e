//! The leaf boundary: small, hot functions that several compilers can write.
//!
//! A [`Leaf`] is a description; equal descriptions share one function of the module. Kernel code
//! calls a leaf with one pointer to its argument block and never knows who wrote it. What must
//! hold: every implementation of a leaf reads and writes exactly what the description says, and
//! sums in the order it says. [`portable`] writes all of them in Cranelift's 128-bit vectors.

pub mod clif;
pub mod lanes;
pub mod loops;
pub mod portable;
pub mod portable_loop;
pub mod wide;

use cranelift_codegen::ir;
use loops::Loop;
use std::sync::Arc;

/// A small function, by what it computes. The name in a module is its `Display` form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Leaf {
    /// A register tile of a matrix product; its arguments are [`GemmArgs`].
    Gemm(GemmTile),
    /// A loop over elements, which describes its own argument block.
    Loop(Arc<Loop>),
}

/// `c[i][j] += sum over p of a[p][i] * b[p][j]`, `i < rows`, `j < columns`, summed in the order of
/// `p`, each step a fused multiply-add where the level has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GemmTile {
    /// Rows held in registers, at least 1.
    pub rows: u8,
    /// Columns held in registers, a multiple of 4.
    pub columns: u8,
}

/// The argument block of [`Leaf::Gemm`]. Steps are in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct GemmArgs {
    /// The left panel: element `i` of step `p` is at `a + p * a_step + 4 * i`.
    pub a: *const f32,
    /// The right panel: element `j` of step `p` is at `b + p * b_step + 4 * j`.
    pub b: *const f32,
    /// The tile: element `i, j` is at `c + i * c_step + 4 * j`.
    pub c: *mut f32,
    /// Steps summed; 0 leaves the sum as it starts.
    pub depth: i64,
    /// From one step of the left panel to the next.
    pub a_step: i64,
    /// From one step of the right panel to the next.
    pub b_step: i64,
    /// From one row of the tile to the next.
    pub c_step: i64,
    /// How many tiles to compute, one below the other, all with the same right panel.
    pub tiles: i64,
    /// From the left panel of one tile to that of the next.
    pub a_tile: i64,
    /// 0 to start from zero, 1 to start from what `c` holds.
    pub accumulate: i64,
}

/// Byte offsets of the fields of [`GemmArgs`], as code sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum GemmField {
    /// [`GemmArgs::a`].
    A = 0,
    /// [`GemmArgs::b`].
    B = 8,
    /// [`GemmArgs::c`].
    C = 16,
    /// [`GemmArgs::depth`].
    Depth = 24,
    /// [`GemmArgs::a_step`].
    AStep = 32,
    /// [`GemmArgs::b_step`].
    BStep = 40,
    /// [`GemmArgs::c_step`].
    CStep = 48,
    /// [`GemmArgs::tiles`].
    Tiles = 56,
    /// [`GemmArgs::a_tile`].
    ATile = 64,
    /// [`GemmArgs::accumulate`].
    Accumulate = 72,
}

/// Bytes of [`GemmArgs`].
pub const GEMM_ARGS_BYTES: u32 = size_of::<GemmArgs>() as u32;

const _: () = assert!(GEMM_ARGS_BYTES == 80);

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
            Leaf::Gemm(tile) => write!(f, "gemm_{}x{}", tile.rows, tile.columns),
            Leaf::Loop(code) => write!(f, "loop_{:016x}", code.fingerprint()),
        }
    }
}
