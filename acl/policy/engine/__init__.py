"""The policy engine: the meaning of a policy, and its compiled form."""
