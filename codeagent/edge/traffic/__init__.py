"""How much at once, how much in a time, and how long: what keeps one client from being every client's problem."""
