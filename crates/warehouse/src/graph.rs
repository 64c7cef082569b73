//! What stands on what: flows fill datasets, models read them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What fills a table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// A flow that collects, by its name.
    Flow(String),
    /// A model, by its table.
    Model(String),
}

impl Node {
    pub fn name(&self) -> &str {
        match self {
            Self::Flow(name) | Self::Model(name) => name,
        }
    }

    /// The kind of its runs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Flow(_) => "flow",
            Self::Model(_) => "model",
        }
    }
}

/// Nodes, and which each runs behind.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    behind: BTreeMap<Node, BTreeSet<Node>>,
}

impl Graph {
    pub fn add(&mut self, node: Node, behind: impl IntoIterator<Item = Node>) {
        self.behind.entry(node).or_default().extend(behind);
    }

    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.behind.keys()
    }

    /// What a node runs behind at once.
    pub fn behind(&self, node: &Node) -> impl Iterator<Item = &Node> {
        self.behind.get(node).into_iter().flatten().filter(|it| self.behind.contains_key(it))
    }

    /// Everything that stands on a node, in the order it runs; the node itself is not among it.
    pub fn downstream(&self, of: &Node) -> Vec<Node> {
        let mut found = BTreeSet::new();
        let mut look = VecDeque::from([of.clone()]);
        while let Some(node) = look.pop_front() {
            for (next, behind) in &self.behind {
                if behind.contains(&node) && next != of && found.insert(next.clone()) {
                    look.push_back(next.clone());
                }
            }
        }
        self.ordered(&found)
    }

    /// Everything that a node stands on, in the order it runs.
    pub fn upstream(&self, of: &Node) -> Vec<Node> {
        let mut found = BTreeSet::new();
        let mut look = VecDeque::from([of.clone()]);
        while let Some(node) = look.pop_front() {
            for before in self.behind(&node) {
                if before != of && found.insert(before.clone()) {
                    look.push_back(before.clone());
                }
            }
        }
        self.ordered(&found)
    }

    /// Some nodes, each behind those of them that it stands on.
    pub fn ordered(&self, some: &BTreeSet<Node>) -> Vec<Node> {
        let mut left: BTreeSet<&Node> = some.iter().collect();
        let mut order = Vec::new();
        while !left.is_empty() {
            let free = |it: &&&Node| !self.behind(it).any(|before| left.contains(before));
            let mut next: Vec<&Node> = left.iter().filter(free).copied().collect();
            if next.is_empty() {
                // A cycle; a project that has one does not start.
                next = left.iter().copied().collect();
            }
            for node in next {
                left.remove(node);
                order.push(node.clone());
            }
        }
        order
    }

    /// The nodes of a cycle, in its order, where there is one.
    pub fn cycle(&self) -> Option<Vec<Node>> {
        let mut done = BTreeSet::new();
        for start in self.behind.keys() {
            let mut path: Vec<&Node> = Vec::new();
            if let Some(cycle) = self.walk(start, &mut path, &mut done) {
                return Some(cycle);
            }
        }
        None
    }

    fn walk<'g>(
        &'g self,
        node: &'g Node,
        path: &mut Vec<&'g Node>,
        done: &mut BTreeSet<&'g Node>,
    ) -> Option<Vec<Node>> {
        if let Some(at) = path.iter().position(|it| *it == node) {
            return Some(path[at..].iter().map(|it| (*it).clone()).collect());
        }
        if done.contains(node) {
            return None;
        }
        path.push(node);
        for before in self.behind(node) {
            if let Some(cycle) = self.walk(before, path, done) {
                return Some(cycle);
            }
        }
        path.pop();
        done.insert(node);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> Node {
        Node::Model(name.into())
    }

    #[test]
    fn what_stands_on_a_node_comes_behind_it() {
        let mut graph = Graph::default();
        let flow = Node::Flow("orders".into());
        graph.add(flow.clone(), []);
        graph.add(model("a"), [flow.clone(), model("unknown")]);
        graph.add(model("c"), [model("b"), model("a")]);
        graph.add(model("b"), [model("a")]);
        assert_eq!(graph.downstream(&flow), [model("a"), model("b"), model("c")]);
        assert_eq!(graph.upstream(&model("b")), [flow, model("a")]);
        assert_eq!(graph.cycle(), None);
        graph.add(model("a"), [model("c")]);
        let cycle = graph.cycle().unwrap();
        assert!(cycle.len() >= 2 && cycle.contains(&model("a")), "{cycle:?}");
    }
}
