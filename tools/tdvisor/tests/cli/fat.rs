//! A disk with one EFI system partition, as firmware boots it: FAT16 in an MBR partition of type 0xEF, or in one of a GUID
//! partition table.
//!
//! Layout (Microsoft, "FAT: General Overview of On-Disk Format", 1.03): boot sector, one FAT, root directory, clusters. Names
//! are of eight and three characters, in capitals. The table is that of the UEFI specification, section 5.3.

const SECTOR: usize = 512;
const CLUSTER: usize = 4 * SECTOR;
/// Where the partition begins, in sectors.
const START: u32 = 2048;
const ROOT_ENTRIES: usize = 512;
const ENTRY: usize = 32;
/// What FAT16 has at least and at most.
const CLUSTERS: std::ops::Range<usize> = 4085..65525;
const SYSTEM_PARTITION: u8 = 0xef;
const DIRECTORY: u8 = 0x10;
const FILE: u8 = 0x20;
const LAST: u16 = 0xffff;

/// The disk with these files, by paths such as `EFI/BOOT/BOOTX64.EFI`.
pub fn disk(files: &[(&str, &[u8])]) -> Vec<u8> {
    let volume = volume(files);
    let mut disk = vec![0; START as usize * SECTOR];
    master_boot_record(&mut disk, SYSTEM_PARTITION, START, (volume.len() / SECTOR) as u32);
    disk.extend(volume);
    disk
}

/// A disk with files in a FAT file system and a GUID partition table, which firmware measures.
pub fn gpt_disk(files: &[(&str, &[u8])]) -> Vec<u8> {
    let Parts { mut before, behind } = Parts::around(files, 0);
    before.extend(behind);
    before
}

/// What a disk with a GUID partition table has before its second partition, and behind it.
pub struct Parts {
    /// The table, and the partition with files. The second partition follows.
    pub before: Vec<u8>,
    /// The copy of the table.
    pub behind: Vec<u8>,
}

impl Parts {
    /// Of what the steps of programs that copy disks are multiples.
    pub const STEP: usize = 1 << 20;

    /// A disk with these files, and behind them so many bytes for Linux, if any: whole steps.
    pub fn around(files: &[(&str, &[u8])], bytes: u64) -> Self {
        /// The table, and a copy of it at the end: a header and its entries.
        const TABLE: usize = 1 + ENTRIES * ENTRY_BYTES / SECTOR;
        const ENTRIES: usize = 128;
        const ENTRY_BYTES: usize = 128;
        const PROTECTED: u8 = 0xee;
        const HEADER_BYTES: u32 = 92;
        const REVISION: u32 = 0x0001_0000;
        const SYSTEM_PARTITION: [u8; 16] =
            [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];
        const LINUX: [u8; 16] =
            [0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4];
        let volume = volume(files);
        let start = START as usize;
        let mut before = vec![0; start * SECTOR];
        before.extend(volume);
        let end = before.len() / SECTOR;
        let mut partitions = vec![(SYSTEM_PARTITION, start, end)];
        if bytes > 0 {
            before.resize(before.len().next_multiple_of(Self::STEP), 0);
            let second = before.len() / SECTOR;
            partitions.push((LINUX, second, second + bytes as usize / SECTOR));
        }
        let sectors = partitions[partitions.len() - 1].2 + TABLE;
        master_boot_record(&mut before, PROTECTED, 1, sectors as u32 - 1);

        let mut entries = vec![0; ENTRIES * ENTRY_BYTES];
        for (number, (kind, start, end)) in (1..).zip(partitions) {
            let entry = &mut entries[(usize::from(number) - 1) * ENTRY_BYTES..][..ENTRY_BYTES];
            entry[..16].copy_from_slice(&kind);
            entry[16..32].fill(number);
            entry[32..40].copy_from_slice(&(start as u64).to_le_bytes());
            entry[40..48].copy_from_slice(&(end as u64 - 1).to_le_bytes());
        }
        let header = |own: usize, other: usize, table: usize| {
            let mut header = b"EFI PART".to_vec();
            for word in [REVISION, HEADER_BYTES, 0, 0] {
                header.extend(word.to_le_bytes());
            }
            for sector in [own, other, TABLE + 1, sectors - TABLE - 1] {
                header.extend((sector as u64).to_le_bytes());
            }
            header.extend([2; 16]);
            header.extend((table as u64).to_le_bytes());
            for word in [ENTRIES as u32, ENTRY_BYTES as u32, crc32fast::hash(&entries)] {
                header.extend(word.to_le_bytes());
            }
            let checksum = crc32fast::hash(&header);
            header[16..20].copy_from_slice(&checksum.to_le_bytes());
            header
        };
        let (first, last) = (1, sectors - 1);
        let own = header(first, last, first + 1);
        before[SECTOR..][..own.len()].copy_from_slice(&own);
        before[2 * SECTOR..][..entries.len()].copy_from_slice(&entries);
        let copy = header(last, first, sectors - TABLE);
        let mut behind = entries;
        behind.extend(copy);
        behind.resize(TABLE * SECTOR, 0);
        Self { before, behind }
    }
}

/// Writes the record with one partition of this kind, from a sector on so many.
fn master_boot_record(disk: &mut [u8], kind: u8, start: u32, sectors: u32) {
    disk[446 + 4] = kind;
    disk[446 + 8..446 + 12].copy_from_slice(&start.to_le_bytes());
    disk[446 + 12..446 + 16].copy_from_slice(&sectors.to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
}

/// The file system with these files.
fn volume(files: &[(&str, &[u8])]) -> Vec<u8> {
    let data: usize = files.iter().map(|(_, contents)| contents.len().div_ceil(CLUSTER) + 4).sum();
    let mut volume = Volume { clusters: Vec::new(), chains: vec![0xfff8, LAST] };
    let mut root = volume.directory("", files, 0);
    assert!(root.len() <= ROOT_ENTRIES * ENTRY, "the root directory is full");
    let clusters = (data + 1).max(CLUSTERS.start + 16);
    assert!(volume.chains.len() <= clusters && CLUSTERS.contains(&clusters), "too large for FAT16");
    let fat_sectors = ((clusters + 2) * 2).div_ceil(SECTOR);
    let sectors = 1 + fat_sectors + ROOT_ENTRIES * ENTRY / SECTOR + clusters * CLUSTER / SECTOR;

    let mut bytes = boot_sector(sectors as u32, fat_sectors as u16);
    let mut table: Vec<u8> = volume.chains.iter().flat_map(|next| next.to_le_bytes()).collect();
    table.resize(fat_sectors * SECTOR, 0);
    bytes.extend(table);
    root.resize(ROOT_ENTRIES * ENTRY, 0);
    bytes.extend(root);
    bytes.extend(volume.clusters);
    bytes.resize(sectors * SECTOR, 0);
    bytes
}

fn boot_sector(sectors: u32, fat_sectors: u16) -> Vec<u8> {
    let mut sector = vec![0xeb, 0x3c, 0x90];
    sector.extend(b"TDVISOR ");
    sector.extend((SECTOR as u16).to_le_bytes());
    sector.push((CLUSTER / SECTOR) as u8);
    // One reserved sector, one FAT.
    sector.extend([1, 0, 1]);
    sector.extend((ROOT_ENTRIES as u16).to_le_bytes());
    // The number of sectors is below; a fixed disk.
    sector.extend([0, 0, 0xf8]);
    sector.extend(fat_sectors.to_le_bytes());
    // Geometry that nobody uses.
    sector.extend([63, 0, 255, 0]);
    sector.extend(START.to_le_bytes());
    sector.extend(sectors.to_le_bytes());
    sector.extend([0x80, 0, 0x29, 1, 2, 3, 4]);
    sector.extend(b"TDVISOR ESPFAT16   ");
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector
}

struct Volume {
    /// From cluster 2 on.
    clusters: Vec<u8>,
    chains: Vec<u16>,
}

impl Volume {
    /// Stores bytes and gives their first cluster; zero for none.
    fn store(&mut self, bytes: &[u8]) -> u16 {
        let first = self.chains.len() as u16;
        let count = bytes.len().div_ceil(CLUSTER) as u16;
        if count == 0 {
            return 0;
        }
        self.chains.extend((1..count).map(|next| first + next));
        self.chains.push(LAST);
        self.clusters.extend_from_slice(bytes);
        self.clusters.resize(self.clusters.len().next_multiple_of(CLUSTER), 0);
        first
    }

    /// The entries of the directory at a path that ends with a slash, or is empty.
    fn directory(&mut self, path: &str, files: &[(&str, &[u8])], parent: u16) -> Vec<u8> {
        let mut entries = Vec::new();
        let mut seen: Vec<&str> = Vec::new();
        for (name, contents) in files {
            let Some(rest) = name.strip_prefix(path) else { continue };
            match rest.split_once('/') {
                None => {
                    let first = self.store(contents);
                    entries.extend(entry(rest, FILE, first, contents.len() as u32));
                }
                Some((folder, _)) if !seen.contains(&folder) => {
                    seen.push(folder);
                    // Its cluster comes before those of what it holds, so that it can name itself.
                    let own = self.store(&[0; CLUSTER]);
                    let inner = self.directory(&format!("{path}{folder}/"), files, own);
                    let mut bytes = entry(".", DIRECTORY, own, 0);
                    bytes.extend(entry("..", DIRECTORY, parent, 0));
                    bytes.extend(inner);
                    assert!(bytes.len() <= CLUSTER, "{path}{folder}: too many files");
                    let at = (usize::from(own) - 2) * CLUSTER;
                    self.clusters[at..at + bytes.len()].copy_from_slice(&bytes);
                    entries.extend(entry(folder, DIRECTORY, own, 0));
                }
                Some(_) => {}
            }
        }
        entries
    }
}

fn entry(name: &str, attributes: u8, first: u16, bytes: u32) -> Vec<u8> {
    let (stem, extension) = match name {
        "." | ".." => (name, ""),
        _ => name.split_once('.').unwrap_or((name, "")),
    };
    let mut entry = format!("{stem:<8}{extension:<3}").to_uppercase().into_bytes();
    assert_eq!(entry.len(), 11, "{name}: eight and three characters");
    entry.push(attributes);
    entry.resize(26, 0);
    entry.extend(first.to_le_bytes());
    entry.extend(bytes.to_le_bytes());
    entry
}
