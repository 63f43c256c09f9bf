//! Small promises about the tree that nobody keeps by heart.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::{File, Tree};

/// What is untidy, one line each.
pub(crate) fn check(tree: &Tree) -> Vec<String> {
    [lints(tree), decisions(tree), suites(tree), invariants(tree)].concat()
}

/// Every package has the lints of the workspace.
fn lints(tree: &Tree) -> Vec<String> {
    let shares = |text: &str| {
        let manifest: toml::Table = text.parse().ok()?;
        manifest.get("lints")?.get("workspace")?.as_bool()
    };
    let manifests = tree.packages.iter().map(|package| format!("{}/Cargo.toml", package.folder));
    let lacks = |path: &String| text(tree, path).and_then(shares) != Some(true);
    manifests.filter(lacks).map(|path| format!("{path}: has no `[lints] workspace = true`")).collect()
}

/// Every decision has a number of four digits, and its own.
fn decisions(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
    for path in tree.files.iter().map(|file| file.path.as_str()) {
        let Some(name) = path.strip_prefix("docs/adr/") else { continue };
        let number = name.split_once('-').map_or(name, |(number, _)| number);
        if number.len() != 4 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            findings.push(format!("{path}: its name does not start with a number of four digits"));
        } else if let Some(other) = taken.insert(number, path) {
            findings.push(format!("{path}: has the number of {other}"));
        }
    }
    findings
}

/// Every file next to a suite's `main.rs` is a module of it: one that is not listed never runs.
fn suites(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for file in tree.sources("tests") {
        let Some((folder, name)) = file.path.rsplit_once('/') else { continue };
        let Some(main) = text(tree, &format!("{folder}/main.rs")) else { continue };
        let module = name.trim_end_matches(".rs");
        if module != "main" && !main.lines().any(|line| line.trim() == format!("mod {module};")) {
            findings.push(format!("{}: {folder}/main.rs does not list it, so it never runs", file.path));
        }
    }
    findings
}

/// Every invariant is named in the doc line of a test, and every test names known ones.
fn invariants(tree: &Tree) -> Vec<String> {
    const PAGE: &str = "docs/invariants.md";
    let Some(page) = text(tree, PAGE) else { return vec![format!("{PAGE}: is missing")] };
    let known: BTreeSet<&str> = page.lines().filter_map(row_id).collect();
    let mut findings = Vec::new();
    let mut tested = BTreeSet::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with(".rs")) {
        for id in tested_ids(file) {
            if !known.contains(id) {
                findings.push(format!("{}: a test names {id}, which {PAGE} does not list", file.path));
            }
            tested.insert(id);
        }
    }
    let untested = known.difference(&tested).map(|id| format!("{PAGE}: no test names {id}"));
    findings.extend(untested);
    findings
}

/// The id of a row that promises something: `| S1 | must | ...`, or `should`.
fn row_id(line: &str) -> Option<&str> {
    let (id, rest) = line.strip_prefix("| ")?.split_once(" | ")?;
    let promised = rest.starts_with("must |") || rest.starts_with("should |");
    (promised && is_id(id)).then_some(id)
}

/// Invariants that the doc lines of tests start with: `/// S1, P3: what holds`. Functions of a
/// conformance suite count as tests: every kind that they are made for runs them.
fn tested_ids(file: &File) -> Vec<&str> {
    let is_suite = file.path.contains("/conformance");
    let is_test =
        |line: &str| (line.starts_with("#[") && line.contains("test")) || (is_suite && line.contains("fn "));
    let mut ids = Vec::new();
    let mut doc = Vec::new();
    for line in file.text.lines().map(str::trim_start) {
        if let Some(text) = line.strip_prefix("/// ") {
            doc.push(text.split(':').next().unwrap_or(text));
        } else if is_test(line) {
            ids.extend(doc.drain(..).flat_map(|list| list.split(", ")).filter(|id| is_id(id)));
        } else if !line.starts_with("#[") && line != "///" {
            doc.clear();
        }
    }
    ids
}

/// A capital letter and a number, as in `S1`.
fn is_id(word: &str) -> bool {
    let number = word.strip_prefix(|family: char| family.is_ascii_uppercase());
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn text<'a>(tree: &'a Tree, path: &str) -> Option<&'a str> {
    tree.files.iter().find(|file| file.path == path).map(|file| file.text.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Package;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let file = |(path, text): &(&str, &str)| File { path: (*path).to_owned(), text: (*text).to_owned() };
        Tree { packages: Vec::new(), files: files.iter().map(file).collect() }
    }

    #[test]
    fn a_package_without_the_shared_lints_is_reported() {
        let mut tree =
            tree(&[("a/Cargo.toml", "[lints]\nworkspace = true\n"), ("b/Cargo.toml", "[lints]\n")]);
        let package = |folder: &str| Package { folder: folder.to_owned(), dependencies: Vec::new() };
        tree.packages = vec![package("a"), package("b")];

        assert_eq!(lints(&tree), ["b/Cargo.toml: has no `[lints] workspace = true`"]);
    }

    #[test]
    fn two_decisions_with_one_number_are_reported() {
        let tree = tree(&[("docs/adr/0001-a.md", ""), ("docs/adr/0001-b.md", ""), ("docs/adr/2-c.md", "")]);

        let found = decisions(&tree);

        assert!(matches!(found.as_slice(), [twice, short]
            if twice.contains("has the number of docs/adr/0001-a.md") && short.contains("2-c.md")));
    }

    #[test]
    fn a_module_that_its_suite_does_not_list_is_reported() {
        let files =
            [("tests/e2e/main.rs", "mod push;\n"), ("tests/e2e/push.rs", ""), ("tests/e2e/lost.rs", "")];

        let found = suites(&tree(&files));

        assert!(matches!(found.as_slice(), [lost] if lost.starts_with("tests/e2e/lost.rs")), "{found:?}");
    }

    #[test]
    fn an_invariant_that_no_test_names_is_reported_and_so_is_an_unknown_one() {
        let page = "| id | |\n|---|---|\n| S1 | must | x |\n| S2 | must | y |\n| P3 | should | z |\n| I9 | later | z |\n";
        let code = "/// S1, P3: holds.\n///\n/// More.\n#[test]\nfn a() {}\n\n/// S2: no test.\nfn b() {}\n\n\
                    /// X9: unknown.\n#[tokio::test]\nasync fn c() {}\n";

        let suite = "/// S2\nfn check() {}\n";
        let files = [("docs/invariants.md", page), ("a/src/lib.rs", code)];

        let found = invariants(&tree(&files));

        assert_eq!(
            found,
            [
                "a/src/lib.rs: a test names X9, which docs/invariants.md does not list",
                "docs/invariants.md: no test names S2"
            ]
        );
        let found = invariants(&tree(&[&files[..], &[("a/src/conformance/mod.rs", suite)]].concat()));
        assert_eq!(found.len(), 1, "a check of a conformance suite is a test: {found:?}");
    }
}
