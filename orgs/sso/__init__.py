"""SSO of members to the dashboard: OpenID Connect and SAML."""
