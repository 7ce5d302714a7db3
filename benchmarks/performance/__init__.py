"""Speed, memory and attention: how long each stage takes, and why."""
