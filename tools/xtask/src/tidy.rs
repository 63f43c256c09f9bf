//! Small rules for the source tree.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::{File, Tree};

/// Violations, one line each.
pub(crate) fn check(tree: &Tree) -> Vec<String> {
    [lints(tree), decisions(tree), suites(tree), invariants(tree), faults(tree)].concat()
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
    let known: BTreeSet<&str> = page.lines().filter_map(item_id).collect();
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

/// The id of an item that promises something: `- **S1** (must): …`, or `should`.
fn item_id(line: &str) -> Option<&str> {
    let (id, rest) = line.strip_prefix("- **")?.split_once("** (")?;
    let is_promise = rest.starts_with("must): ") || rest.starts_with("should): ");
    (is_promise && is_id(id)).then_some(id)
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

/// Every fault of the page has an id of its own, and tests that exist or a word on what is open.
fn faults(tree: &Tree) -> Vec<String> {
    const PAGE: &str = "docs/field-faults.md";
    let Some(page) = text(tree, PAGE) else { return vec![format!("{PAGE}: is missing")] };
    let tests: Vec<(&str, Vec<&str>)> =
        tree.files.iter().map(|file| (file.path.as_str(), names_of_tests(&file.text))).collect();
    let mut findings = Vec::new();
    let mut seen = BTreeSet::new();
    for Fault { id, tests: names, open } in faults_of(page) {
        if !is_fault_id(id) {
            findings.push(format!("{PAGE}: `{id}` is no id of a fault"));
        }
        if !seen.insert(id) {
            findings.push(format!("{PAGE}: {id} is given twice"));
        }
        if names.is_empty() && open.is_none_or(|open| open.trim().is_empty()) {
            findings.push(format!("{PAGE}: {id} has neither a test nor `open: ` and what is left"));
        }
        let missing = names.iter().filter(|name| !tests.iter().any(|(path, all)| holds(path, all, name)));
        findings.extend(missing.map(|name| format!("{PAGE}: {id} names `{name}`, which is no test")));
    }
    if seen.is_empty() {
        findings.push(format!("{PAGE}: no fault was found"));
    }
    findings
}

/// An entry of the page of faults: `- **D1**: a few words`, and below it an item for each test, or for what is open.
#[derive(Debug, Default)]
struct Fault<'a> {
    id: &'a str,
    /// Names of tests, such as `room::a_test`.
    tests: Vec<&'a str>,
    /// The text behind `open: `, on its first line.
    open: Option<&'a str>,
}

fn faults_of(page: &str) -> Vec<Fault<'_>> {
    let mut faults: Vec<Fault<'_>> = Vec::new();
    for line in page.lines() {
        if let Some((id, _)) = line.strip_prefix("- **").and_then(|rest| rest.split_once("**: ")) {
            faults.push(Fault { id, ..Fault::default() });
        } else if let (Some(item), Some(fault)) = (line.strip_prefix("  - "), faults.last_mut()) {
            match item.strip_prefix("open:") {
                Some(open) => fault.open = Some(open),
                None => {
                    fault.tests.extend(item.trim().strip_prefix('`').and_then(|name| name.strip_suffix('`')))
                }
            }
        }
    }
    faults
}

/// One or two capital letters and a number, as in `CL7`.
fn is_fault_id(word: &str) -> bool {
    is_id(word) || word.strip_prefix(|first: char| first.is_ascii_uppercase()).is_some_and(is_id)
}

/// True if the file at `path` has the test `name`, and is in the modules that stand before it:
/// `e2e::push::a_test`.
fn holds(path: &str, tests: &[&str], name: &str) -> bool {
    let mut rooms: Vec<&str> = name.split("::").collect();
    let test = rooms.pop();
    let is_in = |room: &str| path.trim_end_matches(".rs").split('/').any(|part| part == room);
    test.is_some_and(|test| tests.contains(&test)) && rooms.into_iter().all(is_in)
}

/// The functions that a test attribute stands over.
fn names_of_tests(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim_start) {
        if let Some((_, name)) = line.split_once("fn ").filter(|_| is_test) {
            names.extend(name.split_once('(').map(|(name, _)| name));
            is_test = false;
        } else {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        }
    }
    names
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
        let page = "- **S1** (must): x\n- **S2** (must): y\n- **P3** (should): z\n- **I9** (later): z\n";
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
    #[test]
    fn a_fault_without_a_test_an_unknown_test_and_an_id_given_twice_are_reported() {
        let code =
            "#[test]\nfn helped() {}\nfn helper() {}\n\n    #[tokio::test]\n    async fn waited() {}\n";
        let found = |rows: &str| {
            let page = format!("# Faults\n\n- `open: ` is explained.\n\n{rows}");
            faults(&tree(&[("docs/field-faults.md", &page), ("tests/e2e/push.rs", code)]))
        };
        let sound = "- **D1**: x\n  y\n  - `e2e::push::helped`\n  - `waited`\n- **CL2**: y\n  - open: no `--flag`\n\
                     - **N3**: z\n  - `push::waited`\n  - open: the rest\n";

        assert_eq!(found(sound), Vec::<String>::new());
        for (row, finding) in [
            ("- **D2**: x\n  - `e2e::push::gone`\n", "D2 names `e2e::push::gone`, which is no test"),
            ("- **D2**: x\n  - `e2e::pull::helped`\n", "D2 names `e2e::pull::helped`, which is no test"),
            ("- **D2**: x\n  - `push::helper`\n", "D2 names `push::helper`, which is no test"),
            ("- **D2**: x\n  - repaired\n", "D2 has neither a test nor `open: ` and what is left"),
            ("- **D2**: x\n  - open:\n", "D2 has neither a test nor `open: ` and what is left"),
            ("- **D1**: x\n  - `waited`\n", "D1 is given twice"),
            ("- **CLX2**: x\n  - `waited`\n", "`CLX2` is no id of a fault"),
        ] {
            assert_eq!(
                found(&format!("{sound}{row}")),
                [format!("docs/field-faults.md: {finding}")],
                "{row}"
            );
        }
        assert_eq!(found(""), ["docs/field-faults.md: no fault was found"]);
        assert_eq!(faults(&tree(&[])), ["docs/field-faults.md: is missing"]);
    }
}
