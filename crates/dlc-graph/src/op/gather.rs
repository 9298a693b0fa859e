//! Reads and writes at places that data decides.

use super::source::{extents, known};
use super::{Gather, Lowering, OpText, Operation, Sample, ScatterAdd, Site, arity};
use crate::reader::Points;
use crate::{Graph, Shape, ShapeError, Type, Value};
use dlc_kernel::{Array, DType, Index};

impl Operation for Gather {
    fn text(&self) -> OpText {
        let attributes = vec![("axis", self.axis.to_string()), ("batch", self.batch.to_string())];
        OpText::new("gather", attributes)
    }

    fn shape(&self, operands: &[&Type]) -> Result<Type, ShapeError> {
        arity("gather", operands, 2)?;
        let (x, ids) = (operands[0], operands[1]);
        check_ids("gather", ids, self.batch)?;
        let (axis, batch) = (self.axis as usize, self.batch as usize);
        if axis < batch || axis >= x.rank() {
            return Err(ShapeError::new(format!("`gather` along axis {axis} of {x}")));
        }
        if x.shape[..batch] != ids.shape[..batch] {
            return Err(ShapeError::new(format!("`gather` from {x} at {ids}: batch dims differ")));
        }
        let (left, right) = (&x.shape[..axis], &x.shape[axis + 1..]);
        let shape = left.iter().chain(&ids.shape[batch..]).chain(right).cloned();
        Ok(Type::new(x.dtype, shape))
    }

    fn grad(&self, g: &mut Graph, at: &Site<'_>) -> Vec<Option<Value>> {
        let extent = g.ty(at.operands[0]).shape[self.axis as usize].clone();
        let scatter = ScatterAdd { axis: self.axis, batch: self.batch, extent };
        let dx = g.push(scatter, &[at.operands[1], at.cotangent], at.origin.clone());
        vec![Some(dx), None]
    }

    fn lower(&self) -> Lowering<'_> {
        Lowering::Point(Box::new(|points, at| {
            let (axis, batch) = (self.axis as usize, self.batch as usize);
            let found = points.shape(1).len() - batch;
            let ids: Vec<Index> =
                at[..batch].iter().chain(&at[axis..axis + found]).cloned().collect();
            let id = points.operand(1, &ids);
            let mut coords: Vec<Index> = at[..axis].to_vec();
            coords.push(Index::constant(0i64));
            coords.extend_from_slice(&at[axis + found..]);
            points.lookup(0, &coords, self.axis, id)
        }))
    }

    /// An id outside gives 0; [`eval`](fn@crate::eval::eval) reports it.
    fn eval(&self, operands: &[&Array], types: &[&Type]) -> Vec<Array> {
        let (x, ids) = (operands[0], operands[1]);
        let map = IdMap::new(self.axis, self.batch, &ids.shape, &x.shape);
        let shape = extents(types[2]);
        let mut data = Vec::with_capacity(shape.iter().product());
        let mut points = Points::new(shape.iter().map(|&n| n as i64));
        while let Some(point) = points.advance() {
            data.push(map.place(ids, point).map_or(0.0, |at| x.data[at]));
        }
        vec![Array::new(shape, data)]
    }

    fn samples() -> Vec<Sample> {
        let of = |axis, batch, x: &[i64], ids: &[i64]| {
            let types = [Type::known(DType::F32, x), Type::known(DType::I32, ids)];
            let ids = (0.0, (x[axis as usize] - 1).max(0) as f64);
            Sample::new(Gather { axis, batch }, types).within(&[(-1.5, 1.5), ids])
        };
        vec![
            of(0, 0, &[4, 3], &[2, 2]),
            of(1, 0, &[2, 3, 2], &[4]),
            of(1, 1, &[3, 4], &[3]),
            of(2, 1, &[2, 2, 3], &[2, 2]),
            of(0, 0, &[5], &[]),
            of(0, 0, &[3, 2], &[0]),
        ]
    }
}

impl Operation for ScatterAdd {
    fn text(&self) -> OpText {
        OpText::new(
            "scatter_add",
            vec![
                ("axis", self.axis.to_string()),
                ("batch", self.batch.to_string()),
                ("extent", self.extent.to_string()),
            ],
        )
    }

    fn shape(&self, operands: &[&Type]) -> Result<Type, ShapeError> {
        arity("scatter_add", operands, 2)?;
        let (ids, updates) = (operands[0], operands[1]);
        check_ids("scatter_add", ids, self.batch)?;
        if updates.dtype == DType::Bool {
            return Err(ShapeError::new(format!("`scatter_add` of {updates}")));
        }
        let (axis, batch) = (self.axis as usize, self.batch as usize);
        let found = ids.rank() - batch;
        let fits = batch <= axis
            && axis + found <= updates.rank()
            && updates.shape[..batch] == ids.shape[..batch]
            && updates.shape[axis..axis + found] == ids.shape[batch..];
        if !fits {
            return Err(ShapeError::new(format!("`scatter_add` of {updates} at {ids}")));
        }
        let mut shape: Shape = updates.shape[..axis].into();
        shape.push(self.extent.clone());
        shape.extend(updates.shape[axis + found..].iter().cloned());
        Ok(Type { dtype: updates.dtype, shape })
    }

    fn grad(&self, g: &mut Graph, at: &Site<'_>) -> Vec<Option<Value>> {
        let gather = Gather { axis: self.axis, batch: self.batch };
        let updates = g.push(gather, &[at.cotangent, at.operands[0]], at.origin.clone());
        vec![None, Some(updates)]
    }

    fn lower(&self) -> Lowering<'_> {
        Lowering::ScatterAdd(self)
    }

    /// An update outside is skipped; [`eval`](fn@crate::eval::eval) reports it.
    fn eval(&self, operands: &[&Array], types: &[&Type]) -> Vec<Array> {
        let (ids, updates) = (operands[0], operands[1]);
        let shape = extents(types[2]);
        let map = IdMap::new(self.axis, self.batch, &ids.shape, &shape);
        let mut data = vec![0.0; shape.iter().product()];
        let mut points = Points::new(updates.shape.iter().map(|&n| n as i64));
        let mut update = updates.data.iter();
        while let (Some(point), Some(value)) = (points.advance(), update.next()) {
            if let Some(at) = map.place(ids, point) {
                data[at] += value;
            }
        }
        vec![Array::new(shape, data)]
    }

    fn samples() -> Vec<Sample> {
        let of = |axis, batch, extent: i64, ids: &[i64], updates: &[i64]| {
            let op = ScatterAdd { axis, batch, extent: extent.into() };
            let types = [Type::known(DType::I32, ids), Type::known(DType::F32, updates)];
            Sample::new(op, types).within(&[(0.0, (extent - 1) as f64), (-1.5, 1.5)])
        };
        vec![
            of(0, 0, 4, &[2, 2], &[2, 2, 3]),
            of(1, 0, 3, &[4], &[2, 4, 2]),
            of(1, 1, 4, &[3], &[3]),
            of(0, 0, 5, &[], &[2]),
            of(0, 0, 3, &[0], &[0, 2]),
        ]
    }
}

/// Where the point of a gather's result lies in the gathered tensor.
struct IdMap {
    axis: usize,
    batch: usize,
    /// How many dims of the ids replace the axis.
    found: usize,
    ids: Vec<usize>,
    table: Vec<usize>,
}

impl IdMap {
    fn new(axis: u32, batch: u32, ids: &[usize], table: &[usize]) -> IdMap {
        let found = ids.len() - batch as usize;
        let (axis, batch) = (axis as usize, batch as usize);
        IdMap { axis, batch, found, ids: ids.to_vec(), table: table.to_vec() }
    }

    fn place(&self, ids: &Array, point: &[i64]) -> Option<usize> {
        let (axis, end) = (self.axis, self.axis + self.found);
        let at_ids = point[..self.batch].iter().chain(&point[axis..end]);
        let id = ids.data[row_major(at_ids, &self.ids)] as i64;
        if !(0..self.table[axis] as i64).contains(&id) {
            return None;
        }
        let place = point[..axis].iter().chain([&id]).chain(&point[end..]);
        Some(row_major(place, &self.table))
    }
}

fn row_major<'a>(point: impl Iterator<Item = &'a i64>, shape: &[usize]) -> usize {
    point.zip(shape).fold(0, |sum, (&p, &n)| sum * n + p as usize)
}

fn check_ids(name: &str, ids: &Type, batch: u32) -> Result<(), ShapeError> {
    if ids.dtype != DType::I32 {
        let error = ShapeError::new(format!("`{name}` at {ids}"));
        return Err(error.help("indices are i32"));
    }
    if batch as usize > ids.rank() {
        return Err(ShapeError::new(format!("`{name}` at {ids} with {batch} batch dims")));
    }
    Ok(())
}

/// The first id outside `0..extent`, where `op` reads ids: `(id, extent)`.
pub(crate) fn id_outside(ids: &Array, extent: &dlc_kernel::Size) -> Option<(i64, i64)> {
    let extent = known(extent);
    let outside = |&&id: &&f64| !(0..extent).contains(&(id as i64));
    ids.data.iter().find(outside).map(|&id| (id as i64, extent))
}
