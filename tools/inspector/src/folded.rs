//! Samples of a guest as folded stacks, which draw a flame graph.

use std::collections::BTreeMap;

use object::{Object as _, ObjectSymbol as _, SymbolKind};
use seam_emu::guest::samples::Place;

/// How far behind a symbol an address still is of it, where the symbol says no length: functions are shorter.
const REACH: u64 = 1 << 20;
/// The privilege level of a kernel.
const KERNEL: u8 = 0;
/// The letters of code in a System.map.
const CODE: [&str; 4] = ["T", "t", "W", "w"];

/// Names of addresses in a kernel, or in a guest without one.
#[derive(Clone, Debug, Default)]
pub struct Symbols(BTreeMap<u64, Symbol>);

#[derive(Clone, Debug)]
struct Symbol {
    name: String,
    bytes: u64,
}

impl Symbols {
    /// The functions of an ELF file, or of a System.map; `None` if it is neither, or names none.
    #[must_use]
    pub fn read(file: &[u8]) -> Option<Self> {
        let all = match object::File::parse(file) {
            Ok(elf) => Self::of_elf(&elf),
            Err(_) => Self::of_map(std::str::from_utf8(file).ok()?)?,
        };
        (!all.0.is_empty()).then_some(all)
    }

    fn of_elf(elf: &object::File<'_>) -> Self {
        let functions =
            elf.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition());
        let named = functions.filter_map(|symbol| {
            let name = symbol.name().ok().filter(|name| !name.is_empty())?.to_owned();
            Some((symbol.address(), Symbol { name, bytes: symbol.size() }))
        });
        Self(named.collect())
    }

    fn of_map(text: &str) -> Option<Self> {
        let mut all = BTreeMap::new();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some(address), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else {
                return None;
            };
            let address = u64::from_str_radix(address, 16).ok()?;
            if CODE.contains(&kind) {
                all.insert(address, Symbol { name: name.to_owned(), bytes: 0 });
            }
        }
        Some(Self(all))
    }

    /// The function that an address is in, and how far in.
    fn find(&self, address: u64) -> Option<(&str, u64)> {
        let (base, symbol) = self.0.range(..=address).next_back()?;
        let reach = if symbol.bytes == 0 { REACH } else { symbol.bytes };
        let into = address - base;
        (into < reach).then_some((symbol.name.as_str(), into))
    }

    /// An address in words, such as `start_kernel+0x12`; `None` where no function is.
    #[must_use]
    pub fn place(&self, address: u64) -> Option<String> {
        self.find(address).map(|(name, into)| format!("{name}+{into:#x}"))
    }
}

/// A line for each place: `vCPU N;mode;function count`, with the address where no symbol names it. The processor of vCPU 0 is the one
/// behind the host's own.
#[must_use]
pub fn folded(samples: &[(Place, u64)], symbols: &Symbols) -> String {
    let mut lines: BTreeMap<String, u64> = BTreeMap::new();
    for (Place { lp, cpl, rip }, count) in samples {
        let (mode, name) = match *cpl {
            KERNEL => ("kernel", symbols.find(*rip).map(|(name, _)| name)),
            _ => ("user", None),
        };
        let name = name.map_or_else(|| format!("{rip:#x}"), str::to_owned);
        // What ends a frame is in no name.
        let name = name.replace([';', ' '], "_");
        *lines.entry(format!("vCPU {};{mode};{name}", lp.saturating_sub(1))).or_default() += count;
    }
    lines.into_iter().map(|(line, count)| format!("{line} {count}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "0000000000000000 D cpu_data\nffffffff81000000 T _text\nffffffff81000100 t start kernel\n\
        ffffffff81000200 T schedule\nffffffff82000000 D data\n";

    #[test]
    fn places_of_one_function_are_one_line() {
        let symbols = Symbols::read(MAP.as_bytes()).unwrap();
        assert_eq!(symbols.place(0xffff_ffff_8100_0212).as_deref(), Some("schedule+0x12"));
        assert_eq!((symbols.place(0x1000), symbols.place(0xffff_ffff_9000_0000)), (None, None));
        let place = |lp, cpl, rip| Place { lp, cpl, rip };
        let samples = [
            (place(1, 0, 0xffff_ffff_8100_0200), 2),
            (place(1, 0, 0xffff_ffff_8100_0280), 3),
            (place(1, 3, 0xffff_ffff_8100_0200), 1),
            (place(2, 0, 0xffff_ffff_8200_0000), 4),
        ];
        let text = folded(&samples, &symbols);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "vCPU 0;kernel;schedule 5",
                "vCPU 0;user;0xffffffff81000200 1",
                "vCPU 1;kernel;0xffffffff82000000 4"
            ]
        );
    }

    #[test]
    fn what_is_no_file_of_symbols_is_none() {
        for text in ["", "hello", "xyz T name", "ffffffff81000000 D data"] {
            assert!(Symbols::read(text.as_bytes()).is_none(), "{text}");
        }
        assert!(Symbols::read(&[0xff; 64]).is_none());
    }
}
