//! The component `greeter`, version 1.

use exports::testing::greeter::greeter::{Greeting, Guest};

wit_bindgen::generate!({ path: "wit", world: "component" });

struct Greeter;
export!(Greeter);

impl Guest for Greeter {
    fn greet(name: String) -> Greeting {
        Greeting { text: format!("Hello, {name}.") }
    }
}
