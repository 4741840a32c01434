"""The tests. They mirror the packages; ``tests/support`` holds what they share."""
