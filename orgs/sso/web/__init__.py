"""Pages: signing in through single sign-on, its settings, and its sessions."""
