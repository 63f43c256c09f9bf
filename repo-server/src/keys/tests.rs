//! Slots in data folders of this machine, and the keyring on a disk that forgets.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use format_spec::descriptor::Descriptor;
use format_spec::key::{MasterKey, RecoveryKey};
use format_spec::keyring::{KeyCommand, Keyring, Slot, Stretch};
use format_spec::paper::PaperError;
use format_spec::wire::ChunkerSpec;
use format_spec::{ErrorClass, RepositoryId, SlotName};

use super::command::{self, CommandError};
use super::*;
use crate::durable::RealDisk;
use crate::durable::sim::{SimDisk, SimFault, Survivors};
use crate::testing::ManualClock;

const WORDS: &str = "correct horse battery\n";

/// A test of an error.
type IsExpected = fn(&CommandError) -> bool;

/// A data folder with a key and a descriptor, and a folder beside it for other files.
struct Folder {
    scratch: tempfile::TempDir,
    clock: ManualClock,
}

/// Bytes that differ from call to call.
fn fill(bytes: &mut [u8]) {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    bytes.fill(NEXT.fetch_add(1, Ordering::Relaxed));
}

fn master() -> MasterKey {
    MasterKey::from_bytes([7; 32])
}

fn descriptor() -> Descriptor {
    Descriptor::new(RepositoryId::from_bytes([1; 16]), &master(), ChunkerSpec::Fixed { len: 4096 })
}

fn slot(name: &str) -> SlotName {
    name.parse().unwrap()
}

impl Folder {
    fn new() -> Self {
        let folder = Self { scratch: tempfile::tempdir().unwrap(), clock: ManualClock::default() };
        fs::create_dir(folder.dir()).unwrap();
        fs::write(folder.dir().join("repository.json"), descriptor().encode()).unwrap();
        folder.secret("data/master.key", &master().to_file_text());
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn dir(&self) -> PathBuf {
        self.path("data")
    }

    fn file(&self) -> PathBuf {
        self.dir().join(MASTER)
    }

    fn secret(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn place(&self) -> Place<'_> {
        Place { disk: &RealDisk, dir: self.dir(), site: None, clock: &self.clock, random: fill }
    }

    fn paper(&self, name: &str) -> Given {
        Given { paper: Some(PaperSource::File(self.path(name))), ..Given::default() }
    }

    fn words(&self, text: &str) -> Given {
        Given { passphrase_file: Some(self.secret("words", text)), ..Given::default() }
    }

    async fn add_passphrase(&self) {
        let file = self.secret("new-words", WORDS);
        let new = NewSlot::Passphrase { file, stretch: Stretch::WEAKEST };
        add(&self.place(), &Given::default(), slot("people"), &new).await.unwrap();
    }

    async fn add_command(&self, arguments: &[&str]) -> Result<Added, KeyError> {
        let new = NewSlot::Command(shell(arguments));
        add(&self.place(), &Given::default(), slot("kms"), &new).await
    }

    async fn start(&self, passphrase_file: Option<&Path>) -> Result<(), KeyError> {
        let opened = open_unattended(&self.dir(), &descriptor(), passphrase_file).await?;
        assert!(descriptor().fits(&opened));
        Ok(())
    }
}

fn shell(arguments: &[&str]) -> KeyCommand {
    let arguments = [&["-c"], arguments].concat().iter().map(ToString::to_string).collect();
    KeyCommand { program: "/bin/sh".into(), arguments, time_limit_s: 30 }
}

/// K1, K3: the sheet of a lost key makes the same key again.
#[tokio::test]
async fn a_lost_master_key_comes_back_from_its_sheet() {
    let folder = Folder::new();
    export(&folder.place(), &Given::default(), &Destination::File(folder.path("sheet"))).await.unwrap();
    assert_eq!(fs::metadata(folder.path("sheet")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(folder.path("sheet")).unwrap().contains('\u{2588}'), "no QR code");
    let kept = fs::read(folder.file()).unwrap();
    fs::remove_file(folder.file()).unwrap();

    let checked = check(&folder.place(), &folder.paper("sheet")).await.unwrap();
    assert!(checked.is_sound() && !folder.file().exists());
    let restored = restore(&folder.place(), &folder.paper("sheet")).await.unwrap();
    let again = restore(&folder.place(), &folder.paper("sheet")).await.unwrap();

    assert_eq!((restored.was_there, again.was_there), (false, true));
    assert_eq!(fs::read(folder.file()).unwrap(), kept);
    assert_eq!(fs::metadata(folder.file()).unwrap().permissions().mode() & 0o777, 0o600);
    folder.start(None).await.unwrap();
}

/// K3: a restore replaces no other key, and takes none of another repository.
#[tokio::test]
async fn a_restore_replaces_no_other_key_and_takes_no_other_sheet() {
    let folder = Folder::new();
    export(&folder.place(), &Given::default(), &Destination::File(folder.path("sheet"))).await.unwrap();
    let other = MasterKey::from_bytes([8; 32]).to_file_text();
    folder.secret("data/master.key", &other);

    let refused = restore(&folder.place(), &folder.paper("sheet")).await.unwrap_err();

    assert!(matches!(refused, KeyError::Exists { .. }), "{refused}");
    assert_eq!(fs::read_to_string(folder.file()).unwrap(), other);
    fs::remove_file(folder.file()).unwrap();
    let foreign = Descriptor::new(
        RepositoryId::from_bytes([2; 16]),
        &MasterKey::from_bytes([8; 32]),
        descriptor().chunker,
    );
    fs::write(folder.dir().join("repository.json"), foreign.encode()).unwrap();
    let refused = restore(&folder.place(), &folder.paper("sheet")).await.unwrap_err();
    assert!(matches!(refused, KeyError::OtherSheet), "{refused}");
    assert!(!folder.file().exists());
}

/// K3: a mistake in a typed sheet is found, and its line named.
#[tokio::test]
async fn a_mistake_in_a_typed_sheet_is_named_by_its_line() {
    let folder = Folder::new();
    export(&folder.place(), &Given::default(), &Destination::File(folder.path("sheet"))).await.unwrap();
    let text = fs::read_to_string(folder.path("sheet")).unwrap();
    let at = text.find("\n4: ").unwrap() + 5;
    let wrong = if text[at..].starts_with('A') { "B" } else { "A" };
    folder.secret("typed", &format!("{}{wrong}{}", &text[..at], &text[at + 1..]));

    let refused = check(&folder.place(), &folder.paper("typed")).await.unwrap_err();

    assert!(matches!(refused, KeyError::Paper { source: PaperError::Check { line: 4 }, .. }), "{refused:?}");
    assert_eq!(refused.class(), ErrorClass::Usage);
}

/// K2: `master.key` can leave the disk once a passphrase opens the repository.
#[tokio::test]
async fn a_server_starts_from_a_passphrase_without_the_file() {
    let folder = Folder::new();
    folder.add_passphrase().await;

    let unproved = remove(&folder.place(), &Given::default(), &slot("file")).await.unwrap_err();
    assert!(matches!(unproved, KeyError::Last { .. }), "{unproved}");
    assert!(folder.file().exists());
    let removed = remove(&folder.place(), &folder.words(WORDS), &slot("file")).await.unwrap();

    assert_eq!(removed.opens, "people");
    assert!(!folder.file().exists());
    folder.start(Some(&folder.path("words"))).await.unwrap();
    let missing = folder.start(None).await.unwrap_err();
    assert!(matches!(missing, KeyError::Missing { .. }), "{missing}");
    folder.secret("words", "incorrect horse battery");
    let wrong = folder.start(Some(&folder.path("words"))).await.unwrap_err();
    assert_eq!(wrong.class(), ErrorClass::Denied, "{wrong}");
    let last = remove(&folder.place(), &folder.words(WORDS), &slot("people")).await.unwrap_err();
    assert!(matches!(last, KeyError::Last { .. }), "{last}");
    let restored = restore(&folder.place(), &folder.words(WORDS)).await.unwrap();
    assert!(!restored.was_there);
    folder.start(None).await.unwrap();
}

/// K2: the key of a slot on paper opens the repository as long as the slot is there, and no server starts from it.
#[tokio::test]
async fn a_recovery_slot_opens_with_its_sheet_until_it_is_removed() {
    let folder = Folder::new();
    let new = NewSlot::Recovery(Destination::File(folder.path("sheet")));
    add(&folder.place(), &Given::default(), slot("safe"), &new).await.unwrap();
    let is_last = remove(&folder.place(), &folder.paper("sheet"), &slot("file")).await.unwrap_err();
    assert!(matches!(is_last, KeyError::Last { .. }), "{is_last}");
    let kept = fs::read(folder.file()).unwrap();
    fs::remove_file(folder.file()).unwrap();

    let checked = check(&folder.place(), &folder.paper("sheet")).await.unwrap();
    assert_eq!(checked.checked[0].name, "sheet of slot `safe`");
    restore(&folder.place(), &folder.paper("sheet")).await.unwrap();
    assert_eq!(fs::read(folder.file()).unwrap(), kept);
    remove(&folder.place(), &Given::default(), &slot("safe")).await.unwrap();

    let refused = check(&folder.place(), &folder.paper("sheet")).await.unwrap_err();
    assert!(matches!(refused, KeyError::NoSlotOfSheet { .. }), "{refused}");
}

/// K2: a slot that does not open is not added.
#[tokio::test]
async fn a_program_must_print_the_key_of_this_repository() {
    let folder = Folder::new();
    let copy = folder.secret("copy", &master().to_file_text());
    let other = folder.secret("other", &MasterKey::from_bytes([8; 32]).to_file_text());
    let cat = |path: &Path| format!("exec cat '{}'", path.display());

    let foreign = folder.add_command(&[&cat(&other)]).await.unwrap_err();
    assert!(matches!(foreign, KeyError::OtherSlotKey { .. }), "{foreign}");
    let failures: [(&str, IsExpected); 3] = [
        ("exit 3", |error| matches!(error, CommandError::Failed { .. })),
        ("echo no key", |error| matches!(error, CommandError::NoKey { .. })),
        ("yes", |error| matches!(error, CommandError::NoKey { .. } | CommandError::Failed { .. })),
    ];
    for (script, is_expected) in failures {
        let refused = folder.add_command(&[script]).await.unwrap_err();
        let KeyError::Command { source, .. } = refused else { panic!("{script}: {refused}") };
        assert!(is_expected(&source), "{script}: {source}");
    }
    assert!(!folder.dir().join(KEYRING).exists());
    folder.add_command(&[&cat(&copy)]).await.unwrap();
    remove(&folder.place(), &Given::default(), &slot("file")).await.unwrap();

    folder.start(None).await.unwrap();
    fs::remove_file(&copy).unwrap();
    let refused = folder.start(None).await.unwrap_err();
    assert!(matches!(refused, KeyError::Command { .. }), "{refused}");
}

#[tokio::test]
async fn a_program_that_does_not_end_is_stopped() {
    let command = KeyCommand {
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), "read x </dev/zero".into()],
        time_limit_s: 1,
    };

    let stopped = command::run_until(&command, Duration::from_secs(1), async {}).await.unwrap_err();

    assert!(matches!(stopped, CommandError::TooSlow { .. }), "{stopped}");
}

#[tokio::test]
async fn a_program_is_named_by_an_absolute_path() {
    let folder = Folder::new();
    let new = NewSlot::Command(KeyCommand { program: "cat".into(), arguments: Vec::new(), time_limit_s: 1 });

    let refused = add(&folder.place(), &Given::default(), slot("kms"), &new).await.unwrap_err();

    assert!(matches!(refused, KeyError::RelativeProgram { .. }), "{refused}");
}

/// K2: a damaged keyring is refused, and stops no server whose file opens the repository.
#[tokio::test]
async fn every_damaged_byte_of_a_keyring_is_refused() {
    let folder = Folder::new();
    folder.add_passphrase().await;
    let path = folder.dir().join(KEYRING);
    let bytes = fs::read(&path).unwrap();
    folder.start(None).await.unwrap();

    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        fs::write(&path, &changed).unwrap();
        let refused = list(&folder.place()).await.unwrap_err();
        let is_told = matches!(refused, KeyError::Keyring { .. } | KeyError::OtherKeyring { .. });
        assert!(is_told, "byte {at}: {refused}");
        folder.start(None).await.unwrap();
    }
    fs::remove_file(folder.file()).unwrap();
    for cut in [0, 1, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..cut]).unwrap();
        let refused = folder.start(Some(&folder.path("new-words"))).await.unwrap_err();
        assert_eq!(refused.class(), ErrorClass::Integrity, "{cut}: {refused}");
    }
    fs::write(&path, bytes).unwrap();
    folder.start(Some(&folder.path("new-words"))).await.unwrap();
}

#[tokio::test]
async fn a_file_of_secrets_that_others_may_read_is_refused() {
    let folder = Folder::new();
    folder.add_passphrase().await;
    for path in [folder.file(), folder.dir().join(KEYRING), folder.path("words")] {
        let given = folder.words(WORDS);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let refused = match path == folder.file() {
            true => {
                export(&folder.place(), &Given::default(), &Destination::File(folder.path("sheet"))).await
            }
            false => check(&folder.place(), &given).await.map(|_| ()),
        };
        let refused = refused.unwrap_err();
        assert!(matches!(refused, KeyError::OpenToOthers { .. }), "{}: {refused}", path.display());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// A sheet that could not be written leaves no slot behind, and never replaces a file.
#[tokio::test]
async fn a_slot_is_not_added_if_its_sheet_cannot_be_written() {
    let folder = Folder::new();
    folder.secret("sheet", "something else");

    let new = NewSlot::Recovery(Destination::File(folder.path("sheet")));
    let refused = add(&folder.place(), &Given::default(), slot("safe"), &new).await.unwrap_err();

    assert_eq!(refused.class(), ErrorClass::Conflict, "{refused}");
    assert!(!folder.dir().join(KEYRING).exists());
    assert_eq!(fs::read_to_string(folder.path("sheet")).unwrap(), "something else");
}

#[tokio::test]
async fn commands_that_change_keys_take_turns() {
    let folder = Folder::new();
    let _turn = files::lock(&folder.dir()).unwrap();

    let refused = restore(&folder.place(), &Given::default()).await.unwrap_err();

    assert!(matches!(refused, KeyError::Busy { .. }), "{refused}");
}

/// K4: wherever a change of the keyring is cut, the old or the new one opens, whole.
#[test]
fn a_keyring_is_the_old_or_the_new_one_wherever_its_change_is_cut() {
    let dir = Path::new("/data");
    let ring = |names: &[&str]| {
        let mut ring = Keyring::new(&descriptor());
        for name in names {
            let key = RecoveryKey::from_bytes([9; 32]);
            let opener = ring.wrap_with_recovery(&slot(name), &master(), &key, [3; 32]);
            ring.add(Slot { name: slot(name), created_ms: 0, opener }).unwrap();
        }
        ring
    };
    let (old, new) = (ring(&["one"]), ring(&["one", "two"]));
    let setup = || {
        let disk = SimDisk::with_folder(dir);
        disk.limit_writes(256);
        files::write_keyring(&disk, dir, &old).unwrap();
        disk
    };
    let whole = setup();
    let before = whole.steps().len();
    files::write_keyring(&whole, dir, &new).unwrap();
    let steps = whole.steps().len() - before;
    assert!(steps > 4, "the change no longer reaches write, sync, rename and the folder's sync");

    let losses = [Survivors::Synced, Survivors::Names, Survivors::Everything];
    let losses: Vec<Survivors> = losses.into_iter().chain((0..50).map(Survivors::Seeded)).collect();
    for at in 0..=steps {
        for &survivors in &losses {
            let disk = setup();
            disk.arm(at, SimFault::Stop);
            let is_done = files::write_keyring(&disk, dir, &new).is_ok();
            disk.cut_power(survivors);

            let found = Keyring::decode(&disk.peek(&dir.join(KEYRING)).unwrap()).unwrap();

            assert!(found == new || (found == old && !is_done), "step {at}, {survivors:?}");
            assert!(found.open_with_recovery(&found.slots()[0], &RecoveryKey::from_bytes([9; 32])).is_ok());
        }
    }
}
