//! Queries and cursors as a client sends them: reading them never panics, a cursor leads back to its item, and a cursor of one list is
//! refused by every other.

#![no_main]

use std::fmt::Write;

use arbitrary::Arbitrary;
use aster_host::http::fuzzing::{Asked, list_components, list_runs, read_all};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Given<'a> {
    list: List<'a>,
    other: List<'a>,
    item: &'a str,
    id: [u8; 16],
    /// Stands behind the mark of a list, as the item would.
    made_up: &'a [u8],
    damage: Option<(u8, char)>,
    limit: &'a str,
    query: &'a str,
}

/// A list of runs.
#[derive(Arbitrary, Debug, PartialEq)]
struct List<'a> {
    tenant: Option<Tenant>,
    definition: Option<&'a str>,
    status: Option<Status>,
}

#[derive(Arbitrary, Debug, PartialEq)]
enum Tenant {
    Default,
    Acme,
}

#[derive(Arbitrary, Debug, PartialEq)]
enum Status {
    Ready,
    Failed,
}

fuzz_target!(|given: Given| {
    read_all(&format!("/api/workflows?{}", given.query));
    read_all(&format!("/api/workflows?cursor={}", escaped(given.query)));
    a_list_of_runs(&given);
    a_list_of_names(&given);
});

fn a_list_of_runs(given: &Given) {
    let Given { list, other, .. } = given;
    let first = list.ask(None);
    let Some(first) = first else {
        assert!(list.definition.is_some_and(|definition| definition.contains('\0')), "{list:?}");
        return;
    };
    assert_eq!(first.after(), None);
    let id = uuid(given.id);
    let cursor = first.next_cursor(&id);
    let next = list.ask(Some(&cursor)).expect("the list takes its own cursor");
    assert_eq!(next.after(), Some(id.as_str()));
    if !list.is_same(other) {
        assert!(other.ask(Some(&cursor)).is_none(), "{other:?} takes a cursor of {list:?}");
    }
    // Runs have ids, not names.
    let read = list.ask(Some(&first.next_cursor(given.item)));
    assert!(read.is_none_or(|read| read.after() == Some(given.item)));
}

fn a_list_of_names(given: &Given) {
    let ask = |cursor: &str| list_components(&format!("/api/components?cursor={}", escaped(cursor)), None);
    let first = list_components("/api/components", None).expect("it is a list");
    let cursor = first.next_cursor(given.item);
    match ask(&cursor) {
        Some(next) => assert_eq!(next.after(), Some(given.item)),
        None => assert!(given.item.is_empty() || given.item.contains('\0')),
    }
    // The mark of the list comes before the item.
    let mark = URL_SAFE_NO_PAD.decode(&cursor).expect("it is base64");
    let mark = &mark[..mark.len() - given.item.len()];
    takes_only_its_own(&first, ask, &URL_SAFE_NO_PAD.encode([mark, given.made_up].concat()));
    if let Some((at, put)) = given.damage {
        let mut damaged: Vec<char> = cursor.chars().collect();
        let at = at as usize % damaged.len();
        damaged[at] = put;
        takes_only_its_own(&first, ask, &damaged.into_iter().collect::<String>());
    }
    takes_only_its_own(&first, ask, given.query);
    let uri = format!("/api/components?limit={}", escaped(given.limit));
    if let Some(asked) = list_components(&uri, None) {
        assert_eq!(given.limit.parse(), Ok(asked.limit()));
        assert!((1..=200).contains(&asked.limit()));
    }
}

/// Whatever is taken for a cursor is the one that the list itself gives for that item.
fn takes_only_its_own(list: &Asked, ask: impl Fn(&str) -> Option<Asked>, cursor: &str) {
    let Some(asked) = ask(cursor) else { return };
    let after = asked.after().expect("it begins after an item");
    assert!(!after.is_empty() && !after.contains('\0'));
    assert_eq!(list.next_cursor(after), cursor);
}

impl List<'_> {
    fn ask(&self, cursor: Option<&str>) -> Option<Asked> {
        let status = self.status.as_ref().map(|status| match status {
            Status::Ready => "READY",
            Status::Failed => "FAILED",
        });
        let params = [("definition", self.definition), ("status", status), ("cursor", cursor)];
        let params: Vec<_> = params
            .into_iter()
            .filter_map(|(name, value)| value.map(|value| format!("{name}={}", escaped(value))))
            .collect();
        list_runs(&format!("/api/workflows?{}", params.join("&")), self.tenant())
    }

    fn tenant(&self) -> Option<&'static str> {
        self.tenant.as_ref().map(|tenant| match tenant {
            Tenant::Default => "default",
            Tenant::Acme => "acme",
        })
    }

    /// A request that names no tenant means `default`.
    fn is_same(&self, other: &Self) -> bool {
        let tenant = |list: &Self| list.tenant().unwrap_or("default");
        (tenant(self), self.definition, &self.status) == (tenant(other), other.definition, &other.status)
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        write!(escaped, "%{byte:02X}").expect("a string takes all");
    }
    escaped
}

fn uuid(bytes: [u8; 16]) -> String {
    let mut text = String::new();
    for (at, byte) in bytes.iter().enumerate() {
        let dash = if [4, 6, 8, 10].contains(&at) { "-" } else { "" };
        write!(text, "{dash}{byte:02x}").expect("a string takes all");
    }
    text
}
