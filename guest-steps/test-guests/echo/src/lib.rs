//! The component `echo`: returns its argument, for every type of WIT.

use std::collections::BTreeMap;

use aster::step::context;
use exports::testing::echo::{
    failures::{self, Fault, Kind},
    handles, values,
};

wit_bindgen::generate!({
    path: ["../../../wit", "wit"],
    world: "testing:echo/component",
    generate_all,
});

struct Echo;
export!(Echo);

macro_rules! echoes {
    ($($name:ident: $type:ty;)*) => {
        impl values::Guest for Echo {
            $(fn $name(value: $type) -> $type {
                value
            })*
        }
    };
}

echoes! {
    echo_bool: bool;
    echo_u8: u8;
    echo_u16: u16;
    echo_u32: u32;
    echo_u64: u64;
    echo_s8: i8;
    echo_s16: i16;
    echo_s32: i32;
    echo_s64: i64;
    echo_f32: f32;
    echo_f64: f64;
    echo_char: char;
    echo_string: String;
    echo_list: Vec<i32>;
    echo_strings: Vec<String>;
    echo_nested_list: Vec<Vec<u16>>;
    echo_bytes: Vec<u8>;
    echo_tuple: (String, u32, bool);
    echo_option: Option<String>;
    echo_nested_option: Option<Option<u32>>;
    echo_result: Result<u32, String>;
    echo_results: Vec<Result<u32, String>>;
    echo_bare_results: Vec<Result<(), ()>>;
    echo_map: BTreeMap<String, u32>;
    echo_numbered: BTreeMap<u32, String>;
    echo_record: values::Everything;
    echo_variant: values::Shape;
    echo_enum: values::Weekday;
    echo_flags: values::Permissions;
}

impl failures::Guest for Echo {
    fn fail(kind: Kind) -> Result<String, Fault> {
        match kind {
            Kind::None => Ok("fine".to_owned()),
            Kind::Transient => Err(Fault::Transient("try again".to_owned())),
            Kind::Permanent => Err(Fault::Permanent("do not try again".to_owned())),
        }
    }

    fn fail_bare() -> Result<String, ()> {
        Err(())
    }

    fn flaky(succeed_at: u32) -> Result<u32, Fault> {
        let attempt = context::attempt();
        if attempt < succeed_at {
            return Err(Fault::Transient(format!("attempt {attempt} of {succeed_at}")));
        }
        Ok(attempt)
    }
}

struct Ticket(u32);

impl handles::GuestTicket for Ticket {
    fn new(number: u32) -> Self {
        Self(number)
    }

    fn number(&self) -> u32 {
        self.0
    }
}

impl handles::Guest for Echo {
    type Ticket = Ticket;

    fn punch(ticket: handles::TicketBorrow<'_>) -> u32 {
        ticket.get::<Ticket>().0
    }
}

impl Guest for Echo {
    fn greet_all(names: Vec<String>) -> String {
        format!("hello, {}", names.join(" and "))
    }

    fn nothing() {}

    fn add(a: i64, b: i64) -> i64 {
        a.wrapping_add(b)
    }
}
