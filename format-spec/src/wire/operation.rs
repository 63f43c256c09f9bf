//! Lines of the answer to an operation.

use serde::{Deserialize, Serialize};

use super::ErrorBody;

/// One line of the answer to an operation whose report is an `R`. The last line is its report or its failure.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationEvent<R> {
    /// How far it is.
    Progress {
        /// Current phase, of an operation that has phases. Of the collector: `purge`, `pages`, `chunks`, `repack`,
        /// `delete`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        phase: Option<String>,
        /// Things done, of the phase if there is one.
        done: u64,
        /// Things in all, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        total: Option<u64>,
    },
    /// The end.
    Report(R),
    /// It could not be completed. What was done before stays done.
    Failed(ErrorBody),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_progress_names_only_what_is_known() {
        let of_phase =
            OperationEvent::<()>::Progress { phase: Some("purge".to_owned()), done: 1, total: None };
        let of_all = OperationEvent::<()>::Progress { phase: None, done: 1, total: Some(2) };

        let lines = [of_phase, of_all].map(|event| serde_json::to_string(&event).unwrap());

        assert_eq!(
            lines,
            [r#"{"progress":{"phase":"purge","done":1}}"#, r#"{"progress":{"done":1,"total":2}}"#]
        );
    }
}
