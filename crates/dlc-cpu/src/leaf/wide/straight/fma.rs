//! Multiply-adds: which operand they overwrite.

use super::Straight;
use crate::leaf::lanes::{Kind, Vector};
use crate::leaf::wide::codes::{self, FmaForm};
use crate::leaf::wide::frame::Place;

impl Straight<'_> {
    /// `x * y + z`, overwriting whichever operand is not needed any more.
    pub(super) fn fma(&mut self, v: Vector, [x, y, z]: [Vector; 3]) -> u8 {
        let kind = self.lanes.kind(v);
        let carry = self.wish(v).filter(|&r| self.place(z) == Place::Register(r) && self.dies(z));
        let sum = carry.or_else(|| self.overwritten(z));
        if sum.is_none() {
            for (x, y) in [(x, y), (y, x)] {
                if let Some(dst) = self.overwritten(x) {
                    return self.fma_over_factor(kind, dst, y, z);
                }
            }
        }
        let (x, y) = match self.place(x) {
            Place::Memory(_) => (y, x),
            Place::Register(_) => (x, y),
        };
        let x = self.in_register(x);
        let y = self.operand(y);
        let dst = sum.unwrap_or_else(|| {
            let from = self.operand(z);
            let dst = self.register();
            self.load(dst, from);
            dst
        });
        let code = codes::fma(self.a.width, FmaForm::F231, kind);
        self.instruction(code, dst, &[self.a.width.whole(x).into(), y]);
        dst
    }

    /// `dst = dst * y + z`.
    fn fma_over_factor(&mut self, kind: Kind, dst: u8, y: Vector, z: Vector) -> u8 {
        let width = self.a.width;
        self.locked |= 1 << dst;
        if let (Place::Memory(_), Place::Register(_)) = (self.place(y), self.place(z)) {
            let (y, z) = (self.operand(y), self.operand(z));
            self.instruction(codes::fma(width, FmaForm::F132, kind), dst, &[z, y]);
            return dst;
        }
        let y = self.in_register(y);
        let z = self.operand(z);
        let code = codes::fma(width, FmaForm::F213, kind);
        self.instruction(code, dst, &[width.whole(y).into(), z]);
        dst
    }
}
