//! Cursors: where a page of a list begins, as an opaque text that clients send back unchanged.
//!
//! A cursor is valid only for the list and the filters that returned it, and is refused everywhere else. In another
//! list its position would mean something else, and a client would miss items without noticing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

/// Enough that no two lists share a mark by accident. The mark isn't a secret: a client that makes up cursors sees only
/// its own tenant's items.
const MARK_BYTES: usize = 8;

/// Identifies a list with its filters, in a few bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scope([u8; MARK_BYTES]);

impl Scope {
    /// Makes the scope of a list. `parts` is everything that determines which items the list has, and in which order.
    pub(crate) fn of<'a>(parts: impl IntoIterator<Item = &'a str>) -> Self {
        Self([0; MARK_BYTES]).and(parts)
    }

    /// Returns the scope of the same list with further filters.
    pub(crate) fn and<'a>(self, parts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut hash = Sha256::new_with_prefix(self.0);
        for part in parts {
            // The length is hashed too, so that ("ab", "c") differs from ("a", "bc").
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let digest: [u8; 32] = hash.finalize().into();
        let mut mark = [0; MARK_BYTES];
        mark.copy_from_slice(&digest[..MARK_BYTES]);
        Self(mark)
    }

    /// Returns the cursor of the page that begins after this item.
    pub(crate) fn cursor(self, after: &str) -> String {
        let mut bytes = self.0.to_vec();
        bytes.extend_from_slice(after.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Returns the item after which the page begins, or `None` if this list never returned such a cursor.
    pub(crate) fn after(self, cursor: &str) -> Option<String> {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let (mark, after) = bytes.split_first_chunk::<MARK_BYTES>()?;
        if *mark != self.0 {
            return None;
        }
        String::from_utf8(after.to_vec()).ok().filter(|after| !after.is_empty() && !after.contains('\0'))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cursor_is_valid_only_for_its_own_list() {
        let runs = Scope::of(["/api/workflows", "default"]);
        let cursor = runs.cursor("x");
        assert_eq!(runs.after(&cursor).as_deref(), Some("x"));
        for other in [
            Scope::of(["/api/workflows", "acme"]),
            Scope::of(["/api/workflowsd", "efault"]),
            Scope::of(["/api/workflows", "default", "status", "READY"]),
            Scope::of(["/api/workflows"]),
            runs.and(["charge"]),
        ] {
            assert_eq!(other.after(&cursor), None, "{other:?}");
        }
        for nonsense in ["", "!", "Zm9v", "AAAAAAAAAAA", &cursor[1..], &format!("{cursor}=")] {
            assert_eq!(runs.after(nonsense), None, "{nonsense}");
        }
    }

    proptest! {
        #[test]
        fn a_cursor_leads_back_to_its_item(parts in prop::collection::vec(".{0,8}", 0..4), item in "[^\0]{1,40}") {
            let scope = Scope::of(parts.iter().map(String::as_str));
            prop_assert_eq!(scope.after(&scope.cursor(&item)), Some(item));
        }

        #[test]
        fn a_made_up_cursor_does_no_harm(
            text in ".{0,64}", bytes in prop::collection::vec(any::<u8>(), 0..40)
        ) {
            let scope = Scope::of(["/api/workflows"]);
            prop_assert_eq!(scope.after(&text), None);
            prop_assert_eq!(scope.after(&URL_SAFE_NO_PAD.encode(&bytes)), None);
            // This is the right mark before bytes that aren't text.
            let mut marked = scope.0.to_vec();
            marked.extend_from_slice(&bytes);
            let after = scope.after(&URL_SAFE_NO_PAD.encode(&marked));
            prop_assert!(after.is_none_or(|after| after.as_bytes() == bytes));
        }
    }
}
