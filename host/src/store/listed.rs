//! Parts of lists.

/// The first items of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    pub items: Vec<T>,
    /// Whether the list goes on after them.
    pub more: bool,
}

/// Bounds the values that one answer holds: a list ends early at the item that reaches it, so that clients can't have the host
/// keep hundreds of large values in memory.
pub(super) const PAGE_BYTES: i64 = 8 << 20;

impl<T> Listed<T> {
    /// The first `limit` of what was found, for which one more than that was asked.
    pub(super) fn first(limit: usize, mut found: Vec<T>) -> Self {
        let more = found.len() > limit;
        found.truncate(limit);
        Self { items: found, more }
    }

    /// The same, where only those of `found` items were loaded that fit a page.
    pub(super) fn first_of(found: i64, limit: usize, loaded: Vec<T>) -> Self {
        let is_cut = i64::try_from(loaded.len()).is_ok_and(|loaded| loaded < found);
        let mut listed = Self::first(limit, loaded);
        listed.more |= is_cut && !listed.items.is_empty();
        listed
    }

    pub fn map<U>(self, view: impl FnMut(T) -> U) -> Listed<U> {
        Listed { items: self.items.into_iter().map(view).collect(), more: self.more }
    }
}
