//! The component `greeter`, version 3. It requires one more parameter, and so doesn't fit where version 1 is called.

use exports::testing::greeter::greeter::{Greeting, Guest};

wit_bindgen::generate!({ path: "wit", world: "component" });

struct Greeter;
export!(Greeter);

impl Guest for Greeter {
    fn greet(name: String, title: String) -> Greeting {
        Greeting { text: format!("Good day, {title} {name}.") }
    }
}
