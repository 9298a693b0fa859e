//! Random small kernels against the interpreter, on any target.

use crate::support::*;
use dlc_kernel::{
    Access, BinaryOp, Class, DType, Expr, ExprId, Exprs, FoldOp, Form, Guard, Index, Scalar, Size,
    Step, UnaryOp,
};
use proptest::prelude::*;

/// A kernel's ingredients, drawn from a seed.
struct Dice(Noise);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0.below(n)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    fn extents(&mut self, rank: u64) -> Vec<i64> {
        (0..rank).map(|_| self.pick(&[1, 2, 3, 4, 5, 7, 8, 13, 17])).collect()
    }

    /// A read of some axes in any order, shifted, scaled or divided, inside or not.
    fn access(&mut self, axes: &[i64]) -> (Access, Vec<i64>) {
        let mut coords = Vec::new();
        let mut shape = Vec::new();
        for _ in 0..self.below(axes.len() as u64 + 1) {
            let axis = self.below(axes.len() as u64) as u32;
            let extent = axes[axis as usize];
            let coord = match self.below(8) {
                0 => Index::affine([(axis, 1)], self.pick(&[-1i64, 2])),
                1 => Index::affine([(axis, 2)], self.pick(&[-1i64, 0])),
                2 => Index::affine([(axis, -1)], extent - 1),
                3 => Index { div: 2, ..Index::affine([(axis, 1)], self.pick(&[-1i64, 0])) },
                4 => Index::affine([(axis, 1), (self.below(axes.len() as u64) as u32, 1)], -1i64),
                _ => Index::axis(axis),
            };
            coords.push(coord);
            shape.push(extent + self.pick(&[0, 0, 0, 1]) as i64);
        }
        let mut place = access(coords);
        if !axes.is_empty() && self.below(6) == 0 {
            let axis = self.below(axes.len() as u64) as u32;
            let extent = Size::from(axes[axis as usize] / 2 + 1);
            place.guards.push(Guard { index: Index::axis(axis), extent });
        }
        (place, shape)
    }

    /// A value over `axes`, of type `F32`, that may use the folds below `folds`.
    fn value(&mut self, draft: &mut Draft, e: &mut Exprs, axes: &[i64], folds: &[u32]) -> ExprId {
        let mut values: Vec<ExprId> = folds.iter().map(|&k| folded(e, k, DType::F32)).collect();
        for _ in 0..1 + self.below(3) {
            let dtype = self.pick(&[DType::F32, DType::F32, DType::F32, DType::U8, DType::Bool]);
            let (place, shape) = self.access(axes);
            let buffer = draft.buffer(Class::Input, dtype, &shape);
            let fill = Scalar::new(dtype, self.pick(&[0.0, 1.0]));
            let loaded = load_as(e, buffer, place, fill);
            let number = e.add(Expr::Cast(DType::F32, loaded));
            let scale = e.constant(DType::F32, if dtype == DType::U8 { 1.0 / 256.0 } else { 1.0 });
            values.push(binary(e, BinaryOp::Mul, number, scale));
        }
        if !axes.is_empty() && self.below(3) == 0 {
            let position = axis(e, self.below(axes.len() as u64) as u32);
            values.push(e.add(Expr::Cast(DType::F32, position)));
        }
        for _ in 0..self.below(5) {
            let (x, y) = (self.pick(&values), self.pick(&values));
            let value = match self.below(6) {
                0 => unary(e, self.pick(&[UnaryOp::Tanh, UnaryOp::Sigmoid, UnaryOp::Sin]), x),
                1 => unary(e, self.pick(&[UnaryOp::Abs, UnaryOp::Neg, UnaryOp::Sign]), x),
                2 => {
                    let less = binary(e, BinaryOp::Lt, x, y);
                    e.add(Expr::Select(less, x, y))
                }
                _ => {
                    let op = [BinaryOp::Add, BinaryOp::Sub, BinaryOp::Max, BinaryOp::Min];
                    binary(e, self.pick(&op), x, y)
                }
            };
            values.push(value);
        }
        *values.last().unwrap()
    }
}

fn random_map(dice: &mut Dice) -> Draft {
    let mut draft = Draft::default();
    let rank = dice.below(4);
    let axes = dice.extents(rank);
    let mut e = Exprs::new();
    let mut stores = Vec::new();
    for _ in 0..1 + dice.below(2) {
        let value = dice.value(&mut draft, &mut e, &axes, &[]);
        let mut order: Vec<u32> = (0..axes.len() as u32).collect();
        if dice.below(3) == 0 {
            order.reverse();
        }
        let shape: Vec<i64> = order.iter().map(|&a| axes[a as usize]).collect();
        stores.push(store(draft.output(&shape), &order, value));
    }
    draft.map(&axes, e, stores);
    draft
}

fn random_row(dice: &mut Dice) -> Draft {
    let mut draft = Draft::default();
    let (outer_rank, inner_rank) = (dice.below(3), 1 + dice.below(2));
    let (outer, inner) = (dice.extents(outer_rank), dice.extents(inner_rank));
    let all = [&outer[..], &inner[..]].concat();
    let mut e = Exprs::new();
    let (mut steps, mut folds) = (Vec::new(), Vec::new());
    for _ in 0..1 + dice.below(2) {
        let value = dice.value(&mut draft, &mut e, &all, &folds);
        folds.push(steps.len() as u32);
        steps.push(Step::Fold(dice.pick(&[FoldOp::Sum, FoldOp::Max, FoldOp::Min]), value));
    }
    let rows: Vec<u32> = (0..outer.len() as u32).collect();
    let value = dice.value(&mut draft, &mut e, &outer, &folds);
    steps.push(Step::StoreRow(store(draft.output(&outer), &rows, value)));
    if dice.below(2) == 0 {
        let points: Vec<u32> = (0..all.len() as u32).collect();
        let value = dice.value(&mut draft, &mut e, &all, &folds);
        steps.push(Step::StoreEach(store(draft.output(&all), &points, value)));
    }
    draft.kernel(Form::Row { outer: sizes(&outer), inner: sizes(&inner), exprs: e, steps });
    draft
}

/// Positions are below 17, four operations make them at most 272, and each rounds by half an ulp of
/// that: 65e-6.
const MAP_BOUND: f64 = 7e-5;

/// Sums of at most 289 such values are below 2^17, with an ulp of 2^-7 each; a sine keeps errors.
const ROW_BOUND: f64 = 1e-2;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn maps_agree_with_the_interpreter(seed in any::<u64>()) {
        let program = random_map(&mut Dice(Noise(seed))).program();
        check(&program, &noise_inputs(&program, seed), MAP_BOUND);
    }

    #[test]
    fn rows_agree_with_the_interpreter(seed in any::<u64>()) {
        let program = random_row(&mut Dice(Noise(seed))).program();
        check(&program, &noise_inputs(&program, seed), ROW_BOUND);
    }
}
