//! The gates of a recurrent step: a contraction whose result only a map reads, at several places for
//! each of its own points, becomes a contraction with several sums at a point that makes the map's
//! stores. So the result is never in memory, and a step is one kernel.
//!
//! With AVX2 only steps of few rows win by it, and those of two threads most: neither waits for what the other
//! one multiplied. Of many rows, fewer and shorter registers make gates in the short runs of a block take
//! longer than gates of whole rows, by more than the way through memory does (batch 32: 4 % of an LSTM's step).
//!
//! The halves of a gated layer are the same case, if one matrix makes both, but win nothing: outside of
//! loops there is enough to do for each kernel.

use super::substitute::Substitution;
use crate::level::Level;
use crate::schedule::contract::bundled;
use dlc_kernel::{
    Access, Axis, BufferId, Class, DType, Expr, ExprId, Exprs, Form, Index, Kernel, Program,
    Segment, Size, Store,
};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// The most sums of a point.
const MOST_SUMS: usize = 8;
/// The most rows of a step with AVX2.
const FEW_ROWS: i64 = 24;

/// Makes one kernel of contractions and maps where that is possible.
pub(super) fn in_one(mut program: Program, level: Level) -> Program {
    let most_rows = match level {
        Level::X86_64V4 => i64::MAX,
        Level::X86_64V3 => FEW_ROWS,
        _ => return program,
    };
    for at in 0..program.entries.len() {
        let entry = &mut program.entries[at];
        let mut readers = FxHashMap::default();
        entry.kernels.iter().for_each(|kernel| count_readers(kernel, &mut readers));
        entry.outputs.iter().for_each(|id| _ = readers.remove(id));
        let (mut kernels, commit) = (std::mem::take(&mut entry.kernels), entry.commit);
        let joints = Joints { program: &program, readers, most_rows };
        let gone = joints.join_all(&mut kernels, 0);
        let entry = &mut program.entries[at];
        entry.commit -= gone.into_iter().filter(|&product| product < commit).count();
        entry.kernels = kernels;
    }
    program
}

/// How many kernels read each buffer.
fn count_readers(kernel: &Kernel, readers: &mut FxHashMap<BufferId, usize>) {
    if let Form::Loop { start, body, .. } = &kernel.form {
        return start.iter().chain(body).for_each(|inner| count_readers(inner, readers));
    }
    kernel.reads().into_iter().for_each(|id| *readers.entry(id).or_default() += 1);
}

/// The search for pairs in an entry.
struct Joints<'p> {
    program: &'p Program,
    readers: FxHashMap<BufferId, usize>,
    most_rows: i64,
}

impl Joints<'_> {
    /// Joins the pairs in a list of kernels within so many loops; gives the old positions of the
    /// contractions, which are gone.
    fn join_all(&self, kernels: &mut Vec<Kernel>, steps: u32) -> Vec<usize> {
        let mut gone = Vec::new();
        for at in 0..kernels.len() {
            if let Form::Loop { start, body, .. } = &mut kernels[at].form {
                self.join_all(start, steps);
                self.join_all(body, steps + 1);
            }
            if steps == 0 {
                continue;
            }
            let open = (0..at).rev().filter(|product| !gone.contains(product));
            let joint = |product| Some((product, self.joint(kernels, [product, at], steps)?));
            if let Some((product, form)) = open.into_iter().find_map(joint) {
                kernels[at].form = form;
                gone.push(product);
            }
        }
        let mut at = 0..;
        kernels.retain(|_| !gone.contains(&at.next().expect("numbers do not end")));
        gone
    }

    /// What a contraction and a later map are together, if they can be one.
    fn joint(&self, kernels: &[Kernel], [product, map]: [usize; 2], steps: u32) -> Option<Form> {
        let Form::Map { segments } = &kernels[map].form else { return None };
        let [segment] = &segments[..] else { return None };
        let product_reads = kernels[product].reads();
        let product = Product::new(&kernels[product].form)?;
        let result = product.store.buffer;
        let buffer = self.program.buffer(result);
        let is_own = buffer.class == Class::Temp && self.readers.get(&result) == Some(&1);
        if !is_own || buffer.dtype != DType::F32 || kernels[map].may_fail() {
            return None;
        }
        let gates = Gates::new(segment, result, &buffer.shape)?;
        let points = |axes: &[Size]| axes.iter().map(Size::as_const).product::<Option<i64>>();
        let count = gates.places.len() as i64;
        let (_, rows) = segment.axes.get(steps as usize..)?.split_last()?;
        let is_all = points(&segment.axes)?.checked_mul(count) == points(product.out);
        if !is_all || points(rows)? > self.most_rows {
            return None;
        }
        let stays = |id: &BufferId| !product_reads.contains(id);
        let between = kernels[..map].iter().skip_while(|k| !k.writes().contains(&result));
        let unchanged = between.skip(1).flat_map(Kernel::writes).all(|id| stays(&id));
        let apart = |store: &Store| stays(&store.buffer) || product.is_of_other_step(store, steps);
        let form = gates.with(segment, &product, steps)?;
        (unchanged && segment.stores.iter().all(apart)).then_some(form)
    }
}

/// A contraction that makes one tensor.
struct Product<'k> {
    out: &'k [Size],
    reduce: &'k SmallVec<[Size; 4]>,
    exprs: &'k Exprs,
    factors: [ExprId; 2],
    store: &'k Store,
    /// By dim of the tensor: the axis that goes along it, unless it has one element.
    axes: Vec<Option<Axis>>,
}

impl<'k> Product<'k> {
    fn new(form: &'k Form) -> Option<Product<'k>> {
        let Form::Contract { out, reduce, exprs, lhs, rhs, stores, .. } = form else {
            return None;
        };
        let [store] = &stores[..] else { return None };
        let along = |c: &Index| match c.as_axis() {
            None if *c == Index::constant(0i64) => Some(None),
            axis => axis.map(Some),
        };
        let axes = store.access.coords.iter().map(along).collect::<Option<Vec<_>>>()?;
        let found = |axis: u32| axes.iter().flatten().filter(|own| own.0 == axis).count();
        let is_placed = |(axis, n): (u32, &Size)| match found(axis) {
            0 => *n == Size::from(1i64),
            count => count == 1,
        };
        let plain = !form.has_several_sums() && (0..).zip(out).all(is_placed);
        plain.then_some(Product { out, reduce, exprs, factors: [*lhs, *rhs], store, axes })
    }

    /// Where its axes are, given those of the result; `first` is the new number of its first reduced
    /// axis.
    fn over(&self, result: &[Index], first: usize) -> Vec<Index> {
        let mut over = vec![Index::constant(0i64); self.out.len()];
        for (axis, to) in self.axes.iter().zip(result).filter_map(|(a, to)| Some((a.as_ref()?, to)))
        {
            over[axis.0 as usize] = to.clone();
        }
        over.extend((0..self.reduce.len()).map(|k| Index::axis((first + k) as u32)));
        over
    }

    /// Whether what is stored belongs to another step of the loops around than what it reads of the
    /// same buffer.
    fn is_of_other_step(&self, store: &Store, steps: u32) -> bool {
        let factors = self.exprs.reachable(self.factors);
        let loads = factors.into_iter().filter_map(|id| match self.exprs.get(id) {
            Expr::Load { buffer, access, .. } if *buffer == store.buffer => Some(access),
            _ => None,
        });
        let by_step = |a: &Index, b: &Index| {
            let moves = a.terms.iter().all(|t| t.0.0 < steps) && a.terms == b.terms;
            moves && a.div == 1 && b.div == 1 && a.offset != b.offset
        };
        let differs = |access: &Access| {
            access.coords.iter().zip(&store.access.coords).any(|(a, b)| by_step(a, b))
        };
        loads.into_iter().all(differs)
    }
}

/// The places where a map reads a tensor.
struct Gates {
    /// By load: which of the places.
    loads: Vec<(ExprId, u32)>,
    /// By place: the coordinates.
    places: Vec<SmallVec<[Index; 4]>>,
    /// By dim: from one place to the next.
    distance: Vec<i64>,
}

impl Gates {
    /// The gates of a map that reads `result`.
    fn new(segment: &Segment, result: BufferId, shape: &[Size]) -> Option<Gates> {
        let roots = segment.stores.iter().map(|s| s.value);
        let (mut loads, mut places) = (Vec::new(), Vec::new());
        for id in segment.exprs.reachable(roots) {
            let Expr::Load { buffer, access, lookups, .. } = segment.exprs.get(id) else {
                continue;
            };
            if *buffer == result {
                let inside = |(c, n): (&Index, &Size)| c.is_inside(&segment.axes, n);
                let plain = lookups.is_empty() && access.guards.is_empty();
                if !plain || !access.coords.iter().zip(shape).all(inside) {
                    return None;
                }
                places.push(access.coords.clone());
                loads.push((id, access.coords.clone()));
            }
        }
        let offsets = |place: &SmallVec<[Index; 4]>| -> Option<Vec<i64>> {
            place.iter().map(|c| c.offset.as_const()).collect()
        };
        places.sort_by_key(offsets);
        places.dedup();
        let alike =
            |a: &[Index], b: &[Index]| a.iter().map(|c| &c.terms).eq(b.iter().map(|c| &c.terms));
        let several = (2..=MOST_SUMS).contains(&places.len());
        if !several || !places.iter().all(|place| alike(place, &places[0])) {
            return None;
        }
        let offsets = places.iter().map(offsets).collect::<Option<Vec<_>>>()?;
        let from =
            |a: &[i64], b: &[i64]| -> Vec<i64> { a.iter().zip(b).map(|(a, b)| b - a).collect() };
        let distance = from(&offsets[0], &offsets[1]);
        let even = offsets.windows(2).all(|pair| from(&pair[0], &pair[1]) == distance);
        let number = |place| places.iter().position(|own| *own == place).map(|k| k as u32);
        let loads = loads.into_iter().map(|(id, place)| Some((id, number(place)?)));
        let loads = loads.collect::<Option<Vec<_>>>()?;
        even.then_some(Gates { loads, places, distance })
    }

    /// The contraction that computes the gates and makes the map's stores.
    fn with(&self, segment: &Segment, product: &Product, steps: u32) -> Option<Form> {
        let Segment { axes, exprs, stores } = segment;
        let count = self.places.len() as i64;
        let last = Axis(axes.len().checked_sub(1)? as u32);
        bundled(axes[last.0 as usize].as_const()?, count)?;
        let sum = Axis(axes.len() as u32);
        let gate = |(c, by): (&Index, &i64)| {
            let terms = c.terms.iter().map(|&(axis, coef)| (axis.0, coef));
            Index::affine(terms.chain([(sum.0, *by)]), c.offset.clone())
        };
        let all: Vec<Index> = self.places[0].iter().zip(&self.distance).map(gate).collect();
        let neighbours = all.last()?.coef(last) == 1;
        let over = product.over(&all, axes.len() + 1);
        let at_step = (0..steps).all(|s| over[s as usize].as_axis() == Some(Axis(s)));
        let mut new = Exprs::new();
        let mut factors = Substitution::new(product.exprs, &over);
        let [a, b] = product.factors.map(|factor| factors.copy(&mut new, factor));
        let uses = |factor, axis| uses(&new, factor, axis);
        let is_theirs = |x| uses(x, last) && uses(x, sum);
        let is_free = |x| !uses(x, last) && !uses(x, sum);
        let [lhs, rhs] = [[a, b], [b, a]].into_iter().find(|&[x, y]| is_free(x) && is_theirs(y))?;
        if !neighbours || !at_step {
            return None;
        }
        let own: Vec<Index> = (0..axes.len() as u32).map(Index::axis).collect();
        let mut copy = Substitution::new(exprs, &own);
        for (k, place) in (0..).zip(&self.places) {
            let over = product.over(place, axes.len() + 1);
            let mut value = Substitution::new(product.exprs, &over);
            let folded = new.add_typed(Expr::Folded(k), DType::F32);
            value.replace_sum(folded);
            let value = value.copy(&mut new, product.store.value);
            let loads = self.loads.iter().filter(|load| load.1 == k);
            loads.for_each(|load| copy.replace(load.0, value));
        }
        let stores = stores.iter().map(|store| copy.store(&mut new, store)).collect();
        let sums = [Size::from(count)].into_iter().collect();
        let (out, reduce) = (axes.clone(), product.reduce.clone());
        Some(Form::Contract { out, sums, reduce, exprs: new, lhs, rhs, stores })
    }
}

/// Whether a value depends on an axis.
fn uses(exprs: &Exprs, value: ExprId, axis: Axis) -> bool {
    exprs.reachable([value]).into_iter().any(|id| match exprs.get(id) {
        Expr::Load { access, .. } => access.uses(axis),
        Expr::Inside(guard) => guard.index.uses(axis),
        Expr::Axis(own) => *own == axis,
        _ => false,
    })
}
