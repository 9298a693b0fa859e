//! A kernel's form with one axis cut into the steps of a loop and the points of a step.

use super::substitute::Substitution;
use dlc_kernel::{Axis, Exprs, Form, Index, Segment, Size, Step};
use smallvec::SmallVec;

/// How an axis is cut.
pub(super) struct Cut {
    /// The axis: of a map's points, of rows, or of a contraction's points or terms.
    pub axis: Axis,
    /// How many loops are around the new one; their steps come before.
    pub depth: u32,
    /// How many steps.
    pub steps: i64,
    /// How many points a step has.
    pub points: i64,
    /// Whether the first step has the last points.
    pub from_the_end: bool,
}

impl Cut {
    /// A form with the steps as an axis after those of the loops around, and the points of a step as the
    /// axis that was.
    pub fn of(&self, form: &Form) -> Form {
        let mut new = Exprs::new();
        match form {
            Form::Map { segments } => {
                let [Segment { axes, exprs, stores }] = &segments[..] else {
                    unreachable!("an axis is one of all points of a map")
                };
                let over = self.over(axes.len());
                let mut copy = Substitution::new(exprs, &over);
                let stores = stores.iter().map(|s| copy.store(&mut new, s)).collect();
                Form::Map { segments: vec![Segment { axes: self.axes(axes), exprs: new, stores }] }
            }
            Form::Row { outer, inner, exprs, steps } => {
                let over = self.over(outer.len() + inner.len());
                let mut copy = Substitution::new(exprs, &over);
                let steps = steps.iter().map(|step| match step {
                    Step::Fold(op, value) => Step::Fold(*op, copy.copy(&mut new, *value)),
                    Step::StoreRow(store) => Step::StoreRow(copy.store(&mut new, store)),
                    Step::StoreEach(store) => Step::StoreEach(copy.store(&mut new, store)),
                });
                let steps = steps.collect();
                Form::Row { outer: self.axes(outer), inner: inner.clone(), exprs: new, steps }
            }
            Form::Contract { out, reduce, exprs, lhs, rhs, stores, .. } => {
                let over = self.over(out.len() + reduce.len());
                let mut copy = Substitution::new(exprs, &over);
                let factors = [lhs, rhs].map(|&factor| copy.copy(&mut new, factor));
                let stores = stores.iter().map(|s| copy.store(&mut new, s)).collect();
                let mut own = self.axes(&[&out[..], reduce].concat());
                let reduce = own.drain(out.len() + 1..).collect();
                Form::contract(own, reduce, new, factors, stores)
            }
            _ => unreachable!("other forms have no axes to cut"),
        }
    }

    fn axes(&self, axes: &[Size]) -> SmallVec<[Size; 4]> {
        let mut new = SmallVec::from(axes);
        new[self.axis.0 as usize] = Size::from(self.points);
        new.insert(self.depth as usize, Size::from(self.steps));
        new
    }

    /// The old axes by the new ones.
    fn over(&self, count: usize) -> Vec<Index> {
        let Cut { axis, depth, steps, points, from_the_end } = *self;
        let (by_step, first) =
            if from_the_end { (-points, (steps - 1) * points) } else { (points, 0) };
        let index = |a: u32| match a == axis.0 {
            true => Index::affine([(depth, by_step), (a + 1, 1)], first),
            false => Index::axis(a + u32::from(a >= depth)),
        };
        (0..count as u32).map(index).collect()
    }
}
