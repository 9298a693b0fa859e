//! Index maps: composition is substitution, and what is called inside is inside.

use crate::build::{affine, sizes};
use dlc_kernel::{Access, Guard, Index, points};
use proptest::prelude::*;

const EXTENTS: [usize; 3] = [3, 4, 2];

/// An index over `axes` axes.
fn index(axes: u32) -> impl Strategy<Value = Index> {
    let terms = prop::collection::vec((0..axes, -3i64..4), 0..3);
    (terms, -4i64..5, 1i64..4)
        .prop_map(|(terms, offset, div)| Index { div, ..affine(&terms, offset) })
}

fn guard(axes: u32) -> impl Strategy<Value = Guard> {
    (index(axes), 0i64..6).prop_map(|(index, extent)| Guard { index, extent: extent.into() })
}

fn access(axes: u32, rank: usize) -> impl Strategy<Value = Access> {
    let coords = prop::collection::vec(index(axes), rank);
    let guards = prop::collection::vec(guard(axes), 0..2);
    (coords, guards).prop_map(|(coords, guards)| Access {
        guards: guards.into_iter().collect(),
        ..Access::new(coords)
    })
}

/// The value of every index of `map`, if all divide.
fn values(map: &[Index], point: &[i64]) -> Option<Vec<i64>> {
    map.iter().map(|index| index.at(point)).collect()
}

proptest! {
    #[test]
    fn composition_is_substitution(
        outer in index(2),
        map in prop::collection::vec(index(3), 2),
    ) {
        let composed = outer.compose(&map);
        for point in points(&EXTENTS) {
            if let Some(inner) = values(&map, &point) {
                prop_assert_eq!(composed.at(&point), outer.at(&inner));
            }
        }
    }

    #[test]
    fn reading_through_an_intermediate_is_reading_twice(
        outer in access(2, 2),
        map in prop::collection::vec(index(3), 2),
    ) {
        let (shape, middle) = ([3, 5], [4, 3]);
        let axes = sizes(&EXTENTS.map(|n| n as i64));
        let composed = outer.compose(&map, &sizes(&middle), &axes);
        for point in points(&EXTENTS) {
            let inner = values(&map, &point)
                .filter(|v| v.iter().zip(middle).all(|(v, n)| (0..n).contains(v)));
            let twice = inner.and_then(|inner| outer.at(&inner, &shape));
            prop_assert_eq!(composed.at(&point, &shape), twice);
        }
    }

    #[test]
    fn ranges_and_insides_are_sound(index in index(3), extent in 0i64..9) {
        let axes = sizes(&EXTENTS.map(|n| n as i64));
        let (low, high) = index.range(&axes).unwrap();
        let all: Vec<_> = points(&EXTENTS).map(|p| index.at(&p)).collect();
        for value in all.iter().flatten() {
            prop_assert!((low..=high).contains(&(value * index.div)));
        }
        let within = all.iter().all(|v| v.is_some_and(|v| (0..extent).contains(&v)));
        let claimed = index.is_inside(&axes, &extent.into());
        prop_assert!(!claimed || within);
        prop_assert!(claimed || !within || index.div > 1);
    }

    #[test]
    fn renumbering_permutes_the_point(index in index(3), shift in 0u32..3) {
        let turned = |a: u32| (a + shift) % 3;
        let renumbered = index.renumber(&|axis| dlc_kernel::Axis(turned(axis.0)));
        for point in points(&EXTENTS) {
            let mut other = [0; 3];
            (0..3).for_each(|a| other[turned(a) as usize] = point[a as usize]);
            prop_assert_eq!(renumbered.at(&other), index.at(&point));
        }
    }
}

#[test]
fn an_axis_of_the_tensors_extent_is_inside_whatever_the_size() {
    let n = dlc_kernel::Size::symbol("N");
    assert!(Index::axis(0).is_inside(std::slice::from_ref(&n), &n));
    assert!(!affine(&[(0, 1)], 1).is_inside(std::slice::from_ref(&n), &n));
}

#[test]
fn huge_strides_saturate() {
    let huge = affine(&[(0, i64::MAX)], i64::MAX);
    let squared = huge.compose(std::slice::from_ref(&huge));
    assert_eq!(squared.at(&[5]), Some(i64::MAX));
    assert!(!squared.is_inside(&sizes(&[5]), &9i64.into()));
}
