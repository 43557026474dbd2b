//! Leaf numbers: open enumerations over the rows of their table.

/// Declares the number of a leaf of one side. Its named values are declared with their rows.
macro_rules! leaf_number {
    ($(#[$doc:meta])* pub struct $name:ident of $table:ident;) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(pub u16);

        impl $name {
            /// Every known leaf, by number.
            pub const ALL: &'static [Self] = &{
                let mut all = [Self(0); $table.len()];
                let mut index = 0;
                while index < $table.len() {
                    all[index] = Self($table[index].number);
                    index += 1;
                }
                all
            };

            /// What is known about the leaf; `None` where the number is unknown.
            pub const fn info(self) -> Option<&'static $crate::leaf::LeafInfo> {
                let mut index = 0;
                while index < $table.len() {
                    if $table[index].number == self.0 {
                        return Some(&$table[index]);
                    }
                    index += 1;
                }
                None
            }

            /// The name that the ABI gives to the leaf; `None` where the number is unknown.
            pub const fn name(self) -> Option<&'static str> {
                match self.info() {
                    Some(info) => Some(info.name),
                    None => None,
                }
            }

            /// The leaf of this name.
            pub fn from_name(name: &str) -> Option<Self> {
                $table.iter().find(|info| info.name == name).map(|info| Self(info.number))
            }

            /// RAX for this leaf at version 0.
            pub const fn word(self) -> $crate::leaf::LeafWord {
                $crate::leaf::LeafWord::new(self.0, 0)
            }

            /// RAX for this leaf at another version.
            pub const fn word_version(self, version: u8) -> $crate::leaf::LeafWord {
                $crate::leaf::LeafWord::new(self.0, version)
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Display::fmt(self, f)
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, concat!(stringify!($name), "({:#x})"), self.0),
                }
            }
        }
    };
}

pub(super) use leaf_number;
