//! How an operation becomes part of a kernel: a class, not a routine.

use super::{Contract, Fused, Overwrite, Reduce, Scan, ScatterAdd};
use dlc_kernel::{Access, Expr, ExprId, Exprs, Index, Size};

/// The value of a pointwise operation at a point, as an expression.
pub type PointRule<'a> = Box<dyn Fn(&mut dyn Points, &[Index]) -> ExprId + 'a>;

/// A scalar operation on the elements of all operands at one place.
pub trait Elementwise {
    /// The element of the result, of those of the operands.
    fn element(&self, operands: &[ExprId]) -> Expr;
}

/// The class of kernel that computes an operation. Fusion asks for the class, never for the name.
pub enum Lowering<'a> {
    /// From outside: a buffer.
    Source,
    /// The value at each point is an expression of the operands' values at that point.
    Each(&'a dyn Elementwise),
    /// The value at each point is an expression of operands' values at any points: `rule(points, at)`
    /// gives the value at the coordinates `at`, which are inside the result.
    Point(PointRule<'a>),
    /// A row kernel.
    Fold(&'a Reduce),
    /// A contraction.
    Contract(&'a Contract),
    /// A scatter-add.
    ScatterAdd(&'a ScatterAdd),
    /// A part of a state that is written over.
    Overwrite(&'a Overwrite),
    /// A renaming of the same elements.
    Reshape,
    /// A map with one segment per operand.
    Concat {
        /// Along which axis.
        axis: u32,
    },
    /// Its body.
    Fused(&'a Fused),
    /// A loop.
    Scan(&'a Scan),
    /// One result of a fused operation or a scan.
    Part(u32),
    /// It never reaches a kernel.
    Never,
}

/// What a [`PointRule`] builds with.
pub trait Points {
    /// The expressions of the kernel.
    fn exprs(&mut self) -> &mut Exprs;

    /// The extents of the kernel's axes.
    fn axes(&self) -> &[Size];

    /// The shape of operand `k`.
    fn shape(&self, k: usize) -> &[Size];

    /// Operand `k` at coordinates `at`, which are inside it.
    fn operand(&mut self, k: usize, at: &[Index]) -> ExprId;

    /// Operand `k` read by `access` (over the kernel's axes), `fill` outside.
    fn operand_or(&mut self, k: usize, access: &Access, fill: f64) -> ExprId;

    /// Operand `k` at coordinates `at`, but for dim `dim`, which `index` (`I32`) decides.
    fn lookup(&mut self, k: usize, at: &[Index], dim: u32, index: ExprId) -> ExprId;

    /// An index as an `I32` expression; it is exact where the kernel evaluates it.
    fn index(&mut self, index: &Index) -> ExprId;
}
