"""Retained messages and stored sessions of an organization in the broker."""
