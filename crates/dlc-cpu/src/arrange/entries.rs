//! Programs with some kernels replaced by others.

use dlc_kernel::{
    Access, Buffer, BufferId, Class, DType, Expr, Exprs, Form, Kernel, Origin, Program, Scalar,
    Segment, Size, Store,
};
use smallvec::SmallVec;

/// Puts `replace(program, entry, kernel)` in the place of every kernel. What it returns does
/// together, in order, what the kernel did; it may add buffers to the program.
pub(super) fn replace_kernels(
    mut arranged: Program,
    mut replace: impl FnMut(&mut Program, usize, Kernel) -> Vec<Kernel>,
) -> Program {
    for at in 0..arranged.entries.len() {
        let entry = &mut arranged.entries[at];
        let (before, commit) = (std::mem::take(&mut entry.kernels), entry.commit);
        let (mut kernels, mut begins) = (Vec::with_capacity(before.len()), None);
        for (k, kernel) in before.into_iter().enumerate() {
            if k == commit {
                begins = Some(kernels.len());
            }
            kernels.extend(replace(&mut arranged, at, kernel));
        }
        let entry = &mut arranged.entries[at];
        entry.commit = begins.unwrap_or(kernels.len());
        entry.kernels = kernels;
    }
    arranged
}

/// A new temporary of floats.
pub(super) fn add_temporary(
    program: &mut Program,
    name: String,
    shape: impl IntoIterator<Item = i64>,
) -> BufferId {
    add_temporary_of(program, DType::F32, name, shape)
}

/// A new temporary.
pub(super) fn add_temporary_of(
    program: &mut Program,
    dtype: DType,
    name: String,
    shape: impl IntoIterator<Item = i64>,
) -> BufferId {
    let shape = shape.into_iter().map(Size::from).collect();
    let buffer = Buffer { name, dtype, shape, class: Class::Temp, default: 0.0 };
    program.buffers.push(buffer);
    BufferId(program.buffers.len() as u32 - 1)
}

/// The kernel that copies what is read of a buffer, and how, to all of another of that shape.
pub(super) fn copy_kernel(
    name: String,
    origin: &Origin,
    (buffer, access): (BufferId, Access),
    fill: Scalar,
    (copy, shape): (BufferId, Vec<i64>),
) -> Kernel {
    let mut exprs = Exprs::new();
    let value = exprs.add(Expr::Load { buffer, access, lookups: SmallVec::new(), fill });
    let stores = vec![Store { buffer: copy, access: Access::identity(shape.len()), value }];
    let axes = shape.into_iter().map(Size::from).collect();
    let form = Form::Map { segments: vec![Segment { axes, exprs, stores }] };
    Kernel { name, origin: origin.clone(), form }
}
