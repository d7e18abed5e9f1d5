//! The component `orders`: checks orders, and computes their prices in exact cents.

mod money;
mod preparation;

use exports::ecommerce::orders::orders::{Guest, Order, Validated};

wit_bindgen::generate!({ path: "wit", world: "component" });

struct Orders;
export!(Orders);

impl Guest for Orders {
    fn validate(order: Order) -> Result<Validated, String> {
        validate(&order)
    }

    fn prepare(order: Order) -> Result<Validated, String> {
        let validated = validate(&order)?;
        preparation::prepare(&validated.order_id, validated.total)?;
        Ok(validated)
    }

    fn withdraw(order_id: String) -> Result<bool, String> {
        preparation::withdraw(&order_id)
    }
}

fn validate(order: &Order) -> Result<Validated, String> {
    if order.order_id.is_empty() {
        return Err("order has no orderId".to_owned());
    }
    if order.customer_id.is_empty() {
        return Err("order has no customerId".to_owned());
    }
    if order.items.is_empty() {
        return Err("order has no items".to_owned());
    }
    let mut total = 0_i64;
    for (index, item) in order.items.iter().enumerate() {
        if item.product_id.is_empty() {
            return Err(format!("items[{index}] has no productId"));
        }
        if item.quantity < 1 {
            return Err(format!(
                "quantity of {} is {}: it must be at least 1",
                item.product_id, item.quantity
            ));
        }
        let cents =
            money::cents(item.price).map_err(|fault| format!("price of {} {fault}", item.product_id))?;
        total = cents
            .checked_mul(item.quantity.into())
            .and_then(|sum| total.checked_add(sum))
            .ok_or_else(|| "total of the order is too large".to_owned())?;
    }
    Ok(Validated { order_id: order.order_id.clone(), total })
}

#[cfg(test)]
mod tests {
    use super::*;
    use exports::ecommerce::orders::orders::Item;

    fn item(product_id: &str, quantity: i32, price: f64) -> Item {
        Item { product_id: product_id.to_owned(), quantity, price }
    }

    fn order(items: Vec<Item>) -> Order {
        Order {
            order_id: "ORD-001".to_owned(),
            customer_id: "CUST-123".to_owned(),
            items,
            metadata: None,
            payment_method: None,
            ship_to: None,
        }
    }

    fn check(order: &Order, expected: Result<i64, &str>) {
        let total = validate(order).map(|validated| validated.total);
        assert_eq!(total, expected.map_err(str::to_owned));
    }

    #[test]
    fn an_order_costs_the_sum_of_its_items() {
        check(&order(vec![item("PROD-A", 2, 99.99)]), Ok(19_998));
        check(&order(vec![item("PROD-A", 3, 0.1), item("PROD-B", 1, 0.0)]), Ok(30));
    }

    #[test]
    fn an_order_without_items_or_ids_is_refused() {
        check(&order(vec![]), Err("order has no items"));
        check(&Order { order_id: String::new(), ..order(vec![]) }, Err("order has no orderId"));
        check(&Order { customer_id: String::new(), ..order(vec![]) }, Err("order has no customerId"));
        check(&order(vec![item("", 1, 1.0)]), Err("items[0] has no productId"));
    }

    #[test]
    fn a_quantity_under_one_is_refused() {
        check(&order(vec![item("PROD-A", 0, 1.0)]), Err("quantity of PROD-A is 0: it must be at least 1"));
        check(&order(vec![item("PROD-A", -1, 1.0)]), Err("quantity of PROD-A is -1: it must be at least 1"));
    }

    #[test]
    fn a_price_that_is_not_an_amount_is_refused() {
        check(&order(vec![item("PROD-A", 1, -0.01)]), Err("price of PROD-A is negative: -0.01"));
        check(
            &order(vec![item("PROD-A", 1, 0.1 + 0.2)]),
            Err("price of PROD-A has more than two decimals: 0.30000000000000004"),
        );
    }

    #[test]
    fn a_total_that_overflows_is_refused() {
        let dear = 92_233_720_368_547.0;
        check(&order(vec![item("PROD-A", i32::MAX, dear)]), Err("total of the order is too large"));
        check(
            &order(vec![item("PROD-A", 1, dear * 1000.0), item("PROD-B", 1, dear * 1000.0)]),
            Err("total of the order is too large"),
        );
    }
}
