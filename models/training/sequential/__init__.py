"""Models that read a user's events in order: freshet's recurrent ones, and published ones in the same harness."""
