"""What organizations keep in the broker: retained messages, and orders to clear them."""
