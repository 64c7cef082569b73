//! What a copy does with rows that it held: when the server says that they are out of date, and when their key has another type.

use client::v1::subscribe_response::Event;
use client::v1::value::Kind;
use client::v1::{Batch, Change, Column, Op, Reset, Schema, Shape, SnapshotEnd, SubscribeResponse, Value};
use client::{Copy, Totals};

fn said(event: Event) -> SubscribeResponse {
    SubscribeResponse { token: b"t".to_vec(), lsn: 1, event: Some(event) }
}

fn puts(rows: &[(u64, i64)]) -> SubscribeResponse {
    let changes = rows
        .iter()
        .map(|(lsn, id)| Change {
            op: Op::Put as i32,
            lsn: *lsn,
            values: vec![Value { kind: Some(Kind::Int(*id)) }],
            committed_ms: 0,
        })
        .collect();
    said(Event::Batch(Batch { changes, transaction_end: true }))
}

#[test]
fn a_history_that_began_anew_wins_over_what_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let shape = Shape { source: "shop".into(), table: "shop.orders".into(), ..Shape::default() };
    let mut copy = Copy::open(&dir.path().join("copy.db"), &shape).unwrap();
    let id = Column { name: "id".into(), r#type: "int".into(), key: 1, ..Column::default() };
    copy.apply(&said(Event::Schema(Schema { columns: vec![id] }))).unwrap();
    copy.apply(&puts(&[(1000, 1), (1001, 2)])).unwrap();
    copy.commit().unwrap();
    copy.apply(&said(Event::Reset(Reset::default()))).unwrap();
    // The source's changes are numbered from 1 again.
    copy.apply(&puts(&[(1, 2), (2, 3)])).unwrap();
    copy.apply(&said(Event::SnapshotEnd(SnapshotEnd {}))).unwrap();
    copy.commit().unwrap();
    let Totals { rows, .. } = copy.totals();
    assert_eq!(rows, 2);
}

#[test]
fn a_key_of_another_type_still_finds_its_rows() {
    let dir = tempfile::tempdir().unwrap();
    let shape = Shape { source: "shop".into(), table: "shop.orders".into(), ..Shape::default() };
    let mut copy = Copy::open(&dir.path().join("copy.db"), &shape).unwrap();
    let id = |ty: &str| Column { name: "id".into(), r#type: ty.into(), key: 1, ..Column::default() };
    copy.apply(&said(Event::Schema(Schema { columns: vec![id("int")] }))).unwrap();
    copy.apply(&puts(&[(1, 1), (2, 2)])).unwrap();
    copy.apply(&said(Event::Schema(Schema { columns: vec![id("bigint unsigned")] }))).unwrap();
    let change = Change {
        op: Op::Delete as i32,
        lsn: 3,
        values: vec![Value { kind: Some(Kind::Uint(2)) }],
        committed_ms: 0,
    };
    copy.apply(&said(Event::Batch(Batch { changes: vec![change], transaction_end: true }))).unwrap();
    copy.commit().unwrap();
    let one = client::row_hash(&[Value { kind: Some(Kind::Uint(1)) }]);
    assert_eq!(copy.totals(), Totals { rows: 1, checksum: one });
}
