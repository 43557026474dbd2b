//! The shape of every enumeration whose values come from outside: a number with names for the known values.

/// Declares a newtype over an integer with one associated constant per known value.
///
/// Unlike an `enum`, an unknown value is representable, keeps its number and prints it.
#[macro_export]
macro_rules! open_enum {
    (
        $(#[$type_doc:meta])*
        pub enum $name:ident : $repr:ty {
            $( $(#[$value_doc:meta])* $value_name:ident = $value:expr, $text:expr; )*
        }
    ) => {
        $(#[$type_doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(pub $repr);

        impl $name {
            $( $(#[$value_doc])* pub const $value_name: Self = Self($value); )*

            /// Every known value, in numerical order of declaration.
            pub const ALL: &'static [Self] = &[ $( Self::$value_name ),* ];

            /// The name of this value; `None` where the value is unknown.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $( v if v == $value => Some($text), )*
                    _ => None,
                }
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
