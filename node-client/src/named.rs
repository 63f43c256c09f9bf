//! Snapshots as a command line names them: by an id, by how an id begins or ends, or as `latest`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use format_spec::snapshot::SnapshotState;
use format_spec::wire::SnapshotInfo;
use format_spec::{LabelChoice, SnapshotId};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::error::ClientError;

/// A snapshot as it is named on a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotChoice {
    /// The newest complete one that fits.
    Latest,
    /// This one.
    Id(SnapshotId),
    /// The only one whose id begins or ends so.
    Part(String),
}

impl FromStr for SnapshotChoice {
    type Err = format_spec::id::ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_part = |text: &str| {
            (LEAST_PART..36).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
        };
        match text.parse() {
            _ if text == "latest" => Ok(Self::Latest),
            Err(_) if is_part(text) => Ok(Self::Part(text.to_ascii_lowercase())),
            id => id.map(Self::Id),
        }
    }
}

/// Which snapshots `latest` may be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Among {
    /// Labels that it must have.
    pub labels: Vec<LabelChoice>,
    /// It was made at this time or before.
    pub before: Option<Moment>,
}

impl Among {
    /// Those of `all` that may be it.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], saying what none of them fits.
    pub(crate) fn choose(&self, mut all: Vec<SnapshotInfo>) -> Result<Vec<SnapshotInfo>, ClientError> {
        let is_some = !all.is_empty();
        all.retain(|info| info.about.fits(&self.labels));
        if all.is_empty() && is_some {
            let labels: Vec<String> = self.labels.iter().map(ToString::to_string).collect();
            return Err(ClientError::NotFound(format!("no snapshot has the label {}", labels.join(" and "))));
        }
        let Some(before) = self.before else { return Ok(all) };
        let oldest = all.iter().map(|info| info.created.clone()).min();
        all.retain(|info| before.is_not_before(&info.created));
        match oldest {
            Some(oldest) if all.is_empty() => Err(ClientError::NotFound(format!(
                "no snapshot was made at {before} or earlier: the oldest is of {oldest}"
            ))),
            _ => Ok(all),
        }
    }
}

/// A time as it is named on a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(Timestamp);

impl Moment {
    /// True if a time of the server is this one or earlier; false if it is not a time.
    fn is_not_before(self, created: &str) -> bool {
        created.parse::<Timestamp>().is_ok_and(|created| created <= self.0)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Text that is no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a time: expected a date or a time, such as 2026-11-30, 2026-11-30T02:00 or 2026-11-30T02:00:00Z"
)]
pub struct ParseMomentError(String);

impl FromStr for Moment {
    type Err = ParseMomentError;

    fn from_str(text: &str) -> Result<Self, ParseMomentError> {
        let in_utc =
            || text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(|time| time.timestamp());
        let time = text.parse::<Timestamp>().ok().or_else(in_utc);
        time.map(Self).ok_or_else(|| ParseMomentError(text.to_owned()))
    }
}

/// Hex digits that a part of an id has, at least.
const LEAST_PART: usize = 4;

/// The only one of `snapshots` whose id begins or ends with `part`.
///
/// # Errors
/// [`ClientError::NotFound`] if there is none; [`ClientError::Usage`], with their ids, if there are several.
pub fn by_part(snapshots: &[SnapshotInfo], part: &str) -> Result<SnapshotId, ClientError> {
    let fits = |info: &&SnapshotInfo| {
        let id = info.id.to_string();
        id.starts_with(part) || id.ends_with(part)
    };
    match snapshots.iter().filter(fits).collect::<Vec<_>>().as_slice() {
        [] => Err(ClientError::NotFound(format!("no snapshot has an id that begins or ends with `{part}`"))),
        [one] => Ok(one.id),
        several => {
            let some: Vec<String> = several.iter().take(5).map(|info| info.id.to_string()).collect();
            Err(ClientError::Usage(format!(
                "{} snapshots have ids that begin or end with `{part}`, such as {}",
                several.len(),
                some.join(", ")
            )))
        }
    }
}

/// Resolves `latest` where nothing chooses a node: the newest complete one of `snapshots`, if they are of one
/// series.
///
/// # Errors
/// [`ClientError::NotFound`] if there is none; [`ClientError::Usage`] if they are of several series.
pub fn latest_of_one_series(snapshots: &[SnapshotInfo]) -> Result<SnapshotId, ClientError> {
    let series: BTreeSet<_> =
        snapshots.iter().map(|info| (&info.cluster, &info.nodes, info.series)).collect();
    if series.len() > 1 {
        return Err(ClientError::Usage(format!(
            "`latest` is ambiguous between {} series: give the id of a snapshot; `astacus-admin last` lists the newest of each series",
            series.len()
        )));
    }
    let complete = snapshots.iter().filter(|info| info.state == SnapshotState::Complete);
    let newest = complete.max_by_key(|info| rank(info)).map(|info| info.id);
    newest.ok_or_else(|| ClientError::NotFound("no complete snapshot yet".to_owned()))
}

/// The greater, the sooner `latest` takes it: what was forgotten, is ahead of the server's clock, is known to be damaged or
/// holds much less than the one before stands back behind all others (G9), and a later commit comes before an older one.
pub(crate) fn rank(info: &SnapshotInfo) -> impl Ord + use<> {
    let is_sound = info.damaged.is_none();
    (
        info.going_until.is_none(),
        !info.ahead_of_clock,
        is_sound,
        info.suspect.is_none(),
        (info.number, info.id),
    )
}

#[cfg(test)]
mod tests {
    use format_spec::{About, Labels};

    use super::*;

    fn snapshot(at_ms: u64) -> SnapshotInfo {
        let text = r#"{"cluster":"c","nodes":["n"],"created":"2026-11-30T00:00:00Z","state":"complete","files":0,"bytes":0,"problems":0"#;
        let id = SnapshotId::new(at_ms, [u8::try_from(at_ms).unwrap(); 10]);
        serde_json::from_str(&format!(r#"{text},"id":"{id}"}}"#)).unwrap()
    }

    #[test]
    fn latest_is_the_newest_complete_one_of_one_series() {
        let mut all = vec![snapshot(1), snapshot(2), snapshot(3)];
        all[2].state = SnapshotState::Partial;

        assert_eq!(latest_of_one_series(&all).unwrap(), all[1].id);
        assert_eq!(latest_of_one_series(&all[2..]).unwrap_err().exit_code(), 10);
        assert_eq!(latest_of_one_series(&[]).unwrap_err().exit_code(), 10);
        all[1].cluster = "other".parse().unwrap();
        assert_eq!(latest_of_one_series(&all).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn labels_choose_among_snapshots_and_one_that_none_has_is_not_found() {
        let about = |label: &str| About {
            labels: Labels::new([label.parse().unwrap()]).unwrap(),
            ..About::default()
        };
        let all = vec![
            SnapshotInfo { about: about("release=4.1"), ..snapshot(1) },
            SnapshotInfo { about: about("release=4.2"), ..snapshot(2) },
            snapshot(3),
        ];
        let fitting =
            |label: &str| Among { labels: vec![label.parse().unwrap()], before: None }.choose(all.clone());

        assert_eq!(fitting("release").unwrap(), all[..2]);
        assert_eq!(fitting("release=4.1").unwrap(), all[..1]);
        assert_eq!(Among::default().choose(all.clone()).unwrap(), all);
        let error = fitting("team=db").unwrap_err();
        assert!(error.exit_code() == 10 && error.to_string().contains("team=db"), "{error}");
    }

    #[test]
    fn what_is_newer_than_a_time_is_not_chosen() {
        let all: Vec<SnapshotInfo> =
            ["2026-11-29T23:59:59.5Z", "2026-11-30T00:00:00Z", "2026-11-30T02:00:00.001Z"]
                .into_iter()
                .zip(1..)
                .map(|(created, n)| SnapshotInfo { created: created.to_owned(), ..snapshot(n) })
                .collect();
        let until = |time: &str| {
            Among { before: Some(time.parse().unwrap()), labels: Vec::new() }.choose(all.clone())
        };

        assert_eq!(until("2026-12-01").unwrap(), all);
        assert_eq!(until("2026-11-30T02:00").unwrap(), all[..2]);
        assert_eq!(until("2026-11-30").unwrap(), all[..2], "a date is its beginning");
        assert_eq!(until("2026-11-30T00:30:00+01:00").unwrap_err().exit_code(), 10);
        assert_eq!(until("2026-11-30T00:59:59.6+01:00").unwrap(), all[..1]);
        let error = until("2026-11-29").unwrap_err().to_string();
        assert!(error.contains("the oldest is of 2026-11-29T23:59:59.5Z"), "{error}");
        for none in ["", "yesterday", "2026-13-01", "26h", "2026-11-30T25:00"] {
            assert!(none.parse::<Moment>().is_err(), "{none}");
        }
    }

    #[test]
    fn a_part_of_an_id_stands_for_the_only_snapshot_that_it_fits() {
        let all = [snapshot(1), SnapshotInfo { id: SnapshotId::new(1, [7; 10]), ..snapshot(1) }];
        let (first, second) = (all[0].id.to_string(), all[1].id.to_string());

        assert_eq!(by_part(&all, &second[28..]).unwrap(), all[1].id, "how it ends");
        assert_eq!(by_part(&all[..1], &first[..8]).unwrap(), all[0].id, "how it begins");
        let several = by_part(&all, &first[..8]).unwrap_err();
        assert_eq!(several.exit_code(), 2);
        assert!(several.to_string().contains(&second), "{several}");
        assert_eq!(by_part(&all, "ffff").unwrap_err().exit_code(), 10);
        for (text, choice) in [("0000", true), ("000", false), ("xyz1", false), ("latest", false)] {
            let parsed = text.parse::<SnapshotChoice>();
            assert_eq!(matches!(parsed, Ok(SnapshotChoice::Part(_))), choice, "{text}");
        }
    }
}
