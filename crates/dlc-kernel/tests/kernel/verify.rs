//! Every rule of the verifier rejects a program that breaks it and nothing else.

use crate::build::*;
use dlc_kernel::*;

const F32: DType = DType::F32;

/// That `program`, which is well-formed, breaks `rule` once `change` is made.
#[track_caller]
fn breaks(rule: Rule, mut program: Program, change: impl FnOnce(&mut Program)) {
    assert_eq!(verify::verify(&program), Ok(()));
    change(&mut program);
    let error = verify::verify(&program).expect_err("a broken program is rejected");
    assert_eq!(error.rule, rule, "{error}");
}

fn kernels(p: &mut Program) -> &mut Vec<Kernel> {
    &mut p.entries[0].kernels
}

/// The first segment of a map.
fn segment(p: &mut Program, kernel: usize) -> &mut Segment {
    match &mut kernels(p)[kernel].form {
        Form::Map { segments } => &mut segments[0],
        form => panic!("a {} is no map", form.name()),
    }
}

/// `y[i, j] = x[i, j]` over [4, 3].
fn copy() -> Program {
    single(&[(F32, &[4, 3])], &[(F32, &[4, 3])], |i, o| {
        let mut e = Exprs::new();
        let x = load(&mut e, i[0], Access::identity(2));
        map(&[4, 3], e, vec![store(o[0], Access::identity(2), x)])
    })
}

/// [`copy`] with another expression.
fn copied(p: &mut Program, value: impl FnOnce(&mut Exprs, BufferId) -> ExprId) {
    let segment = segment(p, 0);
    let mut exprs = Exprs::new();
    segment.stores[0].value = value(&mut exprs, BufferId(0));
    segment.exprs = exprs;
}

#[test]
fn exists() {
    breaks(Rule::Exists, copy(), |p| segment(p, 0).stores[0].buffer = BufferId(9));
    breaks(Rule::Exists, copy(), |p| segment(p, 0).stores[0].value = ExprId(9));
    breaks(Rule::Exists, copy(), |p| p.entries[0].inputs[0] = BufferId(9));
    breaks(Rule::Exists, copy(), |p| {
        copied(p, |e, _| load(e, BufferId(9), Access::identity(2)));
    });
    breaks(Rule::Exists, copy(), |p| {
        copied(p, |e, _| e.add_typed(Expr::Unary(UnaryOp::Neg, ExprId(0)), F32));
    });
}

#[test]
fn effect() {
    breaks(Rule::Effect, copy(), |p| segment(p, 0).stores.clear());
    breaks(Rule::Effect, copy(), |p| p.entries.clear());
    breaks(Rule::Effect, training(), |p| {
        kernels(p)[3].form = Form::Check { buffers: Vec::new() };
    });
}

#[test]
fn name() {
    breaks(Rule::Name, copy(), |p| p.entries.push(p.entries[0].clone()));
    breaks(Rule::Name, training(), |p| kernels(p)[1].name = "gather".into());
    breaks(Rule::Name, copy(), |p| kernels(p)[0].name = "a.b".into());
    breaks(Rule::Name, copy(), |p| kernels(p)[0].name.clear());
    breaks(Rule::Name, training(), |p| p.buffers[1].name = "emb.table".into());
}

#[test]
fn extent() {
    breaks(Rule::Extent, copy(), |p| p.buffers[0].shape[0] = (-1i64).into());
    breaks(Rule::Extent, copy(), |p| p.buffers[0].shape[0] = (MAX_DIM + 1).into());
    breaks(Rule::Extent, copy(), |p| p.buffers[0].shape[0] = MAX_DIM.into());
    breaks(Rule::Extent, copy(), |p| segment(p, 0).axes[0] = (-1i64).into());
}

#[test]
fn class() {
    breaks(Rule::Class, copy(), |p| p.buffers[0].class = Class::Temp);
    breaks(Rule::Class, copy(), |p| p.entries[0].inputs.clear());
    breaks(Rule::Class, copy(), |p| p.entries[0].outputs.clear());
    breaks(Rule::Class, copy(), |p| p.entries[0].inputs.push(BufferId(0)));
    breaks(Rule::Class, copy(), |p| p.buffers[1].class = Class::Scalar);
    breaks(Rule::Class, training(), |p| p.buffers[3].class = Class::Input);
}

#[test]
fn order() {
    // Read before it is written, written in part, written twice, never written.
    breaks(Rule::Order, training(), |p| kernels(p).swap(0, 1));
    breaks(Rule::Order, training(), |p| segment(p, 0).axes[0] = 2i64.into());
    breaks(Rule::Order, training(), |p| {
        let again = Kernel { name: "again".into(), ..kernels(p)[2].clone() };
        kernels(p).insert(3, again);
        p.entries[0].commit += 1;
    });
    breaks(Rule::Order, copy(), |p| {
        kernels(p).clear();
        p.entries[0].commit = 0;
    });
}

#[test]
fn commit() {
    breaks(Rule::Commit, training(), |p| p.entries[0].commit = 5);
    breaks(Rule::Commit, training(), |p| p.entries[0].commit = 6);
}

#[test]
fn failure() {
    breaks(Rule::Failure, training(), |p| {
        let check = Kernel { name: "late".into(), ..kernels(p)[3].clone() };
        kernels(p).push(check);
    });
    breaks(Rule::Failure, training(), |p| {
        let gather = Kernel { name: "late".into(), ..kernels(p)[0].clone() };
        kernels(p).push(gather);
    });
}

#[test]
fn rank() {
    breaks(Rule::Rank, copy(), |p| copied(p, |e, x| load(e, x, axes(&[0]))));
    breaks(Rule::Rank, copy(), |p| segment(p, 0).stores[0].access = axes(&[0, 1, 1]));
    breaks(Rule::Rank, copy(), |p| {
        let index = Index { div: 0, ..Index::axis(0) };
        copied(p, |e, x| load(e, x, Access::new([index, Index::axis(1)])));
    });
}

#[test]
fn axis() {
    breaks(Rule::Axis, copy(), |p| copied(p, |e, x| load(e, x, axes(&[0, 2]))));
    breaks(Rule::Axis, copy(), |p| {
        let guard = Guard { index: Index::axis(2), extent: 1i64.into() };
        let access = Access { guards: [guard].into_iter().collect(), ..Access::identity(2) };
        copied(p, |e, x| load(e, x, access));
    });
    breaks(Rule::Axis, conv(), |p| {
        let Form::Contract { stores, lhs, .. } = &mut kernels(p)[0].form else { unreachable!() };
        stores[0].value = *lhs;
    });
    breaks(Rule::Axis, softmax(3, 5), |p| {
        let Form::Row { steps, .. } = &mut kernels(p)[0].form else { unreachable!() };
        let Step::Fold(_, x) = steps[0] else { unreachable!() };
        let Step::StoreRow(store) = &mut steps[3] else { unreachable!() };
        store.value = x;
    });
}

#[test]
fn fold() {
    breaks(Rule::Fold, softmax(3, 5), |p| {
        let Form::Row { steps, .. } = &mut kernels(p)[0].form else { unreachable!() };
        steps.swap(0, 1);
    });
    breaks(Rule::Fold, copy(), |p| copied(p, |e, _| folded(e, 0, F32)));
    breaks(Rule::Fold, conv(), |p| {
        let Form::Contract { stores, lhs, .. } = &mut kernels(p)[0].form else { unreachable!() };
        *lhs = stores[0].value;
    });
}

#[test]
fn types() {
    let bool_sum = |e: &mut Exprs, _| {
        let one = e.constant(DType::Bool, 1.0);
        let sum = e.add(Expr::Binary(BinaryOp::Add, one, one));
        e.add(Expr::Cast(F32, sum))
    };
    breaks(Rule::Type, copy(), |p| copied(p, bool_sum));
    breaks(Rule::Type, copy(), |p| copied(p, |e, _| e.constant(DType::I32, 0.5)));
    breaks(Rule::Type, copy(), |p| copied(p, |e, _| e.constant(DType::I32, 1.0)));
    breaks(Rule::Type, copy(), |p| copied(p, |e, _| e.constant(DType::F64, 1.0)));
    breaks(Rule::Type, copy(), |p| {
        copied(p, |e, x| load_or(e, x, Access::identity(2), Scalar::new(DType::I32, 0.0)));
    });
    breaks(Rule::Type, copy(), |p| {
        copied(p, |e, _| {
            let whole = e.constant(DType::I32, 1.0);
            let root = e.add(Expr::Unary(UnaryOp::Sqrt, whole));
            e.add(Expr::Cast(F32, root))
        });
    });
    breaks(Rule::Type, copy(), |p| {
        copied(p, |e, _| {
            let (half, whole) = (e.constant(F32, 0.5), e.constant(DType::I32, 1.0));
            e.add_typed(Expr::Binary(BinaryOp::Add, half, whole), F32)
        });
    });
    breaks(Rule::Type, softmax(3, 5), |p| {
        let Form::Row { steps, .. } = &mut kernels(p)[0].form else { unreachable!() };
        let Step::Fold(op, _) = &mut steps[0] else { unreachable!() };
        *op = FoldOp::ArgMax;
    });
    breaks(Rule::Type, copy(), |p| {
        copied(p, |e, _| {
            let (seed, word) = (e.constant(F32, 0.5), e.constant(DType::I32, 1.0));
            e.add(Expr::Random { site: 0, seed, step: word, element: word })
        });
    });
}

#[test]
fn lookup() {
    let scatter = |p: &mut Program, change: &dyn Fn(&mut Lookup, &mut Access)| {
        let Form::Scatter { lookups, access, .. } = &mut kernels(p)[2].form else { unreachable!() };
        change(&mut lookups[0], access);
    };
    breaks(Rule::Lookup, training(), |p| scatter(p, &|lookup, _| lookup.dim = 1));
    breaks(Rule::Lookup, training(), |p| scatter(p, &|lookup, _| lookup.dim = 2));
    breaks(Rule::Lookup, training(), |p| scatter(p, &|_, at| at.coords[0] = Index::axis(0)));
    breaks(Rule::Lookup, training(), |p| scatter(p, &|lookup, _| lookup.index = ExprId(1)));
    breaks(Rule::Lookup, training(), |p| {
        let Form::Scatter { lookups, .. } = &mut kernels(p)[2].form else { unreachable!() };
        lookups.clear();
    });
    breaks(Rule::Lookup, training(), |p| {
        let Form::Scatter { lookups, .. } = &mut kernels(p)[2].form else { unreachable!() };
        lookups.push(lookups[0].clone());
    });
}

#[test]
fn inside() {
    let to = |index: Index| move |p: &mut Program| segment(p, 0).stores[0].access.coords[0] = index;
    breaks(Rule::Inside, copy(), to(affine(&[(0, 1)], 1)));
    breaks(Rule::Inside, copy(), to(affine(&[(0, 1)], -1)));
    breaks(Rule::Inside, copy(), to(affine(&[(0, 2)], 0)));
    breaks(Rule::Inside, copy(), to(Index { div: 2, ..Index::axis(0) }));
    breaks(Rule::Inside, copy(), |p| {
        let guard = Guard { index: Index::axis(0), extent: 4i64.into() };
        segment(p, 0).stores[0].access.guards.push(guard);
    });
}

#[test]
fn once() {
    breaks(Rule::Once, copy(), |p| {
        segment(p, 0).stores[0].access.coords[0] = Index::constant(0i64);
    });
    breaks(Rule::Once, copy(), |p| {
        let store = segment(p, 0).stores[0].clone();
        segment(p, 0).stores.push(store);
    });
    breaks(Rule::Once, copy(), |p| {
        p.buffers[1].shape = sizes(&[6, 3]);
        segment(p, 0).stores[0].access.coords[0] = affine(&[(0, 1), (1, 1)], 0);
        segment(p, 0).stores[0].access.coords[1] = Index::constant(0i64);
    });
}

/// Digits of a mixed radix, interleaved stores, and segments one after the other.
#[test]
fn stores_that_never_meet() {
    let program = single(&[], &[(F32, &[12]), (F32, &[8]), (F32, &[8])], |_, o| {
        let segment = |extents: &[i64], to: &[(BufferId, Index)]| {
            let mut exprs = Exprs::new();
            let value = exprs.constant(F32, 1.0);
            let to = to.iter().map(|(b, at)| store(*b, Access::new([at.clone()]), value));
            Segment { axes: sizes(extents), exprs, stores: to.collect() }
        };
        Form::Map {
            segments: vec![
                segment(&[3, 2, 1, 2], &[(o[0], affine(&[(0, 4), (1, 2), (2, 7), (3, 1)], 0))]),
                segment(&[4], &[(o[1], affine(&[(0, 2)], 0)), (o[1], affine(&[(0, 2)], 1))]),
                segment(&[5], &[(o[2], affine(&[(0, 1)], 3))]),
                segment(&[3], &[(o[2], affine(&[(0, -1)], 2))]),
                segment(&[0], &[(o[2], affine(&[(0, 9)], 99))]),
            ],
        }
    });
    assert_eq!(verify::verify(&program), Ok(()));
}

#[test]
fn in_place() {
    breaks(Rule::InPlace, training(), |p| {
        let segment = segment(p, 4);
        let mut exprs = Exprs::new();
        let access = Access::new([affine(&[(0, -1)], 3), Index::axis(1)]);
        segment.stores[0].value = load(&mut exprs, BufferId(0), access);
        segment.exprs = exprs;
    });
    breaks(Rule::InPlace, training(), |p| {
        let mut exprs = Exprs::new();
        let x = load(&mut exprs, BufferId(0), Access::identity(2));
        let steps = vec![Step::StoreEach(store(BufferId(0), Access::identity(2), x))];
        kernels(p)[4].form = Form::Row { outer: sizes(&[4]), inner: sizes(&[2]), exprs, steps };
    });
}

#[test]
fn reshape() {
    let flat = || {
        single(&[(F32, &[4, 3])], &[(F32, &[12])], |i, o| Form::Reshape { src: i[0], dst: o[0] })
    };
    breaks(Rule::Reshape, flat(), |p| p.buffers[0].shape[0] = 5i64.into());
    breaks(Rule::Reshape, flat(), |p| p.buffers[1].dtype = DType::I32);
    breaks(Rule::Reshape, flat(), |p| {
        kernels(p)[0].form = Form::Reshape { src: BufferId(1), dst: BufferId(1) };
    });
}

/// Where sizes are not known, rules about them are taken for granted.
#[test]
fn symbolic_sizes_pass() {
    let mut program = copy();
    let n = Size::symbol("N");
    program.buffers.iter_mut().for_each(|b| b.shape[0] = n.clone());
    segment(&mut program, 0).axes[0] = n;
    assert_eq!(verify::verify(&program), Ok(()));
}

#[test]
fn errors_name_the_kernel_and_the_rule() {
    let mut program = training();
    program.entries[0].commit = 5;
    let error = verify::verify(&program).unwrap_err().to_string();
    assert_eq!(
        error,
        "entry `run`, kernel `update` (m.dl:9): parameters and state must not be written before \
         the commit point: `emb.table` is written before"
    );
}
