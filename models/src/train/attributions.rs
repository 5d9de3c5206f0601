//! The list of whom to name for the recordings a model was trained on, as Markdown.

use super::corpus::Clip;
use std::collections::{BTreeMap, BTreeSet};

/// Attributions of every clip of split `train`, by licence.
pub fn list(clips: &[Clip]) -> String {
    let mut by_licence: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for clip in clips.iter().filter(|c| c.split == "train") {
        by_licence.entry(clip.licence.trim()).or_default().insert(clip.attribution.trim());
    }
    let mut text = String::from(
        "# Attributions\n\nThe built-in weights were trained on recordings by the people and projects below. The \
         weights contain no recordings.\n\nContains information from the Donate-a-cry corpus, which is made \
         available under the ODbL.\n",
    );
    for (licence, names) in by_licence {
        text.push_str(&format!("\n## {licence}\n\n"));
        for name in names.into_iter().filter(|n| !n.is_empty()) {
            text.push_str(&format!("- {}\n", name.split_whitespace().collect::<Vec<_>>().join(" ")));
        }
    }
    text
}
