//! The readers of queries, for the target `cursors` of `fuzz/`.

use axum::extract::FromRequestParts;
use axum::http::{HeaderValue, Request};
use axum::response::IntoResponse;
use futures_util::FutureExt;

use super::components::UploadQuery;
use super::definitions::FileQuery;
use super::operator::RepairQuery;
use super::page::Paging;
use super::params::{FromQuery, NoQuery, Query};
use super::problem::Problem;
use super::runs::{EventsQuery, IdsQuery, ListQuery};
use super::tenant::TENANT;

/// The page of a list that a request asks for.
#[derive(Debug)]
pub struct Asked(Paging);

impl Asked {
    /// The item after which the page begins.
    pub fn after(&self) -> Option<&str> {
        self.0.after.as_deref()
    }

    /// How many items the page has at most.
    pub fn limit(&self) -> usize {
        self.0.with_one_more() - 1
    }

    /// The cursor of the next page, where this one ends with `last`.
    pub fn next_cursor(&self, last: &str) -> String {
        let found = vec![(); self.0.with_one_more()];
        self.0.page(found, |()| last.to_owned(), |()| ()).next_cursor.expect("an item is left")
    }
}

/// The list of components, whose items are names. `None` if the request is refused.
pub fn list_components(uri: &str, tenant: Option<&str>) -> Option<Asked> {
    query(uri, tenant).map(Asked)
}

/// The list of runs, whose items are ids. `None` if the request is refused.
pub fn list_runs(uri: &str, tenant: Option<&str>) -> Option<Asked> {
    query(uri, tenant).map(|list: ListQuery| Asked(list.paging))
}

/// Reads a query as each of the host's handlers does.
pub fn read_all(uri: &str) {
    query::<NoQuery>(uri, None);
    query::<Paging>(uri, None);
    query::<ListQuery>(uri, None);
    query::<EventsQuery>(uri, None);
    query::<IdsQuery>(uri, None);
    query::<RepairQuery>(uri, None);
    query::<UploadQuery>(uri, None);
    query::<FileQuery>(uri, None);
}

fn query<T: FromQuery>(uri: &str, tenant: Option<&str>) -> Option<T> {
    let mut request = Request::get(uri);
    if let Some(tenant) = tenant {
        request = request.header(TENANT, HeaderValue::from_str(tenant).ok()?);
    }
    let (mut parts, ()) = request.body(()).ok()?.into_parts();
    let read = Query::<T>::from_request_parts(&mut parts, &()).now_or_never().expect("it waits for nothing");
    read.map_err(Problem::into_response).ok().map(|Query(query)| query)
}
