"""What tenants may use of sandboxes, and who holds them to it."""
