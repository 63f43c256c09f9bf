//! `freshness`: how old the last good snapshot of each series is, and may be.

use std::io::{self, Write};

use format_spec::wire::{
    AgeSource, Expectation, FreshnessReport, FreshnessRule, FreshnessState, SeriesFreshness, SeriesScope,
};
use node_client::show::{Show, show};
use serde::Serialize;

use crate::ask::{Verdict, ask};
use crate::cli::{Arguments, FreshnessArguments, FreshnessCommand, ScopeArguments};
use crate::error::AdminError;
use crate::last;
use crate::show::table;

/// Shows how fresh all series are, after a rule was set if one was given.
///
/// # Errors
/// [`AdminError::Client`].
pub(crate) fn run(arguments: &Arguments, freshness: &FreshnessArguments) -> Result<Verdict, AdminError> {
    let rule = match &freshness.command {
        None => None,
        Some(FreshnessCommand::Set { scope, max_age }) => {
            Some(rule(scope, Expectation::MaxAgeSeconds(max_age.0.as_secs())))
        }
        Some(FreshnessCommand::Retire { scope }) => Some(rule(scope, Expectation::Retired)),
        Some(FreshnessCommand::Usual { scope }) => Some(rule(scope, Expectation::Usual)),
    };
    let report = ask(arguments, async |api| match &rule {
        None => api.freshness().await,
        Some(rule) => api.set_freshness(rule).await,
    })?;
    show(&Fresh(report), arguments.output)?;
    Ok(Verdict::Sound)
}

fn rule(scope: &ScopeArguments, expect: Expectation) -> FreshnessRule {
    let ScopeArguments { cluster, node, series } = scope.clone();
    FreshnessRule { scope: SeriesScope { cluster, node, series }, expect }
}

#[derive(Debug, Serialize)]
struct Fresh(FreshnessReport);

impl Show for Fresh {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let head = ["SERIES", "LAST COMPLETE", "AGE", "MAY BE", "SAYS", "STATE", "PARTIAL IN A ROW"]
            .map(str::to_owned);
        let rows: Vec<_> = std::iter::once(head).chain(self.0.series.iter().map(row)).collect();
        table(out, &rows)?;
        for rule in &self.0.rules {
            let SeriesScope { cluster, node, series } = &rule.scope;
            let node = node.as_ref().map(|node| format!(" --node {node}")).unwrap_or_default();
            let series = series.as_ref().map(|series| format!(" --series {series}")).unwrap_or_default();
            let expect = match rule.expect {
                Expectation::MaxAgeSeconds(seconds) => format!("is at most {} old", last::told(seconds)),
                Expectation::Retired => "is retired".to_owned(),
                Expectation::Usual => continue,
            };
            table(out, &[[format!("rule: {cluster}{node}{series} {expect}")]])?;
        }
        Ok(())
    }

    fn is_news(&self) -> bool {
        self.0.series.iter().any(|series| series.state == FreshnessState::Overdue)
    }
}

fn row(series: &SeriesFreshness) -> [String; 7] {
    let none = || "-".to_owned();
    let source = match series.max_age_source {
        Some(AgeSource::Set) => "rule",
        Some(AgeSource::Configured | AgeSource::All) => "configuration",
        Some(AgeSource::Usual) => "history",
        None => "-",
    };
    let state = match series.state {
        FreshnessState::Fresh => "fresh",
        FreshnessState::Overdue => "OVERDUE",
        FreshnessState::Retired => "retired",
        FreshnessState::NoLimit => "no limit",
    };
    [
        series.subject.clone(),
        series.last_complete.clone().unwrap_or_else(|| "never".to_owned()),
        series.age_seconds.map_or_else(none, last::told),
        series.max_age_seconds.map_or_else(none, last::told),
        source.to_owned(),
        state.to_owned(),
        series.partial_in_a_row.to_string(),
    ]
}
