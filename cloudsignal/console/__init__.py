"""The console: what surrounds every page, the home of an organization, and pages for operators."""
