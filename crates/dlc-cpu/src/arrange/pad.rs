//! Copies with the edges written out, for contractions and rows with windows that leave their tensor.

use super::entries::{self, add_temporary_of, replace_kernels};
use dlc_kernel::{
    Access, BufferId, Class, DType, Expr, ExprId, Exprs, Form, Index, Kernel, Origin, Program,
    Scalar, Size, Step,
};
use smallvec::SmallVec;

/// Multiply-adds for each element of a copy from which on it pays.
const MIN_TERMS: i64 = 8;
/// Elements of rows for each element of a copy from which on it pays.
const MIN_READS: i64 = 2;
/// How many times a copy may be larger than its source.
const MAX_GROWTH: i64 = 8;

/// Gives every operand that a window leaves a padded copy, where that pays.
pub(super) fn pad(program: Program) -> Program {
    let mut copies: Vec<Vec<Copy>> = program.entries.iter().map(|_| Vec::new()).collect();
    replace_kernels(program, |program, at, mut kernel| {
        let mut padding = Padding { program, copies: &mut copies[at] };
        let mut kernels = padding.pad_operands(&mut kernel);
        kernels.push(kernel);
        kernels
    })
}

/// The copies of one entry.
struct Padding<'p> {
    program: &'p mut Program,
    copies: &'p mut Vec<Copy>,
}

/// A buffer with its edges written out.
struct Copy {
    source: BufferId,
    frame: Frame,
    fill: Scalar,
    copy: BufferId,
}

/// The part of a buffer's index space that is read: it may begin before 0 and end beyond.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Frame {
    /// By dim.
    pub starts: SmallVec<[i64; 4]>,
    /// By dim.
    pub extents: SmallVec<[i64; 4]>,
}

impl Padding<'_> {
    /// Lets a kernel read padded copies; returns the kernels that make those there are not yet.
    fn pad_operands(&mut self, kernel: &mut Kernel) -> Vec<Kernel> {
        let (origin, name) = (kernel.origin.clone(), kernel.name.clone());
        let Some(Windows { exprs, loads, axes, min_reads }) = Windows::of(&mut kernel.form) else {
            return Vec::new();
        };
        let mut made = Vec::new();
        for load in loads {
            let Some(frame) = self.frame(exprs, load, &axes, min_reads) else { continue };
            let Expr::Load { buffer: source, fill, .. } = *exprs.get(load) else { continue };
            let same = |c: &&Copy| c.source == source && c.frame == frame && c.fill == fill;
            let known = self.copies.iter().find(same).map(|c| c.copy);
            let copy = known.unwrap_or_else(|| {
                let padded = format!("{}_padded", self.program.buffer(source).name);
                let extents = frame.extents.iter().copied();
                let copy = add_temporary_of(self.program, fill.dtype, padded, extents);
                self.copies.push(Copy { source, frame: frame.clone(), fill, copy });
                let name = format!("{name}_pad{}", made.len() + 1);
                made.push(copy_kernel(&origin, name, (source, copy), &frame, fill));
                copy
            });
            redirect(exprs, load, copy, &frame);
        }
        made
    }

    /// What of its buffer an operand reads, if a padded copy of that pays.
    fn frame(
        &self,
        exprs: &Exprs,
        operand: ExprId,
        axes: &[Size],
        min_reads: i64,
    ) -> Option<Frame> {
        let Expr::Load { buffer, access, lookups, .. } = exprs.get(operand) else { return None };
        let source = self.program.buffer(*buffer);
        let fixed = matches!(source.class, Class::Temp | Class::Input);
        let words = matches!(source.dtype, DType::F32 | DType::I32);
        if !words || !fixed || !lookups.is_empty() || !access.guards.is_empty() {
            return None;
        }
        let mut frame = Frame { starts: SmallVec::new(), extents: SmallVec::new() };
        let (mut leaves, mut size) = (false, 1i64);
        for (coord, extent) in access.coords.iter().zip(&source.shape) {
            let (low, high) = coord.range(axes).filter(|_| coord.div == 1)?;
            leaves |= low < 0 || high >= extent.as_const()?;
            frame.starts.push(low);
            frame.extents.push(high - low + 1);
            size = size.checked_mul(high - low + 1)?;
        }
        let points = axes.iter().try_fold(1i64, |n, a| n.checked_mul(a.as_const()?))?;
        let grows = size / MAX_GROWTH > source.elements()? as i64;
        (leaves && !grows && points / min_reads >= size).then_some(frame)
    }
}

/// The loads of a kernel that may go through windows.
struct Windows<'k> {
    exprs: &'k mut Exprs,
    loads: Vec<ExprId>,
    /// Of the kernel.
    axes: Vec<Size>,
    /// How often each element must be read.
    min_reads: i64,
}

impl<'k> Windows<'k> {
    /// The operands of a contraction, or what a row's folds read.
    fn of(form: &'k mut Form) -> Option<Windows<'k>> {
        match form {
            Form::Contract { out, sums, reduce, exprs, lhs, rhs, .. } => Some(Windows {
                loads: vec![*lhs, *rhs],
                axes: [&out[..], &sums[..], &reduce[..]].concat(),
                exprs,
                min_reads: MIN_TERMS,
            }),
            Form::Row { outer, inner, exprs, steps } => {
                let folded = steps.iter().filter_map(|step| match step {
                    Step::Fold(_, value) => Some(*value),
                    _ => None,
                });
                let below = exprs.reachable(folded).into_iter();
                let is_load = |id: &ExprId| matches!(exprs.get(*id), Expr::Load { .. });
                let loads = below.filter(is_load).collect();
                let axes = [&outer[..], &inner[..]].concat();
                Some(Windows { loads, axes, exprs, min_reads: MIN_READS })
            }
            _ => None,
        }
    }
}

/// The kernel that copies a frame of a buffer.
pub(super) fn copy_kernel(
    origin: &Origin,
    name: String,
    (source, copy): (BufferId, BufferId),
    frame: &Frame,
    fill: Scalar,
) -> Kernel {
    let coords = frame.starts.iter().zip(0u32..).map(|(&start, a)| Index::affine([(a, 1)], start));
    let shape = frame.extents.to_vec();
    entries::copy_kernel(name, origin, (source, Access::new(coords)), fill, (copy, shape))
}

/// Lets the load `operand` read the copy of a frame instead.
fn redirect(exprs: &mut Exprs, operand: ExprId, copy: BufferId, frame: &Frame) {
    *exprs = exprs.changed(|id, expr| {
        if let (true, Expr::Load { buffer, access, .. }) = (id == operand, expr) {
            *buffer = copy;
            for (coord, &start) in access.coords.iter_mut().zip(&frame.starts) {
                coord.offset = coord.offset.clone() - Size::from(start);
            }
        }
    });
}
