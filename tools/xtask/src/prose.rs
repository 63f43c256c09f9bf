//! Plain English: how comments begin, and how long the lines of documents are.

use crate::tree::Tree;

/// Words that hide the subject of a sentence when they open a comment line.
const OPENERS: [&str; 3] = ["What", "Who", "Whether"];

/// Most comment lines of the workspace that may begin with one of [`OPENERS`].
const MOST_OPENERS: usize = 50;

/// Longest line of a document, in characters.
const LONGEST_LINE: usize = 120;

/// Columns from which the rows of a table may be longer than [`LONGEST_LINE`].
const WIDE_TABLE: usize = 4;

/// Findings about comments and documents, one line each.
pub(crate) fn check(tree: &Tree) -> Vec<String> {
    [openers(tree, MOST_OPENERS), long_lines(tree)].concat()
}

/// Reports every comment line that begins with one of [`OPENERS`], if there are more than `most`.
fn openers(tree: &Tree, most: usize) -> Vec<String> {
    let mut found = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with(".rs")) {
        for (number, line) in (1..).zip(file.text.lines()) {
            if let Some(word) = opener(line) {
                found
                    .push(format!("{}:{number}: a comment opens with `{word}`: name the subject", file.path));
            }
        }
    }
    if found.len() <= most {
        return Vec::new();
    }
    found.push(format!("{} comment lines open with one of {OPENERS:?}: at most {most} may", found.len()));
    found
}

/// The word of [`OPENERS`] with which the comment on this line begins.
fn opener(line: &str) -> Option<&'static str> {
    let text = line.trim_start().strip_prefix("//")?.trim_start_matches(['/', '!']).trim_start();
    let end = text.find(|letter: char| !letter.is_alphanumeric()).unwrap_or(text.len());
    let first = text.get(..end)?;
    OPENERS.into_iter().find(|word| *word == first)
}

/// Reports lines of documents that are too long, except in code blocks and in rows of wide tables.
fn long_lines(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with(".md")) {
        let mut is_code = false;
        for (number, line) in (1..).zip(file.text.lines()) {
            let is_fence = line.trim_start().starts_with("```");
            is_code ^= is_fence;
            let len = line.chars().count();
            if !is_code && !is_fence && len > LONGEST_LINE && !is_wide_row(line) {
                findings.push(format!(
                    "{}:{number}: has {len} characters, and {LONGEST_LINE} are the most",
                    file.path
                ));
            }
        }
    }
    findings
}

fn is_wide_row(line: &str) -> bool {
    let line = line.trim();
    line.starts_with('|') && line.matches('|').count() > WIDE_TABLE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::File;

    fn tree(path: &str, text: &str) -> Tree {
        let file = File { path: path.to_owned(), text: text.to_owned() };
        Tree { packages: Vec::new(), files: vec![file] }
    }

    #[test]
    fn openers_are_found_in_every_comment_style() {
        let text = "//! What it is.\n/// Who asks.\nfn a() {\n    // Whether it is.\n}\n\
                    /// Whatever. What not.\n//Whoever\nlet what = \"// What\";\n";

        let found = openers(&tree("a/src/lib.rs", text), 2);

        assert_eq!(found.len(), 4, "{found:?}");
        assert_eq!(found[0], "a/src/lib.rs:1: a comment opens with `What`: name the subject");
        assert!(found[3].starts_with("3 comment lines"), "{found:?}");
        assert_eq!(openers(&tree("a/src/lib.rs", text), 3), Vec::<String>::new());
    }

    #[test]
    fn long_lines_are_found_outside_code_and_wide_tables() {
        let (long, most) = ("ä".repeat(121), "ä".repeat(120));
        let row = |cells: usize| format!("| {} |", vec![long.as_str(); cells].join(" | "));
        let text = format!("{most}\n{long}\n```sh\n{long}\n```\n{}\n{}\n", row(3), row(4));

        let found = long_lines(&tree("docs/a.md", &text));

        let places: Vec<&str> = found.iter().map(|line| line.split_once(": ").unwrap().0).collect();
        assert_eq!(places, ["docs/a.md:2", "docs/a.md:6"], "{found:?}");
    }
}
