//! The interpreter: runs a [`Program`] in f64, one point after the other, with no regard for speed.
//!
//! It is the definition of what each [`Form`] means, and the oracle for every target. Values are
//! f64 throughout: `F32` is not rounded to, so a target differs from it by its own rounding only.
//! The program must have passed [`crate::verify()`] and have all its sizes bound.

use crate::{
    Access, Array, BinaryOp, BufferId, Class, Entry, Expr, ExprId, Exprs, FoldOp, Folding, Form,
    Index, Kernel, Lookup, Point, Program, RunError, ScatterMode, Segment, Size, Step, Store, cast,
    philox, points,
};

/// A program with its storage.
#[derive(Clone, Debug)]
pub struct Machine<'p> {
    program: &'p Program,
    arrays: Vec<Array>,
}

impl<'p> Machine<'p> {
    /// All buffers at their defaults: 0 but for run-time scalars.
    ///
    /// # Panics
    /// If a size is not bound.
    pub fn new(program: &'p Program) -> Machine<'p> {
        let arrays = program.buffers.iter().map(|b| Array::full(extents(&b.shape), b.default));
        Machine { program, arrays: arrays.collect() }
    }

    /// The elements of a buffer, as the last call or write left them.
    pub fn array(&self, buffer: BufferId) -> &Array {
        &self.arrays[buffer.0 as usize]
    }

    /// A parameter, state or run-time scalar.
    pub fn read(&self, name: &str) -> Result<&Array, RunError> {
        self.persistent(name).map(|id| self.array(id))
    }

    /// Sets a parameter, state or run-time scalar.
    pub fn write(&mut self, name: &str, value: &Array) -> Result<(), RunError> {
        let id = self.persistent(name)?;
        self.set(id, value)
    }

    /// Runs an entry and gives its outputs. After an error, parameters and state are as before.
    pub fn call(&mut self, name: &str, inputs: &[Array]) -> Result<Vec<Array>, RunError> {
        let program = self.program;
        let entry = program.entry(name);
        let entry = entry.ok_or_else(|| RunError::Usage(format!("there is no entry `{name}`")))?;
        self.accept(entry, inputs)?;
        for kernel in &entry.kernels {
            // The first error ends the call: what may still run has no effect that lasts.
            self.run(kernel, &[])?;
        }
        Ok(entry.outputs.iter().map(|&id| self.array(id).clone()).collect())
    }

    fn accept(&mut self, entry: &Entry, inputs: &[Array]) -> Result<(), RunError> {
        if inputs.len() != entry.inputs.len() {
            let (name, wanted, given) = (&entry.name, entry.inputs.len(), inputs.len());
            let message = format!("entry `{name}` takes {wanted} inputs, not {given}");
            return Err(RunError::Usage(message));
        }
        entry.inputs.iter().zip(inputs).try_for_each(|(&id, value)| self.set(id, value))
    }

    fn set(&mut self, id: BufferId, value: &Array) -> Result<(), RunError> {
        let buffer = self.program.buffer(id);
        let array = &mut self.arrays[id.0 as usize];
        if array.shape != value.shape {
            let (name, own, other) = (&buffer.name, &array.shape, &value.shape);
            return Err(RunError::Usage(format!("`{name}` has shape {own:?}, not {other:?}")));
        }
        *array = value.map(|x| cast(buffer.dtype, x));
        Ok(())
    }

    fn persistent(&self, name: &str) -> Result<BufferId, RunError> {
        let lasts = |class| matches!(class, Class::Param | Class::State | Class::Scalar);
        let found = self.program.buffers.iter().position(|b| b.name == name && lasts(b.class));
        let found = found.map(|at| BufferId(at as u32));
        found.ok_or_else(|| RunError::Usage(format!("there is no parameter or state `{name}`")))
    }

    /// Runs a kernel, at a step of each loop around it.
    fn run(&mut self, kernel: &Kernel, steps: &[i64]) -> Result<(), RunError> {
        let mut work = Execution { arrays: &mut self.arrays, kernel, steps };
        match &kernel.form {
            Form::Map { segments } => segments.iter().try_for_each(|s| work.map(s)),
            Form::Row { outer, inner, exprs, steps } => work.row(outer, inner, exprs, steps),
            Form::Contract { out, sums, reduce, exprs, lhs, rhs, stores } => {
                work.contract(out, [sums, reduce], exprs, [*lhs, *rhs], stores)
            }
            Form::Scatter { mode, axes, exprs, buffer, access, lookups, value } => {
                work.scatter((*mode, axes), exprs, *buffer, (access, lookups), *value)
            }
            Form::Reshape { src, dst } => {
                work.arrays[dst.0 as usize].data = work.arrays[src.0 as usize].data.clone();
                Ok(())
            }
            Form::Loop { steps: count, start, body } => {
                start.iter().try_for_each(|kernel| self.run(kernel, steps))?;
                let mut at = |step| {
                    let steps = [steps, &[step]].concat();
                    body.iter().try_for_each(|kernel| self.run(kernel, &steps))
                };
                (0..bound(count)).try_for_each(&mut at)
            }
            Form::Check { buffers } => self.check(buffers),
        }
    }

    fn check(&self, buffers: &[BufferId]) -> Result<(), RunError> {
        let bad = |id: &&BufferId| self.array(**id).data.iter().any(|x| !x.is_finite());
        match buffers.iter().find(bad) {
            Some(&id) => Err(RunError::NotFinite { name: self.program.buffer(id).name.clone() }),
            None => Ok(()),
        }
    }
}

/// One kernel at work on the buffers.
struct Execution<'a> {
    arrays: &'a mut [Array],
    kernel: &'a Kernel,
    /// Where the loops around it are: the first axes of its domain.
    steps: &'a [i64],
}

/// The values of an [`Exprs`] at one point: those of `order`, which is closed under operands.
struct Values<'a> {
    exprs: &'a Exprs,
    order: Vec<ExprId>,
    values: Vec<f64>,
}

impl<'a> Values<'a> {
    fn new(exprs: &'a Exprs, roots: impl IntoIterator<Item = ExprId>) -> Values<'a> {
        Values { exprs, order: exprs.reachable(roots), values: vec![0.0; exprs.len()] }
    }

    fn of_stores(exprs: &'a Exprs, stores: &[Store]) -> Values<'a> {
        Values::new(exprs, stores.iter().map(|s| s.value))
    }

    fn get(&self, id: ExprId) -> f64 {
        self.values[id.0 as usize]
    }
}

impl Execution<'_> {
    /// The points of a domain at the present steps.
    fn points(&self, axes: &[Size]) -> impl Iterator<Item = Point> + use<> {
        let steps: Point = self.steps.iter().copied().collect();
        points(&extents(&axes[steps.len()..])).map(move |rest| joined(&steps, &rest))
    }

    fn map(&mut self, segment: &Segment) -> Result<(), RunError> {
        let mut values = Values::of_stores(&segment.exprs, &segment.stores);
        for point in self.points(&segment.axes) {
            self.compute(&mut values, &point, &[])?;
            self.store(&segment.stores, &values, &point);
        }
        Ok(())
    }

    fn row(
        &mut self,
        outer: &[Size],
        inner: &[Size],
        exprs: &Exprs,
        steps: &[Step],
    ) -> Result<(), RunError> {
        let mut values: Vec<_> = steps.iter().map(|s| Values::new(exprs, [s.value()])).collect();
        let inner = extents(inner);
        for row in self.points(outer) {
            let mut folds = vec![f64::NAN; steps.len()];
            for (k, step) in steps.iter().enumerate() {
                let values = &mut values[k];
                match step {
                    Step::Fold(op, _) => {
                        folds[k] = self.fold(*op, values, step.value(), (&row, &inner), &folds)?;
                    }
                    Step::StoreRow(store) => {
                        // Inner axes do not occur; any point of the row serves.
                        let point = joined(&row, &vec![0; inner.len()]);
                        self.compute(values, &point, &folds)?;
                        self.store(std::slice::from_ref(store), values, &point);
                    }
                    Step::StoreEach(store) => {
                        for point in points(&inner).map(|p| joined(&row, &p)) {
                            self.compute(values, &point, &folds)?;
                            self.store(std::slice::from_ref(store), values, &point);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn fold(
        &self,
        op: FoldOp,
        values: &mut Values<'_>,
        element: ExprId,
        (row, inner): (&[i64], &[usize]),
        folds: &[f64],
    ) -> Result<f64, RunError> {
        let mut folding = Folding::new(op, values.exprs.dtype(element));
        for point in points(inner) {
            self.compute(values, &joined(row, &point), folds)?;
            folding.push(values.get(element));
        }
        Ok(folding.result())
    }

    fn contract(
        &mut self,
        out: &[Size],
        [sums, reduce]: [&[Size]; 2],
        exprs: &Exprs,
        operands: [ExprId; 2],
        stores: &[Store],
    ) -> Result<(), RunError> {
        let mut factors = Values::new(exprs, operands);
        let mut epilogue = Values::of_stores(exprs, stores);
        let reduce = extents(reduce);
        for row in self.points(out) {
            let mut sum =
                |at: Point| self.sum(&mut factors, operands, (&joined(&row, &at), &reduce));
            let sums = points(&extents(sums)).map(&mut sum).collect::<Result<Vec<f64>, _>>()?;
            self.compute(&mut epilogue, &row, &sums)?;
            self.store(stores, &epilogue, &row);
        }
        Ok(())
    }

    /// The sum of products over `inner` at one point of the axes before.
    fn sum(
        &self,
        factors: &mut Values<'_>,
        [lhs, rhs]: [ExprId; 2],
        (at, inner): (&[i64], &[usize]),
    ) -> Result<f64, RunError> {
        let dtype = factors.exprs.dtype(lhs);
        let mut sum = Folding::new(FoldOp::Sum, dtype);
        for inner in points(inner) {
            self.compute(factors, &joined(at, &inner), &[])?;
            let (a, b) = (factors.get(lhs), factors.get(rhs));
            sum.push(BinaryOp::Mul.eval(dtype, a, b));
        }
        Ok(sum.result())
    }

    fn scatter(
        &mut self,
        (mode, axes): (ScatterMode, &[Size]),
        exprs: &Exprs,
        buffer: BufferId,
        (access, lookups): (&Access, &[Lookup]),
        value: ExprId,
    ) -> Result<(), RunError> {
        if mode == ScatterMode::Add {
            self.clear(buffer);
        }
        let mut values = Values::new(exprs, lookups.iter().map(|l| l.index).chain([value]));
        for point in self.points(axes) {
            self.compute(&mut values, &point, &[])?;
            let (at, new) =
                (self.locate(buffer, access, lookups, &point, &values), values.get(value));
            let data = &mut self.arrays[buffer.0 as usize].data;
            match (mode, at) {
                (ScatterMode::Add, at) => {
                    if let Some(at) = at? {
                        data[at] = BinaryOp::Add.eval(exprs.dtype(value), data[at], new);
                    }
                }
                (ScatterMode::Overwrite, Ok(Some(at))) => data[at] = new,
                (ScatterMode::Overwrite, _) => {}
            }
        }
        Ok(())
    }

    /// Sets what a buffer has at the present steps to 0.
    fn clear(&mut self, buffer: BufferId) {
        let array = &mut self.arrays[buffer.0 as usize];
        let block: usize = array.shape[self.steps.len()..].iter().product();
        let at = self.steps.iter().zip(&array.shape).fold(0, |at, (&t, &n)| at * n + t as usize);
        array.data[at * block..(at + 1) * block].fill(0.0);
    }

    fn store(&mut self, stores: &[Store], values: &Values<'_>, point: &[i64]) {
        for store in stores {
            let array = &mut self.arrays[store.buffer.0 as usize];
            let coords: Option<Point> = store.access.coords.iter().map(|c| c.at(point)).collect();
            let at = coords.and_then(|c| array.position(&c));
            array.data[at.expect("stores of a verified kernel are inside")] =
                values.get(store.value);
        }
    }

    fn compute(
        &self,
        values: &mut Values<'_>,
        point: &[i64],
        folds: &[f64],
    ) -> Result<(), RunError> {
        for at in 0..values.order.len() {
            let id = values.order[at];
            values.values[id.0 as usize] = self.evaluate(values, id, point, folds)?;
        }
        Ok(())
    }

    fn evaluate(
        &self,
        values: &Values<'_>,
        id: ExprId,
        point: &[i64],
        folds: &[f64],
    ) -> Result<f64, RunError> {
        let get = |id: ExprId| values.get(id);
        let truth = |holds: bool| f64::from(u8::from(holds));
        Ok(match values.exprs.get(id) {
            Expr::Const(scalar) => scalar.value(),
            Expr::Extent(size, dtype) => cast(*dtype, bound(size) as f64),
            Expr::Axis(axis) => point[axis.0 as usize] as f64,
            Expr::Inside(guard) => truth(inside(&guard.index, &guard.extent, point)),
            Expr::Load { buffer, access, lookups, fill } => {
                match self.locate(*buffer, access, lookups, point, values)? {
                    Some(at) => self.arrays[buffer.0 as usize].data[at],
                    None => fill.value(),
                }
            }
            Expr::Folded(step) => folds[*step as usize],
            Expr::Unary(op, x) => op.eval(values.exprs.dtype(*x), get(*x)),
            Expr::Binary(op, a, b) => op.eval(values.exprs.dtype(*a), get(*a), get(*b)),
            Expr::Select(c, a, b) => get(if get(*c) != 0.0 { *a } else { *b }),
            Expr::Cast(dtype, x) => cast(*dtype, get(*x)),
            Expr::Random { site, seed, step, element } => {
                let word = |id: &ExprId| get(*id) as i32;
                philox::uniform(word(seed), word(step), *site, word(element)).into()
            }
        })
    }

    /// The element that an access means at a point, `None` outside. An index found in data is
    /// checked last, and is the only thing that can fail.
    fn locate(
        &self,
        buffer: BufferId,
        access: &Access,
        lookups: &[Lookup],
        point: &[i64],
        values: &Values<'_>,
    ) -> Result<Option<usize>, RunError> {
        let array = &self.arrays[buffer.0 as usize];
        if !access.guards.iter().all(|g| inside(&g.index, &g.extent, point)) {
            return Ok(None);
        }
        let mut coords: Point = access.coords.iter().map(|_| 0).collect();
        for (dim, index) in access.coords.iter().enumerate() {
            if lookups.iter().any(|l| l.dim as usize == dim) {
                continue;
            }
            match index.at(point).filter(|v| (0..array.shape[dim] as i64).contains(v)) {
                Some(inside) => coords[dim] = inside,
                None => return Ok(None),
            }
        }
        for lookup in lookups {
            let (dim, index) = (lookup.dim as usize, values.get(lookup.index) as i64);
            let extent = array.shape[dim] as i64;
            if !(0..extent).contains(&index) {
                return Err(RunError::Index { place: self.kernel.place(), index, extent });
            }
            coords[dim] = index;
        }
        Ok(array.position(&coords))
    }
}

fn joined(outer: &[i64], inner: &[i64]) -> Point {
    outer.iter().chain(inner).copied().collect()
}

fn inside(index: &Index, extent: &Size, point: &[i64]) -> bool {
    index.at(point).is_some_and(|v| (0..bound(extent)).contains(&v))
}

fn extents(sizes: &[Size]) -> Vec<usize> {
    let extent = |s: &Size| usize::try_from(bound(s)).expect("sizes are not negative");
    sizes.iter().map(extent).collect()
}

fn bound(size: &Size) -> i64 {
    size.as_const().expect("sizes are bound before a program runs")
}
