//! Shorthand for the structs that a guest shares with the kernel byte for byte.

/// A plain struct of the ABI: C layout, readable from and writable to bytes. Padding must be spelled out.
#[macro_export]
macro_rules! abi_struct {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)* })*) => {
        $($(#[$meta])*
        #[derive(
            Clone, Copy, PartialEq, Eq, Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes,
            zerocopy::Immutable, zerocopy::KnownLayout,
        )]
        #[repr(C)]
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)* })*
    };
}
