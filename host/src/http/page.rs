//! Pages of lists. A page has the cursor of the next one.

use serde::Serialize;
use utoipa::ToSchema;

use super::cursor::Scope;
use super::params::{FromQuery, Params, invalid_cursor};
use super::problem::Result;
use crate::store::Listed;

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 200;

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// Pass it as `cursor` to get the next page. Null means that this page is the last one.
    pub(crate) next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// Makes a page of a whole list that is never long.
    pub(crate) fn whole(items: Vec<T>) -> Self {
        Self { items, next_cursor: None }
    }
}

/// The page that a request asks for.
#[derive(Debug)]
pub(crate) struct Paging {
    /// The last item of the previous page.
    pub(crate) after: Option<String>,
    limit: usize,
    /// The list that the page is a part of.
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
    /// Returns the maximum number of items on the page.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Makes the page from the items that were read. `place` returns what the cursor says about the last item.
    pub(crate) fn page<T, U>(
        &self,
        found: Listed<T>,
        place: impl Fn(&T) -> String,
        view: impl Fn(T) -> U,
    ) -> Page<U> {
        let last = found.items.last().filter(|_| found.more);
        let next_cursor = last.map(|last| self.scope.cursor(&place(last)));
        Page { items: found.items.into_iter().map(view).collect(), next_cursor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_the_next_one_only_if_the_list_goes_on() {
        let paging = Paging { after: None, limit: 2, scope: Scope::of(["/api/things"]) };
        let page = |more| {
            let found = Listed { items: vec!["a", "b"], more };
            paging.page(found, |item| (*item).to_owned(), str::len)
        };
        assert_eq!((page(true).items, page(true).next_cursor), (vec![1, 1], Some(paging.scope.cursor("b"))));
        assert_eq!((page(false).items, page(false).next_cursor), (vec![1, 1], None));
    }
}
