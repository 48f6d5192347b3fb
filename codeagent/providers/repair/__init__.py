"""`builtin/repair`: a model that is a set of rules. It repairs a failing test suite by small edits, and says so."""
