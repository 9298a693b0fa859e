//! What compiled code and its caller agree on.
//!
//! A kernel function executes the units `begin..end` of its parallel domain; it finds everything
//! else through the [`Context`], so no address of the host is ever part of code.

use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{AbiParam, Signature};
use cranelift_codegen::isa::CallConv;
use std::mem::offset_of;

/// A compiled kernel function: context, first unit, end of units, worker.
pub type KernelFn = unsafe extern "C" fn(*const Context, i64, i64, i64);

/// A compiled leaf: its argument block, which it may write results of folds to.
pub type LeafFn = unsafe extern "C" fn(*mut u8);

/// Bytes every buffer is aligned to.
pub const ALIGNMENT: usize = 64;

/// Bytes beyond its end that an allocation may be read (never written) at.
pub const SLACK: usize = 64;

/// What one launch hands to its functions.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// One address for each operand of the function, in the order of its operand list.
    pub operands: *const *mut u8,
    /// One slot for each worker.
    pub errors: *mut ErrorSlot,
    /// Workspace of the kernel that keeps its contents between calls.
    pub lasting: *mut u8,
    /// Workspace that all workers of the kernel, and all its phases, share.
    pub shared: *mut u8,
    /// Workspace of worker 0; that of worker `w` is at `scratch + w * scratch_stride`.
    pub scratch: *mut u8,
    /// Bytes from one worker's workspace to the next.
    pub scratch_stride: i64,
    /// [`SLACK`] bytes that may be read where a load turns out to be outside.
    pub nowhere: *const u8,
    /// Which part of its phase the function is run for.
    pub part: i64,
}

/// Byte offsets of the fields of [`Context`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum ContextField {
    /// [`Context::operands`].
    Operands = offset_of!(Context, operands) as i32,
    /// [`Context::errors`].
    Errors = offset_of!(Context, errors) as i32,
    /// [`Context::lasting`].
    Lasting = offset_of!(Context, lasting) as i32,
    /// [`Context::shared`].
    Shared = offset_of!(Context, shared) as i32,
    /// [`Context::scratch`].
    Scratch = offset_of!(Context, scratch) as i32,
    /// [`Context::scratch_stride`].
    ScratchStride = offset_of!(Context, scratch_stride) as i32,
    /// [`Context::nowhere`].
    Nowhere = offset_of!(Context, nowhere) as i32,
    /// [`Context::part`].
    Part = offset_of!(Context, part) as i32,
}

/// The first error a worker met in a launch.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrorSlot {
    /// An [`ErrorKind`], or 0.
    pub kind: i64,
    /// The index found, or the part that checks the buffer.
    pub value: i64,
    /// The extent it leaves.
    pub extent: i64,
}

/// What went wrong, as [`ErrorSlot::kind`] says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i64)]
pub enum ErrorKind {
    /// A gather or scatter index outside its dim.
    Index = 1,
    /// A checked value that is not finite.
    NotFinite = 2,
}

const _: () = assert!(size_of::<ErrorSlot>() == 64);

/// The signature of a [`KernelFn`].
pub fn kernel_signature(call_conv: CallConv) -> Signature {
    let mut signature = Signature::new(call_conv);
    signature.params.extend([AbiParam::new(I64); 4]);
    signature
}
