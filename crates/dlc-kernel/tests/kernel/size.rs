//! Symbolic sizes: the normal form computes as the numbers do, and equals exactly what is equal.

use dlc_kernel::{Bindings, Size, SizeError};
use proptest::prelude::*;

/// An expression over dims `A`, `B`, `C`.
#[derive(Clone, Debug)]
enum Tree {
    Number(i64),
    Dim(usize),
    Add(Box<Tree>, Box<Tree>),
    Sub(Box<Tree>, Box<Tree>),
    Mul(Box<Tree>, Box<Tree>),
    FloorDiv(Box<Tree>, i64),
    CeilDiv(Box<Tree>, i64),
}

const NAMES: [&str; 3] = ["A", "B", "C"];

impl Tree {
    fn size(&self) -> Size {
        match self {
            Tree::Number(n) => (*n).into(),
            Tree::Dim(d) => Size::symbol(NAMES[*d]),
            Tree::Add(a, b) => a.size() + b.size(),
            Tree::Sub(a, b) => a.size() - b.size(),
            Tree::Mul(a, b) => a.size() * b.size(),
            Tree::FloorDiv(a, n) => a.size().floor_div(&(*n).into()),
            Tree::CeilDiv(a, n) => a.size().ceil_div(&(*n).into()),
        }
    }

    fn value(&self, dims: [i64; 3]) -> i64 {
        match self {
            Tree::Number(n) => *n,
            Tree::Dim(d) => dims[*d],
            Tree::Add(a, b) => a.value(dims) + b.value(dims),
            Tree::Sub(a, b) => a.value(dims) - b.value(dims),
            Tree::Mul(a, b) => a.value(dims) * b.value(dims),
            Tree::FloorDiv(a, n) => (a.value(dims) as f64 / *n as f64).floor() as i64,
            Tree::CeilDiv(a, n) => (a.value(dims) as f64 / *n as f64).ceil() as i64,
        }
    }
}

fn leaf() -> impl Strategy<Value = Tree> {
    prop_oneof![(-5i64..6).prop_map(Tree::Number), (0usize..3).prop_map(Tree::Dim)]
}

/// Sums, differences and products, of degree at most 4.
fn polynomial() -> impl Strategy<Value = Tree> {
    leaf().prop_recursive(2, 8, 2, |inner| {
        let pair = || (inner.clone(), inner.clone()).prop_map(|(a, b)| (Box::new(a), Box::new(b)));
        prop_oneof![
            pair().prop_map(|(a, b)| Tree::Add(a, b)),
            pair().prop_map(|(a, b)| Tree::Sub(a, b)),
            pair().prop_map(|(a, b)| Tree::Mul(a, b)),
        ]
    })
}

fn tree() -> impl Strategy<Value = Tree> {
    polynomial().prop_recursive(3, 16, 2, |inner| {
        let pair = || (inner.clone(), inner.clone()).prop_map(|(a, b)| (Box::new(a), Box::new(b)));
        prop_oneof![
            pair().prop_map(|(a, b)| Tree::Add(a, b)),
            pair().prop_map(|(a, b)| Tree::Sub(a, b)),
            (inner.clone(), 1i64..5).prop_map(|(a, n)| Tree::FloorDiv(Box::new(a), n)),
            (inner.clone(), 1i64..5).prop_map(|(a, n)| Tree::CeilDiv(Box::new(a), n)),
        ]
    })
}

fn bindings(dims: [i64; 3]) -> Bindings {
    NAMES.iter().zip(dims).map(|(name, value)| (name.to_string(), value)).collect()
}

proptest! {
    #[test]
    fn evaluation_agrees_with_numbers(tree in tree(), dims in prop::array::uniform3(0i64..20)) {
        let (size, expected) = (tree.size(), tree.value(dims));
        prop_assert_eq!(size.eval(&bindings(dims)), Ok(expected));
        prop_assert_eq!(size.bind(&bindings(dims)).as_const(), Some(expected));
    }

    #[test]
    fn substitution_is_evaluation_in_two_steps(
        outer in tree(),
        inner in polynomial(),
        dims in prop::array::uniform3(0i64..9),
    ) {
        let replaced = outer.size().substitute(&|name| (name == "A").then(|| inner.size()));
        let expected = outer.value([inner.value(dims), dims[1], dims[2]]);
        prop_assert_eq!(replaced.eval(&bindings(dims)), Ok(expected));
    }

    #[test]
    fn ring_laws_hold_in_the_normal_form(a in tree(), b in tree(), c in tree()) {
        let (a, b, c) = (a.size(), b.size(), c.size());
        prop_assert_eq!((a.clone() + b.clone()) * c.clone(), c.clone() * a.clone() + b.clone() * c);
        prop_assert_eq!(a.clone() + b.clone() - b.clone(), a.clone());
        prop_assert_eq!(a.clone() * b.clone(), b.clone() * a.clone());
        prop_assert_eq!(a.clone() - a, Size::ZERO);
    }

    /// Polynomials of degree 4 that agree on a grid of 5 values per dim are one polynomial.
    #[test]
    fn polynomials_are_equal_exactly_if_their_values_are(a in polynomial(), b in polynomial()) {
        let grid = dlc_kernel::points(&[5, 5, 5]).map(|p| [p[0], p[1], p[2]]);
        let same = grid.into_iter().all(|dims| a.value(dims) == b.value(dims));
        prop_assert_eq!(a.size() == b.size(), same);
    }

    #[test]
    fn exact_quotients_multiply_back(a in polynomial(), d in 0usize..3, n in 1i64..5) {
        let divisor = Size::symbol(NAMES[d]) * Size::from(n);
        let product = a.size() * divisor.clone();
        prop_assert_eq!(product.exact_quotient(&divisor), Some(a.size()));
        prop_assert_eq!(product.floor_div(&divisor), a.size());
    }

    #[test]
    fn products_take_exact_divisions_back(
        factor in tree(),
        d in 0usize..3,
        n in 1i64..5,
        dims in prop::array::uniform3(1i64..9),
    ) {
        let divisor = Size::symbol(NAMES[d]) * Size::from(n);
        let whole = Size::symbol("W");
        let quotient = whole.exact_div(&divisor);
        let product = factor.size() * quotient.clone();
        prop_assert_eq!(product.clone() * divisor.clone(), factor.size() * whole.clone());
        let mut bindings = bindings(dims);
        bindings.insert("W".to_string(), 3 * n * dims[d]);
        prop_assert_eq!(product.eval(&bindings), Ok(3 * factor.value(dims)));
    }
}

#[test]
fn sums_of_equal_parts_are_the_whole() {
    let whole = Size::symbol("W");
    let third = whole.exact_div(&3i64.into());
    assert_eq!(third.clone() + third.clone() + third.clone(), whole);
    assert_eq!((third.clone() * 6i64.into()).to_string(), "2*W");
    assert_eq!((third * 2i64.into()).to_string(), "2*(W/3)");
}

#[test]
fn divisions_keep_their_conditions() {
    let half = Size::symbol("N").exact_div(&2i64.into());
    let at = |n| half.eval(&[("N".to_string(), n)].into());
    assert_eq!(at(6), Ok(3));
    assert_eq!(at(7), Err(SizeError::Inexact(7, 2)));
    assert_eq!(half.eval(&Bindings::new()), Err(SizeError::Unbound("N".to_string())));
    let by = Size::from(6i64).floor_div(&Size::symbol("N"));
    assert_eq!(by.eval(&[("N".to_string(), 0)].into()), Err(SizeError::ByZero(6)));
    assert_eq!(by.eval(&[("N".to_string(), -4)].into()), Ok(-2));
}

#[test]
fn overflow_saturates_beyond_every_extent() {
    let n = Size::symbol("N");
    let power = n.clone() * n.clone() * n.clone() * n;
    let value = power.eval(&[("N".to_string(), 1 << 40)].into()).unwrap();
    assert!(value > dlc_kernel::MAX_DIM);
    assert_eq!(Size::from(i64::MIN).floor_div(&(-1i64).into()).as_const(), Some(i64::MAX));
}

#[test]
fn text() {
    let (n, m) = (Size::symbol("N"), Size::symbol("M"));
    let size = n.clone() * m.clone() * 2i64.into() - n.clone() - 1i64.into();
    assert_eq!(size.to_string(), "2*M*N - N - 1");
    let half = n.floor_div(&2i64.into());
    assert_eq!(half.to_string(), "N//2");
    assert_eq!((half * 3i64.into() + m.clone()).to_string(), "M + 3*(N//2)");
    assert_eq!((m + 1i64.into()).exact_div(&2i64.into()).to_string(), "(M + 1)/2");
}
