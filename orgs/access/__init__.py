"""Access to an organization: grants, the access check of every page and API operation, step-up."""
