//! What a read or write of a field must come to, from a table of the fields that is not the module's own.

use std::collections::HashMap;

use tdx_module_iface::{Release, StatusCode};

/// The tables.
const FIELDS: &str = include_str!("fields.txt");

/// Bits of an identifier that must be zero: reserved ones, last element, last field.
pub const MUST_BE_ZERO: u64 = 0xff << 24 | 0xf << 34 | 0x1ff << 38 | 7 << 47 | 1 << 55 | 1 << 62;
/// Bits of an identifier that nothing looks at: element size, increment, write mask, context, "not architectural".
pub const IGNORED: u64 = 3 << 32 | 1 << 50 | 1 << 51 | 7 << 52 | 1 << 63;
const CODE: u64 = 0xff_ffff;
const CONTEXT: u64 = 7 << 52;
/// Class of the virtual CPUID values of a TD.
const CPUID_VALUES: u8 = 0x14;

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    Host,
    DebugHost,
    Guest,
}

/// Whose fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Of {
    Module,
    Td,
    Vcpu,
}

/// A row of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// Identifier of the first element.
    pub id: u64,
    fields: u32,
    pub elems: u32,
    /// Read and write of each kind of asker.
    masks: [u64; 6],
    step: u32,
}

impl Row {
    pub fn class(&self) -> u8 {
        class(self.id)
    }

    pub fn code(&self) -> u32 {
        (self.id & CODE) as u32
    }

    /// The bits of an element.
    pub fn size(&self) -> u64 {
        u64::MAX >> (64 - (8 << (self.id >> 32 & 3)))
    }

    pub fn readable(&self, who: Who) -> u64 {
        self.masks[2 * who as usize] & self.size()
    }

    pub fn writable(&self, who: Who) -> u64 {
        self.masks[2 * who as usize + 1] & self.size()
    }

    pub fn elements(&self) -> u32 {
        self.fields * self.elems
    }

    pub fn element(&self, index: u32) -> u64 {
        with_code(self.id, self.code() + index * self.step)
    }
}

pub fn class(id: u64) -> u8 {
    (id >> 56 & 0x3f) as u8
}

fn with_code(id: u64, code: u32) -> u64 {
    id & !CODE | u64::from(code)
}

/// A leaf of the virtual CPUID table.
#[derive(Clone, Copy, Debug)]
struct Cpuid {
    leaf: u32,
    subleaf: Option<u32>,
    has_value: bool,
}

impl Cpuid {
    fn code(self) -> u32 {
        let subleaf = self.subleaf.map_or(0x1fe, |subleaf| (subleaf & 0x7f) << 1);
        subleaf | (self.leaf & 0x7f) << 9 | (self.leaf >> 31) << 16
    }
}

/// The fields of one context.
pub struct Table {
    of: Of,
    pub rows: Vec<Row>,
    places: HashMap<(u8, u32), usize>,
    cpuid: Vec<Cpuid>,
}

/// What a read must come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Read {
    pub status: StatusCode,
    /// Bits of the value that may be one.
    pub bits: u64,
    /// The identifier that a read that walks gives.
    pub next: u64,
}

impl Table {
    /// The fields of a release, for a TD with this many L2 VMs.
    pub fn new(of: Of, release: Release, l2_vms: u8) -> Self {
        let name = if release == Release::V1_5_01 { "1.5.01" } else { "1.5.05" };
        let own = match of {
            Of::Module => rows("sys", name),
            Of::Td => rows("td", name),
            Of::Vcpu => rows("vmcs", "-").into_iter().chain(rows("vp", name)).collect(),
        };
        let mut all = Vec::new();
        for row in own {
            match l2_vm(of, row.class()) {
                Some((vm, _)) if vm > l2_vms => {}
                Some((_, true)) => all.extend(
                    rows("l2", "-")
                        .into_iter()
                        .map(|l2| Row { id: l2.id & !(0x3f << 56) | u64::from(row.class()) << 56, ..l2 }),
                ),
                _ => all.push(row),
            }
        }
        let mut places = HashMap::new();
        for (at, row) in all.iter().enumerate() {
            for index in 0..row.elements() {
                places.insert((row.class(), (row.element(index) & CODE) as u32), at);
            }
        }
        Self { of, rows: all, places, cpuid: cpuid(name) }
    }

    fn context(&self) -> u64 {
        (self.of as u64) << 52
    }

    /// The row that an identifier names.
    pub fn row(&self, id: u64) -> Option<usize> {
        if id & MUST_BE_ZERO != 0 {
            return None;
        }
        if self.of == Of::Td && class(id) == CPUID_VALUES {
            self.cpuid_entry(id)?;
            return self.rows.iter().position(|row| row.class() == CPUID_VALUES);
        }
        self.places.get(&(class(id), (id & CODE) as u32)).copied()
    }

    fn cpuid_entry(&self, id: u64) -> Option<usize> {
        let code = (id & CODE) as u32;
        let leaf = code >> 9 & 0x7f | (code >> 16 & 1) << 31;
        let subleaf = if code >> 8 & 1 != 0 { u32::MAX } else { code >> 1 & 0x7f };
        let answers = |entry: &Cpuid| entry.leaf == leaf && entry.subleaf.is_none_or(|own| own == subleaf);
        if code >> 17 != 0 { None } else { self.cpuid.iter().position(answers) }
    }

    /// What a read of an identifier must come to.
    pub fn read(&self, who: Who, id: u64) -> Read {
        let fails = |status| Read { status, bits: 0, next: u64::MAX };
        let Some(at) = self.row(id) else { return fails(StatusCode::METADATA_FIELD_ID_INCORRECT) };
        let row = &self.rows[at];
        let sparse = self.of == Of::Td && row.class() == CPUID_VALUES;
        let has_value = !sparse || self.cpuid_entry(id).is_some_and(|entry| self.cpuid[entry].has_value);
        if row.readable(who) == 0 || !has_value {
            return fails(StatusCode::METADATA_FIELD_NOT_READABLE);
        }
        let next = if sparse { self.next_cpuid(id) } else { self.next_inside(row, id) };
        let next = next.unwrap_or_else(|| self.first_from(at + 1, who));
        Read { status: StatusCode::SUCCESS, bits: row.readable(who), next }
    }

    /// The first identifier that a reader may read.
    pub fn first(&self, who: Who) -> u64 {
        self.first_from(0, who)
    }

    fn first_from(&self, at: usize, who: Who) -> u64 {
        let row = self.rows[at..].iter().find(|row| row.readable(who) != 0);
        row.map_or(u64::MAX, |row| match (self.of, row.class()) {
            (Of::Td, CPUID_VALUES) => with_code(row.id, self.cpuid[0].code()),
            _ => row.id,
        })
    }

    fn here(&self, id: u64, code: u32) -> u64 {
        with_code(id & !CONTEXT | self.context(), code)
    }

    fn next_inside(&self, row: &Row, id: u64) -> Option<u64> {
        let code = (id & CODE) as u32;
        let last = (row.element(row.elements() - 1) & CODE) as u32;
        (code < last).then(|| self.here(id, code + row.step))
    }

    fn next_cpuid(&self, id: u64) -> Option<u64> {
        let code = (id & CODE) as u32;
        if code & 1 == 0 {
            return Some(self.here(id, code + 1));
        }
        let entry = self.cpuid.get(self.cpuid_entry(id)? + 1)?;
        Some(self.here(id, entry.code()))
    }

    /// Identifiers to ask with: every element, and of each row's ends what is wrong with an identifier or does not matter.
    pub fn identifiers(&self) -> Vec<u64> {
        let mut ids = Vec::new();
        for row in &self.rows {
            if self.of == Of::Td && row.class() == CPUID_VALUES {
                ids.extend((0..1 << 17).map(|code| with_code(row.id, code)).step_by(3));
                ids.extend(self.cpuid.iter().flat_map(|entry| {
                    [with_code(row.id, entry.code()), with_code(row.id, entry.code() + 1)]
                }));
                ids.push(with_code(row.id, 1 << 17));
                continue;
            }
            ids.extend((0..row.elements()).map(|index| row.element(index)));
            for end in [row.element(0), row.element(row.elements() - 1)] {
                ids.extend(
                    (0..64).filter(|bit| (MUST_BE_ZERO | IGNORED) >> bit & 1 != 0).map(|bit| end ^ 1 << bit),
                );
                ids.push(end ^ IGNORED);
                let code = (end & CODE) as u32;
                ids.extend(
                    [code.wrapping_sub(1), code + 1, code + 2].map(|code| with_code(end, code & 0xff_ffff)),
                );
            }
        }
        // Every class, also those that belong to other contexts.
        for class in 0..64u64 {
            ids.extend(
                [0, 1, 2, 0x10, 0x80, 0x1ff, 0x2000, 0x6800]
                    .map(|code| class << 56 | self.context() | 3 << 32 | code),
            );
        }
        ids
    }
}

fn rows(table: &str, release: &str) -> Vec<Row> {
    let step = if matches!(table, "vmcs" | "l2") { 2 } else { 1 };
    let mask = |word: &str| match word {
        "*" => u64::MAX,
        "-" => 0,
        word => u64::from_str_radix(word, 16).expect("a mask"),
    };
    lines(table, release)
        .map(|words| Row {
            id: u64::from_str_radix(words[0], 16).expect("an identifier"),
            fields: words[1].parse().expect("a number"),
            elems: words[2].parse().expect("a number"),
            masks: std::array::from_fn(|at| mask(words[3 + at])),
            step,
        })
        .collect()
}

fn cpuid(release: &str) -> Vec<Cpuid> {
    let number = |word: &str| u32::from_str_radix(word, 16).expect("a number");
    lines("cpuid", release)
        .map(|words| Cpuid {
            leaf: number(words[0]),
            subleaf: (words[1] != "-").then(|| number(words[1])),
            has_value: words[2] == "value",
        })
        .collect()
}

fn lines(table: &str, release: &str) -> impl Iterator<Item = Vec<&'static str>> {
    FIELDS
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter_map(move |words| (words[0] == table && words[1] == release).then(|| words[2..].to_vec()))
}

/// The L2 VM that a class belongs to, and whether it is that of its VMCS.
fn l2_vm(of: Of, class: u8) -> Option<(u8, bool)> {
    match (of, class) {
        (Of::Td, 0x25 | 0x29 | 0x2d) => Some(((class - 0x21) / 4, false)),
        (Of::Vcpu, 0x24..=0x26 | 0x2c..=0x2e | 0x34..=0x36) => Some(((class - 0x1c) / 8, class % 8 == 4)),
        _ => None,
    }
}
