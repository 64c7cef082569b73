//! Group Replication as its members tell it: each has a view of the group, and what holds follows from all of them.
//!
//! A member takes sessions when it says itself that it is online, sees a majority, and is in the newest view that a
//! majority has. So one that was cut off counts for nothing, whatever it believes.

use crate::config::Role;
use crate::error::SessionError;
use crate::link::{Link, Table};
use std::collections::BTreeMap;

/// What one server tells of its group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The server's own name in the group.
    pub uuid: String,
    /// `PREFIX:NUMBER`: the prefix is the group's since it was begun, the number grows with every change.
    id: String,
    /// Neither it nor its administrators forbid writes.
    writable: bool,
    pub lag_ms: Option<u64>,
    pub members: Vec<Member>,
}

/// One server as another sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub uuid: String,
    pub host: String,
    pub port: u16,
    pub state: String,
    primary: bool,
}

impl Member {
    /// Part of the group, and not lost to it.
    pub fn is_there(&self) -> bool {
        matches!(self.state.as_str(), "ONLINE" | "RECOVERING")
    }

    fn is_online(&self) -> bool {
        self.state == "ONLINE"
    }
}

/// More members than a group can have.
const MEMBERS_MAX: usize = 32;

/// What a server has waited to apply is as old as the oldest that it is about to: without anything in the queue it has
/// applied all. NULL where it applies nothing of what waits.
const QUESTION: &str = "select m.member_id, m.member_host, m.member_port, m.member_state, m.member_role, @@server_uuid, \
    @@global.read_only or @@global.super_read_only, s.view_id, if(s.count_transactions_remote_in_applier_queue = 0, 0, \
    (select greatest(0, max(timestampdiff(microsecond, w.applying_transaction_original_commit_timestamp, now(6)) div 1000)) \
    from performance_schema.replication_applier_status_by_worker w where w.channel_name = 'group_replication_applier' \
    and w.applying_transaction <> '')) from performance_schema.replication_group_members m \
    left join performance_schema.replication_group_member_stats s \
    on s.channel_name = m.channel_name and s.member_id = @@server_uuid";

/// Asks a server for its view.
///
/// # Errors
/// Those of the connection, and of a server that knows no such tables or does not show them.
pub async fn ask(link: &mut Link) -> Result<View, SessionError> {
    Ok(View::read(&link.ask(QUESTION).await?))
}

impl View {
    fn read(table: &Table) -> Self {
        let mut view = Self::default();
        for row in table.rows().take(MEMBERS_MAX) {
            let cell = |at: usize| row.get(at).and_then(|cell| cell.as_deref()).unwrap_or_default();
            view.uuid = cell(5).to_owned();
            view.writable = cell(6) == "0";
            view.id = cell(7).to_owned();
            view.lag_ms = cell(8).parse().ok();
            view.members.push(Member {
                uuid: cell(0).to_owned(),
                host: cell(1).to_owned(),
                port: cell(2).parse().unwrap_or_default(),
                state: cell(3).to_owned(),
                primary: cell(4) == "PRIMARY",
            });
        }
        view
    }

    pub fn member(&self, uuid: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.uuid == uuid)
    }

    fn online(&self) -> usize {
        self.members.iter().filter(|member| member.is_online()).count()
    }

    fn has_quorum(&self) -> bool {
        let there = self.members.iter().filter(|member| member.is_there()).count();
        there * 2 > self.members.len()
    }

    /// Its group since it was begun, and how many changes it has seen.
    fn age(&self) -> (&str, u64) {
        let (prefix, number) = self.id.rsplit_once(':').unwrap_or((&self.id, ""));
        (prefix, number.parse().unwrap_or_default())
    }

    /// What the server is, for people; `Err` is why it takes nothing.
    pub fn own_line(&self) -> Result<String, String> {
        let role = if self.own()?.primary { "primary" } else { "secondary" };
        Ok(format!("{role} of a group of {}", self.members.len()))
    }

    /// What the server says of itself; `Err` is why it takes nothing.
    fn own(&self) -> Result<&Member, String> {
        let Some(own) = self.member(&self.uuid) else {
            return Err("it is in no group: START GROUP_REPLICATION there".into());
        };
        if !own.is_online() {
            return Err(format!("in its group it is {}", own.state));
        }
        if !self.has_quorum() {
            let there = self.members.iter().filter(|member| member.is_there()).count();
            return Err(format!(
                "it sees {there} of {} members of its group, no majority",
                self.members.len()
            ));
        }
        Ok(own)
    }
}

/// The largest group of which a member that sees a majority tells.
pub fn largest(views: &BTreeMap<String, View>) -> Option<&str> {
    let well = views.values().filter(|view| view.own().is_ok());
    well.max_by_key(|view| (view.online(), view.age().0)).map(|view| view.age().0)
}

/// Of a group the view that holds: the newest of a majority.
pub fn newest<'a>(views: &'a BTreeMap<String, View>, group: &str) -> Option<&'a View> {
    let well = views.values().filter(|view| view.own().is_ok() && view.age().0 == group);
    well.max_by_key(|view| (view.age().1, view.online()))
}

/// What the server at an address is for; `Err` is why for nothing.
pub fn standing(views: &BTreeMap<String, View>, address: &str, group: Option<&str>) -> Result<Role, String> {
    let view = views.get(address).ok_or("it has not told its view of the group")?;
    view.own()?;
    let group = group.ok_or("not every server has been asked for its group yet")?;
    if view.age().0 != group {
        return Err("it is in another group than the other servers".into());
    }
    let newest = newest(views, group).ok_or("no member sees a majority of the group")?;
    let part = |view: &View| -> Result<bool, String> {
        let member = newest.member(&view.uuid).ok_or("its group has gone on without it")?;
        if !member.is_online() {
            return Err(format!("the others see it {}", member.state));
        }
        Ok(member.primary && view.own()?.primary && view.writable && view.age().0 == group)
    };
    if !part(view)? {
        return Ok(Role::Replica);
    }
    // Of several primaries every mesh takes the same one, so that writes of two do not meet.
    let first = views.values().filter(|other| part(other) == Ok(true)).map(|other| &other.uuid).min();
    Ok(if first == Some(&view.uuid) { Role::Writer } else { Role::Replica })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A view of the members `a`, `b`, ... in these states; capital letters are primaries.
    pub fn view(own: &str, id: &str, states: &[(&str, &str)]) -> (String, View) {
        let members = states.iter().map(|(name, state)| Member {
            uuid: name.to_lowercase(),
            host: format!("host-{}", name.to_lowercase()),
            port: 3306,
            state: (*state).into(),
            primary: *name != name.to_lowercase(),
        });
        let members: Vec<_> = members.collect();
        let writable = members.iter().any(|member| member.uuid == own && member.primary);
        (own.to_owned(), View { uuid: own.into(), id: id.into(), writable, lag_ms: Some(0), members })
    }

    fn told(views: &[(String, View)], group: Option<&str>) -> Vec<String> {
        let all: BTreeMap<_, _> = views.iter().cloned().collect();
        let group = group.or_else(|| largest(&all)).or(Some("7"));
        all.keys()
            .map(|name| match standing(&all, name, group) {
                Ok(Role::Writer) => format!("{name} writes"),
                Ok(Role::Replica) => format!("{name} reads"),
                Err(reason) => format!("{name}: {reason}"),
            })
            .collect()
    }

    const ALL: [(&str, &str); 3] = [("A", "ONLINE"), ("b", "ONLINE"), ("c", "ONLINE")];

    #[test]
    fn the_primary_writes_and_who_is_not_online_takes_nothing() {
        let views = ["a", "b", "c"].map(|name| view(name, "7:3", &ALL));
        assert_eq!(told(&views, None), ["a writes", "b reads", "c reads"]);
        for state in ["RECOVERING", "ERROR", "OFFLINE"] {
            let mut states = ALL;
            states[2].1 = state;
            let views = [view("a", "7:3", &states), view("b", "7:3", &states), view("c", "7:3", &states)];
            assert_eq!(told(&views, None)[2], format!("c: in its group it is {state}"));
        }
        let outside = [view("a", "7:3", &ALL), ("d".to_owned(), View::default())];
        assert!(told(&outside, None)[1].contains("in no group"));
    }

    #[test]
    fn a_primary_that_may_not_write_yet_gets_no_writes() {
        let mut views = ["a", "b"].map(|name| view(name, "7:3", &ALL));
        views[0].1.writable = false;
        assert_eq!(told(&views, None), ["a reads", "b reads"]);
    }

    #[test]
    fn who_sees_no_majority_is_out_and_the_others_go_on() {
        let alone = view("a", "7:3", &[("A", "ONLINE"), ("b", "UNREACHABLE"), ("c", "UNREACHABLE")]);
        let rest = |name| view(name, "7:3", &[("A", "UNREACHABLE"), ("b", "ONLINE"), ("c", "ONLINE")]);
        let views = [alone.clone(), rest("b"), rest("c")];
        assert_eq!(told(&views, None)[1..], ["b reads", "c reads"]);
        assert!(told(&views, None)[0].contains("1 of 3 members"));
        // It has not noticed yet, and the others have gone on.
        let new = |name| view(name, "7:4", &[("B", "ONLINE"), ("c", "ONLINE")]);
        let views = [view("a", "7:3", &ALL), new("b"), new("c")];
        assert_eq!(told(&views, None), ["a: its group has gone on without it", "b writes", "c reads"]);
        // Nobody has a majority.
        let two = view("b", "7:3", &[("A", "UNREACHABLE"), ("b", "ONLINE"), ("c", "UNREACHABLE")]);
        assert!(told(&[alone, two], None).iter().all(|line| line.contains("no majority")));
    }

    #[test]
    fn of_two_groups_the_one_from_before_stays_and_else_the_larger() {
        let small = view("d", "9:1", &[("D", "ONLINE")]);
        let large = ["a", "b", "c"].map(|name| view(name, "7:3", &ALL));
        let views = [large[0].clone(), large[1].clone(), small.clone()];
        assert_eq!(told(&views, None)[2], "d: it is in another group than the other servers");
        assert_eq!(told(&views, Some("9"))[2], "d writes");
        assert!(told(&views, Some("9"))[0].contains("another group"));
        // A server that is alone in a group of its own does not write for one that nobody answers of now.
        assert!(told(&[small], Some("7"))[0].contains("another group"));
    }

    #[test]
    fn of_several_primaries_one_writes() {
        let all = [("A", "ONLINE"), ("B", "ONLINE")];
        let views = ["a", "b"].map(|name| view(name, "7:3", &all));
        assert_eq!(told(&views, None), ["a writes", "b reads"]);
        // Only one that answers.
        assert_eq!(told(&views[1..], None), ["b writes"]);
    }
}
