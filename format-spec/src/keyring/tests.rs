use super::*;
use crate::wire::ChunkerSpec;

const WORDS: &str = "correct horse battery";

fn master() -> MasterKey {
    MasterKey::from_bytes([7; 32])
}

fn descriptor() -> Descriptor {
    Descriptor::new(RepositoryId::from_bytes([1; 16]), &master(), ChunkerSpec::Fixed { len: 4096 })
}

fn name(text: &str) -> SlotName {
    text.parse().unwrap()
}

fn words() -> Passphrase {
    Passphrase::parse(WORDS).unwrap()
}

fn paper() -> RecoveryKey {
    RecoveryKey::from_bytes([9; 32])
}

fn command(time_limit_s: u64) -> Opener {
    Opener::Command(KeyCommand { program: "/bin/unwrap".into(), arguments: vec!["-q".into()], time_limit_s })
}

/// A keyring with a slot of each kind.
fn keyring() -> Keyring {
    let mut keyring = Keyring::new(&descriptor());
    let passphrase = keyring
        .wrap_with_passphrase(&name("people"), &master(), &words(), Stretch::WEAKEST, [2; 32])
        .unwrap();
    let recovery = keyring.wrap_with_recovery(&name("safe"), &master(), &paper(), [3; 32]);
    for (name, opener) in [("people", passphrase), ("safe", recovery), ("kms", command(30))] {
        keyring.add(Slot { name: name.parse().unwrap(), created_ms: 5, opener }).unwrap();
    }
    keyring
}

#[test]
fn a_slot_opens_with_its_secret_and_with_no_other() {
    let keyring = Keyring::decode(&keyring().encode()).unwrap();
    let [people, safe, kms] = keyring.slots() else { panic!("three slots") };
    let other = Passphrase::parse("correct horse batterie").unwrap();

    let by_words = keyring.open_with_passphrase(people, &words()).unwrap();
    let by_paper = keyring.open_with_recovery(safe, &paper()).unwrap();

    assert!(descriptor().fits(&by_words) && descriptor().fits(&by_paper));
    assert_eq!(keyring.open_with_passphrase(people, &other).unwrap_err(), WrongSecret);
    assert!(keyring.open_with_recovery(safe, &RecoveryKey::from_bytes([8; 32])).is_err());
    assert!(keyring.open_with_passphrase(safe, &words()).is_err());
    assert!(keyring.open_with_recovery(kms, &paper()).is_err());
}

/// Each field of a slot is bound to the wrapped key.
#[test]
fn a_slot_that_was_moved_or_changed_does_not_open() {
    let keyring = keyring();
    let slot = keyring.slots()[1].clone();
    let renamed = Slot { name: name("vault"), ..slot.clone() };
    let other = Descriptor { repository: RepositoryId::from_bytes([2; 16]), ..descriptor() };

    assert!(keyring.open_with_recovery(&slot, &paper()).is_ok());
    assert!(keyring.open_with_recovery(&renamed, &paper()).is_err());
    assert!(Keyring::new(&other).open_with_recovery(&slot, &paper()).is_err());
    let Opener::Passphrase { salt, wrapped, .. } = keyring.slots()[0].opener.clone() else { panic!() };
    let stretch = Stretch { passes: 3, ..Stretch::WEAKEST };
    let people = Slot { opener: Opener::Passphrase { stretch, salt, wrapped }, ..keyring.slots()[0].clone() };
    assert!(keyring.open_with_passphrase(&people, &words()).is_err());
}

#[test]
fn every_changed_missing_or_added_byte_of_a_keyring_is_found() {
    let bytes = keyring().encode();
    assert!(Keyring::decode(&bytes).is_ok());

    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            assert!(Keyring::decode(&changed).is_err(), "byte {at}, bit {bit}");
        }
        assert!(Keyring::decode(&bytes[..at]).is_err(), "cut after {at} bytes");
    }
    assert!(Keyring::decode(&[bytes.as_slice(), b"\n"].concat()).is_err());
    assert!(Keyring::decode(&[b' '; MAX_LEN + 1]).is_err());
}

#[test]
fn parameters_of_argon2_outside_of_the_limits_are_refused_before_they_are_used() {
    let strongest = Stretch::STRONGEST;
    for (stretch, parameter) in [
        (Stretch { memory_kib: u32::MAX, ..Stretch::DEFAULT }, "memory in KiB"),
        (Stretch { memory_kib: strongest.memory_kib + 1, ..Stretch::DEFAULT }, "memory in KiB"),
        (Stretch { memory_kib: Stretch::WEAKEST.memory_kib - 1, ..Stretch::DEFAULT }, "memory in KiB"),
        (Stretch { passes: 1, ..Stretch::DEFAULT }, "number of passes"),
        (Stretch { passes: strongest.passes + 1, ..Stretch::DEFAULT }, "number of passes"),
        (Stretch { lanes: 0, ..Stretch::DEFAULT }, "number of lanes"),
        (Stretch { lanes: strongest.lanes + 1, ..Stretch::DEFAULT }, "number of lanes"),
    ] {
        let mut hostile = keyring();
        let Opener::Passphrase { stretch: stored, .. } = &mut hostile.slots[0].opener else { panic!() };
        *stored = stretch;
        let made = keyring().wrap_with_passphrase(&name("n"), &master(), &words(), stretch, [0; 32]);

        for refused in [Keyring::decode(&hostile.encode()).map(|_| ()), made.map(|_| ())] {
            let found = matches!(&refused, Err(KeyringError::Stretch { parameter: found, .. }) if *found == parameter);
            assert!(found, "{stretch:?}: {refused:?}");
        }
        assert!(hostile.open_with_passphrase(&hostile.slots[0], &words()).is_err());
    }
    Stretch::DEFAULT.check().unwrap();
    Stretch::STRONGEST.check().unwrap();
}

#[test]
fn a_keyring_of_another_version_is_refused_by_its_version() {
    let error = Keyring::decode(br#"{"keyring": {"version": 2, "anything": 1}}"#).unwrap_err();

    assert_eq!(error, KeyringError::Version { found: 2 });
}

#[test]
fn names_are_unique_and_slots_are_limited() {
    let mut keyring = keyring();
    let slot = |name: &str| Slot { name: name.parse().unwrap(), created_ms: 0, opener: command(30) };

    assert!(matches!(keyring.add(slot("kms")), Err(KeyringError::Taken { .. })));
    for number in keyring.slots().len()..MAX_SLOTS {
        keyring.add(slot(&format!("slot-{number}"))).unwrap();
    }
    assert_eq!(keyring.add(slot("more")), Err(KeyringError::TooMany));
    assert!(keyring.encode().len() < MAX_LEN);
    assert!(Keyring::decode(&keyring.encode()).is_ok());

    keyring.slots[0] = slot("kms");
    assert!(matches!(Keyring::decode(&keyring.encode()), Err(KeyringError::Taken { .. })));
}

#[test]
fn a_time_limit_is_between_a_second_and_ten_minutes() {
    for (seconds, is_fine) in [(0, false), (1, true), (600, true), (601, false)] {
        let mut keyring = keyring();
        keyring.slots[2].opener = command(seconds);
        assert_eq!(Keyring::decode(&keyring.encode()).is_ok(), is_fine, "{seconds}");
    }
}

#[test]
fn a_passphrase_is_one_line_that_cannot_be_guessed() {
    let made = |text: &str| {
        let passphrase = Passphrase::parse(text)?;
        keyring()
            .wrap_with_passphrase(&name("n"), &master(), &passphrase, Stretch::WEAKEST, [0; 32])
            .map(|_| ())
    };

    assert_eq!(made("twelve chars\r\n"), Ok(()));
    assert_eq!(made("eleven char"), Err(KeyringError::ShortPassphrase));
    for text in ["", "\n", "two\nlines of it", &"x".repeat(1025)] {
        assert_eq!(made(text), Err(KeyringError::Passphrase), "{text:?}");
    }
}

#[test]
fn debug_prints_no_secret() {
    let printed = format!("{:?} {:?} {:?}", words(), master(), paper());

    assert_eq!(printed, "Passphrase(..) MasterKey(..) RecoveryKey(..)");
}
