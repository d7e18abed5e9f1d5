//! The component `stranger`: imports an interface that no host offers, so that its upload must be refused.

use exports::acme::secret::stranger::Guest;

wit_bindgen::generate!({ path: "wit", world: "component" });

struct Stranger;
export!(Stranger);

impl Guest for Stranger {
    fn ask() -> Result<String, String> {
        acme::secret::vault::open("sesame")
    }
}
