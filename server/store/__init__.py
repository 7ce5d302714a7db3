"""The shared state of rooms and members: its interface, in memory, and in Redis."""
