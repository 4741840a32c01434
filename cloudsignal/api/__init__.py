"""The management API's common parts: URLs, authentication, errors as problem+json, OpenAPI."""
