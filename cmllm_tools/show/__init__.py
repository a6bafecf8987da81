"""Values as cards, figures and pages, which are returned, never displayed."""
