"""`freshet serve`: a read replica of the users' states with an HTTP API. It writes events and items, and no state."""
