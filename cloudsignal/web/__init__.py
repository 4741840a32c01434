"""What the pages of every app share: questions before something is done, filters, forms, formatting. No pages."""
