//! The type of a value: element type and extents.

use dlc_kernel::{Bindings, DType, MAX_DIM, Size};
use smallvec::SmallVec;
use std::fmt;

/// The extents of a tensor, outermost first.
pub type Shape = SmallVec<[Size; 4]>;

/// The largest rank a tensor may have.
pub const MAX_RANK: usize = 8;

/// The most bytes one tensor may take.
pub const MAX_BYTES: i64 = 1 << 47;

/// Element type and extents of a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Type {
    /// Type of the elements.
    pub dtype: DType,
    /// Extents; empty for a scalar.
    pub shape: Shape,
}

impl Type {
    /// A tensor type.
    pub fn new(dtype: DType, shape: impl IntoIterator<Item = Size>) -> Type {
        Type { dtype, shape: shape.into_iter().collect() }
    }

    /// A scalar type.
    pub fn scalar(dtype: DType) -> Type {
        Type { dtype, shape: Shape::new() }
    }

    /// A tensor type with known extents.
    pub fn known(dtype: DType, shape: &[i64]) -> Type {
        Type::new(dtype, shape.iter().map(|&n| n.into()))
    }

    /// The number of dims.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// The product of the extents.
    pub fn elements(&self) -> Size {
        self.shape.iter().cloned().product()
    }

    /// The same type with dims replaced by their values.
    pub fn bind(&self, bindings: &Bindings) -> Type {
        Type::new(self.dtype, self.shape.iter().map(|s| s.bind(bindings)))
    }

    /// Which limit the type breaks, if any: rank, an extent's sign or size, the bytes in all.
    pub fn broken_limit(&self) -> Option<String> {
        if self.rank() > MAX_RANK {
            return Some(format!("rank {} exceeds the limit of {MAX_RANK}", self.rank()));
        }
        let mut bytes = self.dtype.bytes() as i64;
        for extent in self.shape.iter().filter_map(Size::as_const) {
            if extent < 0 {
                return Some(format!("an extent is negative: {extent}"));
            }
            if extent > MAX_DIM {
                return Some(format!("an extent of {extent} exceeds the limit of 2^48"));
            }
            bytes = bytes.saturating_mul(extent.max(1));
        }
        (bytes > MAX_BYTES).then(|| format!("{bytes} bytes or more exceed the limit of 2^47"))
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (i, extent) in self.shape.iter().enumerate() {
            write!(f, "{}{extent}", if i > 0 { ", " } else { "" })?;
        }
        write!(f, "]")
    }
}
