//! Circles and floors of a graph of names.

use std::collections::{BTreeMap, BTreeSet};

/// From each name to those that it uses.
pub(super) type Arrows = BTreeMap<String, BTreeSet<String>>;

/// Sets of at least two names, each of which leads to each other one of its set.
pub(super) fn of(arrows: &Arrows) -> Vec<Vec<String>> {
    let reached: BTreeMap<&String, BTreeSet<&String>> =
        arrows.keys().map(|from| (from, reachable(arrows, from))).collect();
    let leads = |from: &String, to: &String| reached.get(from).is_some_and(|found| found.contains(to));
    let mut seen = BTreeSet::new();
    let mut circles = Vec::new();
    for from in arrows.keys() {
        if !seen.insert(from) {
            continue;
        }
        let with: Vec<String> =
            arrows.keys().filter(|to| leads(from, to) && leads(to, from)).cloned().collect();
        if with.len() > 1 {
            seen.extend(arrows.keys().filter(|name| with.contains(name)));
            circles.push(with);
        }
    }
    circles
}

/// The length of the longest way down, where names of one circle stand on one floor.
pub(super) fn floors(arrows: &Arrows) -> usize {
    let circles = of(arrows);
    let circle_of = |name: &String| circles.iter().position(|circle| circle.contains(name));
    let mut floor: BTreeMap<&String, usize> = arrows.keys().map(|name| (name, 1)).collect();
    // Each round settles one floor at least, and there are no more floors than names.
    for _ in 0..arrows.len() {
        let mut moved = false;
        for (from, targets) in arrows {
            let others =
                targets.iter().filter(|to| circle_of(from).is_none() || circle_of(from) != circle_of(to));
            let below = others.filter_map(|to| floor.get(to)).max().copied().unwrap_or(0);
            let mates =
                arrows.keys().filter(|to| circle_of(from).is_some() && circle_of(from) == circle_of(to));
            let level = mates.filter_map(|to| floor.get(to)).max().copied().unwrap_or(0).max(below + 1);
            let own = floor.entry(from).or_insert(1);
            moved |= *own < level;
            *own = level.max(*own);
        }
        if !moved {
            break;
        }
    }
    floor.into_values().max().unwrap_or(0)
}

/// Names that can be reached from `start` in at least one step.
fn reachable<'a>(arrows: &'a Arrows, start: &str) -> BTreeSet<&'a String> {
    let mut found = BTreeSet::new();
    let mut next: Vec<&String> = arrows.get(start).into_iter().flatten().collect();
    while let Some(name) = next.pop() {
        if found.insert(name) {
            next.extend(arrows.get(name).into_iter().flatten());
        }
    }
    found
}
