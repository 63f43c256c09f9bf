//! Where a site is, as operators write it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The place of a site. This build knows folders: `file:///path`, or a plain path.
///
/// Only this room looks behind it: everybody else opens the site, and reads and writes its objects by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteUrl(pub(super) Kind);

/// The kinds of sites, each with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A folder of this machine.
    Folder(PathBuf),
}

/// The text is the place of no site that this build can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a supported site: {why}", text.escape_debug())]
pub struct BadSiteUrl {
    text: String,
    why: &'static str,
}

impl SiteUrl {
    /// The site of a data folder for which no other was chosen.
    pub fn default_in(data_dir: &Path) -> Self {
        data_dir.join("site").into()
    }
}

impl From<PathBuf> for SiteUrl {
    fn from(folder: PathBuf) -> Self {
        Self(Kind::Folder(folder))
    }
}

impl FromStr for SiteUrl {
    type Err = BadSiteUrl;

    fn from_str(text: &str) -> Result<Self, BadSiteUrl> {
        let bad = |why| Err(BadSiteUrl { text: text.to_owned(), why });
        let Some((scheme, rest)) = text.split_once("://") else {
            return if text.is_empty() { bad("it is empty") } else { Ok(Path::new(text).to_owned().into()) };
        };
        match scheme {
            "file" if !rest.starts_with('/') => bad("write file:///path, with three slashes"),
            "file" if rest.contains('%') => bad("write the plain path instead of one with `%`"),
            "file" => Ok(Path::new(rest).to_owned().into()),
            _ => bad("only folders are supported, as file:///path or a plain path"),
        }
    }
}

impl fmt::Display for SiteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Kind::Folder(path) = &self.0;
        fmt::Display::fmt(&path.display(), f)
    }
}

impl<'de> serde::Deserialize<'de> for SiteUrl {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_taken_and_everything_else_is_refused_with_a_reason() {
        for (text, folder) in
            [("file:///srv/site", "/srv/site"), ("/srv/site", "/srv/site"), ("site", "site")]
        {
            assert_eq!(text.parse::<SiteUrl>().unwrap(), SiteUrl::from(PathBuf::from(folder)));
        }
        for (text, why) in [
            ("s3://bucket/x", "only folders are supported"),
            ("https://host/x", "only folders are supported"),
            ("file://host/x", "three slashes"),
            ("file:///a%20b", "plain path"),
            ("", "empty"),
        ] {
            let error = text.parse::<SiteUrl>().unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
