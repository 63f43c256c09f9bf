//! Allowed imports between crates, and crates that only one place may name.
//!
//! Packages are compared with [`IMPORTS`], paths in the source with [`OWNED`]. An exception has a
//! reason, and one that nothing needs any more is reported as well.

use crate::tree::{Package, Tree, is_below};

/// Folder of a package, and the packages of ours that it may depend on.
const IMPORTS: &[(&str, &str)] = &[
    ("format-spec", ""),
    ("chunker", "format_spec"),
    ("node-client", "format_spec chunker"),
    ("repo-server", "format_spec"),
    ("tools/admin", "format_spec node_client"),
    ("tools/quickstart", "format_spec node_client repo_server"),
    ("tools/xtask", ""),
    ("tests", "format_spec chunker node_client repo_server"),
    ("benches", "format_spec chunker node_client repo_server tests"),
];

const OURS: &str = "format_spec chunker node_client repo_server admin quickstart xtask tests benches";

/// Paths; where the rule holds (empty: everywhere); the only places there that may name them; why.
type Owned = (&'static str, &'static str, &'static str, &'static str);

#[rustfmt::skip]
const OWNED: &[Owned] = &[
    ("blake3 zstd aes_gcm aws_lc_rs argon2", "", "format-spec", "every stored byte is made in format-spec"),
    ("fastcdc", "", "chunker", "cut points are format"),
    ("fjall sled", "", "repo-server/src/index", "engines stay behind the index trait"),
    ("object_store", "", "repo-server/src/site", "stores stay behind the site trait"),
    ("std::fs rustix::fs tokio::fs", "repo-server/src", "repo-server/src/durable repo-server/src/site repo-server/src/index repo-server/src/start repo-server/src/keys repo-server/src/space.rs repo-server/src/site_lock.rs repo-server/src/sort.rs repo-server/src/config repo-server/src/config.rs repo-server/src/main.rs repo-server/src/tls repo-server/src/health/space/tests.rs repo-server/src/notify/tests.rs", "objects are reached through the site trait: only rooms of the data folder open files"),
    ("axum", "", "repo-server/src/http", "one HTTP server"),
    ("hyper hyper_util http_body_util", "", "repo-server/src/http node-client/src/api", "one HTTP server, one HTTP client"),
    ("std::fs std::net std::time tokio getrandom tracing", "format-spec/src", "", "format-spec is pure: bytes in, bytes out"),
    ("std::net tokio futures_util", "chunker/src", "", "the chunker cuts bytes and nothing else"),
    ("clap", "repo-server/src", "repo-server/src/main.rs repo-server/src/cli.rs", "the library of the server has no command line"),
    ("crate::http", "repo-server/src", "repo-server/src/http", "the interface calls the server, never the other way"),
    ("node_client::push node_client::restore node_client::state", "tools/admin", "", "admin work goes through the server"),
    ("anyhow", "", "node-client/src/main.rs repo-server/src/main.rs tools/admin/src/main.rs tools/quickstart/src/main.rs tools/xtask tests benches", "libraries have typed errors"),
];

/// A place that may name a path that another place owns.
struct Exception {
    place: &'static str,
    what: &'static str,
    why: &'static str,
}

const EXCEPTIONS: &[Exception] = &[];

/// Violations of the rules, one line each.
pub(crate) fn check(tree: &Tree) -> Vec<String> {
    check_with(tree, EXCEPTIONS)
}

fn check_with(tree: &Tree, exceptions: &[Exception]) -> Vec<String> {
    let mut findings: Vec<String> = tree.packages.iter().flat_map(check_imports).collect();
    let mut idle: Vec<&Exception> = exceptions.iter().collect();
    for trespass in tree.packages.iter().flat_map(|package| trespasses(tree, package)) {
        let excuses =
            |found: &Exception| found.what == trespass.what && is_below(&trespass.path, found.place);
        idle.retain(|found| !excuses(found));
        if !exceptions.iter().any(excuses) {
            findings.push(format!("{}: names `{}`: {}", trespass.path, trespass.what, trespass.why));
        }
    }
    let excess = |found: &Exception| {
        format!("{}: nothing needs the exception for `{}` ({})", found.place, found.what, found.why)
    };
    findings.extend(idle.into_iter().map(excess));
    findings
}

/// Packages of ours that a package must not depend on.
fn check_imports(package: &Package) -> Vec<String> {
    let folder = &package.folder;
    let Some((_, allowed)) = IMPORTS.iter().find(|(known, _)| known == folder) else {
        return vec![format!("{folder}: no rule says what it may import")];
    };
    let is_in = |list: &str, name: &String| list.split(' ').any(|one| one == name);
    let refused = package.dependencies.iter().filter(|name| is_in(OURS, name) && !is_in(allowed, name));
    refused.map(|name| format!("{folder}/Cargo.toml: must not depend on `{name}`")).collect()
}

/// Something named outside of its place.
struct Trespass {
    path: String,
    what: &'static str,
    why: &'static str,
}

/// Names that a package uses, in its manifest or its sources, although a rule reserves them.
fn trespasses(tree: &Tree, package: &Package) -> Vec<Trespass> {
    let folder = &package.folder;
    let in_manifest = OWNED.iter().filter(|(_, scope, only, _)| {
        scope.is_empty() && !only.split(' ').any(|place| is_below(place, folder) || is_below(folder, place))
    });
    let manifest = format!("{folder}/Cargo.toml");
    let mut found: Vec<Trespass> =
        in_manifest.flat_map(|rule| named(rule, &package.dependencies, &manifest)).collect();
    for file in tree.sources(folder) {
        let paths = reachable(package, paths(&file.text));
        let rules = OWNED.iter().filter(|(_, scope, only, _)| {
            let holds = scope.is_empty() || is_below(&file.path, scope);
            holds && !only.split(' ').any(|place| is_below(&file.path, place))
        });
        found.extend(rules.flat_map(|rule| named(rule, &paths, &file.path)));
    }
    found
}

/// Only what starts with a crate that the package can name: the rest are modules, or words in texts.
fn reachable(package: &Package, mut paths: Vec<String>) -> Vec<String> {
    paths.retain(|path| {
        let top = path.split("::").next().unwrap_or(path);
        ["std", "crate"].contains(&top) || package.dependencies.iter().any(|name| name == top)
    });
    paths
}

fn named((what, _, _, why): &Owned, paths: &[String], place: &str) -> Vec<Trespass> {
    let has = |path: &String, what: &str| {
        path.strip_prefix(what).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    let named = what.split(' ').filter(|what| paths.iter().any(|path| has(path, what)));
    named.map(|what| Trespass { path: place.to_owned(), what, why }).collect()
}

/// Every path in Rust code, with the groups of `use` lines taken apart.
pub(crate) fn paths(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let mut paths = Vec::new();
    for statement in lines.join("\n").split(';') {
        let words = statement.split(|symbol: char| !(symbol.is_alphanumeric() || "_:".contains(symbol)));
        paths.extend(words.filter(|word| word.contains("::")).map(str::to_owned));
        if let Some((_, used)) = statement.rsplit_once("use ") {
            expand("", used, &mut paths);
        }
    }
    paths
}

/// `a::{b, c::{d}}` as `a::b` and `a::c::d`.
fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let Some((head, group)) = tree.split_once('{') else {
        return paths.push(prefix.to_owned() + tree.split(" as ").next().unwrap_or_default().trim());
    };
    let group = group.rsplit_once('}').map_or(group, |(group, _)| group);
    let prefix = prefix.to_owned() + head.trim();
    let mut depth = 0_u32;
    let parts = group.split(|symbol: char| {
        match symbol {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        symbol == ',' && depth == 0
    });
    parts.filter(|part| !part.trim().is_empty()).for_each(|part| expand(&prefix, part, paths));
}

#[cfg(test)]
#[path = "layers/tests.rs"]
mod tests;
