//! Short ways to build the compositions that rules, passes and front ends need. All of them panic
//! as [`Graph::push`] where operands do not fit.

use crate::op::{Binary, Cast, Const, Op, Part, Reduce, Reshape, Select, Source, Unary, View};
use crate::{Graph, Operands, Shape, Value};
use dlc_kernel::{Access, BinaryOp, DType, FoldOp, Index, Origin, Scalar, Size, UnaryOp};

impl Graph {
    /// A constant scalar.
    pub fn constant(&mut self, value: Scalar, origin: &Origin) -> Value {
        self.push(Const(value), &[], origin.clone())
    }

    /// A scalar operation on every element.
    #[track_caller]
    pub fn unary(&mut self, op: UnaryOp, x: Value, origin: &Origin) -> Value {
        self.push(Unary(op), &[x], origin.clone())
    }

    /// A scalar operation on corresponding elements.
    #[track_caller]
    pub fn binary(&mut self, op: BinaryOp, a: Value, b: Value, origin: &Origin) -> Value {
        self.push(Binary(op), &[a, b], origin.clone())
    }

    /// `a` where `condition`, else `b`.
    #[track_caller]
    pub fn select(&mut self, condition: Value, a: Value, b: Value, origin: &Origin) -> Value {
        self.push(Select, &[condition, a, b], origin.clone())
    }

    /// `x` as `dtype`; `x` itself if it is.
    pub fn cast(&mut self, x: Value, dtype: DType, origin: &Origin) -> Value {
        if self.ty(x).dtype == dtype {
            return x;
        }
        self.push(Cast(dtype), &[x], origin.clone())
    }

    /// An affine read that gives 0 outside; `x` itself if every element stays in its place.
    #[track_caller]
    pub fn view(&mut self, x: Value, axes: Shape, access: Access, origin: &Origin) -> Value {
        if access.is_identity() && self.ty(x).shape == axes {
            return x;
        }
        let fill = Scalar::new(self.ty(x).dtype, 0.0);
        self.push(View { axes, access, fill }, &[x], origin.clone())
    }

    /// The scalar `value` at every element of a tensor of shape `shape`.
    #[track_caller]
    pub fn splat(&mut self, value: Value, shape: Shape, origin: &Origin) -> Value {
        self.view(value, shape, Access::default(), origin)
    }

    /// The number `value` everywhere, of the type of `x`.
    pub fn splat_like(&mut self, x: Value, value: f64, origin: &Origin) -> Value {
        let ty = self.ty(x).clone();
        let constant = self.constant(Scalar::new(ty.dtype, value), origin);
        self.splat(constant, ty.shape, origin)
    }

    /// NumPy's broadcasting of `x` to `shape`: dims align at the end, an extent of 1 repeats.
    #[track_caller]
    pub fn broadcast(&mut self, x: Value, shape: Shape, origin: &Origin) -> Value {
        let from = &self.ty(x).shape;
        let lead = shape.len() - from.len();
        let coords = from.iter().enumerate().map(|(i, extent)| {
            let same = *extent == shape[lead + i];
            if same { Index::axis((lead + i) as u32) } else { Index::constant(0i64) }
        });
        let access = Access::new(coords);
        self.view(x, shape, access, origin)
    }

    /// Dim `i` of the result is dim `order[i]` of `x`.
    #[track_caller]
    pub fn transpose(&mut self, x: Value, order: &[u32], origin: &Origin) -> Value {
        let from = &self.ty(x).shape;
        let axes = order.iter().map(|&a| from[a as usize].clone()).collect();
        let mut coords = vec![Index::axis(0); order.len()];
        for (to, &from) in order.iter().enumerate() {
            coords[from as usize] = Index::axis(to as u32);
        }
        self.view(x, axes, Access::new(coords), origin)
    }

    /// `extent` elements along `axis`, from `start` on.
    #[track_caller]
    pub fn slice(
        &mut self,
        x: Value,
        axis: usize,
        start: Size,
        extent: Size,
        origin: &Origin,
    ) -> Value {
        let mut axes = self.ty(x).shape.clone();
        axes[axis] = extent;
        let mut access = Access::identity(axes.len());
        access.coords[axis].offset = start;
        self.view(x, axes, access, origin)
    }

    /// `before` and `after` elements of `fill` around `axis`.
    #[track_caller]
    pub fn pad(
        &mut self,
        x: Value,
        axis: usize,
        (before, after): (Size, Size),
        fill: f64,
        origin: &Origin,
    ) -> Value {
        let ty = self.ty(x).clone();
        let mut axes = ty.shape;
        axes[axis] = before.clone() + axes[axis].clone() + after;
        let mut access = Access::identity(axes.len());
        access.coords[axis].offset = Size::ZERO - before;
        self.push(View { axes, access, fill: Scalar::new(ty.dtype, fill) }, &[x], origin.clone())
    }

    /// Part `k` of a fused operation or a scan.
    #[track_caller]
    pub fn part(&mut self, x: Value, k: usize, origin: &Origin) -> Value {
        self.push(Part(k as u32), &[x], origin.clone())
    }

    /// Element `at` of dim 0.
    #[track_caller]
    pub fn element(&mut self, x: Value, at: Size, origin: &Origin) -> Value {
        let axes: Shape = self.ty(x).shape[1..].iter().cloned().collect();
        let rest = (0..axes.len() as u32).map(Index::axis);
        let access = Access::new(std::iter::once(Index::constant(at)).chain(rest));
        self.view(x, axes, access, origin)
    }

    /// The elements of dim 0 in opposite order.
    #[track_caller]
    pub fn reverse(&mut self, x: Value, origin: &Origin) -> Value {
        let axes = self.ty(x).shape.clone();
        let mut access = Access::identity(axes.len());
        access.coords[0] = Index::affine([(0, -1)], axes[0].clone() - Size::ONE);
        self.view(x, axes, access, origin)
    }

    /// Adds the operations of a body whose sources are named by the position of what they stand
    /// for; gives the values of its results.
    #[track_caller]
    pub fn inline(&mut self, body: &Graph, operands: &[Value]) -> Vec<Value> {
        let mut image: Vec<Value> = Vec::with_capacity(body.len());
        for value in body.values() {
            let made = match body.op(value) {
                Op::Source(source) => operands[source.position()],
                _ => {
                    let read: Operands =
                        body.operands(value).iter().map(|v| image[v.0 as usize]).collect();
                    self.copy(body, value, &read)
                }
            };
            image.push(made);
        }
        body.results().iter().map(|r| image[r.value.0 as usize]).collect()
    }

    /// The same elements under another shape; `x` itself if it has it.
    #[track_caller]
    pub fn reshape(&mut self, x: Value, shape: Shape, origin: &Origin) -> Value {
        if self.ty(x).shape == shape {
            return x;
        }
        self.push(Reshape { shape }, &[x], origin.clone())
    }

    /// The fold over `axes`, which ascend; `x` itself if there is none.
    #[track_caller]
    pub fn reduce(&mut self, op: FoldOp, x: Value, axes: &[u32], origin: &Origin) -> Value {
        if axes.is_empty() && !op.is_position() {
            return x;
        }
        let axes = axes.iter().copied().collect();
        self.push(Reduce { op, axes }, &[x], origin.clone())
    }

    /// The sum over `axes`, which ascend.
    #[track_caller]
    pub fn sum(&mut self, x: Value, axes: &[u32], origin: &Origin) -> Value {
        self.reduce(FoldOp::Sum, x, axes, origin)
    }

    /// Sums what [`Graph::broadcast`] from `shape` repeats.
    #[track_caller]
    pub fn sum_to(&mut self, x: Value, shape: Shape, origin: &Origin) -> Value {
        let from = &self.ty(x).shape;
        let lead = from.len() - shape.len();
        let repeated = |a: &usize| *a < lead || from[*a] != shape[*a - lead];
        let axes: Vec<u32> = (0..from.len()).filter(repeated).map(|a| a as u32).collect();
        let sum = self.sum(x, &axes, origin);
        self.reshape(sum, shape, origin)
    }

    /// The scalar that every element of `value` is known to be, seen through views, reshapes and
    /// stopped gradients.
    pub fn as_splat(&self, value: Value) -> Option<Scalar> {
        let mut at = value;
        let mut fills: Vec<Scalar> = Vec::new();
        loop {
            match self.op(at) {
                Op::Const(c) => return fills.iter().all(|f| f == &c.0).then_some(c.0),
                Op::View(view) => {
                    let operand = self.operands(at)[0];
                    if !view.is_inside(&self.ty(operand).shape) {
                        fills.push(view.fill);
                    }
                    at = operand;
                }
                Op::Reshape(_) | Op::StopGradient(_) => at = self.operands(at)[0],
                _ => return None,
            }
        }
    }
}

impl Source {
    /// Which operand the source of a body stands for.
    ///
    /// # Panics
    /// If it is no body's.
    pub fn position(&self) -> usize {
        self.name.parse().expect("the sources of a body are named by operand position")
    }
}

impl View {
    /// Whether it is known to read a tensor of shape `shape` inside everywhere.
    pub fn is_inside(&self, shape: &[Size]) -> bool {
        let coords = self.access.coords.iter().zip(shape);
        let guards = self.access.guards.iter().map(|g| (&g.index, &g.extent));
        coords.chain(guards).all(|(index, extent)| index.is_inside(&self.axes, extent))
    }
}
