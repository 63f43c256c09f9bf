//! Labels and the note that a push gives its snapshot, for people and for choosing among snapshots.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use minicbor::{Decode, Encode};

use crate::id::{LabelKey, ParseIdError, text};

/// Labels of one snapshot, at most.
pub const MAX_LABELS: usize = 16;
/// Longest value of a label, in bytes.
pub const MAX_LABEL_VALUE_LEN: usize = 256;
/// Longest note, in bytes.
pub const MAX_NOTE_LEN: usize = 1024;

text!(
    /// The value of a label: at most [`MAX_LABEL_VALUE_LEN`] bytes, no control characters; may be empty.
    LabelValue,
    "value of a label",
    |text: &str| is_line(text, 0..=MAX_LABEL_VALUE_LEN),
    "at most 256 bytes without control characters"
);
text!(
    /// The note of a snapshot: 1 to [`MAX_NOTE_LEN`] bytes, no control characters.
    Note,
    "note",
    |text: &str| is_line(text, 1..=MAX_NOTE_LEN),
    "1 to 1024 bytes without control characters"
);

/// True if a text has one of these lengths, in bytes, and no control characters.
fn is_line(text: &str, lens: RangeInclusive<usize>) -> bool {
    lens.contains(&text.len()) && !text.chars().any(char::is_control)
}

/// One label: a key and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The key: a snapshot has it once.
    pub key: LabelKey,
    /// The value.
    pub value: LabelValue,
}

impl FromStr for Label {
    type Err = ParseIdError;

    /// Parses `KEY=VALUE`.
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let Some((key, value)) = text.split_once('=') else {
            return Err(ParseIdError { text: text.to_owned(), kind: "label", expected: "KEY=VALUE" });
        };
        Ok(Self { key: key.parse()?, value: value.parse()? })
    }
}

/// Labels of a snapshot by key, at most [`MAX_LABELS`]. CBOR: a map, keys in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, serde::Serialize, serde::Deserialize)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct Labels(#[n(0)] BTreeMap<LabelKey, LabelValue>);

impl Labels {
    /// The labels in `list`; a later one of the same key replaces an earlier one.
    ///
    /// # Errors
    /// [`ParseIdError`] if there are more than [`MAX_LABELS`] keys.
    pub fn new(list: impl IntoIterator<Item = Label>) -> Result<Self, ParseIdError> {
        let labels: BTreeMap<_, _> = list.into_iter().map(|label| (label.key, label.value)).collect();
        if labels.len() > MAX_LABELS {
            let text = format!("{} labels", labels.len());
            return Err(ParseIdError { text, kind: "set of labels", expected: "at most 16 keys" });
        }
        Ok(Self(labels))
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The labels in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&LabelKey, &LabelValue)> {
        self.0.iter()
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, (key, value)) in self.0.iter().enumerate() {
            write!(f, "{}{key}={value}", if nth == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Labels {
    fn decode(d: &mut minicbor::Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        let mut labels = BTreeMap::new();
        for label in d.map_iter_with(ctx)? {
            let (key, value) = label?;
            labels.insert(key, value);
            if labels.len() > MAX_LABELS {
                return Err(minicbor::decode::Error::message("more labels than a snapshot may have"));
            }
        }
        Ok(Self(labels))
    }
}

/// Labels and note that a push gives its snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode, serde::Serialize, serde::Deserialize)]
#[cbor(array)]
pub struct About {
    /// Its labels.
    #[n(0)]
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// A note for people.
    #[n(1)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Note>,
}

impl About {
    /// The same, or nothing if it says nothing.
    pub fn if_any(self) -> Option<Self> {
        (self != Self::default()).then_some(self)
    }

    /// True if the snapshot has a label for each of `choices`.
    pub fn fits(&self, choices: &[LabelChoice]) -> bool {
        choices.iter().all(|choice| {
            let found = self.labels.0.get(&choice.key);
            found.is_some_and(|found| choice.value.as_ref().is_none_or(|value| value == found))
        })
    }
}

/// A label that a snapshot must have to be chosen. Text: `KEY` or `KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LabelChoice {
    /// The key.
    pub key: LabelKey,
    /// The value; any if it is absent.
    pub value: Option<LabelValue>,
}

impl fmt::Display for LabelChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value}", self.key),
            None => write!(f, "{}", self.key),
        }
    }
}

impl FromStr for LabelChoice {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        Ok(match text.split_once('=') {
            Some((key, value)) => Self { key: key.parse()?, value: Some(value.parse()?) },
            None => Self { key: text.parse()?, value: None },
        })
    }
}

impl TryFrom<String> for LabelChoice {
    type Error = ParseIdError;

    fn try_from(text: String) -> Result<Self, ParseIdError> {
        text.parse()
    }
}

impl From<LabelChoice> for String {
    fn from(choice: LabelChoice) -> Self {
        choice.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cbor;

    fn about(labels: &[&str], note: Option<&str>) -> About {
        About {
            labels: Labels::new(labels.iter().map(|label| label.parse().unwrap())).unwrap(),
            note: note.map(|note| note.parse().unwrap()),
        }
    }

    #[test]
    fn labels_and_notes_read_back_from_cbor_and_from_json() {
        for about in [about(&["release=4.2", "empty="], Some("before the migration")), about(&[], None)] {
            let read: About = cbor::decode("labels", &cbor::encode(&about)).unwrap();
            let json = serde_json::to_string(&about).unwrap();

            assert_eq!((&read, &serde_json::from_str::<About>(&json).unwrap()), (&about, &about));
        }
        let json = serde_json::to_value(about(&["b=2", "a=1"], Some("x"))).unwrap();
        assert_eq!(json, serde_json::json!({"labels": {"a": "1", "b": "2"}, "note": "x"}));
    }

    /// P4: no list and no text is longer than the format allows.
    #[test]
    fn labels_and_notes_over_their_limits_are_refused() {
        let long = |len: usize| "x".repeat(len);
        assert!(format!("k={}", long(MAX_LABEL_VALUE_LEN)).parse::<Label>().is_ok());
        assert!(long(MAX_NOTE_LEN).parse::<Note>().is_ok());
        for bad in ["k".to_owned(), "=v".to_owned(), "k=a\nb".to_owned(), format!("k={}", long(257))] {
            assert!(bad.parse::<Label>().is_err(), "{bad}");
        }
        for bad in [String::new(), "a\u{1b}b".to_owned(), long(MAX_NOTE_LEN + 1)] {
            assert!(bad.parse::<Note>().is_err(), "{bad}");
        }
        let many = |n: usize| (0..n).map(|n| format!("k{n:02}=v").parse().unwrap()).collect::<Vec<Label>>();
        let full = Labels::new(many(MAX_LABELS)).unwrap();
        assert!(Labels::new(many(MAX_LABELS + 1)).is_err());
        let mut over = cbor::encode(&full);
        // A map of one more, whose key comes last.
        over[0] += 1;
        over.extend_from_slice(&cbor::encode(&"z".parse::<LabelKey>().unwrap()));
        over.extend_from_slice(&cbor::encode(&"v".parse::<LabelValue>().unwrap()));
        assert!(cbor::decode::<Labels>("labels", &cbor::encode(&full)).is_ok());
        assert!(cbor::decode::<Labels>("labels", &over).is_err());
    }

    #[test]
    fn a_choice_names_a_key_or_a_key_and_its_value() {
        let about = about(&["release=4.2", "env=prod"], None);
        for (choices, fits) in [
            (&[][..], true),
            (&["release"], true),
            (&["release=4.2", "env"], true),
            (&["release=4.3"], false),
            (&["release", "team"], false),
            (&["release="], false),
        ] {
            let choices: Vec<LabelChoice> = choices.iter().map(|choice| choice.parse().unwrap()).collect();
            assert_eq!(about.fits(&choices), fits, "{choices:?}");
        }
    }
}
