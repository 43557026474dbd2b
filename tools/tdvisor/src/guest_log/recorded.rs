//! What a `defmt` 1.2 logger sent: recorded from a program on Linux that was linked with `defmt`'s linker script.
//!
//! The program logged, in this order, one statement per frame of [`FRAMES`]. The tables are what its ELF file and its
//! logger said; the texts are what `defmt`'s own decoder made of the frames, but for two: flags are shown as a number,
//! and a hint reaches signed and nested numbers (`{:x}` in frame 7), as it does unsigned ones.

/// The index, tag and text of each string.
pub const STRINGS: &[(u16, &str, &str)] = &[
    (1, "prim", "()"),
    (2, "prim", "({=?}, {=?})"),
    (3, "prim", "Err({=?})|Ok({=?})"),
    (4, "prim", "None|Some({=?})"),
    (5, "prim", "{=[?;2]}"),
    (6, "prim", "{=[?]}"),
    (7, "prim", "{=__internal_Debug}"),
    (8, "prim", "{=__internal_Display}"),
    (9, "prim", "{=__internal_FormatSequence}"),
    (10, "prim", "{=char}"),
    (11, "prim", "{=str}"),
    (12, "prim", "{=u16}"),
    (13, "prim", "{=u8}"),
    (14, "trace", "unsigned {=u8} {=u16} {=u32} {=u64} {=u128} {=usize}"),
    (15, "debug", "signed {=i8} {=i16} {=i32} {=i64} {=i128} {=isize}"),
    (16, "info", "no arguments"),
    (17, "info", "{:x}"),
    (18, "info", "{=str}"),
    (19, "info", "{=u8:x} {=u8:X} {=u8:#x} {=u8:b} {=u8:#010b} {=u8:o} {=u8:05} {=i8:x} {=u64:us} {=u64:ms}"),
    (20, "info", "{} {:?} {1} {0:x}"),
    (21, "info", "{} {=[?]} {=[?]:a} {=[?; 2]}"),
    (22, "info", "{} {} {}"),
    (23, "info", "{} {} {}"),
    (24, "info", "{} {}"),
    (25, "info", "{}"),
    (26, "info", "{}"),
    (27, "warn", "{=bool} {=f32} {=f64} {=char} {=str} {=istr}"),
    (28, "error", "{=[u8]} {=[u8]:a} {=[u8; 3]:#04x} {=[u8]:x}"),
    (40, "bitflags", "{=u8:__internal_bitflags_Flags@recorder@6062123353047910165@recorder}"),
    (48, "bitflags_value", "Flags::0::A"),
    (64, "bitflags_value", "Flags::1::B"),
    (80, "derived", "Branch {{ kids: {=?:?}, id: {=u8:?} }}"),
    (81, "derived", "Leaf {{ id: {=u8:?} }}"),
    (82, "derived", "Name({=str}, {=?})"),
    (83, "derived", "Off|Level({=u8})|Named {{ name: {=?:?}, on: {=bool:?} }}"),
    (84, "derived", "Point {{ x: {=i16:?}, y: {=?:?} }}"),
    (85, "println", "{0=0..4:b} {0=4..12:#x} {1=40..43} {0=0..16:a}"),
    (86, "str", "i"),
    (87, "str", "interned {"),
    (88, "timestamp", "{=u32:us}"),
    (89, "write", "!"),
    (90, "write", "<{=istr}>"),
    (91, "write", "hand|{=u16:x}"),
];

/// Each frame as it was sent, in hexadecimal without the zeros between frames, and its line.
pub const FRAMES: &[(&str, &str)] = &[
    ("107e", "0.000000 INFO no arguments"),
    (
        "0e01c83a60ea286beeff04ffffffffffffffffffffffffffffffffffffffffffffff07917f",
        "0.000001 TRACE unsigned 200 60000 4000000000 18446744073709551615 340282366920938463463374607431768211455 7",
    ),
    (
        "0f02ff3a8090eefeff41803f7f7f80f7ffffff41",
        "0.000002 DEBUG signed -1 -32768 -70000 -9223372036854775808 -170141183460469231731687303715884105728 -9",
    ),
    (
        "1b03013ac03f9a999903999999b9bfe940066e3b61c3af76655740",
        "0.000003 WARN true 1.5 -0.1 é naïve interned {",
    ),
    (
        "1c04033a01ff040f61220aff070102fe02700a0b7c",
        r#"0.000004 ERROR [0, 1, 255] b"a\"\n\xff" [0x01, 0x02, 0xfe] [a, b]"#,
    ),
    ("5505423a41457c", r#"0.000005 10 0x14 5 b"AB""#),
    (
        "1306ab3aabab0505082aff60e31683d1074f7f",
        "0.000006 INFO ab AB 0xab 101 0b00000101 10 00042 ff 1.500000 2.001",
    ),
    (
        "1407543aff04010d151054ffff04097f",
        "0.000007 INFO Point { x: 255, y: Some(16) } Point { x: -1, y: None } Point { x: -1, y: None } Point { x: ff, y: Some(10) }",
    ),
    (
        "1708523a016e531d530103530b02095a56297f",
        r#"0.000008 INFO Name(n, Off) Level(3) Named { name: <"i">, on: false }"#,
    ),
    (
        "1509093a5befbe594502043b010d0102290d486917020d010a4a780d022e0a797a",
        r#"0.000009 INFO hand|beef! [Some(1), None] b"Hi" [(1, x), (2, y)]"#,
    ),
    ("110a053a050c0155020c03042a7f", "0.000010 INFO [[1, 2], [3, 4]]"),
    ("180b073a536f6d6528220171756f5c2274652229ff088431322e35ff60", r#"0.000011 INFO Some("quo\"te") 12.5"#),
    (
        "190c063a02505d0602513a0203010661510457",
        "0.000012 INFO [Branch { kids: [Leaf { id: 2 }, Leaf { id: 3 }], id: 1 }, Branch { kids: [], id: 4 }]",
    ),
    ("1a0d283a057d", "0.000013 INFO Flags(0x5)"),
    ("160e033a010d0103490b03756261640170", "0.000014 INFO Ok(1) Err(bad) ()"),
    (
        "120f2c3a01616263640665666768696a6b6c6d6e6f707172737475767778797a6162636465666768\
         696a6b6c6d6e6f707172737475767778797a6162636465666768696a6b6c6d6e6f707172737475767778797a61\
         62636465666768696a6b6c6d6e6f707172737475767778797a6162636465666768696a6b6c6d6e6f7071727374\
         75767778797a6162636465666768ff696a6b6c6d6e6f707172737475767778797a6162636465666768696a6b6c\
         6d6e6f707172737475767778797a6162636465666768696a6b6c6d6e6f707172737475767778797a6162636465\
         666768696a6b6c6d6e6f707172737475767778797a6162636465666768696a6b6c6d6e6f707172737475767778\
         797a6162636465666768696a6b6cff6d6e6f707172737475767778797a6162636465666768696a6b6c6d6e95",
        "0.000015 INFO abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz\
         abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz\
         abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz\
         abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmn",
    ),
];
