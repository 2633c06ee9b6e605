"""The frontend runs this every minute to log the host's metrics. It logs none: a line ends it."""

print()
