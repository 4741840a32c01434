"""Accounts of people who sign in to the dashboard, as django-allauth keeps them."""
