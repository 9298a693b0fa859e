//! Vector instructions.

use super::{Cpu, LANES};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

type Lanes = [u32; LANES];

impl Cpu {
    /// Whether the instruction touches a lane: of those that `k1` selects, if it is masked.
    fn selects(&self, i: &Instruction, lane: usize) -> bool {
        let mask = i.op_mask();
        mask == Register::None || self.masks[mask.number()] >> lane & 1 == 1
    }

    /// A vector operand: the lanes from memory that exist and are selected, 0 elsewhere.
    fn lanes(&self, i: &Instruction, operand: u32) -> Lanes {
        if i.op_kind(operand) == OpKind::Register {
            return self.vectors[i.op_register(operand).number()];
        }
        let (at, bytes) = (self.address(i).cast::<u32>(), i.memory_size().size());
        let aligned = i.mnemonic() == Mnemonic::Vmovntps;
        assert!(!aligned || (at as usize).is_multiple_of(bytes), "{i:?}");
        let lane = |lane| {
            let exists = lane < bytes / 4 && self.selects(i, lane);
            // SAFETY: a processor reads this lane, too.
            if exists { unsafe { at.add(lane).read_unaligned() } } else { 0 }
        };
        std::array::from_fn(lane)
    }

    /// Sets the lanes of a register that the instruction selects; those beyond its width become 0.
    fn set_lanes(&mut self, i: &Instruction, value: Lanes) {
        let register = i.op0_register();
        let old = self.vectors[register.number()];
        let new = |lane| match (lane < register.size() / 4, self.selects(i, lane)) {
            (false, _) => 0,
            (true, true) => value[lane],
            (true, false) if i.zeroing_masking() => 0,
            (true, false) => old[lane],
        };
        self.vectors[register.number()] = std::array::from_fn(new);
    }

    pub(super) fn vector(&mut self, i: &Instruction) {
        use Mnemonic::*;
        match i.mnemonic() {
            Vmovups | Vmovntps | Vmovss | Vmovq if i.op0_kind() == OpKind::Memory => self.store(i),
            Vmaskmovps => self.masked_move(i),
            Vpmovdb => self.store_bytes(i),
            Vextractps => self.write(i, self.lanes(i, 1)[usize::from(i.immediate8())].into()),
            Vpextrb => {
                let lane = usize::from(i.immediate8());
                let byte = self.lanes(i, 1)[lane / 4] >> (lane % 4 * 8);
                self.write(i, u64::from(byte & 0xff));
            }
            Vpinsrb => {
                let (lane, mut value) = (usize::from(i.immediate8()), self.lanes(i, 1));
                let (byte, shift) = (self.read(i, 2) as u32 & 0xff, lane % 4 * 8);
                value[lane / 4] = value[lane / 4] & !(0xff << shift) | byte << shift;
                self.set_lanes(i, value);
            }
            Vpmovzxbd if i.op1_kind() == OpKind::Memory => self.load_bytes(i),
            Vcmpps | Vpcmpd | Vptestmd if i.op0_register().is_k() => {
                let hit = compare(i, self.lanes(i, 1), self.lanes(i, 2));
                let bits = (0..LANES).map(|l| u64::from(hit[l] != 0) << l).sum();
                self.masks[i.op0_register().number()] = bits;
            }
            Vcmpps => self.set_lanes(i, compare(i, self.lanes(i, 1), self.lanes(i, 2))),
            Vpmovm2d => {
                let bits = self.masks[i.op1_register().number()];
                let lane = |l| if bits >> l & 1 == 1 { u32::MAX } else { 0 };
                self.set_lanes(i, std::array::from_fn(lane));
            }
            Vpbroadcastd if i.op1_register().is_gpr() => {
                self.set_lanes(i, [self.read(i, 1) as u32; LANES]);
            }
            Vmovd => {
                let mut value = [0; LANES];
                value[0] = self.read(i, 1) as u32;
                self.set_lanes(i, value);
            }
            _ => {
                let value = self.compute(i);
                self.set_lanes(i, value);
            }
        }
    }

    fn store(&mut self, i: &Instruction) {
        let value = self.lanes(i, 1);
        let (at, bytes) = (self.address(i).cast::<u32>(), i.memory_size().size());
        let aligned = i.mnemonic() == Mnemonic::Vmovntps;
        assert!(!aligned || (at as usize).is_multiple_of(bytes), "{i:?}");
        for lane in (0..bytes / 4).filter(|&l| self.selects(i, l)) {
            // SAFETY: a processor writes this lane, too.
            unsafe { at.add(lane).write_unaligned(value[lane]) };
        }
    }

    /// AVX2's masked loads and stores.
    fn masked_move(&mut self, i: &Instruction) {
        let mask = self.vectors[i.op1_register().number()];
        let at = self.address(i).cast::<u32>();
        let active = |lane: &usize| mask[*lane] >> 31 == 1;
        if i.op0_kind() == OpKind::Memory {
            let value = self.lanes(i, 2);
            // SAFETY: a processor writes these lanes, too.
            (0..8).filter(active).for_each(|l| unsafe { at.add(l).write_unaligned(value[l]) });
            return;
        }
        let mut value = [0; LANES];
        // SAFETY: a processor reads these lanes, too.
        (0..8).filter(active).for_each(|l| value[l] = unsafe { at.add(l).read_unaligned() });
        self.set_lanes(i, value);
    }

    fn store_bytes(&mut self, i: &Instruction) {
        let (value, at) = (self.lanes(i, 1), self.address(i));
        for lane in (0..LANES).filter(|&l| self.selects(i, l)) {
            // SAFETY: a processor writes this byte, too.
            unsafe { at.add(lane).write(value[lane] as u8) };
        }
    }

    fn load_bytes(&mut self, i: &Instruction) {
        let at = self.address(i);
        let count = i.op0_register().size() / 4;
        let mut value = [0; LANES];
        for lane in (0..count).filter(|&l| self.selects(i, l)) {
            // SAFETY: a processor reads this byte, too.
            value[lane] = u32::from(unsafe { at.add(lane).read() });
        }
        self.set_lanes(i, value);
    }

    /// The result of an instruction on registers.
    fn compute(&self, i: &Instruction) -> Lanes {
        let last = i.op_count() - 1;
        let has_constant = i.op_kind(last) == OpKind::Immediate8;
        let constant = if has_constant { i.immediate8() } else { 0 };
        let x = self.lanes(i, 1);
        let z = self.lanes(i, 0);
        let operands = if has_constant { last } else { last + 1 };
        let y = if operands > 2 { self.lanes(i, 2) } else { x };
        let of_pairs = || halves(i, z, x, y).or_else(|| pairs(i, constant, x, y));
        if let Some(value) = numbers(i, z, x, y).or_else(of_pairs) {
            return value;
        }
        let mask = if operands > 3 { self.lanes(i, 3) } else { x };
        integers(i, constant, z, x, y, mask)
    }
}

fn each(f: impl Fn(usize) -> u32) -> Lanes {
    std::array::from_fn(f)
}

fn number(bits: u32) -> f32 {
    f32::from_bits(bits)
}

/// Comparisons: not 0 where they hold.
fn compare(i: &Instruction, x: Lanes, y: Lanes) -> Lanes {
    let holds = |l: usize| {
        let (a, b) = (number(x[l]), number(y[l]));
        let (m, n) = (x[l] as i32, y[l] as i32);
        match (i.mnemonic(), i.op_count()) {
            (Mnemonic::Vptestmd, _) => m & n != 0,
            (Mnemonic::Vpcmpd, _) => match i.immediate8() {
                0 => m == n,
                1 => m < n,
                2 => m <= n,
                _ => m != n,
            },
            _ => match i.immediate8() {
                0 => a == b,
                3 => a.is_nan() || b.is_nan(),
                4 => a != b,
                17 => a < b,
                18 => a <= b,
                other => panic!("predicate {other}"),
            },
        }
    };
    each(|l| if holds(l) { u32::MAX } else { 0 })
}

/// Arithmetic on f32.
fn numbers(i: &Instruction, z: Lanes, x: Lanes, y: Lanes) -> Option<Lanes> {
    let of = |f: fn(f32, f32, f32) -> f32| {
        Some(each(|l| f(number(z[l]), number(x[l]), number(y[l])).to_bits()))
    };
    match i.mnemonic() {
        Mnemonic::Vaddps => of(|_, x, y| x + y),
        Mnemonic::Vsubps => of(|_, x, y| x - y),
        Mnemonic::Vmulps => of(|_, x, y| x * y),
        Mnemonic::Vdivps => of(|_, x, y| x / y),
        Mnemonic::Vmaxps => of(|_, x, y| if x > y { x } else { y }),
        Mnemonic::Vminps => of(|_, x, y| if x < y { x } else { y }),
        Mnemonic::Vsqrtps => of(|_, x, _| x.sqrt()),
        Mnemonic::Vfmadd132ps => of(|z, x, y| z.mul_add(y, x)),
        Mnemonic::Vfmadd213ps => of(|z, x, y| x.mul_add(z, y)),
        Mnemonic::Vfmadd231ps => of(|z, x, y| x.mul_add(y, z)),
        Mnemonic::Vroundps | Mnemonic::Vrndscaleps => match i.immediate8() {
            8 => of(|_, x, _| x.round_ties_even()),
            9 => of(|_, x, _| x.floor()),
            _ => of(|_, x, _| x.ceil()),
        },
        _ => None,
    }
}

/// Arithmetic on f64.
fn halves(i: &Instruction, z: Lanes, x: Lanes, y: Lanes) -> Option<Lanes> {
    let wide =
        |v: &Lanes, l: usize| f64::from_bits(u64::from(v[2 * l]) | u64::from(v[2 * l + 1]) << 32);
    let split = |values: [f64; 8]| each(|l| (values[l / 2].to_bits() >> (l % 2 * 32)) as u32);
    let of = |f: fn(f64, f64, f64) -> f64| {
        Some(split(std::array::from_fn(|l| f(wide(&z, l), wide(&x, l), wide(&y, l)))))
    };
    match i.mnemonic() {
        Mnemonic::Vaddpd => of(|_, x, y| x + y),
        Mnemonic::Vsubpd => of(|_, x, y| x - y),
        Mnemonic::Vmulpd => of(|_, x, y| x * y),
        Mnemonic::Vdivpd => of(|_, x, y| x / y),
        Mnemonic::Vmaxpd => of(|_, x, y| if x > y { x } else { y }),
        Mnemonic::Vminpd => of(|_, x, y| if x < y { x } else { y }),
        Mnemonic::Vsqrtpd => of(|_, x, _| x.sqrt()),
        Mnemonic::Vfmadd132pd => of(|z, x, y| z.mul_add(y, x)),
        Mnemonic::Vfmadd213pd => of(|z, x, y| x.mul_add(z, y)),
        Mnemonic::Vfmadd231pd => of(|z, x, y| x.mul_add(y, z)),
        Mnemonic::Vcvtps2pd => Some(split(std::array::from_fn(|l| number(x[l]).into()))),
        Mnemonic::Vcvtpd2ps => {
            Some(each(|l| if l < 8 { (wide(&x, l) as f32).to_bits() } else { 0 }))
        }
        _ => None,
    }
}

/// Words of 64 bits, which are pairs of lanes.
fn pairs(i: &Instruction, c: u8, x: Lanes, y: Lanes) -> Option<Lanes> {
    use Mnemonic::*;
    Some(match i.mnemonic() {
        Vpsrlq => {
            assert_eq!(c, 32, "odd lanes become even ones");
            each(|l| if l % 2 == 0 { x[l + 1] } else { 0 })
        }
        Vpmuludq => each(|l| {
            let product = u64::from(x[l & !1]) * u64::from(y[l & !1]);
            (product >> (l % 2 * 32)) as u32
        }),
        Vpermpd if i.op2_kind() != OpKind::Immediate8 => {
            each(|l| y[2 * (x[l & !1] as usize & 7) + l % 2])
        }
        Vpmovzxdq => each(|l| if l % 2 == 0 { x[l / 2] } else { 0 }),
        Vpermpd => each(|l| x[2 * (usize::from(c) >> (l / 2 % 4 * 2) & 3) + l % 2]),
        Vpmovqd => each(|l| if l < 8 { x[2 * l] } else { 0 }),
        _ => return None,
    })
}

/// Integers, bits and moves.
fn integers(i: &Instruction, c: u8, z: Lanes, x: Lanes, y: Lanes, mask: Lanes) -> Lanes {
    use Mnemonic::*;
    let half = i.op0_register().size() / 8;
    let signed = |f: fn(i32, i32) -> i32| each(|l| f(x[l] as i32, y[l] as i32) as u32);
    match i.mnemonic() {
        Vmovups => x,
        Vbroadcastss | Vpbroadcastd => [x[0]; LANES],
        Vpaddd => signed(i32::wrapping_add),
        Vpsubd => signed(i32::wrapping_sub),
        Vpmulld => signed(i32::wrapping_mul),
        Vpmaxsd => signed(i32::max),
        Vpminsd => signed(i32::min),
        Vpcmpeqd => signed(|x, y| -i32::from(x == y)),
        Vpcmpgtd => signed(|x, y| -i32::from(x > y)),
        Vpand | Vpandd => each(|l| x[l] & y[l]),
        Vpor | Vpord => each(|l| x[l] | y[l]),
        Vpxor | Vpxord => each(|l| x[l] ^ y[l]),
        Vpandn | Vpandnd => each(|l| !x[l] & y[l]),
        Vpslld => each(|l| x[l] << c),
        Vpsrld => each(|l| x[l] >> c),
        Vpmovzxbd => each(|l| x[l / 4] >> (l % 4 * 8) & 0xff),
        Vpshufd => each(|l| x[l & !3 | usize::from(c) >> (2 * (l & 3)) & 3]),
        Vpsrad => each(|l| (x[l] as i32 >> c) as u32),
        Vcvtdq2ps => each(|l| (x[l] as i32 as f32).to_bits()),
        Vcvttps2dq => each(|l| {
            let number = number(x[l]);
            let fits = number.abs() < 2_147_483_648.0;
            if fits { number as i32 as u32 } else { i32::MIN as u32 }
        }),
        Vblendvps => each(|l| if mask[l] >> 31 == 1 { y[l] } else { x[l] }),
        Vpternlogd => {
            assert_eq!(c, 0xca, "a bitwise choice");
            each(|l| z[l] & x[l] | !z[l] & y[l])
        }
        Vpermilps if i.op2_kind() != OpKind::Immediate8 => each(|l| x[l & !3 | y[l] as usize & 3]),
        Vpermilps => each(|l| x[l & !3 | usize::from(c) >> (2 * (l & 3)) & 3]),
        Vshufps => each(|l| {
            let at = l & !3 | usize::from(c) >> (2 * (l & 3)) & 3;
            if l & 3 < 2 { x[at] } else { y[at] }
        }),
        Vpackusdw => each(|l| {
            let word = |l: usize| if l < 4 { x[l] } else { y[l - 4] };
            let saturated = |v: u32| (v as i32).clamp(0, 0xffff) as u32;
            if l < 4 { saturated(word(2 * l)) | saturated(word(2 * l + 1)) << 16 } else { 0 }
        }),
        Vpackuswb => each(|l| {
            let word = |k: usize| if k < 8 { x[k / 2] } else { y[k / 2 - 4] } >> (k % 2 * 16);
            let byte = |k: usize| i32::from(word(k) as i16).clamp(0, 255) as u32;
            if l < 4 { (0..4).map(|b| byte(4 * l + b) << (8 * b)).sum() } else { 0 }
        }),
        Vextractf128 => each(|l| if l < 4 { x[4 + l] } else { 0 }),
        Vextractf64x4 => each(|l| if l < 8 { x[8 + l] } else { 0 }),
        Vinsertf128 | Vinsertf64x4 => each(|l| if l < half { x[l] } else { y[l - half] }),
        _ => panic!("{i:?} is not among the instructions of leaves"),
    }
}

#[test]
fn halves_of_a_register_are_those_of_its_width() {
    assert_eq!(Register::YMM3.size() / 8, 4);
    assert_eq!(Register::ZMM3.size() / 8, 8);
}
