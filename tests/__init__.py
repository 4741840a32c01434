"""The tests. They mirror the packages; ``tests/stack`` holds the fixtures of the running system."""
