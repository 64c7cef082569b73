//! What clients were made of stays: `proto/released.txt` has every message, field, value and method that was ever published, and each
//! must still be as it was. What is new is added to that file when it is published.

#![expect(clippy::unwrap_used, reason = "a panic here is the failure report")]

use prost_types::{DescriptorProto, FileDescriptorSet};
use std::collections::BTreeSet;

fn fields(prefix: &str, message: &DescriptorProto, out: &mut BTreeSet<String>) {
    let name = format!("{prefix}.{}", message.name());
    for field in &message.field {
        let ty = match field.type_name() {
            "" => field.r#type().as_str_name().trim_start_matches("TYPE_").to_lowercase(),
            name => name.to_owned(),
        };
        let label = field.label().as_str_name().trim_start_matches("LABEL_").to_lowercase();
        let member = field.oneof_index.filter(|_| !field.proto3_optional()).is_some();
        let of = if member { " oneof" } else { "" };
        out.insert(format!("{name} {} = {}: {label} {ty}{of}", field.name(), field.number()));
    }
    for nested in &message.nested_type {
        fields(&name, nested, out);
    }
}

fn published() -> BTreeSet<String> {
    let set: FileDescriptorSet = proto::decode(proto::DESCRIPTORS).unwrap();
    let mut out = BTreeSet::new();
    for file in &set.file {
        for message in &file.message_type {
            fields(file.package(), message, &mut out);
        }
        for own in &file.enum_type {
            for value in &own.value {
                out.insert(format!(
                    "{}.{} {} = {}",
                    file.package(),
                    own.name(),
                    value.name(),
                    value.number()
                ));
            }
        }
        for service in &file.service {
            for method in &service.method {
                let stream = |streams: bool| if streams { "stream " } else { "" };
                out.insert(format!(
                    "{}.{} {}({}{}) {}{}",
                    file.package(),
                    service.name(),
                    method.name(),
                    stream(method.client_streaming()),
                    method.input_type(),
                    stream(method.server_streaming()),
                    method.output_type()
                ));
            }
        }
    }
    out
}

#[test]
fn what_was_published_is_as_it_was() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto/released.txt");
    let now = published();
    assert!(now.len() > 60, "{now:#?}");
    if std::env::var_os("TIDEMILL_PUBLISH").is_some() {
        let text: String = now.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(path, text).unwrap();
    }
    let text = std::fs::read_to_string(path).unwrap();
    let released: BTreeSet<String> = text.lines().map(str::to_owned).collect();
    let gone: Vec<_> = released.difference(&now).collect();
    assert!(gone.is_empty(), "clients rely on these, which are gone or others: {gone:#?}");
    let new: Vec<_> = now.difference(&released).collect();
    assert!(
        new.is_empty(),
        "published for the first time? run this test with TIDEMILL_PUBLISH=1, and look at the difference: {new:#?}"
    );
}
