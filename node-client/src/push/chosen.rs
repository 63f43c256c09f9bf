//! Choices that follow from the options of a push, checked before anything is sent.

use super::class::Classes;
use super::freeze;
use super::options::{Origin, PushOptions};
use super::select::roots::{self, Root, paths_of};
use super::select::{SelectOptions, Selection, check_covered};
use crate::error::ClientError;
use crate::state::Place;

/// The folders and files of a push, which names below them it takes, and the class of each file.
pub(crate) struct Chosen {
    pub(crate) roots: Vec<Root>,
    pub(crate) selection: Selection,
    pub(crate) classes: Classes,
    /// How many rules of the classes are the user's: they come first.
    own_rules: usize,
}

impl Chosen {
    /// Choices that follow from `options`. Opens the roots.
    ///
    /// # Errors
    /// [`ClientError::NotFound`] for a folder that is not there, [`ClientError::Usage`] for options that cannot be met.
    pub(crate) fn new(options: &PushOptions) -> Result<Self, ClientError> {
        let roots = roots::check(&options.roots)?;
        freeze::check_folder(&options.freeze, &roots)?;
        let selection = Selection::new(&options.select, &options.recognition.class_sets, &roots)?;
        check_covered(&roots, &selection, options.mounts)?;
        let classes = Classes::new(&options.recognition.classes, &options.recognition.class_sets)?;
        Ok(Self { roots, selection, classes, own_rules: options.recognition.classes.len() })
    }

    /// No folder and no file: a stream has none.
    ///
    /// # Errors
    /// None in practice: there is no pattern that could be refused.
    pub(crate) fn nothing() -> Result<Self, ClientError> {
        let selection = Selection::new(&SelectOptions::default(), &[], &[])?;
        Ok(Self { roots: Vec::new(), selection, classes: Classes::new(&[], &[])?, own_rules: 0 })
    }

    /// Where the options keep the state of these roots; `None` if a push is to remember nothing.
    pub(crate) fn place(&self, options: &PushOptions) -> Option<Place> {
        let PushOptions { state, origin: Origin { cluster, node, .. }, .. } = options;
        state.as_ref().map(|base| Place::new(base, cluster, node, &paths_of(&self.roots)))
    }

    /// Patterns of the user that matched nothing, each behind its flag, or its file and line.
    pub(crate) fn unmatched(&self) -> Vec<String> {
        let classed = self.classes.unmatched(self.own_rules);
        let classed = classed.map(|(class, glob)| format!("--class {class}={glob}"));
        self.selection.unmatched().chain(classed).collect()
    }
}
