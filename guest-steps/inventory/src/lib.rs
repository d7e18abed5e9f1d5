//! The component `inventory`: keeps the stock, reserves it for orders and replenishes it.

mod quantities;
mod records;

use exports::ecommerce::inventory::inventory::{
    Guest, Item, Line, Replenishment, Reservation, Restocked, StockCheck, StockLevel,
};
use ledger::{Bucket, Counts, context, next_times, own_live};
use quantities::Quantities;
use records::{Delivery, Reserved, State};

wit_bindgen::generate!({ path: "wit", world: "component" });

struct Inventory;
export!(Inventory);

impl Guest for Inventory {
    fn reserve(order_id: String, items: Vec<Item>) -> Result<Reservation, String> {
        let quantities = Quantities::sum(items.into_iter().map(|item| (item.product_id, item.quantity)))?;
        if quantities.is_empty() {
            return Err(format!("order {order_id} has nothing to reserve"));
        }
        let reservations = Bucket::<Reserved>::open(records::RESERVATIONS)?;
        let workflow_id = context::workflow_id();
        let previous = reservations.get(&order_id)?;
        let times = next_times(previous.as_ref(), &workflow_id)
            .map_err(|run| format!("order {order_id} is already reserved by run {run}"))?;

        let stock = Counts::open(records::STOCK)?;
        for (product, quantity) in quantities.iter() {
            let left = stock.get(product)? - i64::from(quantity);
            if left < 0 {
                return Err(format!("out of stock: {product}"));
            }
            stock.set(product, left)?;
        }
        let items = quantities.into_lines();
        let reserved = Reserved { state: State::Reserved, items: items.clone(), workflow_id, times };
        reservations.set(&order_id, &reserved)?;
        Ok(Reservation { order_id, items: items.into_iter().map(Line::from).collect() })
    }

    fn release(order_id: String) -> Result<bool, String> {
        let reservations = Bucket::<Reserved>::open(records::RESERVATIONS)?;
        let Some(mut reserved) = own_live(reservations.get(&order_id)?, &context::workflow_id()) else {
            return Ok(false);
        };
        let stock = Counts::open(records::STOCK)?;
        for line in &reserved.items {
            add(&stock, &line.product_id, line.quantity)?;
        }
        reserved.state = State::Released;
        reservations.set(&order_id, &reserved)?;
        Ok(true)
    }

    fn check_stock_levels(request: Replenishment) -> Result<StockCheck, String> {
        if request.request_id.is_empty() {
            return Err("request has no requestId".to_owned());
        }
        let stock = Counts::open(records::STOCK)?;
        let mut low = Quantities::default();
        for target in request.items {
            if low.contains(&target.product_id) {
                return Err(format!("{} is requested twice", target.product_id));
            }
            if stock.get(&target.product_id)? < target.threshold.into() {
                low.add(target.product_id, target.quantity)?;
            }
        }
        Ok(StockCheck { low: low.into_lines().into_iter().map(Line::from).collect() })
    }

    fn update_inventory(request_id: String, deliveries: Vec<Vec<Line>>) -> Result<Restocked, String> {
        let delivered = deliveries.into_iter().flatten().map(|line| (line.product_id, line.quantity));
        let quantities = Quantities::sum(delivered)?;
        if quantities.is_empty() {
            return Ok(Restocked { request_id, products: Vec::new() });
        }
        let deliveries = Bucket::<Delivery>::open(records::DELIVERIES)?;
        let workflow_id = context::workflow_id();
        let previous = deliveries.get(&request_id)?;
        let times = next_times(previous.as_ref(), &workflow_id)
            .map_err(|run| format!("request {request_id} is already delivered to run {run}"))?;

        let stock = Counts::open(records::STOCK)?;
        let mut products = Vec::new();
        for (product, quantity) in quantities.iter() {
            let in_stock = add(&stock, product, quantity)?;
            products.push(StockLevel { product_id: product.to_owned(), in_stock });
        }
        deliveries.set(&request_id, &Delivery { items: quantities.into_lines(), workflow_id, times })?;
        Ok(Restocked { request_id, products })
    }
}

/// Adds `quantity` of `product` to the stock, and returns the new stock of the product.
fn add(stock: &Counts, product: &str, quantity: i32) -> Result<i64, String> {
    let in_stock = stock
        .get(product)?
        .checked_add(quantity.into())
        .ok_or_else(|| format!("stock of {product} is too large to count"))?;
    stock.set(product, in_stock)?;
    Ok(in_stock)
}

impl From<records::Line> for Line {
    fn from(line: records::Line) -> Self {
        Self { product_id: line.product_id, quantity: line.quantity }
    }
}
