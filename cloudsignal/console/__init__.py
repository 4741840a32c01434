"""The console: the frame of every page, the home page of an organization, and pages for operators."""
