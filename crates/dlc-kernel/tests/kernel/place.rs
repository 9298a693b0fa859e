//! Places against the definition of an access, at every point.

use dlc_kernel::place::{Check, Linear, Place, extents, strides};
use dlc_kernel::{Access, Axis, BinaryOp, DType, Exprs, Guard, Index, Size, points};

/// The value of a linear form at a point.
fn at(linear: &Linear, point: &[i64]) -> i64 {
    let terms = linear.terms.iter().map(|&(axis, coef)| coef * point[axis.0 as usize]);
    terms.sum::<i64>() + linear.offset
}

fn holds(check: &Check, point: &[i64]) -> bool {
    let value = at(&check.index, point);
    value % check.div == 0 && (0..check.extent).contains(&(value / check.div))
}

/// The element that a place means, `None` outside.
fn element(place: &Place, point: &[i64]) -> Option<i64> {
    let divided = place.quotients.iter().map(|q| at(&q.index, point) / q.div * q.stride);
    let offset = at(&place.linear, point) + divided.sum::<i64>();
    place.checks.iter().all(|check| holds(check, point)).then_some(offset)
}

fn divided(index: Index, div: i64) -> Index {
    Index { div, ..index }
}

/// Accesses of a tensor `[4, 6]` on axes `[3, 5, 2]`.
fn accesses() -> Vec<Access> {
    let window = Index::affine([(0, 2), (2, 1)], -1i64);
    let back = divided(Index::affine([(1, 1), (2, -1)], 1i64), 2);
    let guard = Guard { index: Index::affine([(0, 1), (1, -1)], 0i64), extent: Size::from(3i64) };
    let guarded = Access {
        coords: [Index::axis(0), Index::axis(1)].into_iter().collect(),
        guards: [guard].into_iter().collect(),
    };
    vec![
        Access::new([Index::axis(0), Index::axis(1)]),
        Access::new([window.clone(), Index::affine([(1, -1)], 4i64)]),
        Access::new([back, window]),
        Access::new([Index::constant(3i64), divided(Index::affine([(0, 3)], 0i64), 3)]),
        Access::new([Index::constant(-1i64), Index::axis(0)]),
        guarded,
    ]
}

#[test]
fn places_are_what_accesses_say() {
    let (shape, axes) = ([4i64, 6], [3i64, 5, 2]);
    let strides = strides(&shape);
    for access in accesses() {
        let place = Place::new((&shape, &strides), &access, &[], &axes).unwrap();
        let (mut inside, mut outside) = (0, 0);
        for point in points(&axes.map(|n| n as usize)) {
            let expected = access.at(&point, &shape);
            let expected = expected.map(|c| c.iter().zip(&strides).map(|(c, s)| c * s).sum());
            assert_eq!(element(&place, &point), expected, "{access:?} at {point:?}");
            *if expected.is_some() { &mut inside } else { &mut outside } += 1;
        }
        // A condition that always holds is not there to be tested, but where a division hides it.
        let divides = !place.quotients.is_empty();
        assert!(!place.is_inside() || outside == 0, "{access:?}");
        assert!(place.is_inside() || divides || outside > 0, "{access:?}");
        assert_eq!(place.uses().contains(Axis(1)), access.uses(Axis(1)), "{access:?}");
        assert!(inside + outside == 30);
    }
}

#[test]
fn axes_are_renumbered_in_order() {
    let mut linear = Linear::constant(7);
    [(0, 2), (1, 3), (2, 5)].into_iter().for_each(|(axis, coef)| linear.add(Axis(axis), coef));
    linear.renumber(&[Some(Axis(1)), None, Some(Axis(0))]);
    assert_eq!(linear.terms.as_slice(), [(Axis(0), 5), (Axis(1), 2)]);
    linear.add(Axis(0), -5);
    assert_eq!(linear, Linear::default().plus(&linear, 1), "no zero coefficient is kept");
    assert_eq!(linear.terms.as_slice(), [(Axis(1), 2)]);
    assert_eq!(linear.range(&[9, 4]), Some((7, 13)));
    assert_eq!(linear.range(&[9, 0]), None);
}

#[test]
fn integer_expressions_are_affine_where_they_are() {
    let mut e = Exprs::new();
    let (row, column) =
        (e.add(dlc_kernel::Expr::Axis(Axis(0))), e.add(dlc_kernel::Expr::Axis(Axis(1))));
    let six = e.constant(DType::I32, 6.0);
    let mut binary = |op, a, b| e.add(dlc_kernel::Expr::Binary(op, a, b));
    let start = binary(BinaryOp::Mul, six, row);
    let sum = binary(BinaryOp::Add, start, column);
    let affine = binary(BinaryOp::Sub, sum, six);
    let square = binary(BinaryOp::Mul, row, column);
    fn of(e: &Exprs, id: dlc_kernel::ExprId) -> Option<Linear> {
        Linear::of_expr(e.get(id), |id| of(e, id)).unwrap()
    }
    let found = of(&e, affine).unwrap();
    assert_eq!((found.terms.as_slice(), found.offset), (&[(Axis(0), 6), (Axis(1), 1)][..], -6));
    assert_eq!(of(&e, square), None);
}

#[test]
fn sizes_must_be_bound() {
    assert!(extents(&[Size::symbol("N")]).is_err());
    let access = Access::new([Index::affine([(0, 1)], Size::symbol("N"))]);
    let found = Place::new((&[3], &[1]), &access, &[], &[3]);
    assert_eq!(found, Err("size `N` is not bound".to_string()));
}
