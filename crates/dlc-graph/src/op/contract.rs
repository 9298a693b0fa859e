//! Contractions: sums of products of two affine reads.

use super::view::check_access;
use super::{Contract, Lowering, OpText, Operation, Sample, Site, arity};
use crate::reader::{Points, Reader};
use crate::{Graph, Shape, ShapeError, Type, Value, adjoint};
use dlc_kernel::{Access, Array, DType, Index, Size};

impl Operation for Contract {
    fn text(&self) -> OpText {
        let mut attributes = vec![("out", format!("{:?}", self.out))];
        attributes.push(("reduce", format!("{:?}", self.reduce)));
        attributes.push(("lhs", format!("{:?}", self.lhs)));
        attributes.push(("rhs", format!("{:?}", self.rhs)));
        OpText::new("contract", attributes)
    }

    fn shape(&self, operands: &[&Type]) -> Result<Type, ShapeError> {
        arity("contract", operands, 2)?;
        let (lhs, rhs) = (operands[0], operands[1]);
        if lhs.dtype != rhs.dtype || !lhs.dtype.is_float() {
            return Err(ShapeError::new(format!("`contract` of {lhs} and {rhs}")));
        }
        let axes = self.out.len() + self.reduce.len();
        check_access("contract", &self.lhs, lhs, axes)?;
        check_access("contract", &self.rhs, rhs, axes)?;
        if let Some(n) = self.reduce.iter().filter_map(Size::as_const).find(|&n| n < 0) {
            return Err(ShapeError::new(format!("`contract` sums over a negative extent: {n}")));
        }
        Ok(Type { dtype: lhs.dtype, shape: self.out.clone() })
    }

    fn grad(&self, g: &mut Graph, at: &Site<'_>) -> Vec<Option<Value>> {
        adjoint::of_contract(g, self, at).into()
    }

    fn lower(&self) -> Lowering<'_> {
        Lowering::Contract(self)
    }

    fn eval(&self, operands: &[&Array], types: &[&Type]) -> Vec<Array> {
        let axes = self.axes();
        let lhs = Reader::new(&self.lhs, &operands[0].shape, &axes);
        let rhs = Reader::new(&self.rhs, &operands[1].shape, &axes);
        let shape = super::source::extents(types[2]);
        let mut data = Vec::with_capacity(shape.iter().product());
        let mut out = Points::of(&self.out);
        let mut point = vec![0; axes.len()];
        while let Some(at) = out.advance() {
            point[..at.len()].copy_from_slice(at);
            let mut sum = 0.0;
            let (mut rows, length) = Points::rows(&self.reduce);
            while let Some(start) = rows.advance() {
                point[self.out.len()..].copy_from_slice(start);
                let last = axes.len().saturating_sub(1);
                let (left, right) = (lhs.run(&point, last), rhs.run(&point, last));
                for k in 0..length {
                    if let (Some(l), Some(r)) = (left.at(k), right.at(k)) {
                        sum += operands[0].data[l] * operands[1].data[r];
                    }
                }
            }
            data.push(sum);
        }
        vec![Array::new(shape, data)]
    }

    fn samples() -> Vec<Sample> {
        let mut all = products();
        all.extend(convolutions());
        all
    }
}

impl Contract {
    /// All axes: `out`, then `reduce`.
    pub fn axes(&self) -> Shape {
        self.out.iter().chain(&self.reduce).cloned().collect()
    }
}

fn sample(out: &[i64], reduce: &[i64], lhs: (&[i64], &[Index]), rhs: (&[i64], &[Index])) -> Sample {
    let shape = |s: &[i64]| s.iter().map(|&n| n.into()).collect();
    let access = |coords: &[Index]| Access::new(coords.iter().cloned());
    let contract =
        Contract { out: shape(out), reduce: shape(reduce), lhs: access(lhs.1), rhs: access(rhs.1) };
    Sample::new(contract, [Type::known(DType::F32, lhs.0), Type::known(DType::F32, rhs.0)])
}

/// Matrix products, a batched one, dot and outer products, empty sums.
fn products() -> Vec<Sample> {
    let a = Index::axis;
    vec![
        sample(&[2, 3], &[4], (&[2, 4], &[a(0), a(2)]), (&[3, 4], &[a(1), a(2)])),
        sample(
            &[2, 2, 3],
            &[2],
            (&[2, 2, 2], &[a(0), a(1), a(3)]),
            (&[2, 2, 3], &[a(0), a(3), a(2)]),
        ),
        sample(&[], &[3], (&[3], &[a(0)]), (&[3], &[a(0)])),
        sample(&[2, 3], &[], (&[2], &[a(0)]), (&[3], &[a(1)])),
        sample(&[2], &[0], (&[2, 0], &[a(0), a(1)]), (&[0], &[a(1)])),
        sample(&[0, 2], &[3], (&[0, 3], &[a(0), a(2)]), (&[3, 2], &[a(2), a(1)])),
        sample(&[], &[2, 3], (&[], &[]), (&[2, 3], &[a(0), a(1)])),
    ]
}

/// Padded, strided, dilated and grouped convolutions.
fn convolutions() -> Vec<Sample> {
    let a = Index::axis;
    let w =
        |s, stride, r, dilation, offset: i64| Index::affine([(s, stride), (r, dilation)], offset);
    let conv = |image: &[i64], kernel: &[i64], out: &[i64], stride, dilation, pad: i64| {
        let row = w(2, stride, 5, dilation, -pad);
        let column = w(3, stride, 6, dilation, -pad);
        sample(
            out,
            &kernel[1..],
            (image, &[a(0), a(4), row, column]),
            (kernel, &[a(1), a(4), a(5), a(6)]),
        )
    };
    let group = Index::affine([(1, 2), (4, 1)], 0i64);
    vec![
        conv(&[1, 2, 4, 4], &[2, 2, 3, 3], &[1, 2, 4, 4], 1, 1, 1),
        conv(&[1, 1, 5, 6], &[2, 1, 3, 2], &[1, 2, 2, 3], 2, 1, 0),
        conv(&[1, 1, 5, 5], &[1, 1, 2, 2], &[1, 1, 3, 3], 1, 2, 0),
        // Two groups of two channels each: [n, g, k, h; i, r].
        sample(
            &[1, 2, 2, 3],
            &[2, 3],
            (&[1, 4, 5], &[a(0), group, w(3, 1, 5, 1, 0)]),
            (&[2, 2, 2, 3], &[a(1), a(2), a(4), a(5)]),
        ),
    ]
}
