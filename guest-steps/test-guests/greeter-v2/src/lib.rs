//! The component `greeter`, version 2. It returns one more field, and so fits where version 1 is called.

use exports::testing::greeter::greeter::{Greeting, Guest};

wit_bindgen::generate!({ path: "wit", world: "component" });

struct Greeter;
export!(Greeter);

impl Guest for Greeter {
    fn greet(name: String) -> Greeting {
        Greeting { text: format!("Welcome back, {name}!"), language: "en".to_owned() }
    }
}
