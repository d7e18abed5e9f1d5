//! Lists are given page by page; a page names the cursor of the next one.

use serde::Serialize;
use utoipa::ToSchema;

use super::cursor::Scope;
use super::params::{FromQuery, Params, invalid_cursor};
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
    /// The list whose page it is.
    scope: Scope,
}

impl FromQuery for Paging {
    fn from_query(params: &mut Params<'_>) -> Result<Self> {
        let cursor = params.cursor()?;
        let limit = params.limit(DEFAULT_LIMIT, MAX_LIMIT)?;
        let scope = params.scope();
        let after = cursor.map(|cursor| scope.after(&cursor).ok_or_else(invalid_cursor)).transpose()?;
        Ok(Self { after, limit: limit as usize, scope })
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
        let next_cursor = found.last().filter(|_| more).map(|last| self.scope.cursor(&place(last)));
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
        let scope = Scope::of(["/api/things"]);
        let all = || vec!["a", "b", "c", "d", "e"];
        let page = |after: Option<&str>| {
            let after = after.map(str::to_owned);
            Paging { after, limit: 2, scope }.page_of_all(all(), |item| *item, |item| item)
        };
        assert_eq!((page(None).items, page(None).next_cursor), (vec!["a", "b"], Some(scope.cursor("b"))));
        assert_eq!(page(Some("b")).items, ["c", "d"]);
        assert_eq!((page(Some("d")).items, page(Some("d")).next_cursor), (vec!["e"], None));
        assert_eq!((page(Some("c")).items, page(Some("c")).next_cursor), (vec!["d", "e"], None));
    }
}
