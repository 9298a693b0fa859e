//! Rows that become columns.

use super::load::shuffle;
use super::{Emitter, LANES, NOTRAP};
use cranelift_codegen::ir::types::{F32, F32X4, I64X2};
use cranelift_codegen::ir::{InstBuilder, Value};

/// Where columns are: an address, and bytes from one column to the next. Elements of a column are neighbours.
#[derive(Clone, Copy, Debug)]
pub struct Columns {
    /// Of the first one.
    pub at: Value,
    /// Bytes.
    pub step: i64,
}

/// Copies the first `count` words of each of four, two or one rows into as many columns.
pub fn rows_to_columns(e: &mut Emitter, rows: &[Value], to: Columns, count: Value) {
    let zero = e.int(0);
    let whole = e.b.ins().band_imm_s(count, -LANES);
    e.for_each(zero, whole, LANES, |e, k| {
        let mut load = |row: &Value| {
            let from = e.add_scaled(*row, k, 4);
            e.b.ins().load(F32X4, NOTRAP, from, 0)
        };
        let vectors: Vec<Value> = rows.iter().map(&mut load).collect();
        let columns = turned(e, &vectors);
        for (column, value) in (0i64..).zip(columns) {
            let at = e.b.ins().iadd_imm_s(k, column);
            let at = e.add_scaled(to.at, at, to.step);
            e.b.ins().store(NOTRAP, value, at, 0);
        }
    });
    e.for_each(whole, count, 1, |e, k| {
        let at = e.add_scaled(to.at, k, to.step);
        for (r, row) in (0i32..).zip(rows) {
            let from = e.add_scaled(*row, k, 4);
            let value = e.b.ins().load(F32, NOTRAP, from, 0);
            e.b.ins().store(NOTRAP, value, at, 4 * r);
        }
    });
}

/// Copies the first word of each of `count` columns, or the first four, into one row, or four.
pub fn columns_to_rows(e: &mut Emitter, from: Columns, rows: &[Value], count: Value) {
    let zero = e.int(0);
    let whole = if rows.len() == 4 { e.b.ins().band_imm_s(count, -LANES) } else { zero };
    e.for_each(zero, whole, LANES, |e, k| {
        let mut load = |column: i64| {
            let at = e.b.ins().iadd_imm_s(k, column);
            let at = e.add_scaled(from.at, at, from.step);
            e.b.ins().load(F32X4, NOTRAP, at, 0)
        };
        let columns: Vec<Value> = (0..LANES).map(&mut load).collect();
        for (&row, value) in rows.iter().zip(turned(e, &columns)) {
            let to = e.add_scaled(row, k, 4);
            e.b.ins().store(NOTRAP, value, to, 0);
        }
    });
    e.for_each(whole, count, 1, |e, k| {
        let at = e.add_scaled(from.at, k, from.step);
        for (r, &row) in (0i32..).zip(rows) {
            let to = e.add_scaled(row, k, 4);
            let value = e.b.ins().load(F32, NOTRAP, at, 4 * r);
            e.b.ins().store(NOTRAP, value, to, 0);
        }
    });
}

/// The four columns of four, two or one vectors that are rows.
fn turned(e: &mut Emitter, rows: &[Value]) -> [Value; 4] {
    let mut pick = |x: Value, y: Value, picks| shuffle(e, x, y, picks);
    let (even, odd) = ([0, 4, 1, 5], [2, 6, 3, 7]);
    let (lower, upper) = ([0, 1, 4, 5], [2, 3, 6, 7]);
    match *rows {
        [a, b, c, d] => {
            let [x, y] = [(a, b), (c, d)].map(|(p, q)| [pick(p, q, even), pick(p, q, odd)]);
            let mut both = |k: usize| [pick(x[k], y[k], lower), pick(x[k], y[k], upper)];
            let [[p, q], [r, s]] = [both(0), both(1)];
            [p, q, r, s]
        }
        [a, b] => {
            let pairs = [pick(a, b, even), pick(a, b, odd)];
            let pairs = pairs.map(|v| e.cast_bits(v, I64X2));
            [0u8, 1, 2, 3].map(|k| e.b.ins().extractlane(pairs[usize::from(k / 2)], k % 2))
        }
        [a] => [0u8, 1, 2, 3].map(|k| e.b.ins().extractlane(a, k)),
        _ => unreachable!("rows are taken by four, two or one"),
    }
}
