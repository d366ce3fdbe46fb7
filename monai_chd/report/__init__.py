"""Words and pictures for people: the report page, the model card, contact sheets."""
