//! Extractors for the path and the query of a request. An invalid parameter is refused by name, and so is an unknown
//! one: a misspelt filter must not be ignored.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Path as AxumPath, Query as AxumQuery};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::cursor::Scope;
use super::problem::{Problem, Result};
use super::tenant::tenant_of;

/// The parameters of a path, percent-decoded.
#[derive(Debug)]
pub(crate) struct Path<T>(pub(crate) T);

impl<S, T> FromRequestParts<S> for Path<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Send,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        match AxumPath::from_request_parts(parts, state).await {
            Ok(AxumPath(params)) => Ok(Self(params)),
            Err(rejection) => Err(Problem::parameter("path", rejection.body_text())),
        }
    }
}

/// Parses a parameter of the path.
pub(crate) fn parse<T>(name: &'static str, text: &str) -> Result<T>
where
    T: FromStr<Err: Display>,
{
    text.parse().map_err(|error| Problem::parameter(name, format!("{error}")))
}

/// A type that a handler reads from the query.
pub(crate) trait FromQuery: Sized {
    fn from_query(params: &mut Params<'_>) -> Result<Self>;
}

/// The query as a `T`. Parameters that `T` doesn't read are refused.
#[derive(Debug)]
pub(crate) struct Query<T>(pub(crate) T);

impl<S, T> FromRequestParts<S> for Query<T>
where
    S: Send + Sync,
    T: FromQuery,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let AxumQuery(given) = AxumQuery::try_from_uri(&parts.uri)
            .map_err(|rejection| Problem::parameter("query", rejection.body_text()))?;
        let mut params = Params { parts, given, taken: Vec::new(), known: Vec::new() };
        let query = T::from_query(&mut params)?;
        params.refuse_the_rest()?;
        Ok(Self(query))
    }
}

/// For handlers that take no parameters.
#[derive(Debug)]
pub(crate) struct NoQuery;

impl FromQuery for NoQuery {
    fn from_query(_: &mut Params<'_>) -> Result<Self> {
        Ok(Self)
    }
}

/// The parameters of a query.
#[derive(Debug)]
pub(crate) struct Params<'r> {
    parts: &'r Parts,
    /// The parameters that nobody has taken yet.
    given: Vec<(String, String)>,
    taken: Vec<(&'static str, String)>,
    /// The names that were asked for so far.
    known: Vec<&'static str>,
}

impl Params<'_> {
    pub(crate) fn take(&mut self, name: &'static str) -> Result<Option<String>> {
        self.known.push(name);
        let mut values = self.given.extract_if(.., |(given, _)| given == name);
        let value = values.next().map(|(_, value)| value);
        if values.next().is_some() {
            return Err(Problem::parameter(name, "given more than once"));
        }
        match value {
            Some(text) if text.contains('\0') => Err(Problem::parameter(name, "contains a NUL character")),
            Some(text) => {
                self.taken.push((name, text.clone()));
                Ok(Some(text))
            }
            None => Ok(None),
        }
    }

    pub(crate) fn parsed<T>(&mut self, name: &'static str) -> Result<Option<T>>
    where
        T: FromStr<Err: Display>,
    {
        self.take(name)?.map(|text| parse(name, &text)).transpose()
    }

    pub(crate) fn flag(&mut self, name: &'static str) -> Result<Option<bool>> {
        self.take(name)?
            .map(|text| match text.as_str() {
                "true" => Ok(true),
                "false" => Ok(false),
                _ => Err(Problem::parameter(name, format!("`{text}` is neither `true` nor `false`"))),
            })
            .transpose()
    }

    /// Reads `limit`: how many items an answer may have, from 1 to `most`.
    pub(crate) fn limit(&mut self, default: u32, most: u32) -> Result<u32> {
        let Some(text) = self.take("limit")? else { return Ok(default) };
        match text.parse() {
            Ok(limit) if (1..=most).contains(&limit) => Ok(limit),
            _ => Err(Problem::parameter("limit", format!("`{text}` is not a number from 1 to {most}"))),
        }
    }

    /// Reads `cursor` unparsed, because only the scope of its list can parse it.
    pub(crate) fn cursor(&mut self) -> Result<Option<String>> {
        self.take("cursor")
    }

    /// Returns the scope of the list that this request asks for: tenant, path, and the parameters that filter the
    /// items.
    pub(crate) fn scope(&self) -> Scope {
        let given = self.given.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let taken = self.taken.iter().map(|(name, value)| (*name, value.as_str()));
        let is_filter = |name: &str| !["cursor", "limit", "dryRun"].contains(&name);
        let mut filters: Vec<_> = given.chain(taken).filter(|(name, _)| is_filter(name)).collect();
        filters.sort_unstable();
        let list = [self.parts.uri.path(), tenant_of(&self.parts.headers)];
        Scope::of(list.into_iter().chain(filters.into_iter().flat_map(|(name, value)| [name, value])))
    }

    fn refuse_the_rest(self) -> Result<()> {
        let Some((name, _)) = self.given.into_iter().next() else { return Ok(()) };
        let known: Vec<String> = self.known.iter().map(|known| format!("`{known}`")).collect();
        let help = match known.as_slice() {
            [] => "this path takes no parameters".to_owned(),
            known => format!("this path takes {}", known.join(", ")),
        };
        let name: String = name.chars().take(80).collect();
        Err(Problem::parameter(name, format!("not a known parameter; {help}")))
    }
}

/// Makes the problem for a cursor that no host has returned for this list.
pub(crate) fn invalid_cursor() -> Problem {
    let expected = "expected the `nextCursor` of an earlier page of this list, with the same filters";
    Problem::parameter("cursor", format!("not a cursor of this list: {expected}"))
}
