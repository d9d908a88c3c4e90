//! The packs and profiles that are part of the binary: all of `patterns/packs/` and `patterns/profiles/`.

include!(concat!(env!("OUT_DIR"), "/builtin.rs"));

/// Every file of every pack, its verdict tests last: the pack's name, the file's path in the source tree, and its text.
pub fn packs() -> &'static [(&'static str, &'static str, &'static str)] {
    PACKS
}

/// Every profile: the file's path in the source tree and its text; by path.
pub fn profiles() -> &'static [(&'static str, &'static str)] {
    PROFILES
}
