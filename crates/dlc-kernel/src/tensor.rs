//! Tensors on the host, as callers give and receive them.

use crate::DType;

/// The elements of a host tensor, row-major.
#[derive(Debug, PartialEq)]
pub enum Data {
    /// Single precision.
    F32(Vec<f32>),
    /// Double precision.
    F64(Vec<f64>),
    /// 64-bit integers.
    I64(Vec<i64>),
    /// 32-bit integers.
    I32(Vec<i32>),
    /// Bytes.
    U8(Vec<u8>),
    /// Truth values, one byte each, 0 or 1.
    Bool(Vec<u8>),
}

/// A dense tensor on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Extents.
    pub shape: Vec<usize>,
    /// As many elements as the extents' product.
    pub data: Data,
}

impl Tensor {
    /// Bytes of spare capacity that tensors keep, as far as they are made by this type's functions,
    /// so that a target may use them in place: it may read, and in outputs write, that far beyond
    /// the last element.
    pub const SLACK: usize = 64;

    /// A tensor of `f32`.
    ///
    /// # Panics
    /// If `data` has another length than the shape asks for.
    pub fn f32(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Tensor {
        Tensor::new(shape.into(), Data::F32(data))
    }

    /// A tensor of `i32`; panics as [`Tensor::f32`].
    pub fn i32(shape: impl Into<Vec<usize>>, data: Vec<i32>) -> Tensor {
        Tensor::new(shape.into(), Data::I32(data))
    }

    /// A tensor of any type; panics as [`Tensor::f32`].
    pub fn new(shape: Vec<usize>, mut data: Data) -> Tensor {
        data.reserve();
        let expected: usize = shape.iter().product();
        assert_eq!(data.len(), expected, "a tensor of shape {shape:?} has {expected} elements");
        Tensor { shape, data }
    }

    /// All zeros.
    ///
    /// # Panics
    /// If `dtype` has no host representation (`F16`, `Bf16`, `I8`).
    pub fn zeros(dtype: DType, shape: impl Into<Vec<usize>>) -> Tensor {
        let shape = shape.into();
        let n = shape.iter().product();
        let data = match dtype {
            DType::F32 => Data::F32(zeros(n)),
            DType::F64 => Data::F64(zeros(n)),
            DType::I64 => Data::I64(zeros(n)),
            DType::I32 => Data::I32(zeros(n)),
            DType::U8 => Data::U8(zeros(n)),
            DType::Bool => Data::Bool(zeros(n)),
            DType::F16 | DType::Bf16 | DType::I8 => panic!("{dtype} has no host tensor"),
        };
        Tensor { shape, data }
    }

    /// Whether it has [`Tensor::SLACK`] bytes of spare capacity.
    pub fn has_slack(&self) -> bool {
        self.data.spare_bytes() >= Tensor::SLACK
    }

    /// Its element type.
    pub fn dtype(&self) -> DType {
        self.data.dtype()
    }

    /// The elements, if they are `f32`.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.data {
            Data::F32(v) => Some(v),
            _ => None,
        }
    }

    /// The elements, if they are `i32`.
    pub fn as_i32(&self) -> Option<&[i32]> {
        match &self.data {
            Data::I32(v) => Some(v),
            _ => None,
        }
    }
}

/// As many zeros, and room for [`Tensor::SLACK`] bytes.
fn zeros<T: Clone + Default>(n: usize) -> Vec<T> {
    let mut zeros = Vec::with_capacity(n + slack::<T>());
    zeros.resize(n, T::default());
    zeros
}

/// A copy, with room for [`Tensor::SLACK`] bytes.
fn copied<T: Copy>(elements: &[T]) -> Vec<T> {
    let mut copy = Vec::with_capacity(elements.len() + slack::<T>());
    copy.extend_from_slice(elements);
    copy
}

/// Elements in [`Tensor::SLACK`] bytes.
const fn slack<T>() -> usize {
    Tensor::SLACK / size_of::<T>()
}

impl Clone for Data {
    fn clone(&self) -> Data {
        match self {
            Data::F32(v) => Data::F32(copied(v)),
            Data::F64(v) => Data::F64(copied(v)),
            Data::I64(v) => Data::I64(copied(v)),
            Data::I32(v) => Data::I32(copied(v)),
            Data::U8(v) => Data::U8(copied(v)),
            Data::Bool(v) => Data::Bool(copied(v)),
        }
    }
}

impl Data {
    /// The element type.
    pub fn dtype(&self) -> DType {
        match self {
            Data::F32(_) => DType::F32,
            Data::F64(_) => DType::F64,
            Data::I64(_) => DType::I64,
            Data::I32(_) => DType::I32,
            Data::U8(_) => DType::U8,
            Data::Bool(_) => DType::Bool,
        }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        match self {
            Data::F32(v) => v.len(),
            Data::F64(v) => v.len(),
            Data::I64(v) => v.len(),
            Data::I32(v) => v.len(),
            Data::U8(v) | Data::Bool(v) => v.len(),
        }
    }

    /// Bytes of capacity that no element takes.
    fn spare_bytes(&self) -> usize {
        fn spare<T>(v: &Vec<T>) -> usize {
            (v.capacity() - v.len()) * size_of::<T>()
        }
        match self {
            Data::F32(v) => spare(v),
            Data::F64(v) => spare(v),
            Data::I64(v) => spare(v),
            Data::I32(v) => spare(v),
            Data::U8(v) | Data::Bool(v) => spare(v),
        }
    }

    /// Makes room for [`Tensor::SLACK`] spare bytes.
    fn reserve(&mut self) {
        match self {
            Data::F32(v) => v.reserve_exact(slack::<f32>()),
            Data::F64(v) => v.reserve_exact(slack::<f64>()),
            Data::I64(v) => v.reserve_exact(slack::<i64>()),
            Data::I32(v) => v.reserve_exact(slack::<i32>()),
            Data::U8(v) | Data::Bool(v) => v.reserve_exact(slack::<u8>()),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as f64 (`I64` rounds).
    pub fn to_f64(&self) -> Vec<f64> {
        match self {
            Data::F32(v) => v.iter().map(|&x| x.into()).collect(),
            Data::F64(v) => v.clone(),
            Data::I64(v) => v.iter().map(|&x| x as f64).collect(),
            Data::I32(v) => v.iter().map(|&x| x.into()).collect(),
            Data::U8(v) | Data::Bool(v) => v.iter().map(|&x| x.into()).collect(),
        }
    }
}
