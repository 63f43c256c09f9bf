//! Requirements on every site, checked on a given one.
//!
//! The rules use objects of [`Area::Checks`](super::Area::Checks) only and remove them again, so a
//! site that is in use can be checked. Durability is the one promise that they cannot see.

use std::ops::Range;

use bytes::Bytes;
use futures_util::future::join_all;

use super::{ObjectName, Prefix, Put, Site, SiteError};

/// Length of the large object; not a round number on purpose.
const LARGE_BYTES: usize = 3 * 1024 * 1024 + 17;

/// How many puts race for one name.
const RACERS: u8 = 4;

/// A rule that a site breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the site breaks the rule `{rule}`: {found}")]
pub struct Violation {
    /// The rule, as a sentence.
    pub rule: Rule,
    /// Behaviour that was found instead.
    pub found: String,
}

/// Requirement on a site. `Display` gives the sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Whole objects.
    Reads,
    /// Ranges of objects.
    Ranges,
    /// Ranges that do not exist.
    OutOfRange,
    /// Names that do not exist.
    Absence,
    /// A second put of the same bytes.
    Repeat,
    /// A put of other bytes under a name that is taken.
    NoReplace,
    /// Puts of one name at the same time.
    Race,
    /// Deletion.
    Delete,
    /// Listings.
    List,
    /// Names at the edge of what is allowed.
    Names,
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Reads => "an object reads back whole, and has its length",
            Self::Ranges => "ranges come back in the order asked for, each whole",
            Self::OutOfRange => "a range that is empty or reaches beyond the object is refused",
            Self::Absence => "what was never stored is not found",
            Self::Repeat => "storing the same bytes again succeeds and says so",
            Self::NoReplace => "a name that is taken keeps its bytes",
            Self::Race => "of puts that race for a name exactly one stores it",
            Self::Delete => "what is deleted is gone, and deleting again succeeds",
            Self::List => "a listing has the objects below its prefix, sorted, and no others",
            Self::Names => "every allowed name works and is its own",
        })
    }
}

/// Checks all rules on `site`, with names that contain `tag`: letters and digits, at most 40.
///
/// Runs that may overlap on one site need different tags.
///
/// # Errors
/// The first [`Violation`]. An operation that fails when it should not is one too.
pub async fn check(site: &dyn Site, tag: &str) -> Result<(), Violation> {
    let outcome = Check { site, tag }.all().await;
    let left = Check { site, tag }.clean_up().await;
    outcome.and(left)
}

struct Check<'a> {
    site: &'a dyn Site,
    tag: &'a str,
}

impl Check<'_> {
    async fn all(&self) -> Result<(), Violation> {
        self.absence().await?;
        self.reads().await?;
        self.ranges().await?;
        self.out_of_range().await?;
        self.repeat().await?;
        self.no_replace().await?;
        self.race_of_same_bytes().await?;
        self.race_of_different_bytes().await?;
        self.delete().await?;
        self.list().await?;
        self.names().await
    }

    async fn reads(&self) -> Result<(), Violation> {
        let rule = Rule::Reads;
        for len in [0, 1, 4096, LARGE_BYTES] {
            let (name, content) = (self.name(&format!("reads-{len}")), pattern(len));
            let put = self.put(rule, &name, &content).await?;
            expect(rule, put == Put::Stored, || format!("a new object was {put:?}"))?;
            self.expect_content(rule, &name, &content).await?;
        }
        Ok(())
    }

    async fn ranges(&self) -> Result<(), Violation> {
        let rule = Rule::Ranges;
        let (name, content) = (self.name("ranges"), pattern(LARGE_BYTES));
        self.put(rule, &name, &content).await?;
        let end = len_of(&content);
        let (single, whole) = (7..8, 0..end);
        let requests: [&[Range<u64>]; 6] = [
            &[],
            std::slice::from_ref(&single),
            std::slice::from_ref(&whole),
            &[end - 1..end, 0..1, 1_000_000..2_000_000],
            &[10..20, 20..30, 30..40, 50..60],
            &[100..200, 150..250, 100..200, 0..end],
        ];
        for ranges in requests {
            let found = done(rule, self.site.get_ranges(&name, ranges).await)?;
            let wanted: Vec<Bytes> = ranges.iter().map(|range| slice(&content, range)).collect();
            expect(rule, found == wanted, || format!("other bytes for {ranges:?}"))?;
        }
        Ok(())
    }

    async fn out_of_range(&self) -> Result<(), Violation> {
        let rule = Rule::OutOfRange;
        let (name, content) = (self.name("out-of-range"), pattern(100));
        self.put(rule, &name, &content).await?;
        let reversed = Range { start: 20, end: 10 };
        for bad in [0..101, 99..101, 100..101, 5..5, 100..100, reversed, 0..u64::MAX, u64::MAX - 1..u64::MAX]
        {
            for ranges in [vec![bad.clone()], vec![0..10, bad.clone()]] {
                let outcome = self.site.get_ranges(&name, &ranges).await;
                let refused = matches!(&outcome, Err(SiteError::OutOfRange { len: 100, .. }));
                expect(rule, refused, || format!("{ranges:?} of 100 bytes gave {outcome:?}"))?;
            }
        }
        Ok(())
    }

    async fn absence(&self) -> Result<(), Violation> {
        let rule = Rule::Absence;
        let name = self.name("absent");
        self.expect_absent(rule, &name).await?;
        let outcome = self.site.get_ranges(&name, std::slice::from_ref(&(0..1))).await.map(drop);
        expect(rule, is_not_found(&outcome), || format!("ranges of it gave {outcome:?}"))?;
        let below = done(rule, self.site.list(&self.prefix("absent")).await)?;
        expect(rule, below.is_empty(), || format!("objects below it: {below:?}"))
    }

    async fn repeat(&self) -> Result<(), Violation> {
        let rule = Rule::Repeat;
        for len in [0, 1000, LARGE_BYTES] {
            let (name, content) = (self.name(&format!("repeat-{len}")), pattern(len));
            self.put(rule, &name, &content).await?;
            let put = self.put(rule, &name, &content).await?;
            expect(rule, put == Put::AlreadyThere, || format!("the second put said {put:?}"))?;
            self.expect_content(rule, &name, &content).await?;
        }
        Ok(())
    }

    async fn no_replace(&self) -> Result<(), Violation> {
        let rule = Rule::NoReplace;
        let (name, content) = (self.name("no-replace"), pattern(1000));
        self.put(rule, &name, &content).await?;
        let mut changed = content.to_vec();
        changed.reverse();
        for other in [changed.into(), pattern(999), pattern(1001), Bytes::new()] {
            let outcome = self.site.put_new(&name, other).await;
            let refused = matches!(outcome, Err(SiteError::Differs { .. }));
            expect(rule, refused, || format!("the second put gave {outcome:?}"))?;
            self.expect_content(rule, &name, &content).await?;
        }
        Ok(())
    }

    async fn race_of_same_bytes(&self) -> Result<(), Violation> {
        let (name, content) = (self.name("race-same"), pattern(200_000));
        let puts = join_all((0..RACERS).map(|_| self.site.put_new(&name, content.clone()))).await;
        let stored = puts.iter().filter(|put| matches!(put, Ok(Put::Stored))).count();
        let all_succeeded = puts.iter().all(Result::is_ok);
        expect(Rule::Race, all_succeeded && stored == 1, || format!("the same bytes: {puts:?}"))?;
        self.expect_content(Rule::Race, &name, &content).await
    }

    async fn race_of_different_bytes(&self) -> Result<(), Violation> {
        let name = self.name("race-different");
        let contents: Vec<Bytes> = (0..RACERS).map(|fill| vec![fill; 200_000].into()).collect();
        let puts = join_all(contents.iter().map(|content| self.site.put_new(&name, content.clone()))).await;
        let lost = puts.iter().filter(|put| matches!(put, Err(SiteError::Differs { .. }))).count();
        let winner = puts.iter().zip(&contents).find(|(put, _)| matches!(put, Ok(Put::Stored)));
        match winner {
            Some((_, content)) if lost + 1 == puts.len() => {
                self.expect_content(Rule::Race, &name, content).await
            }
            _ => expect(Rule::Race, false, || format!("different bytes: {puts:?}")),
        }
    }

    async fn delete(&self) -> Result<(), Violation> {
        let rule = Rule::Delete;
        let (name, kept) = (self.name("delete/gone"), self.name("delete/kept"));
        self.put(rule, &name, &pattern(10)).await?;
        self.put(rule, &kept, &pattern(20)).await?;
        for _ in 0..2 {
            done(rule, self.site.delete(&name).await)?;
            self.expect_absent(rule, &name).await?;
        }
        let listed = done(rule, self.site.list(&self.prefix("delete")).await)?;
        let names: Vec<&ObjectName> = listed.iter().map(|object| &object.name).collect();
        expect(rule, names == [&kept], || format!("a listing has {names:?}"))?;
        done(rule, self.site.delete(&self.name("delete-no-such-folder/x")).await)?;
        let put = self.put(rule, &name, &pattern(30)).await?;
        expect(rule, put == Put::Stored, || format!("the freed name was {put:?}"))?;
        self.expect_content(rule, &name, &pattern(30)).await
    }

    async fn list(&self) -> Result<(), Violation> {
        let rule = Rule::List;
        let objects = ["list/b", "list/a", "list/a.b", "list/ab", "list-more/a", "lis/a"];
        for (len, object) in objects.iter().enumerate() {
            self.put(rule, &self.name(object), &pattern(len)).await?;
        }
        let cases: [(&str, &[(&str, u64)]); 3] = [
            ("list", &[("list/a", 1), ("list/a.b", 2), ("list/ab", 3), ("list/b", 0)]),
            ("lis", &[("lis/a", 5)]),
            // Neither a part of a segment nor an object is a prefix.
            ("list/a", &[]),
        ];
        for (prefix, wanted) in cases {
            let found = self.listed(rule, &self.prefix(prefix)).await?;
            let wanted: Vec<_> = wanted.iter().map(|(name, len)| (self.name(name), *len)).collect();
            expect(rule, found == wanted, || format!("below `{prefix}`: {found:?}"))?;
        }
        let everything = self.listed(rule, &Prefix::everything()).await?;
        let all_there =
            objects.iter().all(|name| everything.iter().any(|(found, _)| *found == self.name(name)));
        expect(rule, all_there && everything.is_sorted(), || format!("everything: {everything:?}"))
    }

    async fn names(&self) -> Result<(), Violation> {
        let rule = Rule::Names;
        let longest = format!("names/{}", "n".repeat(200));
        let names = ["names/a", "names/A", "names/0.-_", "names/a-", "names/aBc", &longest];
        for (len, name) in names.iter().enumerate() {
            self.put(rule, &self.name(name), &pattern(len)).await?;
        }
        for (len, name) in names.iter().enumerate() {
            self.expect_content(rule, &self.name(name), &pattern(len)).await?;
        }
        let found = self.listed(rule, &self.prefix("names")).await?;
        expect(rule, found.len() == names.len(), || format!("a listing has {found:?}"))
    }

    /// Removes what the rules stored, and checks that this is what was left.
    async fn clean_up(&self) -> Result<(), Violation> {
        let rule = Rule::Delete;
        let prefix = Prefix::new(&self.path("")).expect("a tag of letters and digits makes a prefix");
        for object in done(rule, self.site.list(&prefix).await)? {
            done(rule, self.site.delete(&object.name).await)?;
        }
        let left = done(rule, self.site.list(&prefix).await)?;
        expect(rule, left.is_empty(), || format!("still listed: {left:?}"))
    }

    fn path(&self, last: &str) -> String {
        let separator = if last.is_empty() { "" } else { "/" };
        format!("checks/{}{separator}{last}", self.tag)
    }

    fn name(&self, last: &str) -> ObjectName {
        ObjectName::new(&self.path(last)).expect("a tag of letters and digits makes a name")
    }

    fn prefix(&self, last: &str) -> Prefix {
        Prefix::new(&self.path(last)).expect("a tag of letters and digits makes a prefix")
    }

    async fn put(&self, rule: Rule, name: &ObjectName, content: &Bytes) -> Result<Put, Violation> {
        done(rule, self.site.put_new(name, content.clone()).await)
    }

    async fn listed(&self, rule: Rule, prefix: &Prefix) -> Result<Vec<(ObjectName, u64)>, Violation> {
        let found = done(rule, self.site.list(prefix).await)?;
        Ok(found.into_iter().map(|object| (object.name, object.len)).collect())
    }

    async fn expect_content(&self, rule: Rule, name: &ObjectName, content: &Bytes) -> Result<(), Violation> {
        let len = done(rule, self.site.len(name).await)?;
        expect(rule, len == len_of(content), || format!("{len} bytes instead of {}", content.len()))?;
        let found = done(rule, self.site.get(name).await)?;
        expect(rule, found == content, || format!("other bytes under `{name}`"))
    }

    async fn expect_absent(&self, rule: Rule, name: &ObjectName) -> Result<(), Violation> {
        let (found, len) = (self.site.get(name).await.map(drop), self.site.len(name).await.map(drop));
        let absent = is_not_found(&found) && is_not_found(&len);
        expect(rule, absent, || format!("reading `{name}` gave {found:?}, its length {len:?}"))
    }
}

fn is_not_found(outcome: &Result<(), SiteError>) -> bool {
    matches!(outcome, Err(SiteError::NotFound { .. }))
}

fn expect(rule: Rule, kept: bool, found: impl FnOnce() -> String) -> Result<(), Violation> {
    if kept { Ok(()) } else { Err(Violation { rule, found: found() }) }
}

fn done<T>(rule: Rule, outcome: Result<T, SiteError>) -> Result<T, Violation> {
    outcome.map_err(|error| Violation { rule, found: format!("an operation failed: {error:?}") })
}

fn len_of(content: &Bytes) -> u64 {
    u64::try_from(content.len()).unwrap_or(u64::MAX)
}

fn slice(content: &Bytes, range: &Range<u64>) -> Bytes {
    let at = |position: u64| usize::try_from(position).unwrap_or(usize::MAX).min(content.len());
    content.slice(at(range.start)..at(range.end))
}

/// Bytes without two equal neighbourhoods.
fn pattern(len: usize) -> Bytes {
    let byte = |place: usize| (place.wrapping_mul(0x9e37_79b1) >> 13).to_le_bytes()[0];
    (0..len).map(byte).collect()
}
