//! How a core computes wide vectors. It decides how wide those of tiles are, never what results are.

/// How a core computes vectors of 512 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datapath {
    /// As fast as vectors of 256 bits.
    Whole,
    /// As two vectors of 256 bits, one after the other.
    Halves,
}

impl Datapath {
    /// That of this machine.
    pub fn here() -> Datapath {
        if machine::computes_halves() { Datapath::Halves } else { Datapath::Whole }
    }
}

#[cfg(target_arch = "x86_64")]
mod machine {
    use std::arch::x86_64::__cpuid;

    /// The family of AMD's first processors with AVX-512.
    const FIRST: u32 = 0x19;

    /// Whether this is one of them.
    pub fn computes_halves() -> bool {
        let maker = __cpuid(0);
        let name = [maker.ebx, maker.edx, maker.ecx].map(u32::to_le_bytes);
        let told = __cpuid(1).eax;
        let family = (told >> 8 & 0xf) + (told >> 20 & 0xff);
        name.concat() == b"AuthenticAMD" && family == FIRST
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod machine {
    /// Other processors have no such vectors.
    pub fn computes_halves() -> bool {
        false
    }
}
