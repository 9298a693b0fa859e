//! Between tensors of the host and the storage of an executable.

use dlc_kernel::{Data, Tensor};

/// Where an input lies, if kernels can read it there: it has the room that
/// [`Tensor::SLACK`] asks for, and needs no conversion.
pub fn readable(tensor: &Tensor) -> Option<*mut u8> {
    if !tensor.has_slack() {
        return None;
    }
    match &tensor.data {
        Data::F32(v) => Some(v.as_ptr().cast_mut().cast()),
        Data::I32(v) => Some(v.as_ptr().cast_mut().cast()),
        Data::U8(v) => Some(v.as_ptr().cast_mut()),
        Data::F64(_) | Data::I64(_) | Data::Bool(_) => None,
    }
}

/// Where an output lies, if kernels can write it there.
pub fn writable(tensor: &mut Tensor) -> Option<*mut u8> {
    if !tensor.has_slack() {
        return None;
    }
    match &mut tensor.data {
        Data::F32(v) => Some(v.as_mut_ptr().cast()),
        Data::I32(v) => Some(v.as_mut_ptr().cast()),
        Data::U8(v) => Some(v.as_mut_ptr()),
        Data::F64(_) | Data::I64(_) | Data::Bool(_) => None,
    }
}

/// Copies the elements of a tensor to storage; truth values become 0 or 1.
///
/// # Safety
/// `to` must be valid for writes of all elements, and nothing else may use those bytes.
pub unsafe fn copy_in(data: &Data, to: *mut u8) {
    /// # Safety
    /// As [`copy_in`].
    unsafe fn copy<T: Copy>(from: &[T], to: *mut u8) {
        // SAFETY: the caller vouches for `to`; a slice is valid for its length.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.cast(), from.len()) };
    }
    // SAFETY: the caller vouches for `to`.
    unsafe {
        match data {
            Data::F32(v) => copy(v, to),
            Data::F64(v) => copy(v, to),
            Data::I64(v) => copy(v, to),
            Data::I32(v) => copy(v, to),
            Data::U8(v) => copy(v, to),
            Data::Bool(v) => {
                for (i, &b) in v.iter().enumerate() {
                    to.add(i).write(u8::from(b != 0));
                }
            }
        }
    }
}

/// Copies the elements of a tensor from storage.
///
/// # Safety
/// `from` must be valid for reads of all elements, and nothing may write those bytes meanwhile.
pub unsafe fn copy_out(from: *const u8, data: &mut Data) {
    /// # Safety
    /// As [`copy_out`].
    unsafe fn copy<T: Copy>(from: *const u8, to: &mut [T]) {
        // SAFETY: the caller vouches for `from`; a slice is valid for its length.
        unsafe { std::ptr::copy_nonoverlapping(from.cast(), to.as_mut_ptr(), to.len()) };
    }
    // SAFETY: the caller vouches for `from`.
    unsafe {
        match data {
            Data::F32(v) => copy(from, v),
            Data::F64(v) => copy(from, v),
            Data::I64(v) => copy(from, v),
            Data::I32(v) => copy(from, v),
            Data::U8(v) | Data::Bool(v) => copy(from, v),
        }
    }
}
