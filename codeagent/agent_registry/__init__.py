"""Which agents there are: definitions as data, their immutable versions, and which version a new run is given."""
