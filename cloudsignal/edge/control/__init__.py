"""Desired state from the control plane, and what the node reports back."""
