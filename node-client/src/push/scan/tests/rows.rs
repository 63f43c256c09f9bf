//! The rows of the list: which files were judged when they were listed.

use super::tree::{Tree, noise};
use crate::push::find::list::FoundFile;
use crate::push::verdict::Verdict;

/// A file that is as it was is judged once; one that is frozen is judged by its frozen state.
#[test]
fn the_row_of_an_unchanged_file_carries_its_verdict() {
    let tree = Tree::new();
    for name in ["grown", "same"] {
        tree.write(name, noise(500, 1));
    }
    tree.push().run();
    tree.append("grown", &noise(50, 2));
    tree.write("unknown", noise(500, 3));

    let rows = tree.push().rows();

    let told = |row: &FoundFile| (tree.below(&row.path), row.judged.map(|judged| judged.verdict));
    let expected = [("grown", None), ("same", Some(Verdict::Reuse)), ("unknown", None)]
        .map(|(name, verdict)| (name.to_owned(), verdict));
    assert_eq!(rows.iter().map(told).collect::<Vec<_>>(), expected);
}
