use super::*;
use crate::tree::Package;

/// A crate `house` of these files, the paths of which start below `house/src`.
fn house(files: &[(&str, &str)]) -> Tree {
    let files =
        files.iter().map(|(path, text)| File { path: format!("house/src/{path}"), text: (*text).to_owned() });
    let package = Package { folder: "house".to_owned(), dependencies: Vec::new() };
    Tree { packages: vec![package], files: files.collect() }
}

fn findings(files: &[(&str, &str)], floors: &[Floors]) -> Vec<String> {
    Rooms::read(&house(files), "house").findings(&[], floors)
}

#[test]
fn files_that_import_downwards_are_no_circle() {
    let files = [
        ("lib.rs", "pub mod roof;\npub mod ground;\n"),
        ("roof.rs", "use crate::ground::Stone;\n"),
        ("ground.rs", "pub struct Stone;\n"),
    ];

    assert_eq!(findings(&files, &[("house", &["roof", "ground"])]), [""; 0]);
    assert_eq!(summary(&house(&files)), ["house: 2 rooms, 2 floors, 0 circles"]);
}

#[test]
fn a_planted_circle_is_told_with_its_arrows() {
    let files = [
        ("lib.rs", "mod roof;\nmod ground;\n"),
        ("roof.rs", "use crate::ground::Stone;\n"),
        ("ground.rs", "fn sky() { super::roof::look() }\n"),
    ];

    let found = findings(&files, &[]);

    assert_eq!(found, ["house: a circle of 2 modules:\n    ground imports roof\n    roof imports ground"]);
    assert_eq!(summary(&house(&files)), ["house: 2 rooms, 1 floors, 1 circles"]);
}

#[test]
fn an_import_from_a_floor_above_is_told() {
    let files = [
        ("lib.rs", ""),
        ("roof.rs", ""),
        ("ground/mod.rs", ""),
        ("ground/stone.rs", "use crate::roof::Sky;\n"),
    ];

    let found = findings(&files, &[("house", &["roof", "ground"])]);

    assert_eq!(found, ["house: ground::stone imports roof, which is not on a floor below"]);
}

#[test]
fn a_room_on_no_floor_is_told() {
    let found = findings(&[("attic.rs", "")], &[("house", &["roof"])]);

    assert_eq!(found, ["house: the room `attic` stands on no floor"]);
}

#[test]
fn a_name_behind_a_re_export_belongs_to_the_file_that_defines_it() {
    let files = [
        ("room/mod.rs", "mod chair;\nmod table;\npub use chair::Chair;\nuse table::Table;\n"),
        ("room/chair.rs", "pub struct Chair;\n"),
        ("room/table.rs", "use super::Chair;\n"),
    ];

    assert_eq!(findings(&files, &[]), [""; 0]);
}

#[test]
fn a_parent_and_its_child_are_no_circle() {
    let files = [
        ("room/mod.rs", "mod chair;\nfn sit() { chair::sit() }\npub struct Leg;\n"),
        ("room/chair.rs", "use super::Leg;\n"),
    ];

    assert_eq!(findings(&files, &[]), [""; 0]);
}

#[test]
fn rooms_whose_corners_import_each_other_are_a_circle() {
    let files = [
        ("roof/mod.rs", ""),
        ("ground/mod.rs", ""),
        ("roof/tile.rs", "use crate::ground::stone::Stone;\n"),
        ("roof/beam.rs", ""),
        ("ground/stone.rs", ""),
        ("ground/sand.rs", "use crate::roof::beam::Beam;\n"),
    ];

    let found = findings(&files, &[]);

    assert_eq!(
        found,
        [
            "house: a circle of 2 modules:\n    ground::sand imports roof::beam\n    roof::tile imports ground::stone"
        ]
    );
}

#[test]
fn corners_of_one_room_are_no_circle_either() {
    let files =
        [("room/chair.rs", "use super::table::Leg;\n"), ("room/table.rs", "use super::chair::Seat;\n")];

    assert_eq!(findings(&files, &[]).len(), 1);
}

#[test]
fn modules_of_tests_are_not_looked_at() {
    let files = [
        (
            "roof.rs",
            "use crate::ground::Stone;\n#[cfg(test)]\n#[path = \"ground/roof_tests.rs\"]\nmod tests;\n",
        ),
        (
            "ground.rs",
            "pub struct Stone;\n#[cfg(test)]\nmod tests {\n    use crate::roof::Sky;\n}\n#[cfg(test)]\nmod kit;\n",
        ),
        ("ground/kit.rs", "use crate::roof::Sky;\nuse crate::ground::Stone;\n"),
        ("ground/roof_tests.rs", "use crate::roof::Sky;\nuse super::Stone;\n"),
    ];

    assert_eq!(findings(&files, &[]), [""; 0]);
}
