//! A plan: from what is observed to what is wanted, in steps that can each be told done, told not done, and undone.

use crate::declaration::Desired;
use crate::rule::hex;
use crate::state::{Object, Observed, State, statement};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Characters of a plan's name.
const NAME_CHARS: usize = 12;

/// One statement. It may run when the object is `from`; it has run when the object is `to`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub object: Object,
    pub from: State,
    pub to: State,
    pub statement: String,
    /// The statement that takes it back.
    pub inverse: String,
}

impl Step {
    fn new(object: Object, from: State, to: State) -> Self {
        let (statement, inverse) = (statement(&object, &from, &to), statement(&object, &to, &from));
        Self { object, from, to, statement, inverse }
    }

    /// The step that takes this one back.
    pub fn reversed(&self) -> Self {
        Self::new(self.object.clone(), self.to.clone(), self.from.clone())
    }
}

/// Steps, and the state that they are for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What `apply` takes: it names this plan and no other.
    pub name: String,
    /// Of all that was observed.
    pub observed: String,
    pub steps: Vec<Step>,
}

impl Plan {
    /// What leads from the observed state to the wanted one: policies, then defaults of databases, tables, partitions,
    /// resource groups, users. What nobody declares stays as it is.
    pub fn new(observed: &Observed, desired: &Desired) -> Self {
        let mut steps = Vec::new();
        let mut want = |object: Object, to: State| {
            if let Some(from) = observed.state(&object).filter(|from| *from != to) {
                steps.push(Step::new(object, from, to));
            }
        };
        for (name, policy) in &desired.policies {
            want(Object::Policy { name: name.clone() }, State::Policy(policy.clone()));
        }
        let placed = || {
            let found = |(database, policy): (&'_ String, _)| {
                Some((database.clone(), policy, observed.databases.get(database)?))
            };
            desired.databases.iter().filter_map(move |(database, policy)| found((database, policy)))
        };
        for (database, policy, _) in placed() {
            want(Object::Database { database }, State::Named(policy.clone()));
        }
        for (database, policy, state) in placed() {
            for table in state.tables.keys() {
                let object = Object::Table { database: database.clone(), table: table.clone() };
                want(object, State::Named(policy.clone()));
            }
        }
        for (database, policy, state) in placed() {
            for (table, state) in &state.tables {
                // A partition without a policy has its table's.
                for (partition, _) in state.partitions.iter().filter(|(_, own)| own.is_some()) {
                    let object = Object::Partition {
                        database: database.clone(),
                        table: table.clone(),
                        partition: partition.clone(),
                    };
                    want(object, State::Named(policy.clone()));
                }
            }
        }
        for (name, group) in &desired.groups {
            want(Object::Group { name: name.clone() }, State::Group(group.clone()));
        }
        for (user, group) in &desired.users {
            want(Object::User { user: user.clone() }, State::Named(group.clone()));
        }
        let observed = observed.hash();
        let mut named = Sha256::new();
        named.update(&observed);
        for step in &steps {
            named.update(&step.statement);
            named.update(b"\n");
        }
        let mut name = hex::encode(&named.finalize());
        name.truncate(NAME_CHARS);
        Self { name, observed, steps }
    }

    /// The state after the first `done` steps.
    pub fn after(&self, observed: &Observed, done: usize) -> Observed {
        let mut state = observed.clone();
        for step in &self.steps[..done] {
            state.set(&step.object, &step.to);
        }
        state
    }

    /// Which of the plan's own objects is not as it must be when the first `done` steps have run and no other; `None` when all are.
    pub fn drift(&self, observed: &Observed, done: usize) -> Option<String> {
        let (ran, left) = self.steps.split_at(done);
        // Each object has one step, so it is at the one or the other side of it.
        let wanted =
            ran.iter().map(|step| (step, &step.to)).chain(left.iter().map(|step| (step, &step.from)));
        for (step, wanted) in wanted {
            let state = observed.state(&step.object);
            if state.as_ref() != Some(wanted) {
                let found = state.map_or("gone".to_owned(), |state| state.to_string());
                return Some(format!("{} is {found} instead of {wanted}", step.object));
            }
        }
        None
    }

    /// Whether all else is as it was when the plan was made, `done` steps of which have run since.
    pub fn is_as_planned(&self, observed: &Observed, done: usize) -> bool {
        let mut first = observed.clone();
        for step in self.steps[..done].iter().rev() {
            first.set(&step.object, &step.from);
        }
        first.hash() == self.observed
    }

    /// What else has the policies and groups that taking the first `done` steps back drops: the cluster will not drop them.
    pub fn hangers_on(&self, observed: &Observed, done: usize) -> Vec<String> {
        let dropped = |own: &Option<String>, is_group: bool| {
            self.steps[..done].iter().any(|step| match (&step.object, &step.from) {
                (Object::Policy { name }, State::Unset) => !is_group && own.as_ref() == Some(name),
                (Object::Group { name }, State::Unset) => is_group && own.as_ref() == Some(name),
                _ => false,
            })
        };
        let mut out = Vec::new();
        let mut look = |object: Object, own: &Option<String>| {
            let is_group = matches!(object, Object::User { .. });
            if dropped(own, is_group) && !self.steps[..done].iter().any(|step| step.object == object) {
                out.push(object.to_string());
            }
        };
        for (database, state) in &observed.databases {
            look(Object::Database { database: database.clone() }, &state.policy);
            for (table, state) in &state.tables {
                look(Object::Table { database: database.clone(), table: table.clone() }, &state.policy);
                for (partition, own) in &state.partitions {
                    let partition = partition.clone();
                    look(
                        Object::Partition { database: database.clone(), table: table.clone(), partition },
                        own,
                    );
                }
            }
        }
        for (user, group) in &observed.users {
            look(Object::User { user: user.clone() }, group);
        }
        out
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::declaration::tests::{FILE, read};
    use crate::policy::Policy;
    use crate::state::{Database, Table};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    pub fn observed() -> Observed {
        let table =
            Table { partitions: [("p0".to_owned(), Some("old".to_owned()))].into(), ..Table::default() };
        let tables: BTreeMap<_, _> =
            [("orders".to_owned(), Table::default()), ("parts".to_owned(), table)].into();
        Observed {
            version: "8.0.11-TiDB-v8.5.6".to_owned(),
            policies: [("old".to_owned(), Policy { followers: 4, ..Policy::default() })].into(),
            databases: [("order_db".to_owned(), Database { policy: None, tables })].into(),
            users: [("order_app@%".to_owned(), None)].into(),
            stores: read(FILE).stores(),
            ..Observed::default()
        }
    }

    #[test]
    fn a_plan_is_the_statements_in_their_order() {
        let plan = Plan::new(&observed(), &read(FILE).desired());
        let statements: Vec<_> = plan.steps.iter().map(|step| step.statement.as_str()).collect();
        assert_eq!(
            statements,
            [
                "CREATE PLACEMENT POLICY `mb_order` LEADER_CONSTRAINTS = '[\"+$biz=order\",\"+lead=first\"]' \
                 FOLLOWER_CONSTRAINTS = '{\"+$biz=order\": 2}' LEARNER_CONSTRAINTS = '{\"+$biz=reports\": 1}' \
                 SURVIVAL_PREFERENCES = '[\"zone\",\"host\"]'",
                "ALTER DATABASE `order_db` PLACEMENT POLICY = `mb_order`",
                "ALTER TABLE `order_db`.`orders` PLACEMENT POLICY = `mb_order`",
                "ALTER TABLE `order_db`.`parts` PLACEMENT POLICY = `mb_order`",
                "ALTER TABLE `order_db`.`parts` PARTITION `p0` PLACEMENT POLICY = `mb_order`",
                "CREATE RESOURCE GROUP `rg_order` RU_PER_SEC = 8000 PRIORITY = HIGH BURSTABLE = FALSE",
                "ALTER USER 'order_app'@'%' RESOURCE GROUP `rg_order`",
            ]
        );
        assert_eq!(plan.steps[0].inverse, "DROP PLACEMENT POLICY `mb_order`");
        assert_eq!(
            plan.steps[4].inverse,
            "ALTER TABLE `order_db`.`parts` PARTITION `p0` PLACEMENT POLICY = `old`"
        );
        assert_eq!(plan.steps[6].inverse, "ALTER USER 'order_app'@'%' RESOURCE GROUP `default`");
    }

    #[test]
    fn one_statement_changes_the_tier_of_a_whole_business() {
        let strict = read(FILE).desired();
        let first = observed();
        let plan = Plan::new(&first, &strict);
        let state = plan.after(&first, plan.steps.len());
        assert_eq!(Plan::new(&state, &strict).steps, []);
        let wide = read(&FILE.replace("tier: strict", "tier: utilisation")).desired();
        let next = Plan::new(&state, &wide);
        assert_eq!(next.steps.len(), 1);
        assert!(next.steps[0].statement.starts_with("ALTER PLACEMENT POLICY `mb_order` "));
        assert_eq!(next.steps[0].reversed().to, plan.steps[0].to);
    }

    #[test]
    fn a_plan_of_another_state_has_another_name() {
        let desired = read(FILE).desired();
        let mut other = observed();
        other.stores[0].is_up = false;
        assert_ne!(Plan::new(&observed(), &desired).name, Plan::new(&other, &desired).name);
        // A table that was emptied has another number, and the plan holds.
        other = observed();
        other.databases.get_mut("order_db").unwrap().tables.get_mut("orders").unwrap().id = 77;
        assert_eq!(Plan::new(&observed(), &desired), Plan::new(&other, &desired));
    }

    #[test]
    fn what_is_not_of_the_plan_does_not_hold_up_its_way_back() {
        let first = observed();
        let plan = Plan::new(&first, &read(FILE).desired());
        let all = plan.steps.len();
        let mut state = plan.after(&first, all);
        state.stores[0].is_up = false;
        let late = Table { policy: Some("mb_order".to_owned()), ..Table::default() };
        state.databases.get_mut("order_db").unwrap().tables.insert("late".to_owned(), late);
        assert_eq!((plan.drift(&state, all), plan.is_as_planned(&state, all)), (None, false));
        assert_eq!(plan.hangers_on(&state, all), ["table order_db.late"]);
        // What is of it does.
        state.databases.get_mut("order_db").unwrap().tables.get_mut("orders").unwrap().policy = None;
        let told = plan.drift(&state, all).unwrap();
        assert_eq!(told, "table order_db.orders is (none) instead of mb_order");
    }

    proptest! {
        #[test]
        fn a_plan_and_its_inverse_are_nothing(
            owned in prop::collection::vec(prop::option::of(0..3_u8), 6),
            tier in 0..3_usize,
            done in 0..12_usize,
        ) {
            let name = |own: &Option<u8>| own.map(|own| ["mb_order", "old", "x"][own as usize].to_owned());
            let mut first = observed();
            let database = first.databases.get_mut("order_db").unwrap();
            database.policy = name(&owned[0]);
            database.tables.get_mut("orders").unwrap().policy = name(&owned[1]);
            let parts = database.tables.get_mut("parts").unwrap();
            parts.policy = name(&owned[2]);
            parts.partitions.insert("p1".to_owned(), name(&owned[3]));
            first.users.insert("order_app@%".to_owned(), name(&owned[4]));
            let text = FILE.replace("tier: strict", ["tier: strict", "tier: redundancy", "tier: utilisation"][tier]);
            let desired = read(&text).desired();
            let plan = Plan::new(&first, &desired);
            let done = done.min(plan.steps.len());
            let mut state = plan.after(&first, done);
            prop_assert_eq!(plan.drift(&state, done), None);
            prop_assert!(plan.is_as_planned(&state, done));
            if done > 0 {
                prop_assert!(plan.drift(&first, done).is_some());
            }
            for step in plan.steps[..done].iter().rev() {
                let back = step.reversed();
                prop_assert_eq!(state.state(&back.object), Some(back.from.clone()));
                state.set(&back.object, &back.to);
            }
            prop_assert_eq!(&state, &first);
            let last = plan.after(&first, plan.steps.len());
            prop_assert_eq!(Plan::new(&last, &desired).steps, vec![]);
        }
    }
}
