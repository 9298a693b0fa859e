//! Contractions as products of matrices: which axes are rows, columns and batches, which are summed
//! over, and in tiles of which size. Everything is decided by shapes and accesses alone.

use crate::Math;
use crate::place::{Domain, Spot};
use dlc_kernel::{DType, Expr, ExprId};
use std::fmt;

/// How a contraction is computed.
#[derive(Clone, Debug)]
pub struct ContractSchedule<'k> {
    /// All points; axes from `border` on are summed over.
    pub domain: Domain<'k>,
    /// The number of axes of the result.
    pub border: usize,
    /// What is multiplied.
    pub factors: [ExprId; 2],
    /// The tiles; without, every point of the result has a thread of its own.
    pub tiling: Option<Tiling<'k>>,
}

/// Some axes as one, in row-major order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Positions in the domain.
    pub axes: Vec<usize>,
    /// Their extents.
    pub extents: Vec<i64>,
}

/// A domain whose last axis is the one along which points are taken together.
#[derive(Clone, Debug)]
pub struct View<'k> {
    /// With its axes in that order.
    pub domain: Domain<'k>,
    /// By axis, its position in the schedule's domain.
    pub order: Vec<usize>,
    /// How many neighbours are taken together.
    pub lanes: usize,
}

/// The factor that varies along the rows, or along the columns, of the result.
#[derive(Clone, Debug)]
pub struct Side<'k> {
    /// The factor.
    pub factor: ExprId,
    /// Its axes of the result.
    pub group: Group,
    /// Rows or columns of a tile: 32, 64, 128 or 256.
    pub tile: u32,
    /// How it is read.
    pub view: View<'k>,
    /// Whether neighbours along the sum are read together, rather than those along the result.
    pub along_sum: bool,
    /// Whether it is 0 wherever its loads give their fills.
    pub is_plain: bool,
    /// Whether it lies in shared memory by rows (or columns), for tensor cores, rather than by lines of
    /// the sum.
    pub by_rows: bool,
    /// How it comes into shared memory.
    pub supply: Supply,
}

/// How a factor comes into shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Supply {
    /// Stage by stage through registers, where it is computed and rounded.
    Read,
    /// Stage by stage, from device memory as it is, past registers.
    Copied,
    /// Stage by stage, from a workspace past registers: a launch before has computed and rounded it,
    /// and has put it there in panels, each of which is a stage's part as it lies in shared memory.
    Packed,
    /// All of the sum is there before the first stage, rounded.
    Resident,
}

/// A contraction as matrix products in tiles.
#[derive(Clone, Debug)]
pub struct Tiling<'k> {
    /// How words are multiplied.
    pub math: Math,
    /// Axes of the result along which both factors vary.
    pub batch: Group,
    /// The axes of the sum.
    pub sum: Group,
    /// Rows and columns.
    pub sides: [Side<'k>; 2],
    /// How the result is stored: along columns.
    pub result: View<'k>,
    /// So many blocks share each sum.
    pub split: u32,
    /// Threads of a block.
    pub threads: u32,
}

/// Words of each row and column that are in a stage in shared memory.
pub const WORDS: u32 = 16;

/// Words of a chunk: 16 bytes of a row, which lie side by side.
pub const CHUNK: u32 = 4;

/// Blocks that keep a large GPU busy.
const ENOUGH_BLOCKS: i64 = 132;

/// Products that a block should have for itself in each sum, at least.
const LEAST_SUM: i64 = 256;

/// Functions of a result from which on tiles are smaller: their code, for several results at a time,
/// needs registers beside the sums.
const MANY_FUNCTIONS: usize = 3;
/// Tiles are not for results that are thinner than this.
pub const THIN: i64 = 4;

/// Rows (or columns) of the result from which on the factor of columns (or rows) is packed: so many
/// read it again that a launch for it pays.
const MANY: i64 = 512;

impl<'k> ContractSchedule<'k> {
    /// The schedule of a contraction over that domain.
    pub fn new(
        mut domain: Domain<'k>,
        border: usize,
        factors: [ExprId; 2],
        math: Math,
    ) -> ContractSchedule<'k> {
        let border = domain.merge(border);
        let tiling = Tiling::new(&domain, border, factors, math);
        ContractSchedule { domain, border, factors, tiling }
    }

    /// Points of the result.
    pub fn results(&self) -> i64 {
        self.domain.extents[..self.border].iter().product()
    }
}

impl Group {
    /// The axes at those positions.
    pub fn new(domain: &Domain<'_>, axes: Vec<usize>) -> Group {
        let extents = axes.iter().map(|&a| domain.extents[a]).collect();
        Group { axes, extents }
    }

    /// Their number of points.
    pub fn points(&self) -> i64 {
        self.extents.iter().product()
    }
}

impl<'k> View<'k> {
    /// The domain with the axis `last` behind all others.
    pub fn new(domain: &Domain<'k>, last: Option<usize>, lanes: usize) -> View<'k> {
        let mut order: Vec<usize> =
            (0..domain.extents.len()).filter(|&a| Some(a) != last).collect();
        order.extend(last);
        View { domain: domain.permuted(&order), order, lanes }
    }

    /// How results are stored along those columns.
    pub fn of_result(domain: &Domain<'k>, columns: &Group, math: Math) -> View<'k> {
        let last = columns.axes.last().copied();
        let widest = if math == Math::F32 { 4 } else { 2 };
        let stores: Vec<&Spot> = domain.stores.iter().collect();
        View::new(domain, last, lanes(domain, &stores, last, widest))
    }
}

impl<'k> Tiling<'k> {
    fn new(
        domain: &Domain<'k>,
        border: usize,
        [lhs, rhs]: [ExprId; 2],
        math: Math,
    ) -> Option<Tiling<'k>> {
        let of_lhs = |axis: usize| domain.uses([lhs], axis);
        let of_rhs = |axis: usize| domain.uses([rhs], axis);
        let pick = |keep: &dyn Fn(usize) -> bool| {
            Group::new(domain, (0..border).filter(|&a| keep(a)).collect())
        };
        let batch = pick(&|a| of_lhs(a) && of_rhs(a));
        let (rows, cols) = (pick(&|a| !of_rhs(a)), pick(&|a| !of_lhs(a) && of_rhs(a)));
        if domain.points() == 0 || rows.points() < THIN || cols.points() < THIN {
            return None;
        }
        let sum = Group::new(domain, (border..domain.extents.len()).collect());
        let mut sides = [(lhs, rows), (rhs, cols)];
        if border > 0 && sides[0].1.axes.contains(&(border - 1)) {
            sides.reverse();
        }
        let points = [0, 1].map(|side| sides[side].1.points());
        let packed = [0, 1].map(|side| {
            let all = batch.points() * points[side] * sum.points();
            math.per_word() > 1
                && points[1 - side] >= MANY
                && is_compact(domain, sides[side].0, all)
        });
        let widest = if functions(domain) < MANY_FUNCTIONS { 128 } else { 64 };
        let tile = tiles(batch.points(), points, packed, widest);
        let mut tile = tile.into_iter().zip(packed);
        let sides = sides.map(|(factor, group)| {
            let (tile, packed) = tile.next().expect("one for each side");
            let side = Side::new(domain, factor, group, (&sum, math), tile);
            if packed { side.packed() } else { side }
        });
        let threads = threads(math, [0, 1].map(|side| sides[side].tile));
        let split = split(&batch, &sides, &sum);
        let result = View::of_result(domain, &sides[1].group, math);
        Some(Tiling { math, batch, sum, sides, result, split, threads })
    }

    /// Factors that arrive past registers.
    pub fn arriving(&self) -> usize {
        let past = |side: &&Side<'_>| matches!(side.supply, Supply::Copied | Supply::Packed);
        self.sides.iter().filter(past).count()
    }

    /// Bytes of a stage's part of a factor.
    pub fn part_bytes(&self, side: usize) -> u32 {
        4 * WORDS * self.sides[side].tile
    }

    /// Bytes of a stage: of the factors that come stage by stage.
    pub fn stage_bytes(&self) -> u32 {
        let comes = |&side: &usize| self.sides[side].supply != Supply::Resident;
        [0, 1].iter().filter(|side| comes(side)).map(|&side| self.part_bytes(side)).sum()
    }

    /// Stages in shared memory: one is multiplied, the others are filled.
    pub fn stages(&self) -> u32 {
        match self.sides.each_ref().map(|side| side.supply) {
            [Supply::Packed, Supply::Packed] => 4,
            _ if self.arriving() > 0 => 3,
            _ => 2,
        }
    }

    /// Elements of the sum that are in shared memory at once.
    pub fn depth(&self) -> u32 {
        WORDS * self.math.per_word()
    }

    /// Tiles along rows or columns.
    pub fn tiles(&self, side: usize) -> u32 {
        let side = &self.sides[side];
        (side.group.points() as u64).div_ceil(u64::from(side.tile)) as u32
    }

    /// Elements of each sum that a block adds up: a multiple of [`Tiling::depth`].
    pub fn chunk(&self) -> u32 {
        let depth = u64::from(self.depth());
        let steps = (self.sum.points() as u64).div_ceil(depth);
        (steps.div_ceil(u64::from(self.split)) * depth) as u32
    }

    /// Blocks along x and y.
    pub fn grid(&self) -> [u32; 3] {
        [self.batch.points() as u32 * self.tiles(0) * self.tiles(1), self.split, 1]
    }

    /// Fragments of a warp on tensor cores, along rows (of 16) and along columns (of 8).
    pub fn fragments(&self) -> [u32; 2] {
        [self.sides[0].tile / 32, self.sides[1].tile / (self.threads / 64) / 8]
    }

    /// Panels of a factor along the sum.
    pub fn panels(&self) -> u32 {
        (self.sum.points() as u64).div_ceil(u64::from(self.depth())) as u32
    }

    /// The panels of a packed factor.
    pub fn all_panels(&self, side: usize) -> u32 {
        self.batch.points() as u32 * self.tiles(side) * self.panels()
    }

    /// Bytes of the workspaces: for the packed factor of rows, for that of columns, and for partial
    /// sums; 0 for what there is not.
    pub fn workspaces(&self) -> [u64; 3] {
        let [rows, cols] = [0, 1].map(|side| {
            let bytes = u64::from(self.all_panels(side)) * u64::from(self.part_bytes(side));
            if self.sides[side].supply == Supply::Packed { bytes } else { 0 }
        });
        let results =
            self.batch.points() * self.sides.iter().map(|s| s.group.points()).product::<i64>();
        let parts = 4 * results as u64 * u64::from(self.split);
        [rows, cols, if self.split > 1 { parts } else { 0 }]
    }
}

/// The workspace of partial sums among [`Tiling::workspaces`].
pub const PARTS: usize = 2;

impl<'k> Side<'k> {
    /// The side of a factor that varies along `group`, which is read from device memory.
    pub fn new(
        domain: &Domain<'k>,
        factor: ExprId,
        group: Group,
        (sum, math): (&Group, Math),
        tile: u32,
    ) -> Side<'k> {
        let loads = domain.exprs.reachable([factor]);
        let loads: Vec<&Spot> = loads.iter().filter_map(|id| domain.loads.get(id)).collect();
        let fit = |axis: Option<usize>| {
            let neighbours = loads.iter().filter(|p| axis.is_some_and(|a| p.step(a) == Some(1)));
            (lanes(domain, &loads, axis, 4), neighbours.count())
        };
        let (along, summed) = (group.axes.last().copied(), sum.axes.last().copied());
        let along_sum = fit(summed) > fit(along);
        let last = if along_sum { summed } else { along };
        let zero = |x: &Expr| matches!(x, Expr::Load { fill, .. } if fill.value() == 0.0);
        let is_plain = zero(domain.exprs.get(factor));
        let by_rows = along_sum && math != Math::F32;
        let found = domain.loads.get(&factor).is_some_and(|s| s.place.found.is_empty());
        let is_word = domain.exprs.dtype(factor) == DType::F32 && math.per_word() == 1;
        let copied = is_plain && found && is_word;
        let supply = if copied { Supply::Copied } else { Supply::Read };
        // What does not lie in shared memory as it does in the buffer is copied word by word: by
        // neighbouring threads then, whose accesses go together.
        let turned = copied && along_sum != by_rows;
        let view = View::new(domain, last, if turned { 1 } else { fit(last).0 });
        Side { factor, group, tile, view, along_sum, is_plain, by_rows, supply }
    }

    /// The same, packed.
    fn packed(self) -> Side<'k> {
        Side { supply: Supply::Packed, by_rows: true, ..self }
    }

    /// How it is supplied, by what it is called.
    pub fn describe(&self, name: &str) -> String {
        let along = if self.along_sum { "sum" } else { name };
        let lanes = self.view.lanes;
        match self.supply {
            Supply::Read => format!("{name} read {lanes} at once along {along}"),
            Supply::Copied => format!("{name} copied {lanes} at once along {along}"),
            Supply::Packed => format!("{name} packed, read {lanes} at once along {along}"),
            Supply::Resident => format!("{name} resident"),
        }
    }

    /// The side of a factor that is in shared memory before.
    pub fn resident(
        domain: &Domain<'k>,
        factor: ExprId,
        group: Group,
        math: Math,
        tile: u32,
    ) -> Side<'k> {
        Side {
            factor,
            group,
            tile,
            view: View::new(domain, None, 1),
            along_sum: true,
            is_plain: true,
            by_rows: math != Math::F32,
            supply: Supply::Resident,
        }
    }
}

/// How many neighbours along an axis all these can take at once, up to `widest`.
fn lanes(domain: &Domain<'_>, spots: &[&Spot], axis: Option<usize>, widest: usize) -> usize {
    let Some(axis) = axis else { return 1 };
    let still = |spot: &Spot| spot.step(axis) == Some(0) && spot.is_checked_alike(axis);
    let fits = |&lanes: &usize| {
        lanes <= widest
            && domain.extents[axis] % lanes as i64 == 0
            && spots.iter().all(|p| p.is_vector(axis, lanes as i64) || still(p))
            && spots.iter().any(|p| !still(p))
    };
    [4, 2].into_iter().find(fits).unwrap_or(1)
}

/// Whether a factor of so many elements has hardly more of them than it loads: those of a convolution
/// occur again and again in different windows.
fn is_compact(domain: &Domain<'_>, factor: ExprId, elements: i64) -> bool {
    let loads = domain.exprs.reachable([factor]);
    let spans = loads.iter().filter_map(|id| domain.loads.get(id)).map(|spot| spot.span(domain));
    spans.collect::<Option<Vec<i64>>>().is_some_and(|spans| spans.iter().any(|&n| n >= elements))
}

/// How many elementary functions and random numbers a result takes.
fn functions(domain: &Domain<'_>) -> usize {
    use dlc_kernel::UnaryOp::{Cos, Erf, Exp, Log, NormalCdf, Sigmoid, Sin, Tanh};
    let is_function = |expr: &Expr| match expr {
        Expr::Unary(op, _) => {
            matches!(op, Cos | Erf | Exp | Log | NormalCdf | Sigmoid | Sin | Tanh)
        }
        _ => matches!(expr, Expr::Random { .. }),
    };
    domain.exprs.iter().filter(|(_, expr)| is_function(expr)).count()
}

/// Rows and columns of a tile: as large as the result fills, smaller where that gives more blocks
/// and there are too few. Where both factors are packed, tiles may be wider: each word that arrives is
/// multiplied by more others. Neither are more than `widest`.
fn tiles(batch: i64, points: [i64; 2], packed: [bool; 2], widest: i64) -> [u32; 2] {
    let fitting = |points: i64| [32, 64].into_iter().find(|&t| points <= t).unwrap_or(widest);
    let mut tiles = points.map(fitting);
    let blocks =
        |tiles: [i64; 2]| batch * pieces(points[0], tiles[0]) * pieces(points[1], tiles[1]);
    if packed == [true; 2] && tiles == [128; 2] && blocks([128, 256]) >= ENOUGH_BLOCKS {
        return [128, 256];
    }
    for side in [0, 1] {
        if tiles[side] == 128 && blocks(tiles) < ENOUGH_BLOCKS {
            tiles[side] = 64;
        }
    }
    tiles.map(|t| t as u32)
}

/// Threads of a block for tiles of so many rows and columns.
pub fn threads(math: Math, [rows, cols]: [u32; 2]) -> u32 {
    match math {
        Math::F32 => rows.min(64) / 4 * (cols.min(64) / 4),
        _ => 64 * (cols / 32).clamp(2, 4),
    }
}

/// How many blocks share each sum.
fn split(batch: &Group, sides: &[Side<'_>; 2], sum: &Group) -> u32 {
    let tiles = sides.iter().map(|s| pieces(s.group.points(), i64::from(s.tile)));
    let blocks = batch.points() * tiles.product::<i64>();
    (ENOUGH_BLOCKS / blocks).min(sum.points() / LEAST_SUM).max(1) as u32
}

/// How many pieces of that size hold so many points.
fn pieces(points: i64, size: i64) -> i64 {
    (points + size - 1) / size
}

impl fmt::Display for ContractSchedule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (out, sum) = self.domain.extents.split_at(self.border);
        match &self.tiling {
            None => writeln!(f, "  contract {out:?} over {sum:?}: one a thread"),
            Some(tiling) => write!(f, "  contract {out:?} over {sum:?}: {tiling}"),
        }
    }
}

impl fmt::Display for Tiling<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [rows, cols] = &self.sides;
        writeln!(
            f,
            "{} products [{}, {}] x {}, {}",
            self.batch.points(),
            rows.group.points(),
            cols.group.points(),
            self.sum.points(),
            self.math
        )?;
        let [depth, threads, split] = [self.depth(), self.threads, self.split];
        writeln!(
            f,
            "    tiles {}x{}x{depth} of {threads} threads, sum in {split}, {} stages",
            rows.tile,
            cols.tile,
            self.stages()
        )?;
        for (name, side) in [("rows", rows), ("columns", cols)] {
            writeln!(f, "    {}", side.describe(name))?;
        }
        writeln!(f, "    stored {} at once along columns", self.result.lanes)
    }
}
