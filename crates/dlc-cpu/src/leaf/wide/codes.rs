//! Which instruction does what, in either width.

use super::Width;
use crate::leaf::lanes::{Binary, Compare, Kind, Shift, Unary};
use iced_x86::Code;

impl Width {
    fn pick(self, ymm: Code, zmm: Code) -> Code {
        if self == Width::Ymm { ymm } else { zmm }
    }
}

/// Operations that are one instruction on one vector, perhaps with a constant.
pub fn unary(width: Width, op: Unary, kind: Kind) -> (Code, Option<u8>) {
    use Code::*;
    let (ymm, zmm, constant) = match op {
        Unary::Sqrt if kind == Kind::Half => {
            (VEX_Vsqrtpd_ymm_ymmm256, EVEX_Vsqrtpd_zmm_k1z_zmmm512b64_er, None)
        }
        Unary::Sqrt => (VEX_Vsqrtps_ymm_ymmm256, EVEX_Vsqrtps_zmm_k1z_zmmm512b32_er, None),
        Unary::Nearest | Unary::Floor | Unary::Ceil => {
            let mode = match op {
                Unary::Nearest => 8,
                Unary::Floor => 9,
                _ => 10,
            };
            let zmm = EVEX_Vrndscaleps_zmm_k1z_zmmm512b32_imm8_sae;
            (VEX_Vroundps_ymm_ymmm256_imm8, zmm, Some(mode))
        }
        Unary::ToFloat => (VEX_Vcvtdq2ps_ymm_ymmm256, EVEX_Vcvtdq2ps_zmm_k1z_zmmm512b32_er, None),
        Unary::ToInt => (VEX_Vcvttps2dq_ymm_ymmm256, EVEX_Vcvttps2dq_zmm_k1z_zmmm512b32_sae, None),
        Unary::Lower | Unary::Upper => {
            (VEX_Vcvtps2pd_ymm_xmmm128, EVEX_Vcvtps2pd_zmm_k1z_ymmm256b32_sae, None)
        }
        Unary::AsInt | Unary::AsFloat | Unary::Not => {
            unreachable!("{op:?} is no instruction on one vector")
        }
    };
    (width.pick(ymm, zmm), constant)
}

/// Operations that are one instruction on two vectors.
pub fn binary(width: Width, op: Binary, kind: Kind) -> Code {
    let (ymm, zmm) = match kind {
        Kind::F32 => float_binary(op),
        Kind::Half => half_binary(op),
        Kind::I32 | Kind::Mask => int_binary(op),
    };
    width.pick(ymm, zmm)
}

fn float_binary(op: Binary) -> (Code, Code) {
    use Code::*;
    match op {
        Binary::Add => (VEX_Vaddps_ymm_ymm_ymmm256, EVEX_Vaddps_zmm_k1z_zmm_zmmm512b32_er),
        Binary::Sub => (VEX_Vsubps_ymm_ymm_ymmm256, EVEX_Vsubps_zmm_k1z_zmm_zmmm512b32_er),
        Binary::Mul => (VEX_Vmulps_ymm_ymm_ymmm256, EVEX_Vmulps_zmm_k1z_zmm_zmmm512b32_er),
        Binary::Div => (VEX_Vdivps_ymm_ymm_ymmm256, EVEX_Vdivps_zmm_k1z_zmm_zmmm512b32_er),
        Binary::Max => (VEX_Vmaxps_ymm_ymm_ymmm256, EVEX_Vmaxps_zmm_k1z_zmm_zmmm512b32_sae),
        Binary::Min => (VEX_Vminps_ymm_ymm_ymmm256, EVEX_Vminps_zmm_k1z_zmm_zmmm512b32_sae),
        _ => int_binary(op),
    }
}

fn half_binary(op: Binary) -> (Code, Code) {
    use Code::*;
    match op {
        Binary::Add => (VEX_Vaddpd_ymm_ymm_ymmm256, EVEX_Vaddpd_zmm_k1z_zmm_zmmm512b64_er),
        Binary::Sub => (VEX_Vsubpd_ymm_ymm_ymmm256, EVEX_Vsubpd_zmm_k1z_zmm_zmmm512b64_er),
        Binary::Mul => (VEX_Vmulpd_ymm_ymm_ymmm256, EVEX_Vmulpd_zmm_k1z_zmm_zmmm512b64_er),
        Binary::Div => (VEX_Vdivpd_ymm_ymm_ymmm256, EVEX_Vdivpd_zmm_k1z_zmm_zmmm512b64_er),
        Binary::Max => (VEX_Vmaxpd_ymm_ymm_ymmm256, EVEX_Vmaxpd_zmm_k1z_zmm_zmmm512b64_sae),
        Binary::Min => (VEX_Vminpd_ymm_ymm_ymmm256, EVEX_Vminpd_zmm_k1z_zmm_zmmm512b64_sae),
        _ => unreachable!("{op:?} is no instruction on halves"),
    }
}

fn int_binary(op: Binary) -> (Code, Code) {
    use Code::*;
    match op {
        Binary::Add => (VEX_Vpaddd_ymm_ymm_ymmm256, EVEX_Vpaddd_zmm_k1z_zmm_zmmm512b32),
        Binary::Sub => (VEX_Vpsubd_ymm_ymm_ymmm256, EVEX_Vpsubd_zmm_k1z_zmm_zmmm512b32),
        Binary::Mul => (VEX_Vpmulld_ymm_ymm_ymmm256, EVEX_Vpmulld_zmm_k1z_zmm_zmmm512b32),
        Binary::Max => (VEX_Vpmaxsd_ymm_ymm_ymmm256, EVEX_Vpmaxsd_zmm_k1z_zmm_zmmm512b32),
        Binary::Min => (VEX_Vpminsd_ymm_ymm_ymmm256, EVEX_Vpminsd_zmm_k1z_zmm_zmmm512b32),
        Binary::And => (VEX_Vpand_ymm_ymm_ymmm256, EVEX_Vpandd_zmm_k1z_zmm_zmmm512b32),
        Binary::Or => (VEX_Vpor_ymm_ymm_ymmm256, EVEX_Vpord_zmm_k1z_zmm_zmmm512b32),
        Binary::Xor => (VEX_Vpxor_ymm_ymm_ymmm256, EVEX_Vpxord_zmm_k1z_zmm_zmmm512b32),
        Binary::AndNot => (VEX_Vpandn_ymm_ymm_ymmm256, EVEX_Vpandnd_zmm_k1z_zmm_zmmm512b32),
        Binary::Div | Binary::Join | Binary::JoinBits => {
            unreachable!("{op:?} is no instruction on integers")
        }
    }
}

/// Which operands of a fused multiply-add are multiplied: `dst = dst * second + third`, and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FmaForm {
    /// `dst = dst * third + second`.
    F132,
    /// `dst = second * dst + third`.
    F213,
    /// `dst = second * third + dst`.
    F231,
}

/// A fused multiply-add.
pub fn fma(width: Width, form: FmaForm, kind: Kind) -> Code {
    use Code::*;
    let (ymm, zmm) = match (form, kind) {
        (FmaForm::F132, Kind::Half) => {
            (VEX_Vfmadd132pd_ymm_ymm_ymmm256, EVEX_Vfmadd132pd_zmm_k1z_zmm_zmmm512b64_er)
        }
        (FmaForm::F213, Kind::Half) => {
            (VEX_Vfmadd213pd_ymm_ymm_ymmm256, EVEX_Vfmadd213pd_zmm_k1z_zmm_zmmm512b64_er)
        }
        (FmaForm::F231, Kind::Half) => {
            (VEX_Vfmadd231pd_ymm_ymm_ymmm256, EVEX_Vfmadd231pd_zmm_k1z_zmm_zmmm512b64_er)
        }
        (FmaForm::F132, _) => {
            (VEX_Vfmadd132ps_ymm_ymm_ymmm256, EVEX_Vfmadd132ps_zmm_k1z_zmm_zmmm512b32_er)
        }
        (FmaForm::F213, _) => {
            (VEX_Vfmadd213ps_ymm_ymm_ymmm256, EVEX_Vfmadd213ps_zmm_k1z_zmm_zmmm512b32_er)
        }
        (FmaForm::F231, _) => {
            (VEX_Vfmadd231ps_ymm_ymm_ymmm256, EVEX_Vfmadd231ps_zmm_k1z_zmm_zmmm512b32_er)
        }
    };
    width.pick(ymm, zmm)
}

/// A shift of a register by a constant.
pub fn shift(width: Width, shift: Shift) -> Code {
    use Code::*;
    let (ymm, zmm) = match shift {
        Shift::Left => (VEX_Vpslld_ymm_ymm_imm8, EVEX_Vpslld_zmm_k1z_zmmm512b32_imm8),
        Shift::Right => (VEX_Vpsrld_ymm_ymm_imm8, EVEX_Vpsrld_zmm_k1z_zmmm512b32_imm8),
        Shift::Arithmetic => (VEX_Vpsrad_ymm_ymm_imm8, EVEX_Vpsrad_zmm_k1z_zmmm512b32_imm8),
    };
    width.pick(ymm, zmm)
}

/// A comparison of numbers: to a vector, or to `k2`, with the predicate.
pub fn float_compare(width: Width, compare: Compare) -> (Code, u8) {
    use Code::*;
    let predicate = match compare {
        Compare::Eq => 0,
        Compare::Unordered => 3,
        Compare::Ne => 4,
        Compare::Lt => 17,
        Compare::Le => 18,
    };
    let zmm = EVEX_Vcmpps_kr_k1_zmm_zmmm512b32_imm8_sae;
    (width.pick(VEX_Vcmpps_ymm_ymm_ymmm256_imm8, zmm), predicate)
}

/// The predicate of an AVX-512 comparison of integers.
pub fn int_predicate(compare: Compare) -> u8 {
    match compare {
        Compare::Eq => 0,
        Compare::Lt => 1,
        Compare::Le => 2,
        Compare::Ne => 4,
        Compare::Unordered => unreachable!("integers have an order"),
    }
}

/// Loads a vector from any address, or copies a register.
pub fn load(width: Width) -> Code {
    width.pick(Code::VEX_Vmovups_ymm_ymmm256, Code::EVEX_Vmovups_zmm_k1z_zmmm512)
}

/// Stores a vector to any address.
pub fn store(width: Width) -> Code {
    width.pick(Code::VEX_Vmovups_ymmm256_ymm, Code::EVEX_Vmovups_zmmm512_k1z_zmm)
}

/// Stores a vector to an aligned address, past the caches.
pub fn store_streaming(width: Width) -> Code {
    width.pick(Code::VEX_Vmovntps_m256_ymm, Code::EVEX_Vmovntps_m512_zmm)
}

/// Zero-extends bytes from memory.
pub fn load_bytes(width: Width) -> Code {
    width.pick(Code::VEX_Vpmovzxbd_ymm_xmmm64, Code::EVEX_Vpmovzxbd_zmm_k1z_xmmm128)
}

/// A scalar from memory to all lanes.
pub fn broadcast(width: Width) -> Code {
    width.pick(Code::VEX_Vbroadcastss_ymm_m32, Code::EVEX_Vbroadcastss_zmm_k1z_xmmm32)
}

/// The lowest lane to all lanes; integers.
pub fn spread(width: Width) -> Code {
    width.pick(Code::VEX_Vpbroadcastd_ymm_xmmm32, Code::EVEX_Vpbroadcastd_zmm_k1z_xmmm32)
}

/// The upper half of a register to the lower half of another.
pub fn extract_upper(width: Width) -> Code {
    width.pick(
        Code::VEX_Vextractf128_xmmm128_ymm_imm8,
        Code::EVEX_Vextractf64x4_ymmm256_k1z_zmm_imm8,
    )
}

/// The lower half of a register to the upper half of another.
pub fn insert_upper(width: Width) -> Code {
    width.pick(
        Code::VEX_Vinsertf128_ymm_ymm_xmmm128_imm8,
        Code::EVEX_Vinsertf64x4_zmm_k1z_zmm_ymmm256_imm8,
    )
}

/// f64 lanes to f32 lanes of a half register.
pub fn narrow(width: Width) -> Code {
    width.pick(Code::VEX_Vcvtpd2ps_xmm_ymmm256, Code::EVEX_Vcvtpd2ps_ymm_k1z_zmmm512b64_er)
}

/// Lanes within each 128 bits, by the low two bits of each lane of another vector.
pub fn pick(width: Width) -> Code {
    let zmm = Code::EVEX_Vpermilps_zmm_k1z_zmm_zmmm512b32;
    width.pick(Code::VEX_Vpermilps_ymm_ymm_ymmm256, zmm)
}

/// Lanes within each 128 bits, by a constant.
pub fn permute(width: Width) -> Code {
    width.pick(Code::VEX_Vpermilps_ymm_ymmm256_imm8, Code::EVEX_Vpermilps_zmm_k1z_zmmm512b32_imm8)
}

/// By 128 bits, two lanes of one register, then two of another.
pub fn shuffle(width: Width) -> Code {
    let zmm = Code::EVEX_Vshufps_zmm_k1z_zmm_zmmm512b32_imm8;
    width.pick(Code::VEX_Vshufps_ymm_ymm_ymmm256_imm8, zmm)
}
