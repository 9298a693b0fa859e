//! Dense arrays of f64 and the points of a domain: what the reference evaluations compute with.

use crate::{DType, Data, Tensor, cast};
use smallvec::SmallVec;

/// A point of a domain or an element's coordinates.
pub type Point = SmallVec<[i64; 8]>;

/// A dense row-major tensor whose elements, of whatever type, are held as f64.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Extents.
    pub shape: Vec<usize>,
    /// As many elements as the extents' product.
    pub data: Vec<f64>,
}

impl Array {
    /// An array of these elements.
    ///
    /// # Panics
    /// If `data` has another length than the shape asks for.
    pub fn new(shape: impl Into<Vec<usize>>, data: Vec<f64>) -> Array {
        let shape = shape.into();
        let expected: usize = shape.iter().product();
        assert_eq!(data.len(), expected, "an array of shape {shape:?} has {expected} elements");
        Array { shape, data }
    }

    /// All elements `value`.
    pub fn full(shape: impl Into<Vec<usize>>, value: f64) -> Array {
        let shape = shape.into();
        let count = shape.iter().product();
        Array { shape, data: vec![value; count] }
    }

    /// All zeros.
    pub fn zeros(shape: impl Into<Vec<usize>>) -> Array {
        Array::full(shape, 0.0)
    }

    /// Rank 0.
    pub fn scalar(value: f64) -> Array {
        Array { shape: Vec::new(), data: vec![value] }
    }

    /// The element at each point, computed from its coordinates.
    pub fn from_fn(shape: impl Into<Vec<usize>>, mut element: impl FnMut(&[i64]) -> f64) -> Array {
        let shape = shape.into();
        let data = points(&shape).map(|point| element(&point)).collect();
        Array { shape, data }
    }

    /// Number of dims.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The row-major position of an element, `None` outside.
    pub fn position(&self, point: &[i64]) -> Option<usize> {
        assert_eq!(point.len(), self.rank(), "one coordinate per dim");
        point.iter().zip(&self.shape).try_fold(0, |sum, (&p, &n)| {
            usize::try_from(p).ok().filter(|&p| p < n).map(|p| sum * n + p)
        })
    }

    /// The element at `point`, `None` outside.
    pub fn get(&self, point: &[i64]) -> Option<f64> {
        self.position(point).map(|at| self.data[at])
    }

    /// The element at `point`.
    ///
    /// # Panics
    /// If `point` is outside.
    pub fn at(&self, point: &[i64]) -> f64 {
        self.get(point).unwrap_or_else(|| panic!("{point:?} is outside {:?}", self.shape))
    }

    /// `f` of every element.
    pub fn map(&self, f: impl FnMut(f64) -> f64) -> Array {
        Array { shape: self.shape.clone(), data: self.data.iter().copied().map(f).collect() }
    }

    /// `f` of the elements at the same place.
    ///
    /// # Panics
    /// If shapes differ.
    pub fn zip(&self, other: &Array, mut f: impl FnMut(f64, f64) -> f64) -> Array {
        assert_eq!(self.shape, other.shape, "elements are paired within one shape");
        let data = self.data.iter().zip(&other.data).map(|(&a, &b)| f(a, b)).collect();
        Array { shape: self.shape.clone(), data }
    }

    /// The same elements in row-major order under another shape.
    ///
    /// # Panics
    /// If the number of elements differs.
    pub fn reshape(&self, shape: impl Into<Vec<usize>>) -> Array {
        Array::new(shape, self.data.clone())
    }

    /// The elements of a host tensor (64-bit integers round).
    pub fn from_tensor(tensor: &Tensor) -> Array {
        Array::new(tensor.shape.clone(), tensor.data.to_f64())
    }

    /// A host tensor of type `dtype`: floats round, integers convert as [`cast`] does.
    ///
    /// # Panics
    /// If `dtype` has no host representation (`F16`, `Bf16`, `I8`).
    pub fn to_tensor(&self, dtype: DType) -> Tensor {
        let elements = self.data.iter().map(|&x| cast(dtype, x));
        let data = match dtype {
            DType::F32 => Data::F32(elements.map(|x| x as f32).collect()),
            DType::F64 => Data::F64(elements.collect()),
            DType::I64 => Data::I64(elements.map(|x| x as i64).collect()),
            DType::I32 => Data::I32(elements.map(|x| x as i32).collect()),
            DType::U8 => Data::U8(elements.map(|x| x as u8).collect()),
            DType::Bool => Data::Bool(elements.map(|x| x as u8).collect()),
            DType::F16 | DType::Bf16 | DType::I8 => panic!("{dtype} has no host tensor"),
        };
        Tensor::new(self.shape.clone(), data)
    }

    /// The largest `|a - b|` over all elements; NaN against NaN and equal infinities count as 0,
    /// any other NaN as infinite.
    ///
    /// # Panics
    /// If shapes differ.
    pub fn max_difference(&self, other: &Array) -> f64 {
        let differences = self.zip(other, |a, b| match a == b || (a.is_nan() && b.is_nan()) {
            true => 0.0,
            false if a.is_nan() || b.is_nan() => f64::INFINITY,
            false => (a - b).abs(),
        });
        differences.data.into_iter().fold(0.0, f64::max)
    }
}

/// All points of a domain in row-major order: one empty point for rank 0, none if an extent is 0.
pub fn points(extents: &[usize]) -> impl Iterator<Item = Point> + use<> {
    let extents: SmallVec<[usize; 8]> = extents.iter().copied().collect();
    let first: Point = extents.iter().map(|_| 0).collect();
    let start = (!extents.contains(&0)).then_some(first);
    std::iter::successors(start, move |point| {
        let mut next = point.clone();
        for (p, &n) in next.iter_mut().zip(&extents).rev() {
            *p += 1;
            if (*p as usize) < n {
                return Some(next);
            }
            *p = 0;
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_row_major() {
        let all = |extents: &[usize]| points(extents).map(|p| p.to_vec()).collect::<Vec<_>>();
        assert_eq!(all(&[2, 2]), [[0, 0], [0, 1], [1, 0], [1, 1]]);
        assert_eq!(all(&[]), [[0i64; 0]]);
        assert!(all(&[3, 0, 2]).is_empty());
    }

    #[test]
    fn positions_agree_with_the_order_of_points() {
        let array = Array::from_fn([2, 3, 4], |p| (p[0] * 100 + p[1] * 10 + p[2]) as f64);
        for (at, point) in points(&array.shape).enumerate() {
            assert_eq!(array.position(&point), Some(at));
        }
        assert_eq!(array.at(&[1, 2, 3]), 123.0);
        assert_eq!(array.get(&[1, 3, 0]), None);
        assert_eq!(array.get(&[-1, 0, 0]), None);
    }

    #[test]
    fn conversion_to_host_tensors_rounds_and_saturates() {
        let array = Array::new([3], vec![1.9, -300.0, f64::NAN]);
        assert_eq!(array.to_tensor(DType::I32).data, Data::I32(vec![1, -300, 0]));
        assert_eq!(array.to_tensor(DType::U8).data, Data::U8(vec![1, 0, 0]));
        assert_eq!(array.to_tensor(DType::Bool).data, Data::Bool(vec![1, 1, 1]));
        let back = Array::from_tensor(&array.to_tensor(DType::F32));
        assert_eq!(back.data[0], f64::from(1.9f32));
    }

    #[test]
    fn differences_see_nan() {
        let of = |a: f64, b: f64| Array::scalar(a).max_difference(&Array::scalar(b));
        assert_eq!(of(1.0, 3.5), 2.5);
        assert_eq!(of(f64::NAN, f64::NAN), 0.0);
        assert_eq!(of(f64::INFINITY, f64::INFINITY), 0.0);
        assert_eq!(of(f64::NAN, 1.0), f64::INFINITY);
    }
}
