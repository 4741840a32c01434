"""The API: one test file per noun, a permissions table, a crawler, and the token contract."""
