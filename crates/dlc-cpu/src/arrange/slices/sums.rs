//! Sums over the axis that is cut: every slice adds its part to what those before have left.

use super::Chain;
use crate::arrange::entries::add_temporary;
use crate::arrange::substitute::Substitution;
use dlc_kernel::{
    Access, BinaryOp, BufferId, DType, Expr, ExprId, Exprs, Form, Index, Kernel, Program, Scalar,
    Segment, Size, Store,
};
use smallvec::SmallVec;

impl Chain {
    /// Lets `slice` of a contraction add up what the steps leave of it, in a temporary that has the next
    /// sums after each step. Gives what sets the first ones to 0, and the kernel's stores of the last.
    pub(super) fn add_up(
        &self,
        program: &mut Program,
        kernel: &Kernel,
        slice: &mut Kernel,
    ) -> [Kernel; 2] {
        let Form::Contract { out, exprs, stores, .. } = &kernel.form else {
            unreachable!("contractions alone have sums")
        };
        let depth = self.around.depth as usize;
        let mut shape: SmallVec<[i64; 8]> = out.iter().filter_map(Size::as_const).collect();
        shape.insert(depth, self.steps + 1);
        let sums = add_temporary(program, format!("{}_sums", kernel.name), shape);
        // The domain of a slice has the steps as one axis more.
        let sums_at = |step: Index, axes: u32| {
            let axis = |a: u32| Index::axis(a + if a < self.around.depth { 0 } else { axes });
            let mut coords: SmallVec<[Index; 4]> = (0..out.len() as u32).map(axis).collect();
            coords.insert(depth, step);
            Access { coords, guards: Default::default() }
        };
        let step = |ahead: i64| Index::affine([(self.around.depth, 1)], ahead);
        let Form::Contract { exprs: new, stores: own, .. } = &mut slice.form else {
            unreachable!("a slice has the form of the whole")
        };
        let sum = new.add_typed(Expr::Folded(0), DType::F32);
        let before = load(new, sums, sums_at(step(0), 1));
        let value = new.add(Expr::Binary(BinaryOp::Add, sum, before));
        *own = vec![Store { buffer: sums, access: sums_at(step(1), 1), value }];

        let map = |name: &str, exprs: Exprs, stores: Vec<Store>| {
            let form = Form::Map { segments: vec![Segment { axes: out.clone(), exprs, stores }] };
            let name = format!("{}_{name}", kernel.name);
            Kernel { name, origin: kernel.origin.clone(), form }
        };
        let mut none = Exprs::new();
        let value = none.add(Expr::Const(Scalar::new(DType::F32, 0.0)));
        let access = sums_at(Index::constant(0i64), 0);
        let start = map("start", none, vec![Store { buffer: sums, access, value }]);

        let mut end = Exprs::new();
        let axes: Vec<Index> = (0..out.len() as u32).map(Index::axis).collect();
        let mut copy = Substitution::new(exprs, &axes);
        copy.replace_sum(load(&mut end, sums, sums_at(Index::constant(self.steps), 0)));
        let stores = stores.iter().map(|store| copy.store(&mut end, store)).collect();
        [start, map("end", end, stores)]
    }
}

fn load(exprs: &mut Exprs, buffer: BufferId, access: Access) -> ExprId {
    let fill = Scalar::new(DType::F32, 0.0);
    let load = Expr::Load { buffer, access, lookups: SmallVec::new(), fill };
    exprs.add_typed(load, DType::F32)
}
