//! This machine: its processor by name, and its caches.

use std::path::Path;

/// What measurements and choices of one processor are kept under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The processor: model name and, where the system tells, family, model and stepping.
    pub cpu: String,
    /// Bytes of the data caches, the first level first.
    pub caches: [usize; 3],
}

/// What most processors have, where the system does not tell.
const USUAL_CACHES: [usize; 3] = [32 << 10, 512 << 10, 8 << 20];

impl Machine {
    /// The machine that this process runs on.
    pub fn here() -> Machine {
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Machine { cpu: cpu_name(&text), caches: caches() }
    }
}

/// The processor in the words of `/proc/cpuinfo`, of x86-64 or of Arm.
fn cpu_name(text: &str) -> String {
    let value = |key: &str| {
        let field = |line: &str| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == key).then(|| value.trim().to_owned())
        };
        text.lines().find_map(field)
    };
    let x86 = ["model name", "cpu family", "model", "stepping"];
    let arm = ["CPU implementer", "CPU part", "CPU variant", "CPU revision"];
    let words: Vec<String> = x86.into_iter().chain(arm).filter_map(value).collect();
    if words.is_empty() { std::env::consts::ARCH.to_owned() } else { words.join(" ") }
}

/// Bytes of the data caches as the system tells; the usual where it does not.
fn caches() -> [usize; 3] {
    let mut caches = USUAL_CACHES;
    let folder = Path::new("/sys/devices/system/cpu/cpu0/cache");
    for index in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let read = |name| std::fs::read_to_string(index.path().join(name)).unwrap_or_default();
        let level = read("level").trim().parse().unwrap_or(0usize);
        let holds_data = read("type").trim() != "Instruction";
        if let (Some(cache), Some(bytes), true) =
            (level.checked_sub(1).and_then(|l| caches.get_mut(l)), size(&read("size")), holds_data)
        {
            *cache = bytes;
        }
    }
    caches
}

/// `32K`, `1M`.
fn size(text: &str) -> Option<usize> {
    let text = text.trim();
    let (number, shift) = match text.strip_suffix('K') {
        Some(number) => (number, 10),
        None => (text.strip_suffix('M')?, 20),
    };
    Some(number.parse::<usize>().ok()? << shift).filter(|&bytes| bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_named() {
        let x86 = "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC\n";
        assert_eq!(cpu_name(x86), "AMD EPYC 25 1");
        let arm = "processor : 0\nCPU implementer : 0x41\nCPU part : 0xd0c\n";
        assert_eq!(cpu_name(arm), "0x41 0xd0c");
        assert_eq!(cpu_name(""), std::env::consts::ARCH);
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("32K\n"), Some(32 << 10));
        assert_eq!(size("1M"), Some(1 << 20));
        assert_eq!(size("many"), None);
    }

    #[test]
    fn caches_grow() {
        let [first, second, third] = Machine::here().caches;
        assert!(0 < first && first < second && second <= third);
    }
}
