"""The real brokers and databases that tests run against, found or started on the machine at hand."""
