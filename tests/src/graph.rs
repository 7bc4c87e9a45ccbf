//! The graph of crates, and the rules of who may import whom.
//!
//! The graph comes from `cargo tree`, which resolves features per package as a build of that package does; the graph in
//! `cargo metadata` also shows optional dependencies that are never built. The checks are functions over data, so that
//! a test can plant a forbidden edge and see it found.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// One row of the table "who may import whom".
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The crate.
    pub name: &'static str,
    /// Crates of ours that it may name in its manifest.
    pub may: &'static [&'static str],
    /// Names that no chain of its dependencies may reach.
    pub never: &'static [&'static [&'static str]],
}

/// An edge between two libraries that the search does not follow.
#[derive(Debug, Clone, Copy)]
pub struct Spared {
    /// The library that has the dependency.
    pub from: &'static str,
    /// The forbidden name that it brings in.
    pub to: &'static str,
    /// Why that is borne.
    pub why: &'static str,
}

/// Crates (as `name version`) and what they depend on.
#[derive(Debug, Default, Clone)]
pub struct Graph(BTreeMap<String, BTreeSet<String>>);

impl Graph {
    /// Reads the output of `cargo tree --prefix depth --format {p}`. Lines that are no crates are skipped.
    pub fn from_tree(text: &str) -> Self {
        let mut graph = Self::default();
        let mut above: Vec<String> = Vec::new();
        for line in text.lines() {
            let digits = line.chars().take_while(char::is_ascii_digit).count();
            let (depth, rest) = line.split_at(digits);
            let mut words = rest.split_whitespace();
            let (Ok(depth), Some(name), Some(version)) = (depth.parse::<usize>(), words.next(), words.next()) else {
                continue;
            };
            let node = format!("{name} {}", version.trim_start_matches('v'));
            above.truncate(depth);
            graph.0.entry(node.clone()).or_default();
            if let Some(parent) = above.last() {
                graph.add(parent, &node);
            }
            above.push(node);
        }
        graph
    }

    /// Adds an edge.
    pub fn add(&mut self, from: &str, to: &str) {
        self.0.entry(from.to_owned()).or_default().insert(to.to_owned());
        self.0.entry(to.to_owned()).or_default();
    }

    /// Whether there is a crate of this name, in any version.
    pub fn has(&self, name: &str) -> bool {
        self.0.keys().any(|node| name_of(node) == name)
    }

    /// Whether any version of `from` depends on any version of `to`.
    pub fn has_edge(&self, from: &str, to: &str) -> bool {
        self.0.iter().any(|(node, next)| name_of(node) == from && next.iter().any(|n| name_of(n) == to))
    }

    /// A shortest chain from the crate `from` to a crate of the name `to`, without the edges that are spared.
    pub fn chain(&self, from: &str, to: &str, spared: &[Spared]) -> Option<Vec<String>> {
        let mut came: BTreeMap<&str, Option<&str>> = BTreeMap::new();
        let mut open: VecDeque<&str> = self.0.keys().map(String::as_str).filter(|n| name_of(n) == from).collect();
        came.extend(open.iter().map(|n| (*n, None)));
        while let Some(node) = open.pop_front() {
            if name_of(node) == to {
                let back = std::iter::successors(Some(node), |n| came.get(n).copied().flatten());
                let mut chain: Vec<String> = back.map(str::to_owned).collect();
                chain.reverse();
                return Some(chain);
            }
            for next in self.0.get(node).into_iter().flatten() {
                let follow = !spared.iter().any(|s| s.from == name_of(node) && s.to == name_of(next));
                if follow && !came.contains_key(next.as_str()) {
                    came.insert(next, Some(node));
                    open.push_back(next);
                }
            }
        }
        None
    }
}

fn name_of(node: &str) -> &str {
    node.split(' ').next().unwrap_or(node)
}

/// Edges between our crates that no row allows; a crate without a row may import nothing.
pub fn forbidden_edges(rows: &[Row], edges: &[(String, String)]) -> Vec<String> {
    let allowed = |from: &str, to: &str| rows.iter().any(|r| r.name == from && r.may.contains(&to));
    edges.iter().filter(|(from, to)| !allowed(from, to)).map(|(from, to)| format!("{from} -> {to}")).collect()
}

/// Chains from the crate of this row to what it may never reach.
pub fn forbidden_chains(row: &Row, graph: &Graph, spared: &[Spared]) -> Vec<String> {
    let never = row.never.iter().copied().flatten();
    never.filter_map(|name| graph.chain(row.name, name, spared)).map(|chain| chain.join(" -> ")).collect()
}
