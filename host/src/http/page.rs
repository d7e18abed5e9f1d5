//! Lists are given page by page; a page names the cursor of the next one.

use serde::Serialize;
use utoipa::ToSchema;

use super::params::{FromQuery, Params, encode_cursor};
use super::problem::Result;

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 200;

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// Give it as `cursor` for the next page; null: this is the last one.
    pub(crate) next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// A list that is never long.
    pub(crate) fn whole(items: Vec<T>) -> Self {
        Self { items, next_cursor: None }
    }
}

/// Which page is asked for.
#[derive(Debug)]
pub(crate) struct Paging {
    /// What the last page ended with.
    pub(crate) after: Option<String>,
    limit: usize,
}

impl FromQuery for Paging {
    fn from_query(params: &mut Params) -> Result<Self> {
        let after = params.cursor()?;
        let limit = params.limit(DEFAULT_LIMIT, MAX_LIMIT)?;
        Ok(Self { after, limit: limit as usize })
    }
}

impl Paging {
    /// How many items are to be read: one more than the page has, which says whether there is another page.
    pub(crate) fn with_one_more(&self) -> usize {
        self.limit + 1
    }

    /// The page of what was read. `place` is what the cursor says of the last item.
    pub(crate) fn page<T, U>(
        &self,
        mut found: Vec<T>,
        place: impl Fn(&T) -> String,
        view: impl Fn(T) -> U,
    ) -> Page<U> {
        let more = found.len() > self.limit;
        found.truncate(self.limit);
        let next_cursor = found.last().filter(|_| more).map(|last| encode_cursor(&place(last)));
        Page { items: found.into_iter().map(view).collect(), next_cursor }
    }

    /// The page of a whole list, which is in the order of its items' names.
    pub(crate) fn page_of_all<T, U>(
        &self,
        all: Vec<T>,
        name: impl Fn(&T) -> &str,
        view: impl Fn(T) -> U,
    ) -> Page<U> {
        let after = self.after.as_deref();
        let rest = all.into_iter().filter(|item| after.is_none_or(|after| name(item) > after));
        let found = rest.take(self.with_one_more()).collect();
        self.page(found, |item| name(item).to_owned(), view)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_without_a_gap() {
        let all = || vec!["a", "b", "c", "d", "e"];
        let page = |after: Option<&str>| {
            Paging { after: after.map(str::to_owned), limit: 2 }.page_of_all(all(), |item| *item, |item| item)
        };
        assert_eq!((page(None).items, page(None).next_cursor), (vec!["a", "b"], Some(encode_cursor("b"))));
        assert_eq!(page(Some("b")).items, ["c", "d"]);
        assert_eq!((page(Some("d")).items, page(Some("d")).next_cursor), (vec!["e"], None));
        assert_eq!((page(Some("c")).items, page(Some("c")).next_cursor), (vec!["d", "e"], None));
    }
}
