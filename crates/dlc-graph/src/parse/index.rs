//! Sizes and indices: sums of products of numbers, dims and axes.

use super::{MAX_DEPTH, Parsed, Parser};
use dlc_kernel::{Access, Guard, Index, MAX_DIM, Size};

/// `(sum of coef*axis + offset) / div`, as in [`Index`]; a size has no axes.
struct Affine {
    terms: Vec<(u32, i64)>,
    offset: Size,
    div: i64,
}

impl Affine {
    fn size(offset: Size) -> Affine {
        Affine { terms: Vec::new(), offset, div: 1 }
    }
}

impl Parser<'_, '_> {
    pub(super) fn size(&mut self) -> Parsed<Size> {
        let at = self.cursor.at();
        let sum = self.sum(&[], 0)?;
        if sum.div != 1 {
            return Err(self.cursor.error_at(at, "a size divides by a size in parentheses"));
        }
        Ok(sum.offset)
    }

    /// `[i, 2*j - 1 | i - j in 0..N]`.
    pub(super) fn access(&mut self, axes: &[String]) -> Parsed<Access> {
        self.cursor.expect("[")?;
        let mut access = Access::default();
        while !self.cursor.peek("|") && !self.cursor.peek("]") {
            if !access.coords.is_empty() {
                self.cursor.expect(",")?;
            }
            access.coords.push(self.index(axes)?);
        }
        if self.cursor.accept("|") {
            loop {
                access.guards.push(self.guard(axes)?);
                if !self.cursor.accept(",") {
                    break;
                }
            }
        }
        self.cursor.expect("]")?;
        Ok(access)
    }

    fn guard(&mut self, axes: &[String]) -> Parsed<Guard> {
        let index = self.index(axes)?;
        self.cursor.word("in")?;
        self.cursor.expect("0")?;
        self.cursor.expect("..")?;
        Ok(Guard { index, extent: self.size()? })
    }

    fn index(&mut self, axes: &[String]) -> Parsed<Index> {
        let at = self.cursor.at();
        let Affine { terms, offset, div } = self.sum(axes, 0)?;
        // So that sums of coefficients cannot overflow.
        if terms.iter().any(|t| t.1.unsigned_abs() > MAX_DIM as u64) || terms.len() > 1000 {
            return Err(self.cursor.error_at(at, "a coefficient is too large"));
        }
        Ok(Index { div, ..Index::affine(terms, offset) })
    }

    fn sum(&mut self, axes: &[String], depth: usize) -> Parsed<Affine> {
        if depth > MAX_DEPTH {
            return Err(self.cursor.error(format!("parentheses nest deeper than {MAX_DEPTH}")));
        }
        let negative = self.cursor.accept("-");
        let mut sum = self.product(axes, negative, depth)?;
        loop {
            let negative = match (self.cursor.accept("+"), self.cursor.peek("-")) {
                (true, _) => false,
                (false, true) => self.cursor.accept("-"),
                (false, false) => return Ok(sum),
            };
            let at = self.cursor.at();
            let next = self.product(axes, negative, depth)?;
            if sum.div != 1 || next.div != 1 {
                return Err(self.cursor.error_at(at, "a quotient stands alone"));
            }
            sum.terms.extend(next.terms);
            sum.offset = sum.offset + next.offset;
        }
    }

    fn product(&mut self, axes: &[String], negative: bool, depth: usize) -> Parsed<Affine> {
        let mut product = self.factor(axes, depth)?;
        if negative {
            product = self.multiply(product, Affine::size(Size::from(-1i64)))?;
        }
        while self.cursor.accept("*") {
            let factor = self.factor(axes, depth)?;
            product = self.multiply(product, factor)?;
        }
        Ok(product)
    }

    fn multiply(&mut self, a: Affine, b: Affine) -> Parsed<Affine> {
        if a.div != 1 || b.div != 1 {
            return Err(self.cursor.error("a quotient stands alone"));
        }
        if a.terms.is_empty() && b.terms.is_empty() {
            return Ok(Affine::size(a.offset * b.offset));
        }
        let (sum, factor) = if a.terms.is_empty() { (b, a) } else { (a, b) };
        let (true, Some(by)) = (factor.terms.is_empty(), factor.offset.as_const()) else {
            return Err(self.cursor.error("an axis is multiplied by a number only"));
        };
        let scaled = sum.terms.iter().map(|&(axis, c)| Some((axis, c.checked_mul(by)?)));
        let terms = scaled.collect::<Option<Vec<_>>>();
        let terms = terms.ok_or_else(|| self.cursor.error("a coefficient is too large"))?;
        Ok(Affine { terms, offset: sum.offset * Size::from(by), div: 1 })
    }

    /// An atom, or the quotient of two.
    fn factor(&mut self, axes: &[String], depth: usize) -> Parsed<Affine> {
        let braced = self.cursor.peek("{");
        let dividend = self.atom(axes, depth)?;
        let floored = self.cursor.accept("//");
        if !floored && !self.cursor.accept("/") {
            return Ok(dividend);
        }
        let divisor = self.atom(axes, depth)?;
        let plain = dividend.div == 1 && divisor.div == 1 && divisor.terms.is_empty();
        let (a, b) = (dividend.offset, divisor.offset);
        if plain && dividend.terms.is_empty() && !braced {
            return Ok(Affine::size(if floored { a.floor_div(&b) } else { a.exact_div(&b) }));
        }
        match b.as_const() {
            Some(div) if plain && div >= 1 && !floored => {
                Ok(Affine { terms: dividend.terms, offset: a, div })
            }
            _ => Err(self.cursor.error("an index is divided once, by a positive number")),
        }
    }

    /// A number, a name, or a sum in parentheses; in braces where an index without axes is divided.
    fn atom(&mut self, axes: &[String], depth: usize) -> Parsed<Affine> {
        for (open, close) in [("(", ")"), ("{", "}")] {
            if self.cursor.accept(open) {
                let inner = self.sum(axes, depth + 1)?;
                self.cursor.expect(close)?;
                return Ok(inner);
            }
        }
        if let Some(number) = self.cursor.accept_integer()? {
            return Ok(Affine::size(number.into()));
        }
        let name = self.cursor.identifier()?;
        Ok(match axes.iter().position(|a| a == name) {
            Some(axis) => Affine { terms: vec![(axis as u32, 1)], offset: Size::ZERO, div: 1 },
            None => Affine::size(Size::symbol(name)),
        })
    }
}
