//! The operations, each declared once: a struct of attributes and its [`Operation`] rules.
//!
//! Everything that is not here is a composition, so its gradient is free. The affine reads
//! ([`View`], [`Contract`]) are the workhorses: broadcast, transpose, slice, pad and windows are
//! views; matrix products, convolutions and their gradients are contractions.

mod contract;
mod elementwise;
mod fused;
mod gather;
mod lowering;
mod overwrite;
mod reduce;
mod scan;
mod scan_samples;
mod shape;
mod source;
mod view;

pub(crate) use gather::id_outside;
pub use lowering::{Elementwise, Lowering, PointRule, Points};
pub(crate) use reduce::fold_name;
pub(crate) use source::known;

use crate::{Graph, Shape, ShapeError, Type, Value};
use dlc_kernel::{Access, Array, BinaryOp, DType, FoldOp, Origin, Scalar, Size, UnaryOp};
use smallvec::SmallVec;
use std::sync::Arc;

/// What an operation says about itself. No method has a default: a missing rule does not compile.
pub trait Operation {
    /// Name and attributes, as dumps show them and the parser reads them back.
    fn text(&self) -> OpText;

    /// The type of the result, or why there is none.
    fn shape(&self, operands: &[&Type]) -> Result<Type, ShapeError>;

    /// One cotangent per operand, given the result's; `None` where the derivative is zero
    /// everywhere. Adds its nodes to `g`, with `at.origin`.
    fn grad(&self, g: &mut Graph, at: &Site<'_>) -> Vec<Option<Value>>;

    /// What class of kernel computes it.
    fn lower(&self) -> Lowering<'_>;

    /// The result in f64: obvious and slow. `operands` and `types` go together; the last type is
    /// the result's. All sizes are bound.
    fn eval(&self, operands: &[&Array], types: &[&Type]) -> Vec<Array>;

    /// Small typical uses, on which the generic tests run every rule.
    fn samples() -> Vec<Sample>
    where
        Self: Sized;
}

/// Where a gradient rule is applied.
pub struct Site<'a> {
    /// What the operation read.
    pub operands: &'a [Value],
    /// What it made.
    pub result: Value,
    /// The cotangent of the result; of the result's type.
    pub cotangent: Value,
    /// For the nodes the rule adds.
    pub origin: &'a Origin,
}

/// The printed form of an operation: `name{key = value, ..}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpText {
    /// Unique among operations.
    pub name: &'static str,
    /// In a fixed order; empty for most.
    pub attributes: Vec<(&'static str, String)>,
}

/// A small use of an operation, for tests.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The operation with its attributes.
    pub op: Op,
    /// The operands' types; sizes are numbers.
    pub operands: Vec<Type>,
    /// The values that operands are drawn from, one range `low..high` per operand; integers are
    /// drawn from the integers in it.
    pub ranges: Vec<(f64, f64)>,
}

impl OpText {
    /// A name and attributes.
    pub fn new(name: &'static str, attributes: Vec<(&'static str, String)>) -> OpText {
        OpText { name, attributes }
    }
}

impl Sample {
    /// A use of `op`, with operands from -1.5..1.5.
    pub fn new(op: impl Into<Op>, operands: impl Into<Vec<Type>>) -> Sample {
        let operands = operands.into();
        let ranges = vec![(-1.5, 1.5); operands.len()];
        Sample { op: op.into(), operands, ranges }
    }

    /// The same use with operands from other ranges.
    pub fn within(self, ranges: &[(f64, f64)]) -> Sample {
        assert_eq!(ranges.len(), self.operands.len(), "a range for each operand");
        Sample { ranges: ranges.to_vec(), ..self }
    }
}

/// The class of a [`Source`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SourceClass {
    /// A trained parameter.
    Param,
    /// Persistent state that is not trained by gradient: running statistics, moments.
    State,
    /// A scalar that may change between calls without recompiling.
    Scalar,
    /// An argument of the call.
    Input,
}

impl SourceClass {
    /// Every class, in the order of declaration.
    pub const ALL: [SourceClass; 4] =
        [SourceClass::Param, SourceClass::State, SourceClass::Scalar, SourceClass::Input];

    /// The name in every dump.
    pub const fn name(self) -> &'static str {
        match self {
            SourceClass::Param => "param",
            SourceClass::State => "state",
            SourceClass::Scalar => "scalar",
            SourceClass::Input => "input",
        }
    }
}

/// A tensor from outside the graph.
///
/// Gradient: it ends here. Exact; free.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// The path of a parameter or state (`conv1.weight`), the name of an input. Unique.
    pub name: Arc<str>,
    /// What kind of thing it is.
    pub class: SourceClass,
    /// Its type.
    pub ty: Type,
    /// The value of a `Scalar` until it is written; otherwise ignored.
    pub default: Scalar,
}

/// A constant scalar: `y = value`, rank 0.
///
/// Gradient: none. Exact; free.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Const(pub Scalar);

/// A size as a scalar of type `F32` or `I32`, rank 0.
///
/// Gradient: none. Exact up to 2^24 as `F32`; free.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Which size.
    pub size: Size,
    /// As which type.
    pub dtype: DType,
}

/// `y[i] = i`, `I32`, of shape `[extent]`.
///
/// Gradient: none. Exact; computed where it is used.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Iota {
    /// The number of elements.
    pub extent: Size,
}

/// Uniform numbers in [0, 1), `F32`. Operands: seed and step, `I32` scalars. Element `i` in
/// row-major order is [`dlc_kernel::philox::uniform`]`(seed, step, site, i)`.
///
/// Gradient: none. The same bits everywhere; some 50 integer operations for four elements.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Random {
    /// Distinguishes this use from every other one; passes keep it.
    pub site: u64,
    /// The shape of the result.
    pub shape: Shape,
}

/// A scalar operation on every element: `y[i] = f(x[i])`, of `x`'s shape and type.
///
/// Gradient: `dx = dy * f'(x)`, through `y` where that is cheaper (`exp`, `tanh`, `sigmoid`,
/// `sqrt`, `rsqrt`); Abramowitz and Stegun, 4.2, 4.3, 4.5 and 7.1. At its kink `abs` has the
/// derivative 0; `sign`, `floor`, `ceil`, `round` and `not` have none. IEEE otherwise: `sqrt'(0) =
/// inf`. Accuracy: exact for `neg`, `abs`, `sign`, rounding and `not`; correctly rounded `sqrt`; at
/// most 2 ULP for the others. One operation per element.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Unary(pub UnaryOp);

/// A scalar operation on corresponding elements of two tensors of one type: `y[i] = f(a[i], b[i])`,
/// `Bool` for comparisons. Nothing is broadcast: a [`View`] does that.
///
/// Gradient: the partial derivatives times `dy`. `max(a, b)` gives `dy` to `a` where `a > b`, else
/// to `b`, so `max(x, 0)` has the derivative 0 at 0; `min` likewise. `mod` is linear in `a` between
/// its jumps. `a^b`: `b*a^(b-1)`, 0 where `b = 0`; `a^b*log(a)`, 0 where `a = 0 <= b` (as PyTorch's
/// `pow_backward`). Comparisons, `floor_div`, `and`, `or` have none.
/// Accuracy: correctly rounded but for `pow` (2 ULP). One operation per element.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Binary(pub BinaryOp);

/// Operands `condition` (`Bool`), `a`, `b` of one shape: `y[i] = a[i]` where true, else `b[i]`.
///
/// Gradient: `dy` for the side that is taken, exactly 0 for the other, whatever its value. Exact.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Select;

/// Conversion of every element, as [`dlc_kernel::cast`].
///
/// Gradient: the cotangent converted back, between float types; otherwise none. Exact where the
/// type holds the value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cast(pub DType);

/// `y = x`.
///
/// Gradient: 0 by definition. Exact; free.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StopGradient;

/// An affine read: `y[p] = x[access(p)]`, `fill` outside, of shape `axes`. Broadcast, transpose,
/// slice, stride, pad, flip and windows are views.
///
/// Gradient: `dx[s]` is the sum of `dy[p]` over the points `p` with `access(p) = s`: a view where
/// there is one such point at most, a view and a sum where there are more ([`crate::adjoint()`]).
/// Exact; a read per element, none where a kernel fuses it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// The shape of the result.
    pub axes: Shape,
    /// Where the operand is read.
    pub access: Access,
    /// The value outside; of the operand's type.
    pub fill: Scalar,
}

/// The same elements, in row-major order, under another shape.
///
/// Gradient: `dy` under the operand's shape. Exact; free where layouts are row-major.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reshape {
    /// As many elements as the operand has.
    pub shape: Shape,
}

/// Operands of one type but for the extent of `axis`, end to end.
///
/// Gradient: the slices of `dy`. Exact; a copy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Concat {
    /// The axis along which.
    pub axis: u32,
}

/// A fold over `axes`, which the result lacks: `y[i] = fold of x[i, r] over r`. See [`FoldOp`] for
/// the empty fold, NaN, and positions, which are row-major within the folded axes.
///
/// Gradient: `sum`: `dy` repeated. `prod`: `dy` times the product of the *other* elements, right at
/// zeros, to any order; it takes n^2 products for a row of n. `max`, `min`: `dy` to the first
/// extreme element, as PyTorch's pooling. Positions have none.
/// Accuracy: exact but for `sum` and `prod`, whose relative error grows with the length of a row:
/// n ULP of the sum of magnitudes at worst. One operation per element.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reduce {
    /// The fold.
    pub op: FoldOp,
    /// Ascending; may be all or none.
    pub axes: SmallVec<[u32; 4]>,
}

/// `y[p] = sum over q of lhs[access(p, q)] * rhs[access(p, q)]`; a term that reads outside is
/// skipped. `p` runs over `out`, `q` over `reduce`; axes of the accesses are `out` first, then
/// `reduce`. Operands are floats of one type. Matrix products and convolutions are contractions.
///
/// Gradient: `dlhs[s]` is the sum of `dy[p] * rhs[..]` over all `(p, q)` that read `lhs` at `s`,
/// which is a contraction again ([`crate::adjoint()`]): for a convolution, the transposed one.
/// `rhs` likewise.
/// Accuracy: as [`Reduce`]'s sum, of the products. Two operations per point of `out` and `reduce`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Contract {
    /// The shape of the result.
    pub out: Shape,
    /// The extents summed over; may be empty.
    pub reduce: Shape,
    /// Where the first operand is read.
    pub lhs: Access,
    /// Where the second operand is read.
    pub rhs: Access,
}

/// Operands `x`, `ids` (`I32`): the first `batch` dims belong to both; dim `axis` of `x`
/// (`axis >= batch`) is replaced by the other dims of `ids`:
/// `y[b.., l.., i.., r..] = x[b.., l.., ids[b.., i..], r..]`. An id outside fails the run.
///
/// Gradient: [`ScatterAdd`] of `dy` for `x`, none for `ids`. Exact; a read per element.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gather {
    /// The dim of `x` that is looked up.
    pub axis: u32,
    /// The number of leading dims shared by both.
    pub batch: u32,
}

/// The adjoint of [`Gather`]: operands `ids` and `updates` (of the type a gather would have);
/// `y = 0; y[b.., l.., ids[b.., i..], r..] += updates[b.., l.., i.., r..]`, in row-major order of
/// the updates, of the gathered tensor's shape, with `extent` at `axis`. An id outside fails the
/// run.
///
/// Gradient: [`Gather`] of `dy` for `updates`, none for `ids`. Accuracy: as a sum of what meets at
/// an element. A read and a write per update.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScatterAdd {
    /// As in [`Gather`].
    pub axis: u32,
    /// As in [`Gather`].
    pub batch: u32,
    /// The extent of dim `axis` of the result.
    pub extent: Size,
}

/// Operands `x`, `start` (`I32`, of the first `batch` dims of `x`) and `part`, which is as `x` but for
/// the extent of dim `axis` (`axis >= batch`): `x` with `part` in the place of what stands along the
/// axis from `start` on, `y[b.., l.., start[b..] + i, r..] = part[b.., l.., i, r..]`. What would stand
/// outside is left out.
///
/// Gradient: `dy` with zeros in that place for `x`, and what was in it for `part` ([`Gather`]); none
/// for `start`. Exact; a read per element, or where `in_place` a write per element of `part`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Overwrite {
    /// The dim along which `part` has a start.
    pub axis: u32,
    /// The number of leading dims that have starts of their own.
    pub batch: u32,
    /// Whether `part` is written over `x`, a state whose next value this is, and which nothing else
    /// reads: a pass decides it.
    pub in_place: bool,
}

/// Operands `y` (a float scalar) and `x`: the derivative of `y` with respect to `x`, of `x`'s type.
/// `x` may be any value; 0 where `y` does not depend on it.
///
/// Exists only before [`differentiate`](crate::differentiate), which expands it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Grad;

/// The kernel form a fused operation becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FusedKind {
    /// Pointwise work and views; results of any shapes.
    Map,
    /// Folds over the same inner axes with pointwise work before, between and after.
    Row,
    /// One contraction with pointwise work on its operands and its result.
    Contract,
}

/// Several operations computed by one kernel. The body is the definition, the kernel only a faster
/// way to compute it. The body's inputs are its sources `0`, `1`, .. (by name), its outputs its
/// results. The type is that of the first result; [`Part`] reads the others.
///
/// Gradient: differentiation comes before fusion. Accuracy: that of the body.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fused {
    /// The form.
    pub kind: FusedKind,
    /// What is computed.
    pub body: Arc<Graph>,
}

/// A loop: `body` once for each of `steps` steps. Operands: first values of the carries, then
/// sequences, of which step `t` sees element `t` of dim 0, then what all steps see whole. They are
/// the body's inputs `0`, `1`, .., in this order; its first results are the next values of the
/// carries, of the carries' types, and the others are yielded.
///
/// Results, read by [`Part`]: the history of each carry, `[steps + 1, ..]`, its first value first;
/// then what was yielded, `[steps, ..]`. A loop backwards reads and writes through views. A body
/// holds no [`Random`]: numbers for all steps are a sequence.
///
/// Gradient: a scan from the last step to the first over the histories, whose body is the pullback
/// of this body; it yields what flows back to each step's element of a sequence, and to what the
/// steps share, which is then summed. Accuracy: that of the body, step after step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scan {
    /// How often the body runs.
    pub steps: Size,
    /// How many operands are carried.
    pub carries: u32,
    /// How many operands are sequences.
    pub sequences: u32,
    /// One step.
    pub body: Arc<Graph>,
}

/// Stands for what is not known yet while a [`Scan`] is built, or for a place in memory while one
/// is lowered. Nothing that a finished graph returns depends on one.
///
/// Gradient: it ends here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hole {
    /// Tells it from others.
    pub number: u32,
    /// Its type.
    pub ty: Type,
}

/// Result `.0` of a [`Fused`] operation or a [`Scan`].
///
/// Gradient: the scan's. Exact; free.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Part(pub u32);

macro_rules! operations {
    ($($op:ident),+ $(,)?) => {
        /// Any operation. A graph stores each distinct one once, so large variants are no burden.
        #[expect(clippy::large_enum_variant)]
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum Op { $(#[doc = concat!("See [`", stringify!($op), "`].")] $op($op)),+ }

        impl Op {
            /// Its rules.
            pub fn rules(&self) -> &dyn Operation {
                match self { $(Op::$op(op) => op),+ }
            }

            /// The samples of every operation.
            pub fn samples() -> Vec<Sample> {
                let mut all = Vec::new();
                $(all.extend(<$op as Operation>::samples());)+
                all
            }
        }

        $(impl From<$op> for Op {
            fn from(op: $op) -> Op { Op::$op(op) }
        })+
    };
}

operations! {
    Source, Const, Extent, Iota, Random,
    Unary, Binary, Select, Cast, StopGradient,
    View, Reshape, Concat, Reduce, Contract, Gather, ScatterAdd, Overwrite,
    Grad, Scan, Hole, Fused, Part,
}

/// Refuses any other number of operands.
fn arity(name: &str, operands: &[&Type], count: usize) -> Result<(), ShapeError> {
    if operands.len() == count {
        return Ok(());
    }
    let given = operands.len();
    Err(ShapeError::new(format!("`{name}` has {count} operands, {given} are given")))
}

/// For an operation through which nothing flows back.
fn no_operand_cotangents(at: &Site<'_>) -> Vec<Option<Value>> {
    vec![None; at.operands.len()]
}
