"""Extensions of the documentation site, which ``scripts/docs`` builds."""
