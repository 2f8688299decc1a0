//! What a table of settings is: named keys, each with a default and a rule.
//!
//! `section!` writes the struct, its defaults and its keys from one list, so that a setting cannot have
//! a field without a key, a default or a rule.

use crate::error::Problem;
use crate::rule::Given;

/// One table of the configuration, by key.
pub(crate) trait Section {
    /// The table's name in a file.
    fn name(&self) -> &'static str;

    /// Every key it knows, in the order they are written.
    fn keys(&self) -> &'static [&'static str];

    /// Sets `key`. `None`: there is no such key.
    fn read(&mut self, key: &str, given: &Given<'_>) -> Option<Result<(), Problem>>;

    /// The value of `key` as TOML. `None`: unset, or no such key.
    fn write(&self, key: &str) -> Option<String>;

    /// Writes every key that is set, a line each.
    fn write_into(&self, text: &mut String) {
        for key in self.keys() {
            if let Some(value) = self.write(key) {
                text.push_str(&format!("{key} = {value}\n"));
            }
        }
    }
}

/// The keys of a struct whose fields are declared elsewhere.
macro_rules! keyed {
    ($name:ident [$section:literal] { $( $field:ident: $rule:expr; )* }) => {
        impl $crate::section::Section for $name {
            fn name(&self) -> &'static str {
                $section
            }

            fn keys(&self) -> &'static [&'static str] {
                &[$( stringify!($field), )*]
            }

            fn read(
                &mut self,
                key: &str,
                given: &$crate::rule::Given<'_>,
            ) -> Option<Result<(), $crate::error::Problem>> {
                match key {
                    $( stringify!($field) => Some(
                        $crate::rule::Rule::read(&$rule, given).map(|value| self.$field = value),
                    ), )*
                    _ => None,
                }
            }

            fn write(&self, key: &str) -> Option<String> {
                match key {
                    $( stringify!($field) => $crate::rule::Rule::write(&$rule, &self.$field), )*
                    _ => None,
                }
            }
        }
    };
}

/// A table of settings: field, type, default, rule.
macro_rules! section {
    (
        $(#[$meta:meta])*
        $name:ident [$section:literal] {
            $( $(#[$doc:meta])* $field:ident: $kind:ty = $default:expr, $rule:expr; )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $(
                $(#[$doc])*
                #[doc = concat!("\n\nDefault: `", stringify!($default), "`.")]
                pub $field: $kind,
            )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )* }
            }
        }

        $crate::section::keyed!($name [$section] { $( $field: $rule; )* });
    };
}

pub(crate) use {keyed, section};
