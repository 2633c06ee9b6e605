"""What a server knows of itself: counters, snapshots, the table, Prometheus."""
