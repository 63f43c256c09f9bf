//! Recognition of folders of second names.

use std::path::Path;

/// Name of the base in a root.
pub(crate) const BASE_NAME: &str = crate::leftover::SECOND_NAMES;
/// Says that a folder is a base.
pub(crate) const MARK: &str = "astacus-freeze";
/// Pushes of the same folders that may run at once.
pub(crate) const MOST_TREES: u32 = 64;

/// True if a folder with these names was made by a push for second names, and so holds no data.
pub(crate) fn is_base<'a>(names: impl Iterator<Item = &'a [u8]>) -> bool {
    let mut is_marked = false;
    for name in names {
        if !is_our_name(name) {
            return false;
        }
        is_marked |= name == MARK.as_bytes();
    }
    is_marked
}

/// True if a name in a base is one of those that pushes make there.
pub(crate) fn is_our_name(name: &[u8]) -> bool {
    let tree = name.strip_suffix(b".lock").unwrap_or(name);
    name == MARK.as_bytes() || std::str::from_utf8(tree).is_ok_and(is_tree_name)
}

/// True if this is a folder that a push has made to freeze files in.
pub(crate) fn is_frozen(folder: &Path) -> bool {
    folder.file_name().is_some_and(|name| name == BASE_NAME) && folder.join(MARK).exists()
}

/// True if a push may have made a tree of this name: `<key>-<n>`.
pub(crate) fn is_tree_name(name: &str) -> bool {
    let is_key = |key: &str| key.len() == 16 && key.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts = name.split_once('-').map(|(key, number)| (key, number.parse::<u32>()));
    matches!(parts, Some((key, Ok(number))) if is_key(key) && number < MOST_TREES)
}
