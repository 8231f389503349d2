//! Setters of option structs, a line each.
//!
//! It must never do more than set a field: a setter that does is written out.

/// Writes the builder methods of an options struct into its `impl`.
///
/// `field: T` takes the field's type; `field: into T` what becomes one. `Some(…)` around either is
/// for a field that is an `Option`.
///
/// ```
/// # #[derive(Default)]
/// struct Options {
///     limit: Option<u64>,
///     name: String,
/// }
///
/// impl Options {
///     sandbox_core::setters! {
///         /// Sets the limit in bytes.
///         limit: Some(u64),
///
///         /// Sets the name.
///         name: into String,
///     }
/// }
/// assert_eq!(Options::default().limit(8).name("a").name, "a");
/// ```
#[doc(hidden)]
#[macro_export]
macro_rules! setters {
    () => {};
    ($(#[$doc:meta])* $field:ident: Some(into $type:ty), $($rest:tt)*) => {
        $(#[$doc])*
        #[must_use]
        pub fn $field(mut self, $field: impl Into<$type>) -> Self {
            self.$field = Some($field.into());
            self
        }
        $crate::setters! { $($rest)* }
    };
    ($(#[$doc:meta])* $field:ident: Some($type:ty), $($rest:tt)*) => {
        $(#[$doc])*
        #[must_use]
        pub fn $field(mut self, $field: $type) -> Self {
            self.$field = Some($field);
            self
        }
        $crate::setters! { $($rest)* }
    };
    ($(#[$doc:meta])* $field:ident: into $type:ty, $($rest:tt)*) => {
        $(#[$doc])*
        #[must_use]
        pub fn $field(mut self, $field: impl Into<$type>) -> Self {
            self.$field = $field.into();
            self
        }
        $crate::setters! { $($rest)* }
    };
    ($(#[$doc:meta])* $field:ident: $type:ty, $($rest:tt)*) => {
        $(#[$doc])*
        #[must_use]
        pub fn $field(mut self, $field: $type) -> Self {
            self.$field = $field;
            self
        }
        $crate::setters! { $($rest)* }
    };
}
