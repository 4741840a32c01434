"""What an organization has left in the broker: retained messages and stored sessions."""
