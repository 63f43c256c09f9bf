//! The rooms of each crate: which module imports which, circles, and the order of floors.
//!
//! The modules of one parent, each with all modules inside it, form no circle: at the top these are the rooms
//! of the crate, further down the corners of a room. A child may use the words of its parent.
//!
//! Arrows are read from paths in the source (`crate::`, `super::`, `self::`, children by name). A path
//! through a re-export leads to the module that defines the name, so that a `pub use` in a `mod.rs`
//! ties nothing together. Modules below `#[cfg(test)]` are not looked at.

use std::collections::{BTreeMap, BTreeSet};

use crate::layers::paths;
use crate::tree::{File, Tree};

use circles::Arrows;

mod circles;

/// Folder of a crate, and its rooms from the top floor to the ground. Rooms of one line share a floor.
/// A room imports only from floors below its own.
type Floors = (&'static str, &'static [&'static str]);

const FLOORS: &[Floors] = &[
    (
        "repo-server",
        &[
            "main",
            "cli",
            "http background rebuild",
            "gc audit forget",
            "start verify stats freshness tls",
            "checkpoint snapshot notify",
            "operation",
            "server",
            "session",
            "pack",
            "defects",
            "catalog",
            "health access",
            "lease store",
            "site_lock space config keys",
            "settings error",
            "rows",
            "index",
            "site rules",
            "durable clock time sort sync log service",
        ],
    ),
    (
        "node-client",
        &[
            "main fuzz",
            "commands",
            "enrol jobs",
            "bar cli show",
            "push restore",
            "list",
            "api config globs named signals state",
            "error identity output size",
            "beneath cancel clock credentials durable leftover log priority progress rate span summary twin pace",
        ],
    ),
    (
        "tools/admin",
        &[
            "main",
            "commands",
            "freshness status verify",
            "alarms audit chunk forget gc last pack protect rebuild node sessions snapshot stats token",
            "ask missing",
            "cli named show",
            "error",
        ],
    ),
];

/// Modules of a crate that stand in circles, as long as these are being taken apart.
const IN_CIRCLES: &[(&str, usize)] = &[];

/// One line for each crate, for people: rooms, floors and circles.
pub(crate) fn summary(tree: &Tree) -> Vec<String> {
    tree.packages.iter().map(|package| Rooms::read(tree, &package.folder).line()).collect()
}

/// Circles of modules, and imports from a floor above, one line each.
pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let rooms = tree.packages.iter().map(|package| Rooms::read(tree, &package.folder));
    rooms.flat_map(|rooms| rooms.findings(IN_CIRCLES, FLOORS)).collect()
}

/// The arrows between the modules of one crate.
#[derive(Debug)]
struct Rooms {
    folder: String,
    /// Arrows between the children of each module, by the name of that module.
    levels: BTreeMap<String, Arrows>,
    /// Pairs of modules, importing and imported, neither of which contains the other.
    imports: BTreeSet<(String, String)>,
}

impl Rooms {
    fn read(tree: &Tree, folder: &str) -> Self {
        let source = format!("{folder}/src");
        let modules = Modules::of(tree.sources(&source), &source);
        let mut levels: BTreeMap<String, Arrows> = BTreeMap::from([(String::new(), Arrows::new())]);
        for name in modules.by_name.keys().filter(|name| !name.is_empty()) {
            levels.entry(parent(name)).or_default().entry(name.clone()).or_default();
        }
        let imports = modules.imports();
        for (from, to) in &imports {
            let (level, from, to) = siblings(from, to);
            levels.entry(level).or_default().entry(from).or_default().insert(to);
        }
        Self { folder: folder.to_owned(), levels, imports }
    }

    fn line(&self) -> String {
        let circles: usize = self.levels.values().map(|arrows| circles::of(arrows).len()).sum();
        let top = self.levels.get("");
        let (rooms, floors) = (top.map_or(0, BTreeMap::len), top.map_or(0, circles::floors));
        format!("{}: {rooms} rooms, {floors} floors, {circles} circles", self.folder)
    }

    fn findings(&self, in_circles: &[(&str, usize)], floors: &[Floors]) -> Vec<String> {
        let circles: Vec<Vec<String>> = self.levels.values().flat_map(circles::of).collect();
        let modules: usize = circles.iter().map(Vec::len).sum();
        let allowed = in_circles.iter().find(|(folder, _)| *folder == self.folder).map_or(0, |found| found.1);
        let mut findings = Vec::new();
        if modules > allowed {
            findings.extend(circles.iter().map(|circle| self.told(circle)));
        }
        if let Some((_, floors)) = floors.iter().find(|(folder, _)| *folder == self.folder) {
            findings.extend(self.upward(floors));
        }
        findings
    }

    /// A circle with the imports that tie it.
    fn told(&self, circle: &[String]) -> String {
        let mut text = format!("{}: a circle of {} modules:", self.folder, circle.len());
        for (from, to) in &self.imports {
            let (_, above, below) = siblings(from, to);
            if circle.contains(&above) && circle.contains(&below) {
                text += &format!("\n    {from} imports {to}");
            }
        }
        text
    }

    /// Imports from the same floor or from one above, and rooms on no floor.
    fn upward(&self, floors: &[&str]) -> Vec<String> {
        let floor_of = |room: &str| floors.iter().position(|floor| floor.split(' ').any(|one| one == room));
        let rooms = self.levels.get("").into_iter().flat_map(BTreeMap::keys);
        let homeless = rooms.filter(|room| floor_of(room).is_none());
        let mut findings: Vec<String> =
            homeless.map(|room| format!("{}: the room `{room}` stands on no floor", self.folder)).collect();
        for (from, to) in &self.imports {
            let (own, other) = (floor_of(room(from)), floor_of(room(to)));
            if room(from) != room(to) && other.is_some() && other <= own {
                findings.push(format!("{}: {from} imports {to}, which is not on a floor below", self.folder));
            }
        }
        findings
    }
}

/// One module that has a file of its own.
#[derive(Debug)]
struct Module {
    /// Paths that it names, re-exports left out.
    paths: Vec<String>,
    /// Names that it imports or re-exports, each with the path that it stands for.
    names: BTreeMap<String, String>,
}

/// The modules of one crate by their names, such as `gc::sweep`. The root has the name ``.
#[derive(Debug, Default)]
struct Modules {
    by_name: BTreeMap<String, Module>,
}

impl Modules {
    fn of<'a>(files: impl Iterator<Item = &'a File>, source: &str) -> Self {
        let files: Vec<(String, &File)> = files.map(|file| (module_name(&file.path, source), file)).collect();
        let only_in_tests: Vec<String> =
            files.iter().flat_map(|(name, file)| test_modules(name, file)).collect();
        let mut modules = Self::default();
        for (name, file) in files {
            let is_test = |test: &String| is_within(&name, test) || is_within(&file_stem(&file.path), test);
            if !only_in_tests.iter().any(is_test) {
                modules.by_name.insert(name, Module::read(file));
            }
        }
        modules
    }

    /// Pairs of modules, importing and imported, neither of which contains the other.
    fn imports(&self) -> BTreeSet<(String, String)> {
        let mut imports = BTreeSet::new();
        for (from, module) in &self.by_name {
            let targets = module.paths.iter().filter_map(|path| self.follow(from, path, 8));
            let strangers = targets.filter(|to| !is_within(from, to) && !is_within(to, from));
            imports.extend(strangers.map(|to| (from.clone(), to)));
        }
        imports
    }

    /// The module that defines the end of `path`, seen from the module `from`. `steps` bounds chains of
    /// re-exports: two modules can re-export from each other.
    fn follow(&self, from: &str, path: &str, steps: u8) -> Option<String> {
        let mut parts: Vec<&str> = path.split("::").filter(|part| !part.is_empty()).collect();
        let mut at = match *parts.first()? {
            "crate" => String::new(),
            "super" => parent(from),
            "self" => from.to_owned(),
            first if self.by_name.contains_key(&joined(from, first)) => {
                parts.insert(0, "self");
                from.to_owned()
            }
            _ => return None,
        };
        let mut rest = parts.iter().skip(1).peekable();
        while let Some(part) = rest.peek() {
            let below = joined(&at, part);
            if **part == "super" {
                at = parent(&at);
            } else if self.by_name.contains_key(&below) {
                at = below;
            } else {
                break;
            }
            rest.next();
        }
        let module = self.by_name.get(&at)?;
        let alias = rest.peek().and_then(|name| module.names.get(**name)).filter(|_| at != from);
        match alias {
            Some(alias) if steps > 0 => {
                let tail: Vec<&str> = rest.skip(1).copied().collect();
                let path = [alias.as_str()].into_iter().chain(tail).collect::<Vec<_>>().join("::");
                self.follow(&at, &path, steps - 1).or(Some(at))
            }
            _ => Some(at),
        }
    }
}

impl Module {
    fn read(file: &File) -> Self {
        let text = without_tests(&file.text);
        let (exported, own): (Vec<&str>, Vec<&str>) = text.split_inclusive(';').partition(|statement| {
            statement.lines().any(|line| line.starts_with("pub") && line.contains(" use "))
        });
        let own = own.concat();
        let mut names = BTreeMap::new();
        for path in paths(&exported.concat()).into_iter().chain(paths(&own)) {
            if let Some((_, name)) = path.rsplit_once("::") {
                names.entry(name.to_owned()).or_insert(path);
            }
        }
        Self { paths: paths(&own), names }
    }
}

/// `gc::sweep` for `repo-server/src/gc/sweep.rs`.
fn module_name(path: &str, source: &str) -> String {
    let inside = path.strip_prefix(source).unwrap_or(path).trim_start_matches('/');
    let inside = inside.strip_suffix(".rs").unwrap_or(inside);
    let inside = inside.strip_suffix("/mod").unwrap_or(inside);
    if inside == "lib" { String::new() } else { inside.replace('/', "::") }
}

fn file_stem(path: &str) -> String {
    path.strip_suffix(".rs").unwrap_or(path).to_owned()
}

/// Names of the modules that `file` declares for tests, and their files where `#[path]` names one.
fn test_modules(name: &str, file: &File) -> Vec<String> {
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut found = Vec::new();
    let mut lines = file.text.lines().peekable();
    while let Some(line) = lines.next() {
        if !line.trim_start().starts_with("#[cfg(") || !line.contains("test") || line.contains("not(test") {
            continue;
        }
        while let Some(next) = lines.peek().map(|next| next.trim()) {
            if let Some(at) = next.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]")) {
                found.push(file_stem(&format!("{folder}/{at}")));
            } else if !next.starts_with('#') {
                let words: Vec<&str> = next.trim_end_matches(';').split(' ').collect();
                let declared = words.iter().position(|word| *word == "mod").and_then(|at| words.get(at + 1));
                found.extend(declared.map(|child| joined(name, child)));
                break;
            }
            lines.next();
        }
    }
    found
}

/// A source without the items below `#[cfg(test)]` that end at the left edge, and without comments.
fn without_tests(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(any(test") {
            let _ = lines.by_ref().find(|line| line.ends_with(';') || *line == "}");
            continue;
        }
        kept += line.split("//").next().unwrap_or_default();
        kept.push('\n');
    }
    kept
}

/// Two modules, neither within the other, as children of the innermost module that holds both.
fn siblings(from: &str, to: &str) -> (String, String, String) {
    let (from, to): (Vec<&str>, Vec<&str>) = (from.split("::").collect(), to.split("::").collect());
    let shared = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
    let first = |parts: &[&str], length: usize| parts.get(..length).unwrap_or(parts).join("::");
    (first(&from, shared), first(&from, shared + 1), first(&to, shared + 1))
}

fn room(module: &str) -> &str {
    module.split("::").next().unwrap_or(module)
}

/// The root is within nothing, and everything is within it.
fn is_within(name: &str, place: &str) -> bool {
    place.is_empty()
        || name
            .strip_prefix(place)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::") || rest.starts_with('/'))
}

fn joined(module: &str, child: &str) -> String {
    if module.is_empty() { child.to_owned() } else { format!("{module}::{child}") }
}

fn parent(module: &str) -> String {
    module.rsplit_once("::").map_or(String::new(), |(parent, _)| parent.to_owned())
}

#[cfg(test)]
#[path = "rooms/tests.rs"]
mod tests;
