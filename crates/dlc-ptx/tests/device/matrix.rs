//! Fragments of matrices, where the PTX manual's tables have them.

use crate::machine::lanes;
use dlc_ptx::ir::{Address, B32, IntOp, MemType, MmaShape, Space, Special};

/// Where the manual has element `i` of a thread's fragment: row and column, by `groupID` (`lane >> 2`)
/// and `threadID_in_group` (`lane % 4`).
type Map = fn(i: usize, group: usize, thread: usize) -> (usize, usize);

/// The maps of one shape, under "Matrix Fragments for mma.m16n8k16" and "mma.m16n8k8".
struct Shape {
    shape: MmaShape,
    depth: usize,
    /// Elements of a register of `a` and `b`.
    packed: usize,
    a: Map,
    b: Map,
}

/// Of `c` and `d`, in all shapes.
fn result(i: usize, group: usize, thread: usize) -> (usize, usize) {
    (if i < 2 { group } else { group + 8 }, thread * 2 + (i & 1))
}

fn a_of_halves(i: usize, group: usize, thread: usize) -> (usize, usize) {
    let upper = i < 2 || (4..6).contains(&i);
    let column = thread * 2 + (i & 1);
    (if upper { group } else { group + 8 }, if i < 4 { column } else { column + 8 })
}

fn b_of_halves(i: usize, group: usize, thread: usize) -> (usize, usize) {
    let row = thread * 2 + (i & 1);
    (if i < 2 { row } else { row + 8 }, group)
}

fn a_of_tf32(i: usize, group: usize, thread: usize) -> (usize, usize) {
    let row = if i == 0 || i == 2 { group } else { group + 8 };
    (row, if i < 2 { thread } else { thread + 4 })
}

fn b_of_tf32(i: usize, group: usize, thread: usize) -> (usize, usize) {
    (if i == 0 { thread } else { thread + 4 }, group)
}

const SHAPES: [Shape; 3] = [
    Shape { shape: MmaShape::F16, depth: 16, packed: 2, a: a_of_halves, b: b_of_halves },
    Shape { shape: MmaShape::Bf16, depth: 16, packed: 2, a: a_of_halves, b: b_of_halves },
    Shape { shape: MmaShape::Tf32, depth: 8, packed: 1, a: a_of_tf32, b: b_of_tf32 },
];

/// A small whole number, exact in every type.
fn number(seed: usize, row: usize, column: usize) -> f32 {
    ((seed + 7 * row + 3 * column + row * column) % 11) as f32 - 5.0
}

fn bits(shape: MmaShape, x: f32) -> u32 {
    match shape {
        MmaShape::F16 => half::f16::from_f32(x).to_bits().into(),
        MmaShape::Bf16 => half::bf16::from_f32(x).to_bits().into(),
        MmaShape::Tf32 => x.to_bits(),
    }
}

/// The registers of a fragment of so many elements, of the matrix with that seed.
fn registers(s: &Shape, count: usize, seed: usize, map: Map) -> Vec<[u32; 32]> {
    let element = |i: usize, lane: usize| {
        let (row, column) = map(i, lane >> 2, lane % 4);
        bits(s.shape, number(seed, row, column))
    };
    let register = |r: usize| {
        std::array::from_fn(|lane| {
            let parts = (0..s.packed).map(|k| element(s.packed * r + k, lane) << (16 * k));
            parts.fold(0, |word, part| word | part)
        })
    };
    (0..count / s.packed).map(register).collect()
}

#[test]
fn products_of_fragments() {
    for s in &SHAPES {
        // Of 16 rows of `a` and 8 columns of `b`, a thread has a 32nd.
        let (a, b) = (registers(s, s.depth / 2, 1, s.a), registers(s, s.depth / 4, 2, s.b));
        let sums: Vec<[u32; 32]> = (0..4)
            .map(|i| {
                std::array::from_fn(|lane| {
                    let (row, column) = result(i, lane >> 2, lane % 4);
                    number(3, row, column).to_bits()
                })
            })
            .collect();
        let words: Vec<[u32; 32]> = a.iter().chain(&b).chain(&sums).copied().collect();
        let found = lanes(&words, |builder, x| {
            let (factors, sums) = x.split_at(a.len() + b.len());
            let sums = [0, 1, 2, 3].map(|i| builder.from_bits(sums[i]));
            let (a, b) = factors.split_at(a.len());
            builder.mma(s.shape, sums, a, b);
            sums.map(Into::into).to_vec()
        });
        for (i, register) in found.iter().enumerate() {
            for (lane, &word) in register.iter().enumerate() {
                let (row, column) = result(i, lane >> 2, lane % 4);
                let product = |k| number(1, row, k) * number(2, k, column);
                let expected = (0..s.depth).map(product).sum::<f32>() + number(3, row, column);
                assert_eq!(f32::from_bits(word), expected, "{:?} ({row}, {column})", s.shape);
            }
        }
    }
}

/// The manual: of a matrix, thread `i` has row `i / 4`, and of it the elements `2 (i % 4)` and the next;
/// with `.trans`, of the matrix on its side. Threads `8m` to `8m + 7` give the rows of matrix `m`.
#[test]
fn matrices_from_shared_memory() {
    for count in [1, 2, 4] {
        for transposed in [false, true] {
            let element =
                |matrix: usize, row: usize, column: usize| (64 * matrix + 8 * row + column) as u32;
            let lane_words: Vec<[u32; 32]> = (0..4)
                .map(|word| {
                    std::array::from_fn(|lane| {
                        let of = |k: usize| element(lane / 8, lane % 8, 2 * word + k);
                        of(0) | of(1) << 16
                    })
                })
                .collect();
            let found = lanes(&lane_words, |b, x| {
                let shared = b.reserve_shared(512);
                let base = b.shared_base(shared);
                let lane = b.special(Special::Lane);
                let row: B32 = b.int(IntOp::Mul, lane, 16);
                let at = Address::shared(b.int(IntOp::Add, base, row), 0);
                let words: Vec<_> = x.iter().map(|&w| w.into()).collect();
                b.store(Space::Shared, MemType::B32, at, &words);
                b.barrier();
                b.load_matrix(count, at, transposed).iter().map(|&r| r.into()).collect()
            });
            for (matrix, register) in found.iter().enumerate() {
                for (lane, &word) in register.iter().enumerate() {
                    let (row, column) = (lane / 4, 2 * (lane % 4));
                    let of = |k: usize| match transposed {
                        false => element(matrix, row, column + k),
                        true => element(matrix, column + k, row),
                    };
                    assert_eq!(word, of(0) | of(1) << 16, "matrix {matrix}, lane {lane}");
                }
            }
        }
    }
}
