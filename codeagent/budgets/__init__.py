"""What a tenant lets itself spend, and how much of it is left."""
