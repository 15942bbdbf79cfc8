"""The site: what ``scripts/docs`` runs."""
