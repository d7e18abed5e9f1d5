//! The total quantity of each product in a list of lines.

use crate::records::Line;

/// A sum for each product, in the order in which the products were first named.
///
/// A list may name a product twice. The sums keep each such line from passing the check against the stock on its own.
#[derive(Default)]
pub(crate) struct Quantities(Vec<Line>);

impl Quantities {
    /// Adds up lines of product and quantity.
    ///
    /// # Errors
    /// Returns an error if [`add`](Self::add) does.
    pub(crate) fn sum(lines: impl IntoIterator<Item = (String, i32)>) -> Result<Self, String> {
        let mut quantities = Self::default();
        for (product, quantity) in lines {
            quantities.add(product, quantity)?;
        }
        Ok(quantities)
    }

    /// Adds `quantity` of `product`.
    ///
    /// # Errors
    /// Returns an error if the product has no id, the quantity is less than 1, or the sum exceeds 2^31-1.
    pub(crate) fn add(&mut self, product: String, quantity: i32) -> Result<(), String> {
        if product.is_empty() {
            return Err("an item has no productId".to_owned());
        }
        if quantity < 1 {
            return Err(format!("quantity of {product} is {quantity}: it must be at least 1"));
        }
        match self.0.iter_mut().find(|line| line.product_id == product) {
            Some(line) => {
                line.quantity = line
                    .quantity
                    .checked_add(quantity)
                    .ok_or_else(|| format!("quantity of {product} is too large"))?;
            }
            None => self.0.push(Line { product_id: product, quantity }),
        }
        Ok(())
    }

    pub(crate) fn contains(&self, product: &str) -> bool {
        self.0.iter().any(|line| line.product_id == product)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, i32)> {
        self.0.iter().map(|line| (line.product_id.as_str(), line.quantity))
    }

    pub(crate) fn into_lines(self) -> Vec<Line> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lines: &[(&str, i32)], expected: Result<&[(&str, i32)], &str>) {
        let sums = Quantities::sum(lines.iter().map(|&(product, quantity)| (product.to_owned(), quantity)));
        let sums = sums.as_ref().map(|sums| sums.iter().collect::<Vec<_>>());
        assert_eq!(sums.as_deref().map_err(|error| error.as_str()), expected);
    }

    #[test]
    fn a_product_named_twice_counts_with_both_quantities() {
        check(&[("B", 2), ("A", 1), ("B", 3)], Ok(&[("B", 5), ("A", 1)]));
        check(&[], Ok(&[]));
    }

    #[test]
    fn an_invalid_quantity_is_refused() {
        check(&[("A", 0)], Err("quantity of A is 0: it must be at least 1"));
        check(&[("A", 2), ("A", -1)], Err("quantity of A is -1: it must be at least 1"));
        check(&[("", 1)], Err("an item has no productId"));
        check(&[("A", i32::MAX), ("A", 1)], Err("quantity of A is too large"));
    }
}
