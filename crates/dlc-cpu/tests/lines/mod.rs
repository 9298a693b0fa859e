//! Loops over lines: a sum over a square window of a picture, with a weight for each of its places; folds
//! over the columns of a picture.

use super::{Draft, implementations, may_repeat, on_both_sides, same};
use crate::guard::{Guarded, Side};
use crate::interpret::Callable;
use dlc_cpu::leaf::lanes::{Kind, Op};
use dlc_cpu::leaf::loops::{Loop, Stream};
use dlc_kernel::{DType, FoldOp};

/// Elements from one row to the next.
const PITCH: i32 = 160;

/// Bytes of every address.
type Memory = Vec<Vec<u8>>;

/// A window of `size` places each way, moving `step` places along and down.
struct Window {
    size: i32,
    step: i32,
}

impl Window {
    /// The window as a loop: rows of the picture, of results, of bytes.
    fn draft(&self) -> Draft {
        let mut draft = Draft::default();
        let mut sum = draft.uniform(Kind::F32);
        for place in 0..self.size * self.size {
            let offset = 4 * (place / self.size * PITCH + place % self.size);
            let stride = self.step as u8;
            draft.streams.push(Stream { dtype: DType::F32, address: 0, offset, stride });
            let x = draft.lanes.add(Op::Input(Kind::F32, place as u16));
            let weight = draft.uniform(Kind::F32);
            sum = draft.lanes.fma(x, weight, sum);
        }
        draft.streams.push(Stream { dtype: DType::F32, address: 1, offset: 0, stride: 1 });
        draft.stores.push((draft.streams.len() as u16 - 1, sum));
        draft
    }

    /// Bytes from one line to the next, by address.
    fn steps(&self) -> [i32; 3] {
        [4 * PITCH * self.step, 4 * PITCH, PITCH]
    }

    /// Exactly what `lines` lines of `count` results touch.
    fn memory(&self, leaf: &Loop, count: i32, lines: i32) -> Memory {
        if count == 0 || lines == 0 {
            return vec![Vec::new(); leaf.addresses()];
        }
        let row = (count - 1) * self.step + self.size;
        let elements = ((lines - 1) * self.step + self.size - 1) * PITCH + row;
        let number = |i: i32| ((i * 37 % 101) as f32 / 7.0 - 7.0).to_le_bytes();
        let picture = (0..elements).flat_map(number).collect();
        let stride = i32::from(leaf.streams[leaf.stores[0].0 as usize].stride);
        let results = ((lines - 1) * PITCH + (count - 1) * stride + 1) as usize;
        let all = [picture, vec![0; 4 * results], vec![0; results]];
        all.into_iter().take(leaf.addresses()).collect()
    }
}

/// What a run leaves: the memory, and the bits of every fold.
fn run(
    code: &Callable,
    leaf: &Loop,
    memory: &Memory,
    extent: [i32; 2],
    side: Side,
) -> (Memory, Vec<u32>) {
    let memory: Vec<Guarded> = memory.iter().map(|m| Guarded::from_bytes(m, side)).collect();
    let mut args = vec![0u8; leaf.args_bytes() as usize];
    let mut put = |at: i32, bytes: &[u8]| {
        args[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    };
    put(Loop::COUNT, &i64::from(extent[0]).to_le_bytes());
    put(Loop::LINES, &i64::from(extent[1]).to_le_bytes());
    for (k, m) in memory.iter().enumerate() {
        put(leaf.address_at(k), &(m.pointer() as u64).to_le_bytes());
    }
    for k in 0..leaf.uniforms {
        put(leaf.uniform_at(k.into()), &(f32::from(k) / 3.0 - 2.0).to_le_bytes());
    }
    code.call(args.as_mut_ptr());
    let fold = |k| {
        let at = leaf.fold_at(k) as usize;
        u32::from_le_bytes(args[at..at + 4].try_into().unwrap())
    };
    let folds = (0..leaf.folds.len()).map(fold).collect();
    (memory.iter().map(Guarded::read_bytes).collect(), folds)
}

/// Compares a window, with what `more` adds, with its portable twin, bit for bit.
pub fn check_lines(name: &str, size: i32, step: i32, more: impl Fn(&mut Draft)) {
    let window = Window { size, step };
    let mut draft = window.draft();
    more(&mut draft);
    let mut leaf = draft.finish(2);
    leaf.set_lines(window.steps()[..leaf.addresses()].to_vec());
    leaf.repeats = may_repeat(&leaf);
    compare(name, &leaf, |extent| window.memory(&leaf, extent[0], extent[1]));
}

/// Compares folds over columns with the portable twin, bit for bit: of `x * w`, `x` the elements of a
/// picture and `w` a weight for each column, the first `folds` of a sum, a maximum and a minimum. With
/// `more`, only of columns that are selected by bytes, and sums are stored.
pub fn check_columns(folds: usize, unroll: u8, more: bool) {
    let mut draft = Draft::default();
    let (x, w) = (draft.input(DType::F32), draft.input(DType::F32));
    let (mut product, sum) = (draft.lanes.product(x, w), draft.lanes.sum(x, w));
    let mut steps = vec![4 * PITCH, 0, 0];
    if more {
        draft.output(DType::F32, sum);
        draft.streams[2].address = 3;
        let selected = draft.input(DType::Bool);
        draft.streams[3].address = 4;
        product = draft.lanes.select(selected, product, x);
        steps.extend([4 * PITCH, PITCH]);
    }
    let mut states = Vec::new();
    for (k, op) in [FoldOp::Sum, FoldOp::Max, FoldOp::Min].into_iter().take(folds).enumerate() {
        draft.fold(op, DType::F32, product);
        let offset = 4 * PITCH * k as i32;
        states.push(draft.streams.len() as u16);
        draft.streams.push(Stream { dtype: DType::F32, address: 2, offset, stride: 1 });
    }
    let mut leaf = draft.finish(unroll);
    leaf.fold_columns(states);
    leaf.set_lines(steps);
    let memory = |[count, lines]: [i32; 2]| {
        let number = |i: i32| ((i * 37 % 101) as f32 / 7.0 - 7.0).to_le_bytes();
        let numbers = |n: i32| (0..n).flat_map(number).collect::<Vec<u8>>();
        let extent = |rows: i32, pitch| if count == 0 { 0 } else { (rows - 1) * pitch + count };
        let picture = if lines == 0 { 0 } else { extent(lines, PITCH) };
        let states = numbers(extent(folds as i32, PITCH));
        let bytes = (0..picture).map(|i| u8::from(i % 3 == 0)).collect();
        let results = vec![0; 4 * picture as usize];
        let all = [numbers(picture), numbers(count), states, results, bytes];
        all.into_iter().take(leaf.addresses()).collect()
    };
    compare(&format!("{folds} folds x{unroll}"), &leaf, memory);
}

/// Compares a loop with its portable twin, bit for bit, for many extents: a line, and lines.
fn compare(name: &str, leaf: &Loop, memory: impl Fn([i32; 2]) -> Memory) {
    let all = implementations(leaf);
    for count in (0..=19).chain([31, 32, 33, 47, 48, 49, 70]) {
        for lines in 0..=9 {
            let memory = memory([count, lines]);
            let run = |code: &Callable, side| run(code, leaf, &memory, [count, lines], side);
            on_both_sides(&all, run, |name_of, found, wanted| {
                let context = format!("{name}, {name_of}, {count} by {lines}\n{leaf}");
                for (f, w) in found.0.iter().zip(&wanted.0) {
                    assert_eq!(f, w, "{context}");
                }
                let equal = found.1.iter().zip(&wanted.1).all(|(&f, &w)| same(f, w, DType::F32));
                assert!(equal, "{context}: folds {:?}, not {:?}", found.1, wanted.1);
            });
        }
    }
}
