"""Models that read a user's events in order: freshet's recurrent ones, and those of others in the same harness."""
