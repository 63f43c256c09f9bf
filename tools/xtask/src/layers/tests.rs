use super::*;
use crate::tree::File;

/// A workspace of one package with one file.
fn tree(folder: &str, dependencies: &[&str], path: &str, text: &str) -> Tree {
    Tree {
        packages: vec![Package {
            folder: folder.to_owned(),
            dependencies: dependencies.iter().map(|name| (*name).to_owned()).collect(),
        }],
        files: vec![File { path: path.to_owned(), text: text.to_owned() }],
    }
}

fn findings(folder: &str, dependencies: &[&str], path: &str, text: &str) -> Vec<String> {
    check_with(&tree(folder, dependencies, path, text), &[])
}

#[test]
fn a_package_may_not_depend_on_one_above_it() {
    let found = findings("format-spec", &["chunker", "blake3"], "format-spec/src/lib.rs", "");

    assert_eq!(found, ["format-spec/Cargo.toml: must not depend on `chunker`"]);
}

#[test]
fn a_package_without_a_rule_is_reported() {
    assert_eq!(findings("extra", &[], "extra/src/lib.rs", ""), ["extra: no rule says what it may import"]);
}

#[test]
fn a_crate_is_named_only_where_it_belongs() {
    let text = "use crate::index::sled;\nlet db = fjall::Database::open();";

    assert!(findings("repo-server", &["fjall"], "repo-server/src/index/fjall.rs", text).is_empty());
    let found = findings("repo-server", &["fjall"], "repo-server/src/pack/mod.rs", text);
    assert_eq!(found, ["repo-server/src/pack/mod.rs: names `fjall`: engines stay behind the index trait"]);
}

#[test]
fn a_crate_may_not_even_stand_in_another_manifest() {
    let found = findings("chunker", &["zstd"], "chunker/src/lib.rs", "");

    assert_eq!(found, ["chunker/Cargo.toml: names `zstd`: every stored byte is made in format-spec"]);
}

#[test]
fn groups_of_use_lines_are_taken_apart() {
    let text = "//! Doc.\npub(crate) use std::{\n    io::{self, Read},\n    fs::File,\n};\n";

    let found = findings("format-spec", &[], "format-spec/src/a.rs", text);

    assert!(matches!(found.as_slice(), [one] if one.contains("`std::fs`")), "{found:?}");
    let found = paths("use a::{b, c::{d, e as f}};");
    assert!(
        ["a::b", "a::c::d", "a::c::e"].iter().all(|path| found.iter().any(|one| one == path)),
        "{found:?}"
    );
}

#[test]
fn comments_and_modules_of_the_same_name_are_no_use() {
    let text = "//! `fjall::Database` is elsewhere.\nmod sled;\nuse self::sled::Rows; // sled::Db\n";

    assert!(findings("repo-server", &["fjall", "sled"], "repo-server/src/a.rs", text).is_empty());
}

#[test]
fn nothing_in_the_server_calls_its_interface() {
    let text = "use crate::http::Token;";

    assert!(findings("repo-server", &[], "repo-server/src/http/auth.rs", text).is_empty());
    assert_eq!(findings("repo-server", &[], "repo-server/src/pack/mod.rs", text).len(), 1);
}

#[test]
fn an_exception_excuses_its_place_and_must_be_needed() {
    const PACK: &[Exception] = &[Exception { place: "repo-server/src/pack", what: "fjall", why: "a reason" }];
    let tree = |path| tree("repo-server", &["fjall"], path, "use fjall::Database;");

    assert!(check_with(&tree("repo-server/src/pack/mod.rs"), PACK).is_empty());
    let found = check_with(&tree("repo-server/src/index/mod.rs"), PACK);
    assert_eq!(found, ["repo-server/src/pack: nothing needs the exception for `fjall` (a reason)"]);
    assert_eq!(check_with(&tree("repo-server/src/packs.rs"), PACK).len(), 2);
}

#[test]
fn every_exception_has_a_reason() {
    assert!(EXCEPTIONS.iter().all(|exception| exception.why.len() > 10));
}

#[test]
fn a_room_that_looks_at_a_site_by_path_is_reported() {
    let text =
        "fn look(site: &Path) -> bool {\n    std::fs::metadata(site.join(\"keyring/repository\")).is_ok()\n}";
    let look = |path: &str| findings("repo-server", &[], path, text);

    assert!(look("repo-server/src/site/open.rs").is_empty());
    for room in ["rebuild/folder.rs", "gc/delete.rs", "checkpoint.rs"] {
        let found = look(&format!("repo-server/src/{room}"));
        assert!(matches!(found.as_slice(), [one] if one.contains("names `std::fs`")), "{found:?}");
    }
}
