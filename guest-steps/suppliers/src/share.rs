//! Splits an order between the suppliers.

#[derive(Clone, Copy)]
pub(crate) enum Supplier {
    A,
    B,
}

impl Supplier {
    pub(crate) fn named(name: &str) -> Result<Self, String> {
        match name {
            "supplier-a" => Ok(Self::A),
            "supplier-b" => Ok(Self::B),
            _ => Err(format!("unknown supplier `{name}`: there are `supplier-a` and `supplier-b`")),
        }
    }

    /// Returns this supplier's part of `quantity` pieces: the larger half for A, the rest for B.
    pub(crate) fn share(self, quantity: i32) -> i32 {
        let rest = quantity / 2;
        match self {
            Self::A => quantity - rest,
            Self::B => rest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Supplier;

    #[test]
    fn the_shares_add_up() {
        for quantity in [1, 2, 3, 99, 100, i32::MAX] {
            let (a, b) = (Supplier::A.share(quantity), Supplier::B.share(quantity));
            assert_eq!(a + b, quantity);
            assert!(a >= b && a - b <= 1, "{quantity} is split into {a} and {b}");
        }
    }

    #[test]
    fn there_are_two_suppliers() {
        assert!(Supplier::named("supplier-a").is_ok());
        assert!(Supplier::named("supplier-b").is_ok());
        assert!(Supplier::named("supplier-c").is_err());
    }
}
