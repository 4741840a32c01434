"""Who may act in an organization: grants, the gate of every page and API operation, step-up."""
