//! Notices: alarms on their way to people, by a command, a webhook, or both.
//!
//! Each channel has a loop of its own, which compares the active alarms with those that it has reported, and
//! reports the difference: an alarm once when it is raised, again after each `repeat_every` while it is
//! active and not acknowledged, and once when it is cleared. A delivered notice is a row in the index,
//! written after the delivery: an alarm that was raised before a crash is reported after it, and a notice
//! whose row a crash prevented is delivered twice. Requests never wait for notices.
//!
//! A failed delivery is retried after a pause that grows to an hour. While it fails, the alarm
//! `notify_failing` is active, which the other channel reports.

mod command;
mod webhook;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use format_spec::notice::{Event, Notice};
use format_spec::wire::{Alarm, Severity};
use serde::{Deserialize, Serialize};

use crate::error::{Chain, ServerError};
use crate::health::alarm::{self, AlarmCode};
use crate::index::{Batch, KeyRange, Table};
use crate::rows::Meta;
use crate::server::Server;
use crate::settings::{Choices, Notify};
use crate::time::{later, rfc3339};

/// Alarms are compared with what was told this often.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The pause after the first failure; each later one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);

/// A way to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    /// A program is run.
    Command,
    /// A body is posted.
    Webhook,
}

/// Why notice not delivered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Undelivered {
    /// The program could not be started or spoken to, or the address not be reached.
    #[error("{target} cannot be reached")]
    Io {
        target: String,
        #[source]
        source: std::io::Error,
    },
    /// It did not end in time.
    #[error("{target} took longer than {within:?} and was aborted")]
    TooLong { target: String, within: Duration },
    /// It ended, and said that it failed.
    #[error("{target} {what}")]
    Failed { target: String, what: String },
}

/// Tells people of alarms, for ever.
pub(crate) async fn tell(server: Arc<Server>) {
    tokio::join!(tell_by(Arc::clone(&server), Channel::Command), tell_by(server, Channel::Webhook));
}

async fn tell_by(server: Arc<Server>, channel: Channel) {
    let mut teller = Teller::new(channel);
    loop {
        if let Err(error) = teller.round(&server).await {
            tracing::warn!(channel = channel.name(), error = %Chain(&error), "notices could not be processed");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Channel {
    fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Webhook => "webhook",
        }
    }

    fn is_configured(self, notify: &Notify) -> bool {
        match self {
            Self::Command => notify.command.is_some(),
            Self::Webhook => notify.webhook.is_some(),
        }
    }

    fn prefix(self) -> Vec<u8> {
        Meta::Told.key(format!("{}/", self.name()).as_bytes())
    }

    async fn deliver(self, notify: &Notify, notice: &Notice, now_ms: u64) -> Result<(), Undelivered> {
        match (self, &notify.command, &notify.webhook) {
            (Self::Command, Some(command), _) => command::run(command, notify.within, notice).await,
            (Self::Webhook, _, Some(webhook)) => {
                webhook::post(webhook, notify.within, notice, now_ms / 1000).await
            }
            _ => Ok(()),
        }
    }
}

/// Code and subject of an alarm.
type Key = (String, Option<String>);

/// An alarm as it was last told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    code: String,
    subject: Option<String>,
    severity: Severity,
    message: String,
    since: String,
    told_ms: u64,
}

/// A notice of an alarm that is due.
#[derive(Debug, PartialEq, Eq)]
struct News {
    event: Event,
    told: Told,
}

/// The news about alarms that are up, given what was told.
fn news(up: &[Alarm], told: &BTreeMap<Key, Told>, repeat_every: Option<Duration>, now_ms: u64) -> Vec<News> {
    let mut news = Vec::new();
    for alarm in up.iter().filter(|alarm| alarm.acknowledged.is_none()) {
        let event = match told.get(&(alarm.code.clone(), alarm.subject.clone())) {
            None => Event::Raised,
            Some(told) if repeat_every.is_some_and(|every| now_ms >= later(told.told_ms, every)) => {
                Event::Repeated
            }
            Some(_) => continue,
        };
        let Alarm { code, severity, subject, message, since, .. } = alarm.clone();
        news.push(News { event, told: Told { code, subject, severity, message, since, told_ms: now_ms } });
    }
    let is_up = |key: &Key| up.iter().any(|alarm| alarm.code == key.0 && alarm.subject == key.1);
    let over = told.iter().filter(|(key, _)| !is_up(key));
    news.extend(over.map(|(_, told)| News { event: Event::Cleared, told: told.clone() }));
    news
}

/// Tells by one channel.
struct Teller {
    channel: Channel,
    /// Read from the index at first. On a full disk it knows more than that.
    told: Option<BTreeMap<Key, Told>>,
    /// The pause after the last failure, and when it is over by the monotonic clock.
    paused: Option<(Duration, Duration)>,
}

impl Teller {
    fn new(channel: Channel) -> Self {
        Self { channel, told: None, paused: None }
    }

    /// Tells what is new. Ends at the first notice that cannot be delivered.
    async fn round(&mut self, server: &Arc<Server>) -> Result<(), ServerError> {
        let choices = server.choices();
        if !self.channel.is_configured(&choices.notify) {
            return self.works(server, None).await;
        }
        let now = server.store.parts.clock.monotonic();
        if self.paused.is_some_and(|(_, until)| now < until) {
            return Ok(());
        }
        for news in self.look(server, &choices).await? {
            let now_ms = server.store.parts.clock.unix_ms();
            let notice = notice(server, &news, now_ms);
            if let Err(error) = self.channel.deliver(&choices.notify, &notice, now_ms).await {
                return self.failed(server, &error).await;
            }
            let told = self.take_down(news);
            self.works(server, Some(told)).await?;
            let (code, subject, event) = (&notice.code, notice.subject.as_deref(), notice.event.name());
            tracing::info!(channel = self.channel.name(), event, code, subject, "notice delivered");
        }
        Ok(())
    }

    async fn look(&mut self, server: &Arc<Server>, choices: &Choices) -> Result<Vec<News>, ServerError> {
        let unread = self.told.is_none().then(|| self.channel.prefix());
        let look = move |server: &Arc<Server>| {
            let told = unread.map(|prefix| read(server, &prefix)).transpose()?;
            Ok((told, crate::health::alarms(&server.store)?))
        };
        let (told, mut up) = server.blocking(look).await?;
        self.told = told.or(self.told.take());
        // A channel does not tell that it told nothing.
        let own = |alarm: &Alarm| {
            let is_failing = alarm.code == AlarmCode::NotifyFailing.name();
            is_failing && alarm.subject.as_deref() == Some(self.channel.name())
        };
        up.retain(|alarm| !own(alarm));
        let now_ms = server.store.parts.clock.unix_ms();
        let none = BTreeMap::new();
        Ok(news(&up, self.told.as_ref().unwrap_or(&none), choices.notify.repeat_every, now_ms))
    }

    /// Remembers what was told, and returns the batch that writes it down.
    fn take_down(&mut self, news: News) -> Batch {
        let News { event, told } = news;
        let id = (told.code.clone(), told.subject.clone());
        let subject = told.subject.as_ref().map(|subject| format!("/{subject}")).unwrap_or_default();
        let key = [self.channel.prefix(), format!("{}{subject}", told.code).into_bytes()].concat();
        let known = self.told.get_or_insert_default();
        let mut batch = Batch::new();
        if event == Event::Cleared {
            known.remove(&id);
            batch.delete(Table::Meta, key);
        } else {
            batch.put(Table::Meta, key, serde_json::to_vec(&told).expect("plain JSON"));
            known.insert(id, told);
        }
        batch
    }

    async fn failed(&mut self, server: &Arc<Server>, error: &Undelivered) -> Result<(), ServerError> {
        let pause = self.paused.map_or(FIRST_PAUSE, |(pause, _)| (pause * 2).min(LONGEST_PAUSE));
        self.paused = Some((pause, server.store.parts.clock.monotonic() + pause));
        let message = format!("notices cannot be delivered by the {}: {}", self.channel.name(), Chain(error));
        tracing::warn!(channel = self.channel.name(), error = %Chain(error), next_in = ?pause, "notice not delivered");
        self.show(server, Some(message), None).await
    }

    async fn works(&mut self, server: &Arc<Server>, told: Option<Batch>) -> Result<(), ServerError> {
        self.paused = None;
        self.show(server, None, told).await
    }

    /// Shows whether it works, and writes down what was told.
    async fn show(
        &self,
        server: &Arc<Server>,
        message: Option<String>,
        told: Option<Batch>,
    ) -> Result<(), ServerError> {
        let name = self.channel.name();
        let show = move |server: &Arc<Server>| {
            let store = &server.store;
            if_there_is_room(alarm::set(store, AlarmCode::NotifyFailing, name, message.as_deref()))?;
            if_there_is_room(told.map_or(Ok(()), |told| store.commit(told)))
        };
        server.blocking(show).await
    }
}

/// Until there is room on the disk, memory has to do.
fn if_there_is_room(written: Result<(), ServerError>) -> Result<(), ServerError> {
    match written {
        Err(ServerError::Full { .. }) => Ok(()),
        written => written,
    }
}

fn notice(server: &Server, news: &News, now_ms: u64) -> Notice {
    let Told { code, subject, severity, message, since, .. } = news.told.clone();
    let (at, repository) = (rfc3339(now_ms), server.id());
    Notice { event: news.event, code, severity, subject, message, since, at, repository }
}

fn read(server: &Server, prefix: &[u8]) -> Result<BTreeMap<Key, Told>, ServerError> {
    let mut all = BTreeMap::new();
    server.store.for_each_row(Table::Meta, &KeyRange::prefix(prefix), |_, value| {
        let told: Told =
            serde_json::from_slice(value).map_err(|_| ServerError::Row { object: "a notice".to_owned() })?;
        all.insert((told.code.clone(), told.subject.clone()), told);
        Ok(())
    })?;
    Ok(all)
}

#[cfg(test)]
mod tests;
