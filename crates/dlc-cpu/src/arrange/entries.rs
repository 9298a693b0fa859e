//! Programs with some kernels replaced by others.

use dlc_kernel::{Buffer, BufferId, Class, DType, Kernel, Program, Size};

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

/// A new temporary.
pub(super) fn add_temporary(
    program: &mut Program,
    name: String,
    shape: impl IntoIterator<Item = i64>,
) -> BufferId {
    let shape = shape.into_iter().map(Size::from).collect();
    let buffer = Buffer { name, dtype: DType::F32, shape, class: Class::Temp, default: 0.0 };
    program.buffers.push(buffer);
    BufferId(program.buffers.len() as u32 - 1)
}
