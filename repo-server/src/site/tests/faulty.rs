//! The site that fails on purpose does so as told, once, and leaves what it says.

use std::sync::Arc;

use bytes::Bytes;

use super::super::faulty::{Fault, FaultKind, FaultySite, Refusal};
use super::super::{Op, Prefix, Put, Site, SiteError, StoreSite};
use super::name;

const CONTENT: Bytes = Bytes::from_static(b"content");

fn faulty(op: Option<Op>, after: usize, kind: FaultKind) -> FaultySite {
    let site = FaultySite::new(Arc::new(StoreSite::memory()));
    site.arm(Fault { op, after, kind });
    site
}

#[tokio::test]
async fn a_refused_put_stores_nothing_and_a_retry_succeeds() {
    let object = name("heads/a");
    for (refusal, expected) in
        [(Refusal::Unavailable, "later"), (Refusal::Full, "full"), (Refusal::Fatal, "fatal")]
    {
        let site = faulty(Some(Op::Put), 0, FaultKind::Refuse(refusal));

        let error = site.put_new(&object, CONTENT).await.unwrap_err();

        let class = if error.is_fatal() {
            "fatal"
        } else if error.is_full() {
            "full"
        } else {
            "later"
        };
        assert_eq!(class, expected);
        assert!(matches!(site.get(&object).await, Err(SiteError::NotFound { .. })));
        assert_eq!(site.put_new(&object, CONTENT).await.unwrap(), Put::Stored);
        assert_eq!(site.fired().len(), 1);
    }
}

#[tokio::test]
async fn a_lost_answer_leaves_the_effect_and_a_retry_finds_it() {
    let object = name("heads/a");
    let site = faulty(Some(Op::Put), 0, FaultKind::LoseAnswer);

    let error = site.put_new(&object, CONTENT).await.unwrap_err();

    assert!(matches!(error, SiteError::Unavailable { op: Op::Put, .. }), "{error:?}");
    assert_eq!(site.get(&object).await.unwrap(), CONTENT);
    assert_eq!(site.put_new(&object, CONTENT).await.unwrap(), Put::AlreadyThere);
}

#[tokio::test]
async fn faults_wait_for_their_operation_and_their_turn() {
    let object = name("heads/a");
    let site = faulty(Some(Op::Get), 1, FaultKind::Refuse(Refusal::Unavailable));
    site.arm(Fault { op: Some(Op::Get), after: 2, kind: FaultKind::LoseAnswer });

    site.put_new(&object, CONTENT).await.unwrap();
    let outcomes =
        [site.get(&object).await.is_ok(), site.get(&object).await.is_ok(), site.get(&object).await.is_ok()];

    assert_eq!(outcomes, [true, false, false]);
    assert!(site.get(&object).await.is_ok());
    assert_eq!(site.calls(), [Op::Put, Op::Get, Op::Get, Op::Get, Op::Get]);
}

#[tokio::test]
async fn a_stopped_site_answers_nothing_until_it_heals() {
    let (first, second) = (name("heads/a"), name("heads/b"));
    for (kind, stored) in [(FaultKind::StopBefore, 1), (FaultKind::StopAfter, 2)] {
        let site = faulty(None, 1, kind);
        site.put_new(&first, CONTENT).await.unwrap();

        site.put_new(&second, CONTENT).await.unwrap_err();
        site.len(&first).await.unwrap_err();
        site.list(&Prefix::everything()).await.unwrap_err();
        site.get_ranges(&first, &[]).await.unwrap_err();
        site.delete(&first).await.unwrap_err();
        site.heal();

        assert_eq!(site.list(&Prefix::everything()).await.unwrap().len(), stored, "{kind:?}");
    }
}
