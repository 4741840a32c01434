"""Single sign-on of an organization's people to the dashboard: OpenID Connect and SAML."""
