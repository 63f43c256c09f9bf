//! Which series of a node `latest` is looked for in.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use format_spec::snapshot::STREAM_PREFIX;
use format_spec::wire::{NodeOrigin, SnapshotInfo};
use format_spec::{EntryPath, NodeName, SeriesId};

use super::filter::Filter;
use crate::error::ClientError;
use crate::summary::folders;

/// A series as it is named on a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeriesChoice {
    /// By one of its folders, an absolute path; or by its stream, as `stream:NAME`.
    Folder(String),
    /// By the name that its pushes gave.
    Name(String),
}

impl FromStr for SeriesChoice {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.strip_prefix('/') {
            Some(_) if text.len() > 1 => Self::Folder(text.trim_end_matches('/').to_owned()),
            Some(_) => Self::Folder(text.to_owned()),
            None if text.starts_with(STREAM_PREFIX) => Self::Folder(text.to_owned()),
            None => Self::Name(text.to_owned()),
        })
    }
}

impl fmt::Display for SeriesChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(text) | Self::Name(text) => f.write_str(text),
        }
    }
}

impl SeriesChoice {
    fn fits(&self, origin: &NodeOrigin) -> bool {
        match self {
            Self::Name(name) => origin.series.as_ref().is_some_and(|series| series.as_str() == name),
            Self::Folder(folder) => origin.roots.contains(folder),
        }
    }

    /// True if it names all folders of the series.
    fn is_all_of(&self, origin: &NodeOrigin) -> bool {
        self.fits(origin) && (matches!(self, Self::Name(_)) || origin.folders == 1)
    }
}

/// Those of `snapshots`, all of `node`, among which `latest` is the newest: the snapshots of one series. Either `choice`
/// says which, or there is only one that holds something which `filter` could choose.
///
/// # Errors
/// [`ClientError::NotFound`] if `choice` fits none; [`ClientError::Usage`] if several are left. Both list what there is.
pub(super) fn only<'a>(
    snapshots: Vec<&'a SnapshotInfo>,
    node: &NodeName,
    choice: Option<&SeriesChoice>,
    filter: &Filter,
) -> Result<Vec<&'a SnapshotInfo>, ClientError> {
    let mut series: BTreeMap<Option<SeriesId>, Vec<&SnapshotInfo>> = BTreeMap::new();
    for snapshot in &snapshots {
        series.entry(snapshot.series).or_default().push(snapshot);
    }
    // A deleted snapshot is chosen only if there is no other.
    let is_listed = |snapshots: &Vec<&SnapshotInfo>| snapshots.iter().any(|info| info.going_until.is_none());
    if choice.is_none() && series.values().any(is_listed) {
        series.retain(|_, snapshots| is_listed(snapshots));
    }
    let all = names(series.values());
    match choice {
        Some(choice) => {
            let fits = |is: &dyn Fn(&NodeOrigin) -> bool, of: &Vec<&SnapshotInfo>| {
                of.first().is_some_and(|info| info.origins.iter().any(is))
            };
            series.retain(|_, of| fits(&|origin| choice.fits(origin), of));
            if series.values().any(|of| fits(&|origin| choice.is_all_of(origin), of)) {
                series.retain(|_, of| fits(&|origin| choice.is_all_of(origin), of));
            }
            if series.is_empty() {
                let what = format!("node `{node}` has no snapshot of series `{choice}`; series: {all}");
                return Err(ClientError::NotFound(what));
            }
        }
        None if series.len() > 1 => {
            let holds = |of: &Vec<&SnapshotInfo>| of.first().is_some_and(|info| may_hold(info, filter));
            if series.values().any(holds) {
                series.retain(|_, of| holds(of));
            }
        }
        None => {}
    }
    if series.len() > 1 {
        return Err(ClientError::Usage(format!(
            "`latest` is ambiguous, node `{node}` has several series: choose one with --series NAME or --series /FOLDER, or with an absolute --path; series: {}",
            names(series.values())
        )));
    }
    Ok(series.into_values().next().unwrap_or_default())
}

/// True if a path that the filter matches could be in a folder of the snapshot.
fn may_hold(info: &SnapshotInfo, filter: &Filter) -> bool {
    let in_root = |root: &String| {
        let name = root.strip_prefix(STREAM_PREFIX).or_else(|| root.strip_prefix('/'));
        let root = name.and_then(|root| EntryPath::new(root.as_bytes().to_vec()).ok());
        root.is_none_or(|root| filter.may_reach_into(&root))
    };
    let in_origin = |origin: &NodeOrigin| {
        let is_more = u32::try_from(origin.roots.len()).is_ok_and(|named| named < origin.folders);
        is_more || origin.roots.iter().any(in_root)
    };
    info.origins.is_empty() || info.origins.iter().any(in_origin)
}

/// The series, each as it is shown in lists, with the time of its newest snapshot.
fn names<'a>(series: impl Iterator<Item = &'a Vec<&'a SnapshotInfo>>) -> String {
    let name = |of: &Vec<&SnapshotInfo>| {
        let newest = of.iter().max_by_key(|info| (info.number, info.id))?;
        Some(format!("{} ({})", folders(&newest.origins), newest.created))
    };
    series.filter_map(name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use format_spec::SnapshotId;

    use super::*;
    use crate::summary::plain;

    fn node() -> NodeName {
        "n".parse().unwrap()
    }

    fn snapshot(at: u64, series: u8, name: Option<&str>, roots: &[&str]) -> SnapshotInfo {
        let folders = u32::try_from(roots.len()).unwrap();
        let roots = roots.iter().map(|root| (*root).to_owned()).collect();
        let origin =
            NodeOrigin { node: node(), series: name.map(|name| name.parse().unwrap()), roots, folders };
        SnapshotInfo {
            nodes: vec![node()],
            created: format!("at {at}"),
            series: Some(SeriesId::from_bytes([series; 32])),
            origins: vec![origin],
            number: at,
            ..plain(SnapshotId::new(at, [0; 10]))
        }
    }

    fn all() -> Vec<SnapshotInfo> {
        vec![
            snapshot(1, 1, None, &["/etc"]),
            snapshot(2, 2, None, &["/etc", "/var/db"]),
            snapshot(3, 3, Some("daily"), &["/srv"]),
            snapshot(4, 1, None, &["/etc"]),
        ]
    }

    fn chosen(all: &[SnapshotInfo], choice: Option<&str>, paths: &[&str]) -> Result<Vec<u64>, ClientError> {
        let choice: Option<SeriesChoice> = choice.map(|text| text.parse().unwrap());
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        let filter = Filter::new(&paths, &[]).unwrap();
        let only = only(all.iter().collect(), &node(), choice.as_ref(), &filter)?;
        Ok(only.iter().map(|info| info.number).collect())
    }

    #[test]
    fn one_series_needs_no_choice() {
        let all = [snapshot(1, 1, None, &["/etc"]), snapshot(2, 1, None, &["/etc"])];
        assert_eq!(chosen(&all, None, &[]).unwrap(), [1, 2]);

        let old = SnapshotInfo { series: None, origins: Vec::new(), ..snapshot(1, 1, None, &[]) };
        assert_eq!(chosen(&[old.clone(), old], None, &["x"]).unwrap(), [1, 1], "a server that does not say");
    }

    #[test]
    fn a_stream_is_chosen_by_its_prefix_and_name_and_never_for_a_folder() {
        let stream = SnapshotInfo { number: 9, ..snapshot(9, 9, None, &["stream:dump.sql"]) };
        let all = [snapshot(1, 1, None, &["/dump.sql"]), stream];

        assert_eq!(chosen(&all, Some("stream:dump.sql"), &[]).unwrap(), [9]);
        assert_eq!(chosen(&all, Some("/dump.sql"), &[]).unwrap(), [1]);
        let all = [snapshot(1, 1, None, &["/etc"]), all[1].clone()];
        assert_eq!(chosen(&all, None, &["/etc/hosts"]).unwrap(), [1]);
        assert_eq!(chosen(&all, None, &["/dump.sql"]).unwrap(), [9]);
    }

    #[test]
    fn several_series_are_listed_unless_something_decides() {
        let error = chosen(&all(), None, &["conf"]).unwrap_err();

        assert_eq!(error.exit_code(), 2);
        for part in ["/etc (at 4)", "/etc,/var/db (at 2)", "daily (at 3)", "--series"] {
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    fn a_name_a_folder_or_an_absolute_path_decides() {
        for (choice, paths, expected) in [
            (Some("daily"), &[][..], &[3][..]),
            (Some("/var/db"), &[], &[2]),
            // The series of this folder alone, and not the one that holds it among others.
            (Some("/etc/"), &[], &[1, 4]),
            (None, &["/srv/www/*"], &[3]),
            (None, &["/var"], &[2]),
            (None, &["/srv"], &[3]),
        ] {
            assert_eq!(chosen(&all(), choice, paths).unwrap(), expected, "{choice:?} {paths:?}");
        }
        assert_eq!(chosen(&all(), None, &["/etc/passwd"]).unwrap_err().exit_code(), 2, "two hold it");
    }

    #[test]
    fn a_series_that_is_not_there_is_answered_with_those_that_are() {
        for choice in ["weekly", "/home", "/srv/www"] {
            let error = chosen(&all(), Some(choice), &[]).unwrap_err();
            assert_eq!(error.exit_code(), 10);
            assert!(error.to_string().contains("daily (at 3)"), "{error}");
        }
    }

    #[test]
    fn a_forgotten_series_is_no_choice_while_there_is_another() {
        let forgotten = |at, series| SnapshotInfo {
            going_until: Some("soon".to_owned()),
            ..snapshot(at, series, None, &["/x"])
        };
        let one = [snapshot(1, 1, None, &["/etc"]), forgotten(2, 2)];

        assert_eq!(chosen(&one, None, &[]).unwrap(), [1]);
        assert_eq!(chosen(&one[1..], None, &[]).unwrap(), [2]);
        assert_eq!(chosen(&one, Some("/x"), &[]).unwrap(), [2]);
    }
}
