//! Both kinds of sites keep the contract, and the suite rejects those that do not.

use std::ops::Range;

use bytes::Bytes;

use super::super::conformance::{Rule, check};
use super::super::{Listed, ObjectName, Op, Prefix, Put, Site, SiteError, SiteFuture, StoreSite};

#[tokio::test]
async fn a_site_in_memory_keeps_the_contract() {
    check(&StoreSite::memory(), "memory").await.unwrap();
}

/// P5: a name keeps its bytes, also when several writers race for it.
#[tokio::test]
async fn a_site_in_a_folder_keeps_the_contract_and_is_left_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let site = StoreSite::folder(dir.path()).unwrap();

    for tag in ["first", "second", "first"] {
        check(&site, tag).await.unwrap();
    }

    assert_eq!(site.list(&Prefix::everything()).await.unwrap(), []);
}

/// A mistake that a site could make.
#[derive(Debug, Clone, Copy)]
enum Mistake {
    Replaces,
    Forgets,
    AlwaysSaysStored,
    IgnoresDifferences,
    ClipsRanges,
    SortsRanges,
    KeepsDeleted,
    FailsToDeleteWhatIsGone,
    ListsNothing,
    ListsBySpelling,
    ListsUnsorted,
    IgnoresCase,
}

#[derive(Debug)]
struct Mistaken {
    inner: StoreSite,
    mistake: Mistake,
}

impl Mistaken {
    async fn put(&self, name: &ObjectName, bytes: Bytes) -> Result<Put, SiteError> {
        let lower;
        let name = match self.mistake {
            Mistake::IgnoresCase => {
                lower = ObjectName::new(&name.as_str().to_lowercase()).unwrap();
                &lower
            }
            _ => name,
        };
        match self.mistake {
            Mistake::Forgets => return Ok(Put::Stored),
            Mistake::Replaces => self.inner.delete(name).await?,
            _ => {}
        }
        match (self.inner.put_new(name, bytes).await, self.mistake) {
            (Ok(_), Mistake::AlwaysSaysStored) => Ok(Put::Stored),
            (Err(SiteError::Differs { .. }), Mistake::IgnoresDifferences) => Ok(Put::AlreadyThere),
            (outcome, _) => outcome,
        }
    }

    async fn ranges(&self, name: &ObjectName, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, SiteError> {
        let mut ranges = ranges.to_vec();
        match self.mistake {
            Mistake::SortsRanges => ranges.sort_by_key(|range| range.start),
            Mistake::ClipsRanges => {
                let len = self.inner.len(name).await?;
                ranges = ranges.into_iter().map(|range| range.start.min(len)..range.end.min(len)).collect();
                ranges.retain(|range| !range.is_empty());
            }
            _ => {}
        }
        self.inner.get_ranges(name, &ranges).await
    }

    async fn list_some(&self, prefix: &Prefix) -> Result<Vec<Listed>, SiteError> {
        match self.mistake {
            Mistake::ListsNothing => Ok(Vec::new()),
            Mistake::ListsBySpelling => {
                let mut all = self.inner.list(&Prefix::everything()).await?;
                all.retain(|object| object.name.as_str().starts_with(&prefix.to_string()));
                Ok(all)
            }
            Mistake::ListsUnsorted => Ok(self.inner.list(prefix).await?.into_iter().rev().collect()),
            _ => self.inner.list(prefix).await,
        }
    }

    async fn remove(&self, name: &ObjectName) -> Result<(), SiteError> {
        match self.mistake {
            Mistake::KeepsDeleted => Ok(()),
            Mistake::FailsToDeleteWhatIsGone => {
                self.inner.len(name).await?;
                self.inner.delete(name).await
            }
            _ => self.inner.delete(name).await,
        }
    }
}

impl Site for Mistaken {
    fn put_new<'a>(&'a self, name: &'a ObjectName, bytes: Bytes) -> SiteFuture<'a, Put> {
        Box::pin(self.put(name, bytes))
    }

    fn get<'a>(&'a self, name: &'a ObjectName) -> SiteFuture<'a, Bytes> {
        self.inner.get(name)
    }

    fn get_ranges<'a>(
        &'a self,
        name: &'a ObjectName,
        ranges: &'a [Range<u64>],
    ) -> SiteFuture<'a, Vec<Bytes>> {
        Box::pin(self.ranges(name, ranges))
    }

    fn len<'a>(&'a self, name: &'a ObjectName) -> SiteFuture<'a, u64> {
        self.inner.len(name)
    }

    fn list<'a>(&'a self, prefix: &'a Prefix) -> SiteFuture<'a, Vec<Listed>> {
        Box::pin(self.list_some(prefix))
    }

    fn delete<'a>(&'a self, name: &'a ObjectName) -> SiteFuture<'a, ()> {
        Box::pin(self.remove(name))
    }
}

#[tokio::test]
async fn the_suite_rejects_every_mistaken_site() {
    for (mistake, rule) in [
        (Mistake::Replaces, Rule::Repeat),
        (Mistake::Forgets, Rule::Reads),
        (Mistake::AlwaysSaysStored, Rule::Repeat),
        (Mistake::IgnoresDifferences, Rule::NoReplace),
        (Mistake::ClipsRanges, Rule::OutOfRange),
        (Mistake::SortsRanges, Rule::Ranges),
        (Mistake::KeepsDeleted, Rule::Delete),
        (Mistake::FailsToDeleteWhatIsGone, Rule::Delete),
        (Mistake::ListsNothing, Rule::Delete),
        (Mistake::ListsBySpelling, Rule::List),
        (Mistake::ListsUnsorted, Rule::List),
        (Mistake::IgnoresCase, Rule::Names),
    ] {
        let site = Mistaken { inner: StoreSite::memory(), mistake };

        let violation = check(&site, "mistaken").await.expect_err("the suite bites");

        assert_eq!(violation.rule, rule, "{mistake:?}: {violation}");
    }
}

#[tokio::test]
async fn an_operation_that_fails_is_a_violation() {
    let site = super::super::faulty::FaultySite::new(std::sync::Arc::new(StoreSite::memory()));
    for op in [Op::Put, Op::Get, Op::GetRanges, Op::Len, Op::List, Op::Delete] {
        let kind = super::super::faulty::FaultKind::Refuse(super::super::faulty::Refusal::Unavailable);
        site.arm(super::super::faulty::Fault { op: Some(op), after: 1, kind });

        check(&site, "failing").await.expect_err("the suite bites");
    }
    check(&site, "failing").await.unwrap();
}
