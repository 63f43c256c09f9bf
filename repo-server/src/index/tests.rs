use std::fs;
use std::path::Path;

use super::*;

fn put_one(index: &dyn Index) {
    let mut batch = Batch::new();
    batch.put(Table::Meta, b"k".as_slice(), b"v".as_slice());
    index.commit(batch).unwrap();
}

fn has_it(index: &dyn Index) -> bool {
    index.get(Table::Meta, b"k").unwrap().is_some()
}

fn error_of(opened: Result<Arc<dyn Index>, OpenError>) -> OpenError {
    match opened {
        Ok(_) => panic!("the index was opened"),
        Err(error) => error,
    }
}

/// X6
#[test]
fn an_index_of_another_engine_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    put_one(&*open(Engine::Fjall, dir.path()).unwrap());
    let marker = dir.path().join("db/engine");
    let own = fs::read_to_string(&marker).unwrap();
    fs::write(&marker, own.replace("fjall", "sled")).unwrap();

    let refused = error_of(open(Engine::Fjall, dir.path()));

    let OpenError::OtherEngine { found: Engine::Sled, wanted: Engine::Fjall, .. } = &refused else {
        panic!("{refused:?}")
    };
    assert_eq!(refused.class(), format_spec::ErrorClass::Usage);
    fs::write(&marker, own).unwrap();
    assert!(has_it(&*open(Engine::Fjall, dir.path()).unwrap()), "the refusal changed something");
}

/// X6
#[cfg(feature = "sled")]
#[test]
fn fjall_and_sled_do_not_take_each_others_folders() {
    for (first, second) in [(Engine::Fjall, Engine::Sled), (Engine::Sled, Engine::Fjall)] {
        let dir = tempfile::tempdir().unwrap();
        put_one(&*open(first, dir.path()).unwrap());
        for opened in [open(second, dir.path()), open_existing(second, dir.path())] {
            let refused = error_of(opened);
            assert!(matches!(refused, OpenError::OtherEngine { found, .. } if found == first), "{refused:?}");
        }
        assert!(has_it(&*open_existing(first, dir.path()).unwrap()));
    }
}

#[cfg(not(feature = "sled"))]
#[test]
fn an_engine_that_is_not_in_the_build_is_refused_with_its_feature() {
    let dir = tempfile::tempdir().unwrap();

    let refused = error_of(open(Engine::Sled, dir.path()));

    assert!(matches!(refused, OpenError::NotBuilt { engine: Engine::Sled }), "{refused:?}");
    assert!(refused.to_string().contains("feature `sled`"), "{refused}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// X6: and what cannot be understood is not guessed at.
#[test]
fn a_damaged_marker_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    put_one(&*open(Engine::Fjall, dir.path()).unwrap());
    let marker = dir.path().join("db/engine");
    let own = fs::read(&marker).unwrap();
    let mut cases: Vec<_> = (0..own.len()).map(|len| own[..len].to_vec()).collect();
    cases.extend([b"astacus index 1 fjall\n".to_vec(), b"astacus index 2 other\n".to_vec(), vec![0xff; 22]]);

    for case in cases {
        fs::write(&marker, &case).unwrap();
        let refused = error_of(open(Engine::Fjall, dir.path()));
        assert!(matches!(refused, OpenError::Marker { .. }), "{case:?}: {refused:?}");
    }
    fs::remove_file(&marker).unwrap();
    assert!(matches!(error_of(open(Engine::Fjall, dir.path())), OpenError::Marker { .. }));
    fs::write(&marker, own).unwrap();
    assert!(has_it(&*open(Engine::Fjall, dir.path()).unwrap()), "a refusal changed something");
}

/// X6
#[test]
fn an_index_is_open_once() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(Engine::Fjall, dir.path()).unwrap();

    let refused = error_of(open(Engine::Fjall, dir.path()));

    assert!(matches!(refused, OpenError::InUse { .. }), "{refused:?}");
    put_one(&*index);
    drop(index);
    assert!(has_it(&*open(Engine::Fjall, dir.path()).unwrap()));
}

#[test]
fn a_lost_index_is_not_replaced_by_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    let absent = dir.path().join("absent");

    assert!(matches!(error_of(open_existing(Engine::Fjall, &absent)), OpenError::Missing { .. }));
    assert!(matches!(error_of(open_existing(Engine::Fjall, dir.path())), OpenError::Missing { .. }));

    assert!(!absent.exists() && !dir.path().join("db").exists());
}

/// X1: whatever a creation left when it was cut short, the next start goes on.
#[test]
fn a_creation_that_was_cut_short_is_started_again() {
    let made = tempfile::tempdir().unwrap();
    drop(open(Engine::Fjall, made.path()).unwrap());
    let complete = made.path().join("db");
    for cut in ["", "data", "data/0.jnl", "data/version", "data/keyspaces", "data/keyspaces/1", "engine"] {
        let dir = tempfile::tempdir().unwrap();
        let unfinished = dir.path().join("db.new");
        copy_tree(&complete, &unfinished);
        remove(&unfinished.join(cut));

        let index = open(Engine::Fjall, dir.path()).unwrap();

        put_one(&*index);
        assert!(!unfinished.exists(), "without {cut:?}");
    }
}

#[test]
fn an_index_can_lie_behind_a_symlink() {
    let dir = tempfile::tempdir().unwrap();
    let (there, link) = (dir.path().join("there"), dir.path().join("link"));
    fs::create_dir(&there).unwrap();
    std::os::unix::fs::symlink(&there, &link).unwrap();

    put_one(&*open(Engine::Fjall, &link).unwrap());

    assert!(has_it(&*open_existing(Engine::Fjall, &there).unwrap()));
}

#[test]
fn engines_are_called_by_their_names() {
    for engine in Engine::ALL {
        assert_eq!(engine.to_string().parse(), Ok(engine));
    }
    assert_eq!("rocksdb".parse::<Engine>(), Err(UnknownEngine { name: "rocksdb".into() }));
    assert_eq!(Engine::default(), Engine::Fjall);
}

#[test]
fn only_a_failed_commit_is_fatal() {
    let key = vec![0x0a, 0xff];
    let refused = IndexError::Precondition { table: Table::Chunk, key };
    assert_eq!(refused.to_string(), "precondition on key 0aff of table `chunk` does not hold");
    assert!(!refused.is_fatal());
    assert!(!IndexError::Full { free_bytes: 1, reserve_bytes: 2 }.is_fatal());
    assert!(!IndexError::TooLarge { what: "key", len: 0, limit: 1 }.is_fatal());
    assert!(!IndexError::read(Table::Pack, "no").is_fatal());
    assert!(IndexError::commit("no").is_fatal());
}

/// Copies what a process that is killed now would leave behind.
pub(crate) fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn remove(path: &Path) {
    if path.is_dir() {
        fs::remove_dir_all(path).unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
}
