//! Copies with the edges written out, for contractions with windows that leave their tensor.

use dlc_kernel::{
    Access, Buffer, BufferId, Class, DType, Expr, ExprId, Exprs, Form, Index, Kernel, Origin,
    Program, Scalar, Segment, Size, Store,
};
use smallvec::SmallVec;

/// Multiply-adds for each element of a copy from which on it pays.
const MIN_REUSE: i64 = 16;
/// How many times a copy may be larger than its source.
const MAX_GROWTH: i64 = 8;

/// Gives every operand that a window leaves a padded copy, where that pays.
pub(super) fn pad(program: &Program) -> Program {
    let mut padded = program.clone();
    for at in 0..padded.entries.len() {
        let before = std::mem::take(&mut padded.entries[at].kernels);
        let commit = padded.entries[at].commit;
        let mut padding = Padding { program: &mut padded, copies: Vec::new() };
        let (mut kernels, mut added) = (Vec::with_capacity(before.len()), 0);
        for (k, mut kernel) in before.into_iter().enumerate() {
            let copies = padding.pad_operands(&mut kernel);
            added += if k < commit { copies.len() } else { 0 };
            kernels.extend(copies);
            kernels.push(kernel);
        }
        padded.entries[at].kernels = kernels;
        padded.entries[at].commit = commit + added;
    }
    padded
}

/// The copies of one entry.
struct Padding<'p> {
    program: &'p mut Program,
    copies: Vec<Copy>,
}

/// A buffer with its edges written out.
struct Copy {
    source: BufferId,
    frame: Frame,
    copy: BufferId,
}

/// The part of a buffer's index space that is read: it may begin before 0 and end beyond.
#[derive(Clone, PartialEq, Eq)]
struct Frame {
    starts: SmallVec<[i64; 4]>,
    extents: SmallVec<[i64; 4]>,
}

impl Padding<'_> {
    /// Lets a contraction read padded copies; returns the kernels that make those there are not yet.
    fn pad_operands(&mut self, kernel: &mut Kernel) -> Vec<Kernel> {
        let Form::Contract { out, reduce, lhs, rhs, .. } = &kernel.form else { return Vec::new() };
        let (axes, operands) = ([&out[..], &reduce[..]].concat(), [*lhs, *rhs]);
        let mut made = Vec::new();
        for (position, operand) in operands.into_iter().enumerate() {
            let Form::Contract { exprs, .. } = &mut kernel.form else { unreachable!() };
            let Some(frame) = self.frame(exprs, operand, &axes) else { continue };
            let Expr::Load { buffer: source, fill, .. } = *exprs.get(operand) else { continue };
            let known = self.copies.iter().find(|c| c.source == source && c.frame == frame);
            let copy = known.map(|c| c.copy).unwrap_or_else(|| {
                let copy = self.add_buffer(source, &frame);
                self.copies.push(Copy { source, frame: frame.clone(), copy });
                let name = format!("{}_pad{}", kernel.name, position + 1);
                made.push(copy_kernel(&kernel.origin, name, (source, copy), &frame, fill));
                copy
            });
            redirect(exprs, operand, copy, &frame);
        }
        made
    }

    /// What of its buffer an operand reads, if a padded copy of that pays.
    fn frame(&self, exprs: &Exprs, operand: ExprId, axes: &[Size]) -> Option<Frame> {
        let Expr::Load { buffer, access, lookups, .. } = exprs.get(operand) else { return None };
        let source = self.program.buffer(*buffer);
        let fixed = matches!(source.class, Class::Temp | Class::Input);
        if source.dtype != DType::F32 || !fixed || !lookups.is_empty() || !access.guards.is_empty()
        {
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
        (leaves && !grows && points / MIN_REUSE >= size).then_some(frame)
    }

    fn add_buffer(&mut self, source: BufferId, frame: &Frame) -> BufferId {
        let name = format!("{}_padded", self.program.buffer(source).name);
        let shape = frame.extents.iter().map(|&n| Size::from(n)).collect();
        let buffer = Buffer { name, dtype: DType::F32, shape, class: Class::Temp, default: 0.0 };
        self.program.buffers.push(buffer);
        BufferId(self.program.buffers.len() as u32 - 1)
    }
}

/// The kernel that copies a frame of a buffer.
fn copy_kernel(
    origin: &Origin,
    name: String,
    (source, copy): (BufferId, BufferId),
    frame: &Frame,
    fill: Scalar,
) -> Kernel {
    let coords = frame.starts.iter().zip(0u32..).map(|(&start, a)| Index::affine([(a, 1)], start));
    let mut exprs = Exprs::new();
    let access = Access::new(coords);
    let value = exprs.add(Expr::Load { buffer: source, access, lookups: SmallVec::new(), fill });
    let store = Store { buffer: copy, access: Access::identity(frame.extents.len()), value };
    let axes = frame.extents.iter().map(|&n| Size::from(n)).collect();
    let segments = vec![Segment { axes, exprs, stores: vec![store] }];
    Kernel { name, origin: origin.clone(), form: Form::Map { segments } }
}

/// Lets the load `operand` read the copy of a frame instead. Nodes keep their numbers.
fn redirect(exprs: &mut Exprs, operand: ExprId, copy: BufferId, frame: &Frame) {
    let mut new = Exprs::new();
    for (id, expr) in exprs.iter() {
        let mut expr = expr.clone();
        if let (true, Expr::Load { buffer, access, .. }) = (id == operand, &mut expr) {
            *buffer = copy;
            for (coord, &start) in access.coords.iter_mut().zip(&frame.starts) {
                coord.offset = coord.offset.clone() - Size::from(start);
            }
        }
        let added = new.add_typed(expr, exprs.dtype(id));
        debug_assert_eq!(added, id, "the copy is read by nothing else");
    }
    *exprs = new;
}
