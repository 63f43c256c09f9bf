//! The whole path in one command, as the first thing that anyone tries.

use std::path::Path;
use std::process::Command;

use tests::binaries::program;
use tests::client::{Done, run_to_end};
use tests::compare::assert_same;
use tests::corpus;
use tests::seed::Random;
use tests::server::Server;
use tests::world::Folder;

fn quickstart(folder: &Folder, arguments: &[&Path]) -> Done {
    let mut command = Command::new(program("astacus-quickstart"));
    command.env_clear().env("NO_COLOR", "1").env("HOME", folder.dir("home")).current_dir(folder.dir("here"));
    command.args(arguments);
    run_to_end(command)
}

/// C4: a tour ends well, says what it did, and leaves the folder that it was shown as it was.
#[test]
fn a_tour_ends_well_and_leaves_the_source_as_it_was() {
    let folder = Folder::new();
    let (root, copy) = (folder.path("source"), folder.path("copy"));
    corpus::mixed(&root, &mut Random::printed());
    corpus::copy(&root, &copy);

    let done = quickstart(&folder, &[&root]).exits(0);

    for word in ["files", "sent", "stored", "MB/s", "astacus-client"] {
        assert!(done.stdout.contains(word), "no `{word}` in:\n{}", done.stdout);
    }
    assert_same(&copy, &root);
    // The result is a normal repository.
    drop(Server::start(&folder.path("here/astacus-data")));
}

#[test]
fn a_second_tour_goes_on_in_the_same_repository() {
    let folder = Folder::new();
    let (root, data) = (folder.path("source"), folder.path("data"));
    corpus::plain(&root, &mut Random::printed(), 5, 100_000);
    let arguments = [root.as_path(), Path::new("--data-dir"), &data];

    quickstart(&folder, &arguments).exits(0);
    quickstart(&folder, &arguments).exits(0);
}

#[test]
fn a_tour_of_nothing_or_into_something_else_is_refused() {
    let folder = Folder::new();
    let root = folder.path("source");
    corpus::plain(&root, &mut Random::printed(), 2, 100);
    corpus::copy(&root, &folder.path("copy"));

    quickstart(&folder, &[]).exits(2);
    quickstart(&folder, &[&folder.path("nowhere")]).exits(10);
    quickstart(&folder, &[&root, Path::new("--data-dir"), &root]).exits(2);

    assert_same(&folder.path("copy"), &root);
}
