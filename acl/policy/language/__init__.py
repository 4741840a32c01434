"""The policy language: parser, validation and printer."""
